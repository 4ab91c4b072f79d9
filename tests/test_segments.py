"""Trainings by the exact reference, in segments and in stacks, have the bits of those one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnet import SGD, DivergenceError, Network
from fastnet.testing import segments
from fastnet.testing.segments import fit_exactly, train_stack
from tests.support import assert_same_bits

X = np.random.RandomState(0).standard_normal((7, 3))
Y = np.random.RandomState(1).random_sample((7, 2))


def networks(n: int, dtype: str = "float64", bias: bool = True) -> list[Network]:
    sizes = [3, 5, 2]
    return [Network(sizes, "tanh", "sigmoid", bias, dtype).initialize(seed=seed) for seed in range(n)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_a_stack_is_its_networks(loss: str, dtype: str) -> None:
    stack, alone = networks(3, dtype), networks(3, dtype)
    losses, errors = train_stack(stack, X, Y, epochs=6, learning_rate=0.5, loss=loss)
    assert losses.shape == errors.shape == (6, 3)
    for i, network in enumerate(alone):
        history = network.fit(X, Y, epochs=6, optimizer=SGD(0.5), loss=loss, backend="exact")
        assert network == stack[i]
        assert_same_bits(losses[:, i], history.loss_curve)
        assert_same_bits(errors[:, i], history.mean_absolute_error)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("epochs", "segment"), [(1, 4), (3, 4), (8, 4), (14, 4), (5, 1)])
@pytest.mark.parametrize("guess", ["numba", "numpy"])
def test_segments_are_one_training(guess: str, epochs: int, segment: int, dtype: str) -> None:
    """Also where the guesses are wrong, as those of NumPy's sums mostly are."""
    for bias in (True, False):
        (one,), (other,) = networks(1, dtype, bias), networks(1, dtype, bias)
        how: dict[str, Any] = {"epochs": epochs, "reduction": "sum", "report_every": 2}
        actual = fit_exactly(one, X, Y, **how, learning_rate=0.3, guess=guess, segment=segment)
        desired = other.fit(X, Y, **how, optimizer=SGD(0.3), backend="exact")
        assert one == other
        assert_same_bits(actual.loss_curve, desired.loss_curve)
        assert_same_bits(actual.mean_absolute_error, desired.mean_absolute_error)
        assert actual.reports == desired.reports


def test_segments_are_trained_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at once as there are, and what is left alone, where all guesses are right."""
    calls = []

    def counted(stack: list[Network], *arguments: Any, epochs: int, **settings: Any) -> Any:
        calls.append((len(stack), epochs))
        return train_stack(stack, *arguments, epochs=epochs, **settings)

    monkeypatch.setattr(segments, "train_stack", counted)
    fit_exactly(networks(1)[0], X, Y, epochs=23, segment=5)
    assert calls == [(4, 5), (1, 3)]


def test_a_wrong_guess_costs_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose last bit is off: the segments before it count, and those after it are trained again."""
    fit, stacks = Network.fit, []

    def nudged(self: Network, *arguments: Any, **settings: Any) -> Any:
        history = fit(self, *arguments, **settings)
        if settings["backend"] == "numba" and len(stacks) == 0:
            guesses.append(self)
            if len(guesses) == 3:
                self.weights[1][0, 0] = np.nextafter(self.weights[1][0, 0], 9.0)
        return history

    def counted(stack: list[Network], *arguments: Any, **settings: Any) -> Any:
        stacks.append(len(stack))
        return train_stack(stack, *arguments, **settings)

    guesses: list[Network] = []
    (one,), (other,) = networks(1), networks(1)
    other.fit(X, Y, epochs=24, optimizer=SGD(0.1), backend="exact")
    monkeypatch.setattr(Network, "fit", nudged)
    monkeypatch.setattr(segments, "train_stack", counted)
    fit_exactly(one, X, Y, epochs=24, learning_rate=0.1, segment=4)
    assert one == other
    assert stacks == [6, 3]


def test_divergence_is_that_of_exact() -> None:
    network = Network([1, 1], "identity", dtype="float64").initialize(seed=0)
    with pytest.raises(DivergenceError) as raised:
        fit_exactly(network, [[1e200]], [[1.0]], epochs=30, learning_rate=1.0, segment=10)
    assert raised.value.epoch == 0
    assert np.isfinite(network.parameters).all()


def test_a_guess_that_diverges_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Network.fit

    def diverging(self: Network, *arguments: Any, **settings: Any) -> Any:
        if settings["backend"] == "numpy":
            settings["optimizer"] = SGD(1e300)
        return fit(self, *arguments, **settings)

    (one,), (other,) = networks(1), networks(1)
    other.fit(X, Y, epochs=9, optimizer=SGD(0.1), backend="exact")
    monkeypatch.setattr(Network, "fit", diverging)
    fit_exactly(one, X, Y, epochs=9, learning_rate=0.1, guess="numpy", segment=4)
    assert one == other


def test_a_stack_that_diverges_is_left_as_it_was() -> None:
    stack = [Network([1, 1], "identity", dtype="float64").initialize(seed=seed) for seed in range(2)]
    before = [network.parameters for network in stack]
    with pytest.raises(FloatingPointError, match="not finite in epoch 0"):
        train_stack(stack, [[1e200]], [[1.0]], epochs=3)
    for network, parameters in zip(stack, before, strict=True):
        assert_same_bits(network.parameters, parameters)


@pytest.mark.parametrize("stack", [[], [*networks(1), *networks(1, bias=False)]])
def test_networks_that_are_no_stack_are_refused(stack: list[Network]) -> None:
    with pytest.raises(ValueError, match="networks must be at least one, all of one architecture; got "):
        train_stack(stack, X, Y, epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"reduction": "average"}, "reduction must be one of 'sum', 'mean'; got 'average'"),
        ({"loss": "hinge"}, "loss must be"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"report_every": 0}, "report_every must be"),
        ({"segment": 0}, "segment must be"),
        ({"guess": "torch"}, "guess must be"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """Before anything is changed."""
    (network,) = networks(1)
    before = network.copy()
    with pytest.raises(ValueError, match=message):
        fit_exactly(network, X, Y, **{"epochs": 3, **settings})
    assert network == before
