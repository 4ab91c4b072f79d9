"""Derivatives and losses of the exact reference against what calculus says.

Two authorities judge, none of which uses code of fastnet: formulas written here from their definitions and
evaluated by mpmath, whose derivatives are complex steps (f(x + ih) = f(x) + ih f'(x) + O(h^2), without cancellation,
at 120 digits); and central differences of the losses in float64.
What a rounding error may amount to is worked out by `tests.running_error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erfc

import fastnet
from fastnet import contract
from fastnet.contract import Objective, Samples
from fastnet.layout import buffer_size, make_layout, parameter_views
from fastnet.reference import activations, losses, network
from tests import running_error
from tests.running_error import EXACT, Arithmetic, Bounded, Layer
from tests.support import assert_within, positions_of

Array = NDArray[np.floating]

DTYPES = ["float32", "float64"]
FLOAT64 = Arithmetic(np.dtype(np.float64), EXACT)
ELEMENTWISE = [name for name in contract.ACTIVATIONS if name != "softmax"]
HIDDEN = [name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY]
PARAMETER = {"huber": 0.5, "quantile": 0.75}


@pytest.fixture(autouse=True)
def _digits() -> Any:
    """120 digits; a complex step of 10^-40 leaves an error of 10^-80 of the derivative."""
    with mp.workdps(120):
        yield


STEP = mp.mpf(10) ** -40


def code(name: str) -> int:
    """The number of an activation or a loss."""
    return (*contract.ACTIVATIONS, *contract.LOSSES).index(name) % len(contract.ACTIVATIONS)


# --- formulas from the definitions, for numbers of mpmath (real or complex) and arrays of NumPy ---

MPMATH = SimpleNamespace(
    exp=mp.exp,
    expm1=mp.expm1,
    log=mp.log,
    log1p=mp.log1p,
    tanh=mp.tanh,
    erfc=mp.erfc,
    where=lambda condition, yes, no: yes if condition else no,
    real=mp.re,
)
NUMPY = SimpleNamespace(
    exp=np.exp,
    expm1=np.expm1,
    log=np.log,
    log1p=np.log1p,
    tanh=np.tanh,
    erfc=erfc,
    where=np.where,
    real=np.real,
)


def activate(name: str, z: Any, m: SimpleNamespace) -> Any:
    """a = activation(z), but for softmax."""
    match name:
        case "identity":
            return z
        case "sigmoid":
            return 1 / (1 + m.exp(-z))
        case "tanh":
            return m.tanh(z)
        case "relu":
            return m.where(m.real(z) > 0, z, 0 * z)
        case "leaky_relu":
            return m.where(m.real(z) > 0, z, 0.01 * z)
        case "softplus":
            return m.log1p(m.exp(z))
        case "elu":
            return m.where(m.real(z) > 0, z, m.expm1(z))
        case "silu":
            return z / (1 + m.exp(-z))
        case "gelu":
            # Half of erfc(-z / sqrt(2)) is the normal distribution function.
            return z * m.erfc(-z * mp.sqrt(0.5) if m is MPMATH else -z * np.sqrt(0.5)) / 2
        case "exponential":
            return m.exp(z)
    raise AssertionError(name)


def loss_of(name: str, a: Any, y: Any, m: SimpleNamespace) -> Any:
    """The loss of one output."""
    match name:
        case "squared_error":
            return (a - y) ** 2 / 2
        case "binary_cross_entropy":
            return -(y * m.log(a) + (1 - y) * m.log(1 - a))
        case "cross_entropy":
            return -y * m.log(a)
        case "poisson":
            return a - y * m.log(a)
        case "absolute_error":
            return m.where(m.real(a) > m.real(y), a - y, y - a)
        case "huber":
            d, size = PARAMETER[name], m.where(m.real(a) > m.real(y), a - y, y - a)
            return m.where(m.real(size) > d, d * (size - d / 2), size**2 / 2)
        case "quantile":
            q = PARAMETER[name]
            return m.where(m.real(a) > m.real(y), (1 - q) * (a - y), q * (y - a))
    raise AssertionError(name)


def derivative(function: Any, x: float) -> mp.mpf:
    """The derivative of a formula, by a complex step."""
    return mp.im(function(mp.mpc(x, STEP))) / STEP


# --- activations, element by element ---


def points(dtype: str) -> Array:
    """Numbers of both signs, none of them 0: ordinary ones, and tails in which functions saturate."""
    tails = [8, 9.5, 15, 17.5, 20, 25, 30, 36, 37, 38, 40, 50, 80, 87, 88, 103, 200, 700, 709, 745, 1000]
    positive = np.concatenate([np.linspace(0.1, 6, 30), 2.0 ** -np.arange(4, 60, 5), np.array(tails)])
    return np.concatenate([positive, -positive]).astype(dtype)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation(dtype: str, name: str) -> None:
    """Values and derivatives, within rounding errors that are relative where the formula's are."""
    z = points(dtype)
    if name == "exponential":
        z = z[z < np.log(np.finfo(dtype).max)]
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    a = activations.forward(code(name), z)
    slopes = activations.backward(code(name), np.ones_like(z), z, a)
    assert a.dtype == slopes.dtype == z.dtype

    bounded_z = arithmetic.exact(z)
    bounded_a = running_error.activate(code(name), bounded_z)
    bounded_slopes = running_error.derive(code(name), arithmetic.exact(np.ones_like(z)), bounded_z, bounded_a)
    assert_within(a, [activate(name, mp.mpf(x), MPMATH) for x in z.tolist()], bounded_a.error, z)
    desired = [derivative(lambda x: activate(name, x, MPMATH), x) for x in z.tolist()]
    assert_within(slopes, desired, bounded_slopes.error, z)


def test_bounds_of_activations_are_sharp() -> None:
    """The bounds above are at most this many eps of the largest value on the way, which is max(1, |z|)."""
    for name in ELEMENTWISE:
        z = FLOAT64.exact(np.linspace(-30, 30, 101) if name != "exponential" else np.linspace(-30, 0, 101))
        a = running_error.activate(code(name), z)
        slopes = running_error.derive(code(name), FLOAT64.exact(np.ones(101)), z, a)
        for result in (a, slopes):
            assert (result.error <= 40 * FLOAT64.u * np.maximum(1, np.abs(z.value))).all(), name


def _softmax(z: Sequence[Any]) -> list[Any]:
    terms = [mp.exp(x) for x in z]
    return [term / mp.fsum(terms) for term in terms]


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype: str) -> None:
    """Values, logarithms, and derivatives of a weighted sum of the outputs; also far apart, and far from 0."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal((3, 5)), 30 * rng.standard_normal((3, 5)), 1000 + rng.random((2, 5))])
    z = np.concatenate([z, [[1000, -1000, 0, 999, 1000]]]).astype(dtype)
    error = rng.standard_normal(z.shape).astype(dtype)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    a = activations.forward(contract.SOFTMAX, z)
    bounded_z = arithmetic.exact(z)
    bounded_a = running_error.activate(contract.SOFTMAX, bounded_z)
    delta = activations.backward(contract.SOFTMAX, error, z, a)
    bounded_delta = running_error.derive(contract.SOFTMAX, arithmetic.exact(error), bounded_z, bounded_a)
    logarithms = activations.log_softmax(z)
    bounded_logarithms = running_error.log_softmax(bounded_z)
    for row in range(len(z)):
        inputs, weights = ([mp.mpf(x) for x in matrix[row].tolist()] for matrix in (z, error))
        desired = _softmax(inputs)
        assert_within(a[row], desired, bounded_a.error[row], z[row])
        total = mp.log(mp.fsum(mp.exp(x) for x in inputs))
        assert_within(logarithms[row], [x - total for x in inputs], bounded_logarithms.error[row], z[row])
        slopes = []
        for unit in range(len(inputs)):
            shifted = [x + (mp.mpc(0, STEP) if k == unit else 0) for k, x in enumerate(inputs)]
            output = mp.fsum(w * p for w, p in zip(weights, _softmax(shifted), strict=True))
            slopes.append(mp.im(output) / STEP)
        assert_within(delta[row], slopes, bounded_delta.error[row], z[row])


# --- losses, element by element ---


def targets(name: str) -> list[float]:
    return {"poisson": [0.0, 1.0, 7.5], "binary_cross_entropy": [0.0, 0.25, 1.0]}.get(name, [0.0, 0.3125, 1.0])


def outputs(name: str, dtype: str) -> Array:
    """Where the loss is smooth, up to the ends of its domain."""
    eps = float(np.finfo(dtype).eps)
    inside = [eps, 2 * eps, 1e-5, 0.01, 0.2, 0.4, 0.55, 0.75, 0.9, 0.99, 1 - 4 * eps, 1 - eps]
    if name == "binary_cross_entropy":
        return np.array(inside, dtype)
    if name in {"cross_entropy", "poisson"}:
        return np.array([*inside, 1.0, 3.5, 1e4, 1e30], dtype)
    return np.array([*inside, -0.1, -7.0, 40.0, -1e4, 1e10], dtype)


@pytest.mark.parametrize("name", contract.LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss(dtype: str, name: str) -> None:
    """Values and derivatives by the output, probabilities next to 0 and 1 among them."""
    a, y = (grid.ravel() for grid in np.meshgrid(outputs(name, dtype), np.array(targets(name), dtype)))
    of_output = (code(name), contract.IDENTITY, PARAMETER.get(name, 0.0))
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    bounded = [arithmetic.exact(part) for part in (a, a, y)]
    values, slopes = losses.loss(*of_output, a, a, y), losses.delta(*of_output, a, a, y)
    assert values.dtype == slopes.dtype == a.dtype
    pairs = list(zip(map(mp.mpf, a.tolist()), map(mp.mpf, y.tolist()), strict=True))
    desired = [loss_of(name, *pair, MPMATH) for pair in pairs]
    assert_within(values, desired, running_error.loss(*of_output, *bounded).error, pairs)
    desired = [derivative(lambda x, y=y: loss_of(name, x, y, MPMATH), x) for x, y in pairs]
    assert_within(slopes, desired, running_error.delta(*of_output, *bounded).error, pairs)
    # A few roundings each; only the logarithm of 1 - a, next to a = 0, and the difference a - y lose more.
    sizes = np.maximum(np.abs(np.array([float(x) for x in desired])), 1.0)
    assert (running_error.delta(*of_output, *bounded).error <= 10 * arithmetic.u * sizes).all()


MATCHED = [("binary_cross_entropy", "sigmoid"), ("cross_entropy", "softmax"), ("poisson", "exponential")]


@pytest.mark.parametrize(("loss", "activation"), MATCHED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matched_pair_is_the_unmatched_formula(dtype: str, activation: str, loss: str) -> None:
    """For moderate z both ways of computing a loss and its derivative are right, so they agree within both bounds."""
    rng = np.random.default_rng(1)
    z = (2 * rng.standard_normal((40, 3))).astype(dtype)
    y = rng.dirichlet(np.ones(3), 40).astype(dtype)
    # a - y is the derivative of cross-entropy for targets whose sum is 1: to the last bit here.
    y[:, 0] = 1 - y[:, 1] - y[:, 2]
    a = activations.forward(code(activation), z)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    bounded_z, bounded_y = arithmetic.exact(z), arithmetic.exact(y)
    bounded_a = running_error.activate(code(activation), bounded_z)
    # Targets have the sum 1 but for three roundings, which the unmatched formula multiplies by a.
    excess = 3 * arithmetic.u * bounded_a.size

    matched = losses.loss(code(loss), code(activation), 0.0, z, a, y)
    unmatched = losses.loss(code(loss), contract.IDENTITY, 0.0, z, a, y)
    limit = running_error.loss(code(loss), code(activation), 0.0, bounded_z, bounded_a, bounded_y).error
    limit = limit + running_error.loss(code(loss), contract.IDENTITY, 0.0, bounded_z, bounded_a, bounded_y).error
    assert (np.abs(matched.astype(float) - unmatched) <= limit).all()

    matched = losses.delta(code(loss), code(activation), 0.0, z, a, y)
    error = losses.delta(code(loss), contract.IDENTITY, 0.0, a, a, y)
    unmatched = activations.backward(code(activation), error, z, a)
    bounded_error = running_error.delta(code(loss), contract.IDENTITY, 0.0, bounded_a, bounded_a, bounded_y)
    limit = running_error.derive(code(activation), bounded_error, bounded_z, bounded_a).error + excess
    limit = limit + running_error.delta(code(loss), code(activation), 0.0, bounded_z, bounded_a, bounded_y).error
    assert (np.abs(matched.astype(float) - unmatched) <= limit).all()


@pytest.mark.parametrize(
    ("loss", "activation", "y", "values", "deltas"),
    [
        ("binary_cross_entropy", "sigmoid", [1, 0], [0, 0], [0, 0]),
        ("binary_cross_entropy", "sigmoid", [0, 1], [1000, 1000], [1, -1]),
        ("cross_entropy", "softmax", [1, 0], [0, 0], [0, 0]),
        ("cross_entropy", "softmax", [0, 1], [0, 2000], [1, -1]),
        # e^1000 - 3000 is beyond the format; 0 + 3000 is not.
        ("poisson", "exponential", [3, 3], [np.inf, 3000], [np.inf, -3]),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matched_pairs_do_not_overflow(
    dtype: str, loss: str, activation: str, y: list[float], values: list[float], deltas: list[float]
) -> None:
    """At z = 1000 and -1000 probabilities are 1 and 0; losses and derivatives are exact all the same."""
    z, target = np.array([[1000.0, -1000.0]], dtype), np.array([y], dtype)
    a = activations.forward(code(activation), z)
    of_output = (code(loss), code(activation), 0.0, z, a, target)
    np.testing.assert_array_equal(losses.loss(*of_output), [values])
    np.testing.assert_array_equal(losses.delta(*of_output), [deltas])


# --- conventions at kinks and at the ends of domains ---


@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("leaky_relu", contract.NEGATIVE_SLOPE), ("elu", 1.0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_slope_at_zero(dtype: str, name: str, slope: float) -> None:
    """The left derivative, at zeros of either sign (ELU has only one)."""
    z = np.array([0.0, -0.0], dtype)
    a = activations.forward(code(name), z)
    assert a.tolist() == [0, 0]
    assert activations.backward(code(name), np.ones_like(z), z, a).tolist() == [np.dtype(dtype).type(slope)] * 2


@pytest.mark.parametrize(
    ("name", "error", "value", "slope"),
    [
        ("absolute_error", 0.0, 0.0, 0.0),
        ("quantile", 0.0, 0.0, 0.0),
        # Huber's loss is smooth where the square meets the line.
        ("huber", 0.5, 0.125, 0.5),
        ("huber", -0.5, 0.125, -0.5),
        # Just beside the kink; a quantile of 3/4 makes it three times as bad to be below as above.
        ("absolute_error", 2.0**-20, 2.0**-20, 1.0),
        ("absolute_error", -(2.0**-20), 2.0**-20, -1.0),
        ("quantile", 2.0**-20, 2.0**-22, 0.25),
        ("quantile", -(2.0**-20), 3 * 2.0**-22, -0.75),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_at_kinks(dtype: str, name: str, error: float, value: float, slope: float) -> None:
    y = np.array([0.25], dtype)
    a = (y + error).astype(dtype)
    of_output = (code(name), contract.IDENTITY, PARAMETER.get(name, 0.0), a, a, y)
    assert losses.loss(*of_output).tolist() == [value]
    assert losses.delta(*of_output).tolist() == [slope]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy", "poisson"])
def test_losses_beyond_their_domain(name: str, dtype: str) -> None:
    """Without the matched activation, probabilities and rates below eps count as eps, in logarithms and quotients."""
    eps = np.finfo(dtype).eps
    a, y = np.array([0.0, -3.0, eps / 2, eps], dtype), np.full(4, 0.25, dtype)
    of_output = (code(name), contract.IDENTITY, 0.0)
    slopes, values = losses.delta(*of_output, a, a, y), losses.loss(*of_output, a, a, y)
    assert (slopes == slopes[-1]).all()
    if name == "poisson":
        # Its first term is the rate itself; two roundings.
        assert (np.abs((values - a) - (values[-1] - eps)) <= 2 * eps * np.abs(values)).all()
    else:
        assert (values == values[-1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_above_one(dtype: str) -> None:
    eps = np.finfo(dtype).eps
    a, y = np.array([1.0, 7.0, 1 - eps / 2, 1 - eps], dtype), np.full(4, 0.25, dtype)
    of_output = (contract.BINARY_CROSS_ENTROPY, contract.IDENTITY, 0.0, a, a, y)
    assert len(set(losses.loss(*of_output).tolist())) == len(set(losses.delta(*of_output).tolist())) == 1


# --- gradients of networks ---


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
            padded = np.zeros((self.n_samples, self.layout[-1, contract.STRIDE]))
            padded[:, : y.shape[1]] = y[smooth]
            weight = rng.uniform(0.5, 2.0, self.n_samples)
            return buffer, Samples(x[smooth], padded, weight, np.empty((0, self.n_samples), np.int64))
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
        return layers, *running_error.backpropagate(layers, self.objective, x, y, FLOAT64.exact(self.samples.weight))

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
                a = _softmax(z) if name == "softmax" else [activate(name, value, MPMATH) for value in z]
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
        scale = running_error.reciprocal_weight(FLOAT64.exact(samples.weight))
    total = (total + running_error.penalty(layers, l2)) * scale
    w, g, n = FLOAT64.exact(before), in_order(gradient), sum(part.size for part in weights)
    penalised = [running_error.penalised(w[:n], g[:n], l2, scale), running_error.penalised(w[n:], g[n:], 0.0, scale)]
    of_step = np.concatenate([(w[:n] - penalised[0]).error, (w[n:] - penalised[1]).error])
    # As in `assert_gradient_is_that_of_the_loss`; undoing the step here is one more rounding.
    of_gradient = of_step + FLOAT64.u * np.abs(before - after)
    limit = np.abs(differences[1] - differences[0]) + 2 * total.error / h + of_gradient
    assert (np.abs(differences[0] - (before - after)) <= limit).all()
    assert limit.max() <= 1e-7
