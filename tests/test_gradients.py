"""Gradients of networks in the exact reference against what calculus says.

Two authorities judge, none of which uses code of fastnet: complex steps of the losses, written from their definitions
(`tests.definitions`) and evaluated by mpmath; and central differences of the losses in float64. What a rounding error
may amount to is worked out by `tests.running_error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from numpy.typing import NDArray

import fastnet
from fastnet import contract
from fastnet.contract import Objective, Samples
from fastnet.layout import buffer_size, make_layout, parameter_views
from fastnet.reference import activations, network
from tests import bounded_formulas
from tests.bounded_formulas import Layer
from tests.definitions import (
    FLOAT64,
    HIDDEN,
    MATCHED,
    MPMATH,
    NUMPY,
    PARAMETER,
    Array,
    activate,
    code,
    loss_of,
    softmax,
)
from tests.running_error import Bounded
from tests.support import assert_within, positions_of


@pytest.fixture(autouse=True)
def _digits() -> Any:
    """As in test_derivatives.py."""
    with mp.workdps(120):
        yield


@dataclass(frozen=True)
class Problem:
    """A network and samples at which its loss is smooth; its numbers come from ``seed``."""

    layer_sizes: tuple[int, ...]
    activation: str
    output_activation: str
    loss: str
    bias: bool = True
    n_samples: int = 4
    seed: int = 0

    @property
    def names(self) -> list[str]:
        return [*[self.activation] * (len(self.layer_sizes) - 2), self.output_activation]

    @cached_property
    def layout(self) -> NDArray[np.int64]:
        return make_layout(self.layer_sizes, self.names, self.bias, np.dtype(np.float64))

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Where the parameters are in the buffer."""
        return np.concatenate([part.ravel() for views in positions_of(self.layout) for part in views])

    @cached_property
    def _numbers(self) -> tuple[Array, Samples]:
        """Parameters and samples of the first seed that has enough samples away from kinks and the ends of domains."""
        for seed in range(self.seed, self.seed + 100):
            rng = np.random.default_rng(seed)
            buffer = np.zeros(buffer_size(self.layout))
            buffer[self.positions] = rng.uniform(-1, 1, self.positions.size)
            n_drawn = 50 * self.n_samples
            x, y = rng.standard_normal((n_drawn, self.layer_sizes[0])), rng.random((n_drawn, self.layer_sizes[-1]))
            if self.loss == "cross_entropy":
                y /= y.sum(axis=1, keepdims=True)
            smooth = np.flatnonzero(self._distance_from_kinks(buffer, x, y) > 0.05)[: self.n_samples]
            if len(smooth) < self.n_samples:
                continue
            weight = rng.uniform(0.5, 2.0, self.n_samples)
            return buffer, Samples(x[smooth], y[smooth], weight, np.empty((0, self.n_samples), np.int64))
        raise AssertionError(self)

    @property
    def buffer(self) -> Array:
        return self._numbers[0]

    @property
    def samples(self) -> Samples:
        return self._numbers[1]

    def _distance_from_kinks(self, buffer: Array, x: Array, y: Array) -> Array:
        """Of each sample, how far the nearest z or a is from where it must not be."""
        weights, biases = parameter_views(buffer, self.layout)
        distances, a = [np.full((len(x), 1), np.inf)], x
        for layer, name in enumerate(self.names):
            z = a @ weights[layer] + (biases[layer] if self.bias else 0.0)
            if name in {"relu", "leaky_relu", "elu"}:
                distances.append(np.abs(z))
            if name == "softmax":
                terms = np.exp(z)
                a = terms / terms.sum(axis=1, keepdims=True)
            else:
                a = activate(name, z, NUMPY)
        if self.loss in {"absolute_error", "quantile"}:
            distances.append(np.abs(a - y))
        if self.loss == "huber":
            distances.append(np.abs(np.abs(a - y) - PARAMETER[self.loss]))
        if self.loss in {"binary_cross_entropy", "cross_entropy", "poisson"}:
            distances.append(a)
        if self.loss == "binary_cross_entropy":
            distances.append(1 - a)
        nearest: Array = np.concatenate(distances, axis=1).min(axis=1)
        return nearest

    @property
    def objective(self) -> Objective:
        return Objective(code(self.loss), PARAMETER.get(self.loss, 0.0), False, 0.0, self.n_samples)

    def gradient(self, buffers: Array) -> tuple[Any, Array]:
        """What is judged: the sum of the losses, and its gradient by the parameters."""
        out = np.zeros_like(buffers)
        total = network.gradient(self.layout, buffers, self.samples, self.objective, out)
        return total, out[..., self.positions]

    @cached_property
    def bounded(self) -> tuple[list[Layer], Bounded, list[Layer]]:
        """The layers, the sum of the losses and its gradient, with their rounding errors."""
        weights, biases = parameter_views(self.buffer, self.layout)
        layers = [
            Layer(FLOAT64.exact(w), FLOAT64.exact(biases[index]) if self.bias else None, code(self.names[index]))
            for index, w in enumerate(weights)
        ]
        x, y = FLOAT64.exact(self.samples.x), FLOAT64.exact(self.samples.y[:, : self.layer_sizes[-1]])
        return layers, *bounded_formulas.backpropagate(layers, self.objective, x, y, FLOAT64.exact(self.samples.weight))

    def bounds(self) -> tuple[float, Array]:
        """The rounding errors of the sum and of the gradient."""
        _, total, gradient = self.bounded
        return float(total.error), in_order(gradient).error

    def true_loss(self, parameters: Sequence[Any]) -> Any:
        """The sum of the losses, by mpmath, for parameters in the order of `positions`."""
        values = dict(zip(self.positions.tolist(), parameters, strict=True))
        weights, biases = positions_of(self.layout)
        total = mp.mpf(0)
        for x, y, weight in zip(*(part.tolist() for part in self.samples[:3]), strict=True):
            a = [mp.mpf(value) for value in x]
            for layer, name in enumerate(self.names):
                z = []
                for unit, column in enumerate(weights[layer].T.tolist()):
                    start = values[int(biases[layer][unit])] if self.bias else mp.mpf(0)
                    z.append(sum((values[place] * value for place, value in zip(column, a, strict=True)), start))
                a = softmax(z) if name == "softmax" else [activate(name, value, MPMATH) for value in z]
            total += weight * sum(loss_of(self.loss, *pair, MPMATH) for pair in zip(a, y, strict=False))
        return total


def in_order(layers: Sequence[Layer]) -> Bounded:
    """Weights, then biases, in the order of `Problem.positions` and `Network.parameters`."""
    parts = [layer.weights for layer in layers] + [layer.bias for layer in layers if layer.bias is not None]
    values, errors = (np.concatenate([getattr(p, name).ravel() for p in parts]) for name in ("value", "error"))
    return Bounded(values, errors, FLOAT64)


def assert_gradient_is_true(problem: Problem) -> None:
    """Every element is within its rounding error of the true one."""
    parameters = [mp.mpf(value) for value in problem.buffer[problem.positions].tolist()]
    total, gradient = problem.gradient(problem.buffer)
    of_total, of_gradient = problem.bounds()
    with mp.workdps(40):
        assert abs(total - problem.true_loss(parameters)) <= of_total
        step = mp.mpf(10) ** -15
        desired = []
        for index, value in enumerate(parameters):
            shifted: list[Any] = [*parameters]
            shifted[index] = mp.mpc(value, step)
            desired.append(mp.im(problem.true_loss(shifted)) / step)
    assert_within(gradient, desired, of_gradient, problem.positions)
    # The bound is worth something.
    assert of_gradient.max() <= 1e-11 * np.abs(gradient).max()


def assert_gradient_is_that_of_the_loss(problem: Problem) -> None:
    """Every element is within the error of central differences D(h) of the reference's own loss, h = 2^-17.

    Their truncation error is h^2 / 6 times the third derivative, and O(h^4): about a third of D(2 h) - D(h), the rest
    of which is for O(h^4). Rounding adds twice the loss's error, divided by 2 h; and as much again for what it
    does to D(2 h) - D(h). The best h is near the cube root of u, 2^-18; the error is then near u^(2/3).
    """
    h, n = 2.0**-17, problem.positions.size
    buffers = np.tile(problem.buffer, (2, 2, n, 1))
    for multiple in (1, 2):
        for side, sign in enumerate((1, -1)):
            buffers[multiple - 1, side, np.arange(n), problem.positions] += sign * multiple * h
    above, below = np.moveaxis(buffers[:, :, np.arange(n), problem.positions], 1, 0)
    sums, _ = problem.gradient(buffers)
    differences = (sums[:, 0] - sums[:, 1]) / (above - below)
    _, gradient = problem.gradient(problem.buffer)
    of_total, of_gradient = problem.bounds()
    limit = np.abs(differences[1] - differences[0]) + 2 * of_total / h + of_gradient
    assert (np.abs(differences[0] - gradient) <= limit).all()
    # It is worth something.
    assert limit.max() <= 1e-6 * np.abs(gradient).max()


# Two architectures: the smaller one for mpmath, whose arithmetic is a thousand times slower.
SMALL, DEEP = (2, 3, 2), (3, 4, 3, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", contract.LOSSES)
@pytest.mark.parametrize("activation", contract.ACTIVATIONS)
def test_gradient_of_outputs(activation: str, loss: str, bias: bool) -> None:
    assert_gradient_is_true(Problem(SMALL, "tanh", activation, loss, bias))
    assert_gradient_is_that_of_the_loss(Problem(DEEP, "silu", activation, loss, bias, n_samples=7))


@pytest.mark.parametrize("loss", contract.LOSSES)
@pytest.mark.parametrize("activation", HIDDEN)
def test_gradient_of_hidden_activations(activation: str, loss: str) -> None:
    output = dict(MATCHED).get(loss, "identity")
    assert_gradient_is_true(Problem(SMALL, activation, output, loss))
    assert_gradient_is_that_of_the_loss(Problem(DEEP, activation, output, loss, n_samples=7))


def test_gradient_of_several_blocks() -> None:
    assert_gradient_is_that_of_the_loss(Problem(SMALL, "tanh", "softmax", "cross_entropy", n_samples=300))


def test_planted_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slope of a hidden layer that is wrong by 10^-11 of itself, or by 10^-7 for central differences."""
    backward = activations.backward
    small, deep = (Problem(sizes, "sigmoid", "softmax", "cross_entropy") for sizes in (SMALL, DEEP))
    for check, problem, error in (
        (assert_gradient_is_true, small, 1e-11),
        (assert_gradient_is_that_of_the_loss, deep, 1e-7),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(activations, "backward", lambda *arguments, e=error: backward(*arguments) * (1 + e))
            with pytest.raises(AssertionError):
                check(problem)
        check(problem)


@pytest.mark.parametrize("l2", [0.0, 0.125])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_step_follows_the_gradient_of_the_reported_loss(reduction: str, l2: float) -> None:
    """A step of gradient descent at rate 1 takes the gradient of ``loss_curve``, penalty and mean included, off."""
    problem = Problem(SMALL, "tanh", "softmax", "cross_entropy")
    weights, biases = parameter_views(problem.buffer, problem.layout)
    start = fastnet.Network.from_arrays(weights, biases, activation="tanh", output_activation="softmax")
    samples = problem.samples

    def trained(parameters: Array) -> tuple[Array, float]:
        net = start.copy()
        net.parameters = parameters
        history = net.fit(
            samples.x,
            samples.y[:, :2],
            loss=problem.loss,
            optimizer=fastnet.SGD(learning_rate=1.0),
            epochs=1,
            reduction=reduction,
            l2=l2,
            sample_weight=samples.weight,
            backend="exact",
        )
        return net.parameters, float(history.loss_curve[0])

    before = start.parameters
    after, _ = trained(before)
    h = 2.0**-17
    differences = np.empty((2, before.size))
    for index in range(before.size):
        for multiple in (1, 2):
            above, below = before.copy(), before.copy()
            above[index] += multiple * h
            below[index] -= multiple * h
            differences[multiple - 1, index] = (trained(above)[1] - trained(below)[1]) / (above[index] - below[index])

    layers, total, gradient = problem.bounded
    scale = FLOAT64.exact(1.0)
    if reduction == "mean":
        scale = bounded_formulas.reciprocal_weight(FLOAT64.exact(samples.weight))
    total = (total + bounded_formulas.penalty(layers, l2)) * scale
    w, g, n = FLOAT64.exact(before), in_order(gradient), sum(part.size for part in weights)
    penalised = [
        bounded_formulas.penalised(w[:n], g[:n], l2, scale),
        bounded_formulas.penalised(w[n:], g[n:], 0.0, scale),
    ]
    of_step = np.concatenate([(w[:n] - penalised[0]).error, (w[n:] - penalised[1]).error])
    # As in `assert_gradient_is_that_of_the_loss`; undoing the step here is one more rounding.
    of_gradient = of_step + FLOAT64.u * np.abs(before - after)
    limit = np.abs(differences[1] - differences[0]) + 2 * total.error / h + of_gradient
    assert (np.abs(differences[0] - (before - after)) <= limit).all()
    assert limit.max() <= 1e-7
