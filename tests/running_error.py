"""Running error analysis: numbers that carry a bound on how far any evaluation of them is from the exact value.

The evaluations meant are those in one dtype, in which sums have any order, products and sums are fused or not, and the
elementary functions have the errors of an `Accuracy`. A `Bounded` holds one of them, computed in float64, and a
bound e with |x^ - x| <= e for every evaluation x^ and the exact x; so any two are within 2 e of each other. Every
operation adds its own rounding error to what it inherits (Higham, Accuracy and Stability of Numerical Algorithms,
2002, sections 3.1 and 3.3). Errors of errors are kept, so that no bound needs a safety factor; only the rounding
of the bounds themselves is left out, some 10^-14 of them.

The formulas of networks are written here once more, from the definitions, and use nothing of fastnet but its codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtr

from fastnet import contract

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Largest errors of the elementary functions, as multiples of eps times the value (an ULP is at most that)."""

    exp: float
    expm1: float
    log: float
    sigmoid: float
    tanh: float
    softplus: float
    normal_cdf: float
    #: An error that does not shrink with the tail, as a multiple of eps.
    normal_cdf_absolute: float
    normal_density: float
    #: What the density's error has for every x^2 besides, from the rounding of the square.
    normal_density_per_square: float


#: What docs/accuracy.md promises or, for expm1 and the normal functions, has measured, rounded up.
EXACT = Accuracy(
    exp=1,
    expm1=2.5,
    log=1,
    sigmoid=2.5,
    tanh=2.5,
    softplus=2.5,
    normal_cdf=10,
    normal_cdf_absolute=0,
    normal_density=4,
    normal_density_per_square=0,
)
#: The larger error of fastnet's functions and of NumPy's as `fastnet.reference.blas` uses them. NumPy's tests allow its
#: own 4 ULP. 1 / (1 + exp(-x)) adds two roundings, logaddexp a log1p and a sum. 0.5 (1 + erf(x / sqrt(2))) has three
#: errors of eps / 4 at most (the argument's, erf's, the sum's), which the tail keeps. -0.5 x x has two roundings.
EITHER = Accuracy(
    exp=4,
    expm1=4,
    log=4,
    sigmoid=5,
    tanh=4,
    softplus=6,
    normal_cdf=10,
    normal_cdf_absolute=1,
    normal_density=6,
    normal_density_per_square=1,
)


@dataclass(frozen=True)
class Arithmetic:
    """A dtype and the accuracy of its elementary functions."""

    dtype: np.dtype[Any]
    accuracy: Accuracy
    #: Half of eps: the relative error of one rounding.
    u: float = field(init=False)
    #: The absolute error that underflow can add to an operation: a subnormal result, or one taken for zero.
    tiny: float = field(init=False)
    #: What the exact arithmetic makes zero in deltas and states.
    flush_below: float = field(init=False)

    def __post_init__(self) -> None:
        is_single = self.dtype == np.float32
        object.__setattr__(self, "u", float(np.finfo(self.dtype).eps) / 2)
        object.__setattr__(self, "tiny", float(np.finfo(self.dtype).smallest_normal))
        object.__setattr__(self, "flush_below", 2.0**-100 if is_single else 2.0**-900)

    def gamma(self, n: int) -> float:
        """The relative error of n roundings in a row (Higham, lemma 3.1)."""
        return n * self.u / (1 - n * self.u)

    def exact(self, value: ArrayLike) -> Bounded:
        """Numbers of the dtype, which every evaluation starts from."""
        value = np.asarray(value, np.float64)
        return Bounded(value, np.zeros_like(value), self)

    def rounded(self, value: float) -> Bounded:
        """A constant, which evaluations round to the dtype if it has more digits."""
        error = 0.0 if float(self.dtype.type(value)) == value else self.u * abs(value)
        return Bounded(np.float64(value), np.float64(error), self)


Operand: TypeAlias = Union["Bounded", float]


@dataclass(frozen=True, eq=False)
class Bounded:
    """An evaluation, and a bound on the distance of all evaluations from the exact value."""

    value: Any
    error: Any
    arithmetic: Arithmetic

    __array_ufunc__ = None

    @property
    def size(self) -> Array:
        """A bound on the magnitudes of the exact value and of every evaluation (two errors apart at most)."""
        result: Array = np.abs(self.value) + 2 * self.error
        return result

    @property
    def least(self) -> Array:
        """The same from below; negative if they may be zero."""
        result: Array = np.abs(self.value) - 2 * self.error
        return result

    @property
    def difference(self) -> Array:
        """A bound on the distance between two evaluations."""
        result: Array = 2 * self.error
        return result

    def _lift(self, other: Operand) -> Bounded:
        return other if isinstance(other, Bounded) else self.arithmetic.rounded(other)

    def _new(self, value: Any, inherited: Any, rounding: Any, underflow: Any) -> Bounded:
        """A result: the error it inherits, its relative rounding error, and how many of its terms may underflow."""
        error = inherited + rounding * (np.abs(value) + 2 * inherited) + underflow * self.arithmetic.tiny
        return Bounded(value, error, self.arithmetic)

    @property
    def may_differ_from_0(self) -> Array:
        """Where this is no zero of which there is no doubt, as 1 and 0: products with such zeros are exact."""
        return np.asarray(self.size > 0, np.float64)

    def constant(self, value: float) -> Bounded:
        """An exact number in every element."""
        return Bounded(np.full_like(self.value, value), np.zeros_like(self.error), self.arithmetic)

    def __add__(self, other: Operand) -> Bounded:
        y = self._lift(other)
        return self._new(self.value + y.value, self.error + y.error, self.arithmetic.u, 0.0)

    def __mul__(self, other: Operand) -> Bounded:
        # x^ y^ - x y = x^ (y^ - y) + y (x^ - x).
        y = self._lift(other)
        inherited = self.size * y.error + y.size * self.error
        underflow = self.may_differ_from_0 * y.may_differ_from_0
        return self._new(self.value * y.value, inherited, self.arithmetic.u, underflow)

    def __truediv__(self, other: Operand) -> Bounded:
        # x^ / y^ - x / y = (x^ - x) / y^ - (x / y) (y^ - y) / y^.
        y = self._lift(other)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inherited = (self.error + self.size / y.least * y.error) / y.least
            value = self.value / y.value
        return self._new(value, np.where(y.least > 0, inherited, np.inf), self.arithmetic.u, self.may_differ_from_0)

    def __neg__(self) -> Bounded:
        return replace(self, value=-self.value)

    def __sub__(self, other: Operand) -> Bounded:
        return self + -self._lift(other)

    def __rsub__(self, other: Operand) -> Bounded:
        return self._lift(other) + -self

    __radd__, __rmul__ = __add__, __mul__

    def __rtruediv__(self, other: Operand) -> Bounded:
        return self._lift(other) / self

    def __getitem__(self, index: Any) -> Bounded:
        return replace(self, value=self.value[index], error=self.error[index])

    @property
    def T(self) -> Bounded:  # noqa: N802
        return replace(self, value=self.value.T, error=self.error.T)

    def __abs__(self) -> Bounded:
        return replace(self, value=np.abs(self.value))

    def dot(self, other: Bounded, start: Bounded | None = None) -> Bounded:
        """start + self @ other in any order: each of n products has n roundings at most, n + 1 if there is a start."""
        n = self.value.shape[-1] + (start is not None)
        value = self.value @ other.value
        error = self.size @ other.error + self.error @ other.size
        sizes = self.size @ other.size
        if start is not None:
            value, error, sizes = value + start.value, error + start.error, sizes + start.size
        underflow = self.may_differ_from_0 @ other.may_differ_from_0
        return self._new(value, error + self.arithmetic.gamma(n) * sizes, 0.0, underflow)

    def sum(self, axis: int) -> Bounded:
        """The sum over an axis, which is kept, in any order."""
        n = self.value.shape[axis]
        error = (self.error + self.arithmetic.gamma(n) * self.size).sum(axis, keepdims=True)
        return Bounded(self.value.sum(axis, keepdims=True), error, self.arithmetic)

    def largest(self) -> Bounded:
        """The maximum over the last axis, which is kept."""
        return replace(self, value=self.value.max(-1, keepdims=True), error=self.error.max(-1, keepdims=True))

    def clipped(self, low: float, high: float = np.inf) -> Bounded:
        """The number brought into an interval, whose ends have no error."""
        beyond = (self.value + 2 * self.error <= low) | (self.value - 2 * self.error >= high)
        error = np.where(beyond, 0.0, np.minimum(self.error, high - low))
        return replace(self, value=np.clip(self.value, low, high), error=error)

    def limited(self, limit: float) -> Bounded:
        """The same number, known to be of no larger magnitude, exact or evaluated."""
        return replace(self, error=np.minimum(self.error, 2 * limit))

    def flushed(self) -> Bounded:
        """The number, or +0 where it is below the threshold."""
        return replace(self, error=self.error + self.may_differ_from_0 * self.arithmetic.flush_below)

    def sqrt(self) -> Bounded:
        """The square root of a number that is not negative: |sqrt(x^) - sqrt(x)| = |x^ - x| / (sqrt(x^) + sqrt(x))."""
        least = np.sqrt(np.maximum(self.least, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            inherited = np.where(least > 0, self.error / (2 * least), np.sqrt(self.error))
        return self._new(np.sqrt(self.value), inherited, self.arithmetic.u, 0.0)

    def apply(self, function: Callable[[Any], Any], slope: Any, relative: Any, absolute: float = 0.0) -> Bounded:
        """An elementary function with that bound on its slope, and errors of its own in multiples of eps."""
        eps = 2 * self.arithmetic.u
        with np.errstate(invalid="ignore"):
            inherited = np.where(self.error > 0, slope * self.error, 0.0)
        return self._new(function(self.value), inherited + absolute * eps, relative * eps, 1.0)

    def exp(self) -> Bounded:
        with np.errstate(over="ignore"):
            slope = np.exp(self.value + 2 * self.error)
        return self.apply(np.exp, slope, self.arithmetic.accuracy.exp)

    def log(self) -> Bounded:
        with np.errstate(divide="ignore"):
            slope = np.where(self.least > 0, 1 / self.least, np.inf)
        return self.apply(np.log, slope, self.arithmetic.accuracy.log)


def select(sign: Bounded, positive: Bounded, otherwise: Bounded) -> Bounded:
    """``positive`` where ``sign`` is above 0, else ``otherwise``; either of them where evaluations may disagree."""
    chosen = sign.value > 0
    value = np.where(chosen, positive.value, otherwise.value)
    error = np.where(chosen, positive.error, otherwise.error)
    either = positive.error + otherwise.error + np.abs(positive.value - otherwise.value)
    # Without an error there is no doubt, not even at 0.
    in_doubt = (sign.least <= 0) & (sign.error > 0)
    return Bounded(value, np.where(in_doubt, either, error), sign.arithmetic)


def sigmoid(z: Bounded) -> Bounded:
    return z.apply(expit, 0.25, z.arithmetic.accuracy.sigmoid)


def _normal_cdf(z: Bounded) -> Bounded:
    accuracy = z.arithmetic.accuracy
    # The slope is the density, at most 0.4.
    return z.apply(ndtr, 0.4, accuracy.normal_cdf, accuracy.normal_cdf_absolute)


def _normal_density(z: Bounded) -> Bounded:
    accuracy = z.arithmetic.accuracy
    # The slope is at most e^(-1/2) / sqrt(2 pi) < 0.25, at x = 1.
    relative = accuracy.normal_density + accuracy.normal_density_per_square * z.size**2
    return z.apply(lambda x: np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), 0.25, relative)


def _softmax_terms(z: Bounded) -> tuple[Bounded, Bounded]:
    shifted = z - z.largest()
    return shifted, shifted.exp()


def log_softmax(z: Bounded) -> Bounded:
    shifted, terms = _softmax_terms(z)
    return shifted - terms.sum(-1).log()


def activate(activation: int, z: Bounded) -> Bounded:
    """a = activation(z)."""
    accuracy = z.arithmetic.accuracy
    match activation:
        case contract.IDENTITY:
            return z
        case contract.SIGMOID:
            return sigmoid(z)
        case contract.TANH:
            return z.apply(np.tanh, 1.0, accuracy.tanh)
        case contract.RELU:
            return z.clipped(0.0)
        case contract.LEAKY_RELU:
            return select(z, z, z * contract.NEGATIVE_SLOPE)
        case contract.SOFTPLUS:
            return z.apply(lambda x: np.logaddexp(0.0, x), 1.0, accuracy.softplus)
        case contract.ELU:
            return select(z, z, z.clipped(-np.inf, 0.0).apply(np.expm1, 1.0, accuracy.expm1))
        case contract.SILU:
            return z * sigmoid(z)
        case contract.GELU:
            return z * _normal_cdf(z)
        case contract.EXPONENTIAL:
            return z.exp()
        case contract.SOFTMAX:
            _, terms = _softmax_terms(z)
            return terms / terms.sum(-1)
    raise AssertionError(activation)


def derive(activation: int, error: Bounded, z: Bounded, a: Bounded) -> Bounded:
    """The derivative by z, from the one by a."""
    match activation:
        case contract.IDENTITY:
            return error
        case contract.SIGMOID:
            return error * (a * (1.0 - a))
        case contract.TANH:
            return error * (1.0 - a * a)
        case contract.RELU:
            return select(a, error, error.constant(0.0))
        case contract.LEAKY_RELU:
            return select(a, error, error * contract.NEGATIVE_SLOPE)
        case contract.SOFTPLUS:
            return error * sigmoid(z)
        case contract.ELU:
            return select(a, error, error * (a + 1.0))
        case contract.SILU:
            s = sigmoid(z)
            return error * (s + a * (1.0 - s))
        case contract.GELU:
            return error * (_normal_cdf(z) + z * _normal_density(z))
        case contract.EXPONENTIAL:
            return error * a
        case contract.SOFTMAX:
            return a * (error - (error * a).sum(-1))
    raise AssertionError(activation)


def _clipped(a: Bounded) -> Bounded:
    eps = 2 * a.arithmetic.u
    return a.clipped(eps)


def _clipped_both(a: Bounded) -> Bounded:
    eps = 2 * a.arithmetic.u
    return a.clipped(eps, 1 - eps)


def loss(loss: int, activation: int, parameter: float, z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """The loss of every output; ``parameter`` and 1 - ``parameter`` have to be numbers of the dtype."""
    matched = contract.MATCHED_ACTIVATION.get(loss) == activation
    d = a - y
    match loss:
        case contract.SQUARED_ERROR:
            return d * d * 0.5
        case contract.BINARY_CROSS_ENTROPY if matched:
            return activate(contract.SOFTPLUS, z) - y * z
        case contract.BINARY_CROSS_ENTROPY:
            p = _clipped_both(a)
            return -(y * p.log() + (1.0 - y) * (1.0 - p).log())
        case contract.CROSS_ENTROPY:
            return -y * (log_softmax(z) if matched else _clipped(a).log())
        case contract.POISSON:
            return a - y * (z if matched else _clipped(a).log())
        case contract.ABSOLUTE_ERROR:
            return abs(d)
        case contract.HUBER:
            size = abs(d)
            return select(size - parameter, (size - 0.5 * parameter) * parameter, d * d * 0.5)
        case contract.QUANTILE:
            return select(-d, -d * parameter, d * (1.0 - parameter))
    raise AssertionError(loss)


def delta(loss: int, activation: int, parameter: float, z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """The derivative of the loss by z."""
    if contract.MATCHED_ACTIVATION.get(loss) == activation:
        return a - y
    return derive(activation, _error(loss, parameter, a, y), z, a)


def _error(loss: int, parameter: float, a: Bounded, y: Bounded) -> Bounded:
    d = a - y
    one = d.constant(1.0)
    match loss:
        case contract.SQUARED_ERROR:
            return d
        case contract.BINARY_CROSS_ENTROPY:
            p = _clipped_both(a)
            return (p - y) / (p * (1.0 - p))
        case contract.CROSS_ENTROPY:
            return -y / _clipped(a)
        case contract.POISSON:
            return 1.0 - y / _clipped(a)
        case contract.ABSOLUTE_ERROR:
            return select(d, one, select(-d, -one, d))
        case contract.HUBER:
            return d.clipped(-parameter, parameter)
        case contract.QUANTILE:
            return select(d, d.constant(1.0 - parameter), select(-d, d.constant(-parameter), d))
    raise AssertionError(loss)


@dataclass(frozen=True)
class Layer:
    """Weights, bias and activation; also, in a gradient, their derivatives."""

    weights: Bounded
    bias: Bounded | None
    activation: int


def forward(layers: Sequence[Layer], x: Bounded) -> tuple[list[Bounded], list[Bounded]]:
    """The inputs of every layer's activation, and before and after it the outputs."""
    inputs, outputs = [], [x]
    for layer in layers:
        inputs.append(outputs[-1].dot(layer.weights, layer.bias))
        outputs.append(activate(layer.activation, inputs[-1]))
    return inputs, outputs


def backpropagate(
    layers: Sequence[Layer], objective: contract.Objective, x: Bounded, y: Bounded, weight: Bounded
) -> tuple[Bounded, list[Layer]]:
    """The weighted sum of the losses, and its gradient; no penalty, no mean."""
    inputs, outputs = forward(layers, x)
    of_output = (objective.loss, layers[-1].activation, objective.parameter, inputs[-1], outputs[-1], y)
    total = weight[None, :].dot(loss(*of_output)).sum(-1)[0, 0]
    deltas = (delta(*of_output) * weight[:, None]).flushed()
    gradient: list[Layer] = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        bias = None if layer.bias is None else deltas.sum(0)[0]
        gradient.append(Layer(outputs[index].T.dot(deltas), bias, layer.activation))
        if index > 0:
            back = deltas.dot(layer.weights.T)
            below = layers[index - 1].activation
            deltas = derive(below, back, inputs[index - 1], outputs[index]).flushed()
    return total, gradient[::-1]


def penalty(layers: Sequence[Layer], l2: float) -> Bounded:
    """l2 / 2 times the squared weights."""
    squares = [layer.weights * layer.weights for layer in layers]
    sums = [square.sum(0).sum(1)[0, 0] for square in squares]
    total = sums[0]
    for one in sums[1:]:
        total = total + one
    return total * (0.5 * l2)


def reciprocal_weight(weight: Bounded) -> Bounded:
    """The factor of a mean: sums in float64 or in the dtype, a division, a rounding to the dtype."""
    arithmetic, total = weight.arithmetic, weight.value.sum()
    return Bounded(1 / total, arithmetic.gamma(weight.value.size + 2) / total, arithmetic)


def penalised(w: Bounded, g: Bounded, l2: float, scale: Bounded) -> Bounded:
    """The gradient that reaches the optimizer."""
    return (w * l2 + g) * scale


def adam_rate(arithmetic: Arithmetic, rate: float, settings: Array, n_steps: int) -> Bounded:
    """The rate of Adam's n-th step, computed in float64 from running powers, then rounded to the dtype."""
    wide = Arithmetic(np.dtype(np.float64), EXACT)
    powers = [wide.exact(1.0), wide.exact(1.0)]
    for _ in range(n_steps):
        powers = [power * float(beta) for power, beta in zip(powers, settings[:2], strict=True)]
    result = rate * (1.0 - powers[1]).sqrt() / (1.0 - powers[0])
    return Bounded(result.value, result.error + arithmetic.u * result.size, arithmetic)


def step(
    optimizer: int,
    w: Bounded,
    g: Bounded,
    slots: Sequence[Bounded],
    settings: Array,
    learning_rate: float,
    rate: Bounded,
) -> tuple[Bounded, ...]:
    """The new parameter and the new state; ``rate`` is Adam's, with its correction, and else the learning rate."""
    arithmetic = w.arithmetic

    def twice_rounded(value: float) -> Bounded:
        """What float64 computes with one rounding before it is rounded to the dtype."""
        return Bounded(np.float64(value), arithmetic.gamma(2) * abs(value), arithmetic)

    numbers = [float(value) for value in settings]
    match optimizer:
        case contract.SGD if not slots:
            return (w - g * rate,)
        case contract.SGD:
            momentum, nesterov = numbers
            push = -(g * rate)
            velocity = (slots[0] * momentum + push).flushed()
            return w + (velocity * momentum + push if nesterov else velocity), velocity
        case contract.ADAM:
            beta_1, beta_2, epsilon, decay = numbers
            m = (slots[0] * beta_1 + g * twice_rounded(1.0 - beta_1)).flushed()
            v = (slots[1] * beta_2 + g * twice_rounded(1.0 - beta_2) * g).flushed()
            w = w - w * twice_rounded(learning_rate * decay)
            # |m| / sqrt(v) by Cauchy and Schwarz, and 1 % for rounding; without it, gradients near 0 have no bound.
            limit = 1.01 * (1 - beta_1) / np.sqrt((1 - beta_2) * (1 - beta_1**2 / beta_2))
            return w - (m / (v.sqrt() + epsilon)).limited(limit) * rate, m, v
        case contract.RMSPROP:
            rho, momentum, epsilon = numbers
            v = (slots[0] * rho + g * twice_rounded(1.0 - rho) * g).flushed()
            push = -((g / (v.sqrt() + epsilon)).limited(1.01 / np.sqrt(1 - rho)) * rate)
            if len(slots) == 1:
                return w + push, v
            velocity = (slots[1] * momentum + push).flushed()
            return w + velocity, v, velocity
        case contract.RPROP:
            eta_minus, eta_plus, step_min, step_max = numbers
            g, (previous, size) = g.flushed(), slots
            same = g * previous
            longer = (size * eta_plus).clipped(-np.inf, step_max)
            shorter = (size * eta_minus).clipped(step_min)
            size = select(same, longer, select(-same, shorter, size))
            g = select(-same, g.constant(0.0), g)
            return select(g, w - size, select(-g, w + size, w + g)), g, size
    raise AssertionError(optimizer)
