"""`check_gradient`: right gradients pass, also where they are hard to see; wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnet import contract
from fastnet.reference import activations, losses
from fastnet.testing.gradients import check_gradient

RNG = np.random.RandomState(0)
Y = RNG.random_sample((2, 3))
Y /= Y.sum(axis=1, keepdims=True)


def activation(name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    code = contract.ACTIVATIONS.index(name)

    def slope(z: Any) -> Any:
        return activations.backward(code, np.ones_like(z), z, activations.forward(code, z))

    return lambda z: activations.forward(code, z), slope


def loss(name: str, output: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The summed loss of a batch, and its derivatives by z."""
    codes = contract.LOSSES.index(name), contract.ACTIVATIONS.index(output)

    def total(z: Any) -> Any:
        return losses.loss(*codes, 0.5, z, activations.forward(codes[1], z), Y).sum()

    return total, lambda z: losses.delta(*codes, 0.5, z, activations.forward(codes[1], z), Y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", contract.ACTIVATIONS[:-1])
def test_activations_pass(name: str, dtype: str) -> None:
    """Also at kinks and beside them, and where they saturate."""
    scales = (1e-12, 1e-8, 1e-3, 1.0, 10.0, 30.0)
    x = np.concatenate([RNG.standard_normal(300) * scale for scale in scales] + [np.zeros(1)])
    # The exponential function overflows in float32.
    x = np.clip(x, -80, 80).astype(dtype)
    check_gradient(*activation(name), x)


@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("name", contract.LOSSES)
def test_losses_pass(name: str, output: str) -> None:
    if output == "identity" and name in ("binary_cross_entropy", "cross_entropy", "poisson"):
        pytest.skip("outputs of an identity are no probabilities or rates")
    z = RNG.standard_normal(Y.shape)
    checked = check_gradient(*loss(name, output), z)
    assert np.median(checked.bound / np.abs(checked.analytic)) < 1e-8


@pytest.mark.parametrize("name", [name for name in contract.ACTIVATIONS[:-1] if name != "identity"])
@pytest.mark.parametrize("wrong", [lambda g: -g, lambda g: g * (1 + 1e-6), lambda g: np.roll(g, 1)])
def test_wrong_slopes_are_refused(name: str, wrong: Callable[[Any], Any]) -> None:
    function, slope = activation(name)
    with pytest.raises(AssertionError, match="of the gradient are wrong"):
        check_gradient(function, lambda z: wrong(slope(z)), np.linspace(-2, 2, 12))


@pytest.mark.parametrize("wrong", [lambda g: -g, lambda g: g * (1 + 1e-6), lambda g: g.T.reshape(g.shape)])
def test_wrong_gradients_of_losses_are_refused(wrong: Callable[[Any], Any]) -> None:
    total, delta = loss("cross_entropy", "softmax")
    with pytest.raises(AssertionError, match="of the gradient are wrong"):
        check_gradient(total, lambda z: wrong(delta(z)), RNG.standard_normal(Y.shape))


def test_message_names_the_worst() -> None:
    error = np.array([0.0, 1e-3, 0.0, 1e-6])
    with pytest.raises(
        AssertionError, match=r"^2 of 4 .* worst is \[1\], where x is 2.0: 4.001, but .* are 0.001 apart"
    ):
        check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x + error, [1.0, 2.0, 3.0, 4.0])


def naive_cross_entropy(z: Any) -> Any:
    s = 1 / (1 + np.exp(-z))
    return -np.log(1 - s)


@pytest.mark.parametrize(
    ("function", "gradient", "x"),
    [
        # Most digits are lost in the function, and it changes in steps.
        (naive_cross_entropy, lambda z: 1 / (1 + np.exp(-z)), [3.0, 20.0, 30.0]),
        (lambda x: (1e8 + x) - 1e8, np.ones_like, [0.3, 1.0, 7.0]),
        (lambda x: 1 - np.cos(x), np.sin, [1e-9, 1e-4, 1.0, 1e3]),
        (lambda x: np.tanh(x.astype("f4")).astype("f8"), lambda x: 1 - np.tanh(x) ** 2, np.linspace(-3, 3, 50)),
        # It changes within much less than 1, or within much less than x.
        (np.log, lambda x: 1 / x, [1e-12, 1e-5, 1.0, 1e5]),
        (np.sin, np.cos, [1e6, 123456.7]),
        (lambda x: np.sin(1e6 * x), lambda x: 1e6 * np.cos(1e6 * x), [0.1, 0.7, -1.3]),
        # Kinks, and neighbours of kinks.
        (np.abs, np.sign, [0.0, 1e-12, -1e-5, 0.01]),
        (lambda x: 1 + np.abs(x), np.sign, [0.0, 1e-12, -1e-5, 0.01]),
        (lambda x: np.where(abs(x) > 1, abs(x) - 0.5, x * x / 2).sum(), lambda x: np.clip(x, -1, 1), [1.0, 1 - 1e-6]),
        (np.zeros_like, np.zeros_like, [1.0, 2.0]),
    ],
)
def test_no_false_alarms(function: Callable[[Any], Any], gradient: Callable[[Any], Any], x: Any) -> None:
    check_gradient(function, gradient, np.array(x))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="function must return"):
        check_gradient(lambda x: x[:1], np.ones_like, [1.0, 2.0])
    with pytest.raises(ValueError, match="gradient must return"):
        check_gradient(np.sum, np.sum, [1.0, 2.0])
    with pytest.raises(ValueError, match="x must"):
        check_gradient(np.sum, np.ones_like, [np.nan])
