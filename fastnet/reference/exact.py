"""The arithmetic of fastnet: correctly rounded fma, sums in one order, and elementary functions.

This file is the specification. Every operation is one IEEE operation on float32 or float64
arrays, in the order written; the kernels perform the same ones. What NumPy lacks is fma: it is
built here from operations that it has. `fastnet.reference.blas` has the same functions as one
would write them by hand.

Functions take arrays of one dtype (Python floats on the side are rounded to it) and return new
arrays. Matrices may carry leading axes: a stack of networks is computed like a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf, isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnet import coefficients, contract

__all__ = [
    "affine",
    "back_projection",
    "bias_gradient",
    "exp",
    "expm1",
    "flush",
    "fma",
    "log",
    "matmul",
    "multiply",
    "normal_cdf",
    "normal_density",
    "sigmoid",
    "softplus",
    "sum_in_order",
    "tanh",
    "transpose",
    "weight_gradient",
    "weighted_row_sum",
]

Array: TypeAlias = NDArray[np.floating]

FORMATS = {
    np.dtype(np.float32): contract.FLOAT32_FORMAT,
    np.dtype(np.float64): contract.FLOAT64_FORMAT,
}
COEFFICIENTS = {
    np.dtype(np.float32): coefficients.FLOAT32,
    np.dtype(np.float64): coefficients.FLOAT64,
}

# Veltkamp's constant: it splits a float64 into two halves of at most 26 bits.
_SPLITTER = 2.0**27 + 1.0
# Between these magnitudes of a product no step of the float64 fma overflows or underflows,
# for addends up to _LARGEST_ADDEND and for sums of as many products as fit in memory.
_SMALLEST_PRODUCT = 2.0**-900
_LARGEST_FACTOR = 2.0**900
_LARGEST_ADDEND = 2.0**1000
# Products that `_ordered_sum` prepares at a time, to bound its memory.
_PRODUCTS_AT_ONCE = 1 << 16


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and its rounding error (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b rounded, and its rounding error (Dekker 1971)."""
    product = a * b
    shifted = a * _SPLITTER
    a_high = shifted - (shifted - a)
    a_low = a - a_high
    shifted = b * _SPLITTER
    b_high = shifted - (shifted - b)
    b_low = b - b_high
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


def _round_to_odd(total: Array, error: Array) -> Array:
    """The sum of a float64 and its rounding error, rounded to odd instead of to nearest.

    An inexact total is truncated (one bit pattern down if it was rounded away from zero), and its
    last bit is set.
    """
    negative = error < 0
    inexact = negative | (error > 0)
    was_rounded_up = inexact & (negative ^ (total < 0))
    return ((total.view(np.int64) - was_rounded_up) | inexact).view(np.float64)


def _add_product(product: Array, error: Array, c: Array) -> Array:
    """product + error + c rounded once to float64 (Boldo and Melquiond 2008, figure 1)."""
    low, low_error = _two_sum(c, error)
    high, high_error = _two_sum(product, low)
    result = high + _round_to_odd(*_two_sum(low_error, high_error))
    # An exact zero has the sign that a plain sum would give it.
    return np.where(result == 0, product + c, result)


def _fma_of_fractions(a: float, b: float, c: float) -> float:
    """Fma of three Python floats, by rational numbers."""
    if not (isfinite(a) and isfinite(b)) or a == 0 or b == 0:
        return a * b + c
    if not isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return 0.0
    try:
        return float(exact) if exact > 0 else -float(-exact)
    except OverflowError:
        return inf if exact > 0 else -inf


def _in_easy_range(a: Array, b: Array, product: Array, c: Array) -> NDArray[np.bool_]:
    """Where the float64 fma needs no rational numbers."""
    factors = (np.abs(a) <= _LARGEST_FACTOR) & (np.abs(b) <= _LARGEST_FACTOR)
    magnitude = np.abs(product)
    products = ((magnitude >= _SMALLEST_PRODUCT) & (magnitude <= _LARGEST_FACTOR)) | (a == 0) | (b == 0)
    return factors & products & (np.abs(c) <= _LARGEST_ADDEND)


def fma(a: Array, b: Array | float, c: Array | float) -> Array:
    """a * b + c with one rounding, element by element.

    float32 goes through float64, where the product is exact and the sum is rounded to odd, so that
    the second rounding is innocent; float64 goes through error-free transformations, and through
    rational numbers where these would overflow or underflow.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([1 + 2.0**-52])
    >>> bool(fma(a, a, -1.0)[0] == 2.0**-51 + 2.0**-104)
    True
    """
    b, c = np.asarray(b, a.dtype), np.asarray(c, a.dtype)
    with np.errstate(all="ignore"):
        if a.dtype == np.float32:
            wide = _two_sum(a.astype(np.float64) * b, c.astype(np.float64))
            return _round_to_odd(*wide).astype(np.float32)
        product, error = _two_product(a, b)
        result = _add_product(product, error, c)
        easy = _in_easy_range(a, b, product, c)
        if not easy.all():
            hard = ~easy
            operands = (np.broadcast_to(operand, hard.shape)[hard] for operand in (a, b, c))
            result[hard] = [_fma_of_fractions(*map(float, triple)) for triple in zip(*operands, strict=True)]
        return result


def flush(x: Array) -> Array:
    """x, or +0 where its magnitude is below the threshold of its dtype (design, section 2.7)."""
    return np.where(np.abs(x) < FORMATS[x.dtype].flush_below, x.dtype.type(0), x)


def _ordered_sum(a: Array, b: Array, start: Array) -> Array:
    """start + a @ b, one accumulator for each element of the result, one fma for each term, in order.

    It is a loop of `fma` over the terms, whose products are prepared many at a time.
    """
    n_axes = max(a.ndim, b.ndim)
    a = a.reshape((1,) * (n_axes - a.ndim) + a.shape)
    b = b.reshape((1,) * (n_axes - b.ndim) + b.shape)
    a_terms, b_terms = np.moveaxis(a, -1, 0)[..., None], np.moveaxis(b, -2, 0)[..., None, :]
    total = start
    at_once = max(1, _PRODUCTS_AT_ONCE // max(1, a[..., :1].size * b.shape[-1]))
    for first in range(0, len(a_terms), at_once):
        left, right = a_terms[first : first + at_once], b_terms[first : first + at_once]
        with np.errstate(all="ignore"):
            total = _add_products(left, right, total)
    return total


def _add_products(left: Array, right: Array, total: Array) -> Array:
    """``total`` plus the products of factors that lie along the first axis, in order."""
    if left.dtype == np.float32:
        for wide in left.astype(np.float64) * right:
            total = _round_to_odd(*_two_sum(wide, total.astype(np.float64))).astype(np.float32)
        return total
    products, errors = _two_product(left, right)
    if not _in_easy_range(left, right, products, total).all():
        for a, b in zip(left, right, strict=True):
            total = fma(a, b, total)
        return total
    for product, error in zip(products, errors, strict=True):
        total = _add_product(product, error, total)
    return total


def matmul(a: Array, b: Array) -> Array:
    """a @ b, every sum from +0 over the inner index in order."""
    if b.shape[-2] != a.shape[-1]:
        raise ValueError(f"b must have {a.shape[-1]} rows, one for each column of a; got {b.shape[-2]}")
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _ordered_sum(a, b, np.zeros((*stack, a.shape[-2], b.shape[-1]), a.dtype))


def affine(x: Array, weights: Array, bias: Array | None) -> Array:
    """x @ weights + bias, every sum from the bias (or +0) over the inputs in order."""
    (n_inputs, n_outputs), n_columns = weights.shape[-2:], x.shape[-1]
    if n_inputs != n_columns:
        raise ValueError(f"weights must have {n_columns} rows, one for each column of x; got {n_inputs}")
    if bias is None:
        return matmul(x, weights)
    n_biases = bias.shape[-1]
    if n_biases != n_outputs:
        raise ValueError(f"bias must have {n_outputs} elements, one for each column of weights; got {n_biases}")
    start = np.broadcast_to(bias[..., None, :], (*bias.shape[:-1], x.shape[-2], weights.shape[-1]))
    return _ordered_sum(x, weights, start)


def back_projection(delta: Array, weights: Array) -> Array:
    """delta @ weights.T, every sum from +0 over the outputs in order."""
    n_outputs, n_columns = weights.shape[-1], delta.shape[-1]
    if n_outputs != n_columns:
        raise ValueError(f"weights must have {n_columns} columns, one for each column of delta; got {n_outputs}")
    return matmul(delta, np.swapaxes(weights, -1, -2))


def transpose(a: Array) -> Array:
    """The transposed matrix, C-contiguous."""
    return np.ascontiguousarray(np.swapaxes(a, -1, -2))


def multiply(a: Array, b: Array) -> Array:
    """a * b, element by element, for matrices of one shape."""
    if a.shape[-2:] != b.shape[-2:]:
        raise ValueError(f"a and b must be of one shape; got {a.shape[-2:]} and {b.shape[-2:]}")
    return a * b


def check_shapes(first: Array, second: Array, third: Array) -> None:
    """Refuse matrices of different shapes; NumPy would stretch one of them. Leading axes may differ."""
    shapes = [matrix.shape[-2:] for matrix in (first, second, third)]
    if len(set(shapes)) > 1:
        raise ValueError("matrices must be of one shape; got {}, {} and {}".format(*shapes))


def check_dtype(name: str, array: Array, dtype: np.dtype[np.floating]) -> None:
    """Refuse an array of another dtype, as kernels do when they are compiled."""
    if array.dtype != dtype:
        raise TypeError(f"{name} must be an array of {dtype}; got one of {array.dtype}")


def _row_blocks(n_rows: int) -> Sequence[slice]:
    return [slice(low, low + contract.BLOCK_ROWS) for low in range(0, max(n_rows, 1), contract.BLOCK_ROWS)]


def weight_gradient(x: Array, delta: Array) -> Array:
    """x.T @ delta over the rows in order: a sum from +0 for each block of 256, then the blocks in order."""
    n_samples, n_rows = x.shape[-2], delta.shape[-2]
    if n_rows != n_samples:
        raise ValueError(f"delta must have {n_samples} rows, one for each row of x; got {n_rows}")
    sums = [matmul(np.swapaxes(x[..., rows, :], -1, -2), delta[..., rows, :]) for rows in _row_blocks(x.shape[-2])]
    return _add_in_order(sums)


def bias_gradient(delta: Array) -> Array:
    """The sum of delta's rows, in the blocks of `weight_gradient`."""
    return weighted_row_sum(delta, np.ones(delta.shape[-2], delta.dtype))


def weighted_row_sum(values: Array, weights: Array) -> Array:
    """The rows of ``values`` times their weights, summed in the blocks of `weight_gradient`."""
    if len(weights) != values.shape[-2]:
        raise ValueError(
            f"weights must have {values.shape[-2]} elements, one for each row of values; got {len(weights)}"
        )
    column = np.broadcast_to(weights[:, None], (*values.shape[:-2], len(weights), 1))
    return weight_gradient(column, values)[..., 0, :]


def _add_in_order(parts: Sequence[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def sum_in_order(values: Array) -> Array:
    """The sum over the last axis, from +0, in order; that axis is kept with length 1."""
    total = np.zeros((*values.shape[:-1], 1), values.dtype)
    for index in range(values.shape[-1]):
        total = total + values[..., index, None]
    return total


def _polynomial(x: Array, terms: Sequence[float]) -> Array:
    """Estrin's scheme: neighbours are joined by fma, then the powers x, x^2, x^4 ... join the pairs."""
    level = np.array(terms, x.dtype).reshape(-1, *[1] * x.ndim)
    while len(level) > 1:
        joined = fma(x, level[1::2], level[: len(level) // 2 * 2 : 2])
        unpaired = np.broadcast_to(level[-1:], (len(level) % 2, *x.shape))
        level = np.concatenate([joined, unpaired])
        if len(level) > 1:
            x = x * x
    return level[0]


def _integers(x: Array) -> NDArray[np.integer]:
    """The bits of x."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def _at_least(low: float, x: Array) -> Array:
    """The larger of the two; NaN stays NaN."""
    return np.where(x < low, x.dtype.type(low), x)


def _at_most(high: float, x: Array) -> Array:
    """The smaller of the two; NaN stays NaN."""
    return np.where(x > high, x.dtype.type(high), x)


def _reduce(x: Array, sign: float = 1.0) -> tuple[Array, Array]:
    """(t, r) with exp(sign x) = 2^k exp(r), where t is k + round_to_integer and |r| <= log(2) / 2.

    Adding 1.5 * 2^52 leaves the nearest integer in the low bits (Cody and Waite's reduction, with
    log(2) in two parts; the first product is exact).
    """
    c, magic = COEFFICIENTS[x.dtype], FORMATS[x.dtype].round_to_integer
    t = fma(x, sign * c.log2_e, magic)
    k = t - magic
    r = fma(k, -c.ln2_high, x if sign > 0 else -x)
    return t, fma(k, -c.ln2_low, r)


def _expm1_of_reduced(r: Array) -> Array:
    """exp(r) - 1 for the r of `_reduce`."""
    return fma(r * r, _polynomial(r, COEFFICIENTS[r.dtype].exp), r)


def _power_of_two(exponent: NDArray[np.integer], dtype: np.dtype) -> Array:
    """2^exponent, from the low bits of ``exponent``; it must be that of a normal number."""
    f = FORMATS[dtype]
    return ((exponent + f.bias) << f.significand_bits).view(dtype)


def _exp_of_negative(x: Array) -> Array:
    """exp of x <= 0, one step shorter than `exp`."""
    f = FORMATS[x.dtype]
    t, r = _reduce(_at_least(f.exp_low, x))
    p = _expm1_of_reduced(r)
    s = _power_of_two(_integers(t) + f.sigmoid_shift, x.dtype)
    return fma(s, p, s) * 2.0**-f.sigmoid_shift


def exp(x: Array) -> Array:
    """e^x: 2^k exp(r), where exp(r) = (1 + r) + r^2 q(r) with the rounding error of 1 + r put back.

    The power of two is applied in two halves, so that overflow and gradual underflow come out right.

    Examples
    --------
    >>> import numpy as np
    >>> exp(np.array([0.0, 1.0]))
    array([1.        , 2.71828183])
    """
    f, c = FORMATS[x.dtype], COEFFICIENTS[x.dtype]
    with np.errstate(all="ignore"):
        x = _at_most(f.exp_high, _at_least(f.exp_low, x))
        t, r = _reduce(x)
        high = r + 1.0
        low = r - (high - 1.0)
        significand = high + fma(r * r, _polynomial(r, c.exp), low)
        half = _integers(fma(x, 0.5 * c.log2_e, f.round_to_integer))
        first = _power_of_two(half, x.dtype)
        second = _power_of_two(_integers(t) - half, x.dtype)
        return (significand * first) * second


def expm1(x: Array) -> Array:
    """e^x - 1 = 2 (2^(k-1) p + (2^(k-1) - 1/2)) with p = exp(r) - 1."""
    f = FORMATS[x.dtype]
    with np.errstate(all="ignore"):
        t, r = _reduce(_at_most(f.exp_high, _at_least(-f.saturation, x)))
        p = _expm1_of_reduced(r)
        s = _power_of_two(_integers(t) - 1, x.dtype)
        return fma(s, p, s - 0.5) * 2.0


def log(x: Array) -> Array:
    """Natural logarithm, by fdlibm's decomposition (Ng 1993).

    x = 2^k (1 + u), s = u / (2 + u): log(1 + u) = u - u^2/2 + s (u^2/2 + R(s^2)).
    """
    f, c = FORMATS[x.dtype], COEFFICIENTS[x.dtype]
    with np.errstate(all="ignore"):
        tiny = x < f.smallest_normal
        lifted = np.where(tiny, x * 2.0**f.subnormal_shift, x)
        shifted = _integers(lifted) + ((f.bias << f.significand_bits) - f.sqrt_half_bits)
        k = (shifted >> f.significand_bits).astype(x.dtype) - f.bias
        k = np.where(tiny, k - f.subnormal_shift, k)
        u = ((shifted & ((1 << f.significand_bits) - 1)) + f.sqrt_half_bits).view(x.dtype) - 1.0
        s = u / (u + 2.0)
        z = s * s
        half_square = (u * u) * 0.5
        tail = fma(s, fma(z, _polynomial(z, c.log), half_square), k * c.ln2_low)
        result = fma(k, c.ln2_high, u - (half_square - tail))
        result = np.where(x == 0, x.dtype.type(-np.inf), result)
        result = np.where(x < 0, x.dtype.type(np.nan), result)
        return np.where(x < np.inf, result, x + x)


def _log1p(e: Array) -> Array:
    """log(1 + e) for 0 <= e <= 1: the formula of `log` with u = e."""
    s = e / (e + 2.0)
    z = s * s
    half_square = (e * e) * 0.5
    return e - fma(-s, fma(z, _polynomial(z, COEFFICIENTS[e.dtype].log1p), half_square), half_square)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) as 2^-k / ((2^-k + 1) + p), where e^-x = 2^k (1 + p).

    Nothing overflows, the far negative tail keeps its relative accuracy, and one division is all.
    What 2^-k + 1 loses where 2^-k is tiny joins p; without it the error reaches 2.5 ULP.
    """
    f = FORMATS[x.dtype]
    with np.errstate(all="ignore"):
        t, r = _reduce(_at_most(f.saturation, _at_least(f.exp_low, x)), -1.0)
        inverse = _power_of_two(f.sigmoid_shift - _integers(t), x.dtype) * 2.0**-f.sigmoid_shift
        above = inverse + 1.0
        lost = inverse - (above - 1.0)
        p = fma(r * r, _polynomial(r, COEFFICIENTS[x.dtype].exp), r + lost)
        return inverse / (above + p)


def tanh(x: Array) -> Array:
    """(1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x, where e^-2|x| = 2^k (1 + p)."""
    f = FORMATS[x.dtype]
    with np.errstate(all="ignore"):
        t, r = _reduce(_at_least(-f.saturation, np.abs(x) * -2.0))
        p = _expm1_of_reduced(r)
        s = _power_of_two(_integers(t), x.dtype)
        return np.copysign(fma(s, p, s - 1.0) / fma(s, p, s + 1.0), x)


def softplus(x: Array) -> Array:
    """log(1 + e^x) as max(x, 0) + log(1 + e^-|x|)."""
    with np.errstate(all="ignore"):
        positive = np.where(x < 0, x.dtype.type(0), x)
        return positive + _log1p(_exp_of_negative(-np.abs(x)))


def normal_density(x: Array) -> Array:
    """e^(-x^2 / 2) / sqrt(2 pi)."""
    with np.errstate(all="ignore"):
        return _exp_of_half_square(x) * COEFFICIENTS[x.dtype].inverse_sqrt_2_pi


def normal_cdf(x: Array) -> Array:
    """The normal distribution function, from its tail e^(-a^2/2) P((a - 4) / (a + 4)) / (a + 4), a = |x|.

    The folded argument is that of Shepherd and Laframboise (1981).
    """
    c = COEFFICIENTS[x.dtype]
    with np.errstate(all="ignore"):
        a = _at_most(64.0, np.abs(x))
        inverse = 1.0 / (a + c.normal_fold)
        folded = (a - c.normal_fold) * inverse
        tail = _exp_of_half_square(x) * (_polynomial(folded, c.normal_tail) * inverse)
        return np.where(x > 0, 1.0 - tail, tail)


def _exp_of_half_square(x: Array) -> Array:
    """exp(-x^2 / 2), with the rounding error of the square put back."""
    x = _at_most(64.0, np.abs(x))
    square = x * x
    rest = fma(x, x, -square)
    e = _exp_of_negative(square * -0.5)
    return fma(e, rest * -0.5, e)
