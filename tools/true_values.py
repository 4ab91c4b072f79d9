"""True values of the elementary functions, three ways, and errors in units in the last place.

mpmath gives any precision and takes its time. Pairs of float64 numbers (double-double arithmetic,
Dekker 1971) give about 95 correct bits at a microsecond a value; they judge the float64 functions on
millions of inputs. Plain float64 judges the float32 functions on all inputs. Nothing here shares code
with fastnet.

The error of a result is its distance to the true value, divided by the spacing of the format's numbers
in the binade of the true value. Where the true value lies beyond the format, the error of an infinite
result is 0 and that of a finite one infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple, TypeAlias

import mpmath as mp
import numpy as np
import scipy.special
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
#: The sum of two float64 numbers, the second at most half a unit in the last place of the first.
Pair: TypeAlias = tuple[Array, Array]

#: Bits of mpmath's numbers here.
PRECISION = 200
#: The exponential of a number beyond this is 0 or infinite in every format.
BEYOND_EXP = 2000.0
#: The same for the normal distribution function.
BEYOND_NORMAL = 40.0


class Scaled(NamedTuple):
    """(high + low) * 2^exponent, so that a value below float64's range has all its bits."""

    high: Array
    low: Array
    exponent: NDArray[np.int64]


# --- pairs ---


def two_sum(a: Array, b: Array | float) -> Pair:
    """a + b, exactly."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _split(a: Array) -> Pair:
    shifted = a * (2.0**27 + 1)
    high = shifted - (shifted - a)
    return high, a - high


def two_product(a: Array, b: Array) -> Pair:
    """a * b, exactly."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _joined(high: Array, low: Array) -> Pair:
    total = high + low
    return total, low - (total - high)


def add(x: Pair, y: Pair) -> Pair:
    """x + y."""
    high, error = two_sum(x[0], y[0])
    low, low_error = two_sum(x[1], y[1])
    high, error = _joined(high, error + low)
    return _joined(high, error + low_error)


def multiply(x: Pair, y: Pair) -> Pair:
    """x * y."""
    product, error = two_product(x[0], y[0])
    return _joined(product, error + (x[0] * y[1] + x[1] * y[0]))


def divide(x: Pair, y: Pair) -> Pair:
    """x / y, by three steps of long division."""
    quotient = (np.zeros_like(x[0]), np.zeros_like(x[0]))
    for _ in range(3):
        digit = x[0] / y[0]
        product, error = two_product(digit, y[0])
        x = add(x, _joined(-product, -(error + digit * y[1])))
        quotient = add(quotient, (digit, np.zeros_like(digit)))
    return quotient


def constant(value: Fraction | mp.mpf) -> Pair:
    """The pair nearest to a number."""
    high = float(value)
    rest = value - (Fraction(high) if isinstance(value, Fraction) else mp.mpf(high))
    return np.float64(high), np.float64(float(rest))  # type: ignore[return-value]


def horner(x: Pair, coefficients: Sequence[Pair]) -> Pair:
    """The polynomial of x with ``coefficients``, lowest power first."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = add(multiply(result, x), coefficient)
    return result


ONE, TWO = constant(Fraction(1)), constant(Fraction(2))
with mp.workprec(PRECISION):
    # Parts of ln 2 whose products with an exponent are exact, and the rest.
    LN2 = [mp.floor(mp.ldexp(mp.log(2), 40)) / 2**40]
    LN2.append(mp.floor(mp.ldexp(mp.log(2) - LN2[0], 80)) / mp.mpf(2) ** 80)
    LN2 = [float(part) for part in (*LN2, mp.log(2) - LN2[0] - LN2[1])]
    INVERSE_SQRT_2_PI = constant(1 / mp.sqrt(2 * mp.pi))
# expm1(r) / r for |r| <= ln(2) / 2, and atanh(w) / w in powers of w^2 for |w| <= 1/3: the first term left
# out is below 2^-110.
EXPM1 = [constant(Fraction(1, int(mp.factorial(n + 1)))) for n in range(25)]
ATANH = [constant(Fraction(1, 2 * n + 1)) for n in range(35)]


def _times_ln2(k: Array) -> Pair:
    return add(two_sum(k * LN2[0], k * LN2[1]), (k * LN2[2], np.zeros_like(k)))


def _expm1_reduced(x: Pair) -> tuple[NDArray[np.int64], Pair, Pair]:
    """(k, r, q) with exp(x) = 2^k (1 + r q)."""
    k = np.rint(x[0] / LN2[0])
    r = add(x, tuple(-part for part in _times_ln2(k)))  # type: ignore[arg-type]
    return k.astype(np.int64), r, horner(r, EXPM1)


def _exp(x: Pair) -> Scaled:
    k, r, q = _expm1_reduced(x)
    return Scaled(*add(ONE, multiply(r, q)), k)


def _half_log_ratio(w: Pair, terms: int) -> Pair:
    """atanh(w) / w."""
    return horner(multiply(w, w), ATANH[:terms])


def _scaled_down(x: Pair, exponent: NDArray[np.int64]) -> Pair:
    """x * 2^exponent; where that is below the range, x is lost beside the 1 it is to be added to."""
    return np.ldexp(x[0], exponent), np.ldexp(x[1], exponent)


def _pair(x: Array) -> Pair:
    return x, np.zeros_like(x)


def exp(x: Array) -> Scaled:
    return _exp(_pair(np.clip(x, -BEYOND_EXP, BEYOND_EXP)))


def expm1(x: Array) -> Scaled:
    x = np.clip(x, -BEYOND_EXP, BEYOND_EXP)
    k, r, q = _expm1_reduced(_pair(x))
    p = multiply(r, q)
    # 2^k (p + 1 - 2^-k) where k > 0; 2^k (1 + p) - 1 where k < 0; x q, with x's exponent apart, else.
    above = add(p, two_sum(np.ones_like(x), -np.ldexp(1.0, -np.maximum(k, 0))))
    below = add(_scaled_down(add(ONE, p), np.minimum(k, 0)), (-ONE[0], ONE[1]))
    significand, exponent = np.frexp(x)
    near = multiply(_pair(significand), q)
    high, low = (np.where(k > 0, a, np.where(k < 0, b, c)) for a, b, c in zip(above, below, near, strict=True))
    return Scaled(high, low, np.where(k > 0, k, np.where(k < 0, 0, exponent)))


def log(x: Array) -> Scaled:
    significand, exponent = np.frexp(x)
    low = significand < np.sqrt(0.5)
    significand, exponent = np.where(low, 2 * significand, significand), exponent - low
    w = divide(_pair(significand - 1), two_sum(significand, 1.0))
    result = add(_times_ln2(exponent.astype(np.float64)), multiply(multiply(TWO, w), _half_log_ratio(w, 22)))
    return Scaled(*result, np.zeros(x.shape, np.int64))


def sigmoid(x: Array) -> Scaled:
    e = exp(-np.abs(x))
    inverse = divide(_pair(np.ones_like(x)), add(ONE, _scaled_down(e[:2], e.exponent)))
    tail = multiply(e[:2], inverse)
    high, low = (np.where(x < 0, a, b) for a, b in zip(tail, inverse, strict=True))
    return Scaled(high, low, np.where(x < 0, e.exponent, 0))


def tanh(x: Array) -> Scaled:
    a = np.minimum(np.abs(x), BEYOND_EXP)
    t = expm1(-2 * a)
    high, low = divide((-t.high, -t.low), add(TWO, _scaled_down(t[:2], t.exponent)))
    return Scaled(np.copysign(1.0, x) * high, np.copysign(1.0, x) * low, t.exponent)


def softplus(x: Array) -> Scaled:
    e = exp(-np.abs(x))
    w = divide(e[:2], add(TWO, _scaled_down(e[:2], e.exponent)))
    log1p = multiply(multiply(TWO, w), _half_log_ratio(_scaled_down(w, e.exponent), 35))
    high, low = add(_pair(np.maximum(x, 0)), _scaled_down(log1p, e.exponent))
    return Scaled(np.where(x < 0, log1p[0], high), np.where(x < 0, log1p[1], low), np.where(x < 0, e.exponent, 0))


def normal_density(x: Array) -> Scaled:
    x = np.minimum(np.abs(x), BEYOND_NORMAL)
    high, low = two_product(x, x)
    e = _exp((-0.5 * high, -0.5 * low))
    return Scaled(*multiply(e[:2], INVERSE_SQRT_2_PI), e.exponent)


@cache
def _mills_table() -> list[Pair]:
    """Taylor coefficients of Mills' ratio R = tail / density around 0, 1/8, 2/8 ...: R' = a R - 1."""
    rows = []
    with mp.workprec(3 * PRECISION):
        for step in range(int(8 * BEYOND_NORMAL) + 1):
            a = mp.mpf(step) / 8
            terms = [mp.erfc(a / mp.sqrt(2)) * mp.sqrt(mp.pi / 2) * mp.exp(a * a / 2)]
            terms.append(a * terms[0] - 1)
            for n in range(1, 22):
                terms.append((a * terms[n] + terms[n - 1]) / (n + 1))
            rows.append([constant(term) for term in terms])
    return [(highs, lows) for highs, lows in np.moveaxis(np.array(rows), 0, -1)]


def normal_cdf(x: Array) -> Scaled:
    a = np.minimum(np.abs(x), BEYOND_NORMAL)
    step = np.rint(8 * a)
    index = step.astype(np.int64)
    mills = horner(_pair(a - step / 8), [(highs[index], lows[index]) for highs, lows in _mills_table()])
    density = normal_density(a)
    tail = multiply(density[:2], mills)
    rest = add(ONE, tuple(-part for part in _scaled_down(tail, density.exponent)))  # type: ignore[arg-type]
    high, low = (np.where(x > 0, a, b) for a, b in zip(rest, tail, strict=True))
    return Scaled(high, low, np.where(x > 0, 0, density.exponent))


# --- the registries ---

#: By pairs of float64 numbers: finite float64 arrays to `Scaled`.
BY_PAIRS: dict[str, Callable[[Array], Scaled]] = {
    function.__name__: function for function in (exp, expm1, log, sigmoid, tanh, softplus, normal_cdf, normal_density)
}

#: By mpmath, with relative accuracy.
BY_MPMATH: dict[str, Callable[[mp.mpf], mp.mpf]] = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log": mp.log,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
    "softplus": lambda x: max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(x))),
    "normal_cdf": lambda x: mp.erfc(-x / mp.sqrt(2)) / 2,
    "normal_density": mp.npdf,
}

#: By float64 arithmetic: accurate to a few units of float64, which is all that float32 needs.
BY_FLOAT64: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "normal_cdf": scipy.special.ndtr,
    "normal_density": lambda x: np.exp(-0.5 * (x * x)) / np.sqrt(2 * np.pi),
}


def true_value(name: str, x: float) -> mp.mpf:
    """``name`` of a finite x, by mpmath."""
    with mp.workprec(PRECISION):
        beyond = np.inf if name in ("log", "softplus") else BEYOND_EXP
        return +BY_MPMATH[name](mp.mpf(min(max(x, -beyond), beyond)))


# --- errors ---


def error_by_mpmath(name: str, x: float, actual: float, dtype: type[np.floating]) -> float:
    """The error of ``actual`` as ``name`` of a finite ``x``."""
    info = np.finfo(dtype)
    with mp.workprec(PRECISION):
        true = true_value(name, x)
        if abs(true) >= mp.ldexp(1, info.maxexp):
            return 0.0 if actual == mp.sign(true) * mp.inf else np.inf
        if mp.isinf(actual):
            actual = mp.sign(actual) * mp.ldexp(1, info.maxexp)
        binade = mp.frexp(true)[1] - 1 if true else info.minexp
        return float(mp.ldexp(abs(actual - true), int(info.nmant - max(binade, info.minexp))))


def errors_by_pairs(actual: Array, true: Scaled) -> Array:
    """The errors of float64 results."""
    significand, exponent = np.frexp(true.high)
    below_power = (np.abs(significand) == 0.5) & (true.low * significand < 0)
    binade = np.where(true.high == 0, -1022, exponent - 1 - below_power + true.exponent)
    with np.errstate(all="ignore"):
        infinite = np.ldexp(np.sign(actual), 1024 - true.exponent)
        scaled = np.where(np.isinf(actual), infinite, np.ldexp(actual, -true.exponent))
        distance = np.abs((scaled - true.high) - true.low)
        errors = np.ldexp(distance, 52 - np.maximum(binade, -1022) + true.exponent)
    beyond = np.where(actual == np.copysign(np.inf, true.high), 0, np.inf)
    return np.where(binade < 1024, errors, beyond)


def errors_by_float64(actual: NDArray[np.float32], true: Array) -> Array:
    """The errors of float32 results; NaN for NaN has none.

    The true value of a power of two may be a little less, where the spacing is half as wide: these count as less.
    """
    binade = ((true * (1 - 2.0**-53)).view(np.int64) & (0x7FF << 52)).view(np.float64)
    wide = np.clip(actual.astype(np.float64), -(2.0**128), 2.0**128)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(wide - true) / (np.maximum(binade, 2.0**-126) * 2.0**-23)
    beyond = np.abs(true) >= 2.0**128
    errors = np.where(beyond, np.where(actual == np.copysign(np.inf, true), 0, np.inf), errors)
    return np.where(np.isnan(true), np.where(np.isnan(actual), 0, np.inf), errors)
