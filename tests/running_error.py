"""Running error analysis: numbers that carry a bound on how far any evaluation of them is from the exact value.

The evaluations meant are those in one dtype, in which sums have any order, products and sums are fused or not, and the
elementary functions have the errors of an `Accuracy`. A `Bounded` holds one of them, computed in float64, and a
bound e with |x^ - x| <= e for every evaluation x^ and the exact x; so any two are within 2 e of each other. Every
operation adds its own rounding error to what it inherits (Higham, Accuracy and Stability of Numerical Algorithms,
2002, sections 3.1 and 3.3). Errors of errors are kept, so that no bound needs a safety factor; only the rounding
of the bounds themselves is left out, some 10^-14 of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
