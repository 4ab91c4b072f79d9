"""Elementary functions as staged formulas: the sequences of `fastnet.reference.exact`.

Each formula works lane by lane, on vectors and on scalars alike; what a step is for is said
in the reference. The public functions on arrays are at the end of the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet import coefficients, contract
from fastnet.kernels.simd import (
    Lanes,
    absolute,
    copysign,
    fma,
    has_scaling,
    is_narrow,
    scale_by_power,
    select,
    zero_below,
)


def format_of(x: Lanes) -> contract.Format:
    """The format of x's lanes."""
    return contract.FLOAT32_FORMAT if x.width == 32 else contract.FLOAT64_FORMAT


def coefficients_of(x: Lanes) -> coefficients.Coefficients:
    """The coefficients for x's lanes."""
    return coefficients.FLOAT32 if x.width == 32 else coefficients.FLOAT64


def polynomial(x: Lanes, terms: Sequence[float]) -> Lanes:
    """Estrin's scheme: neighbours are joined by fma, then the powers x, x^2, x^4 ... join the pairs."""
    level: list[Lanes | float] = list(terms)
    while len(level) > 1:
        joined: list[Lanes | float] = [fma(x, level[i + 1], level[i]) for i in range(0, len(level) - 1, 2)]
        level = joined + ([level[-1]] if len(level) % 2 else [])
        if len(level) > 1:
            x = x * x
    assert isinstance(level[0], Lanes)
    return level[0]


def at_least(low: float, x: Lanes) -> Lanes:
    """The larger of the two; NaN stays NaN."""
    return select(x < low, low, x)


def at_most(high: float, x: Lanes) -> Lanes:
    """The smaller of the two; NaN stays NaN."""
    return select(x > high, high, x)


def flush(x: Lanes) -> Lanes:
    """x, or +0 where its magnitude is below the format's threshold."""
    return zero_below(x, format_of(x).flush_below)


def _reduce(x: Lanes, sign: float = 1.0) -> tuple[Lanes, Lanes, Lanes]:
    """(t, k, r) with exp(sign x) = 2^k exp(r), where t is k + round_to_integer and |r| <= log(2) / 2."""
    c, magic = coefficients_of(x), format_of(x).round_to_integer
    t = fma(x, sign * c.log2_e, magic)
    k = t - magic
    r = fma(k, -c.ln2_high, x if sign > 0 else -x)
    return t, k, fma(k, -c.ln2_low, r)


def _expm1_of_reduced(r: Lanes) -> Lanes:
    """exp(r) - 1 for the r of `_reduce`."""
    return fma(r * r, polynomial(r, coefficients_of(r).exp), r)


def _power_by_bits(t: Lanes, shift: int = 0) -> Lanes:
    """2^(k + shift) for a t of `_reduce`; the exponent must be that of a normal number."""
    f = format_of(t)
    return (t.bits().integer_add(f.bias + shift) << f.significand_bits).floats()


def _power(t: Lanes, k: Lanes, shift: int = 0) -> Lanes:
    """`_power_by_bits`; ports of multiplications have more to do than others, and shifts are on one of them."""
    if has_scaling(t):
        return scale_by_power(Lanes(t.builder, t.constant(2.0**shift)), k)
    return _power_by_bits(t, shift)


def _exp_of_negative(x: Lanes) -> Lanes:
    """exp of x <= 0."""
    f = format_of(x)
    t, k, r = _reduce(at_least(f.exp_low, x))
    p = _expm1_of_reduced(r)
    if has_scaling(x):
        return scale_by_power(p + 1.0, k)
    s = _power_by_bits(t, f.sigmoid_shift)
    return fma(s, p, s) * 2.0**-f.sigmoid_shift


def exp(x: Lanes) -> Lanes:
    f, c = format_of(x), coefficients_of(x)
    x = at_most(f.exp_high, at_least(f.exp_low, x))
    t, k, r = _reduce(x)
    high = r + 1.0
    low = r - (high - 1.0)
    significand = high + fma(r * r, polynomial(r, c.exp), low)
    if has_scaling(x):
        # Of the two multiplications below only one rounds, too.
        return scale_by_power(significand, k)
    half = fma(x, 0.5 * c.log2_e, f.round_to_integer)
    first = _power_by_bits(half)
    second = (t.bits().integer_sub(half.bits()).integer_add(f.bias) << f.significand_bits).floats()
    return (significand * first) * second


def expm1(x: Lanes) -> Lanes:
    f = format_of(x)
    t, k, r = _reduce(at_most(f.exp_high, at_least(-f.saturation, x)))
    p = _expm1_of_reduced(r)
    s = _power(t, k, -1)
    return fma(s, p, s - 0.5) * 2.0


def log(x: Lanes) -> Lanes:
    f, c = format_of(x), coefficients_of(x)
    tiny = x < f.smallest_normal
    lifted = select(tiny, x * 2.0**f.subnormal_shift, x)
    offset = (f.bias << f.significand_bits) - f.sqrt_half_bits
    shifted = lifted.bits().integer_add(offset)
    exponent_field = shifted >> f.significand_bits
    significand = (shifted & ((1 << f.significand_bits) - 1)).integer_add(f.sqrt_half_bits).floats()
    magic = 2.0**f.significand_bits
    k = (exponent_field | x.constant_bits(magic)).floats() - (magic + f.bias)
    k = select(tiny, k - f.subnormal_shift, k)
    u = significand - 1.0
    s = u / (u + 2.0)
    z = s * s
    half_square = (u * u) * 0.5
    tail = fma(s, fma(z, polynomial(z, c.log), half_square), k * c.ln2_low)
    result = fma(k, c.ln2_high, u - (half_square - tail))
    result = select(x.equals(0.0), -float("inf"), result)
    result = select(x < 0.0, float("nan"), result)
    return select(x < float("inf"), result, x + x)


def _log1p(e: Lanes) -> Lanes:
    """log(1 + e) for 0 <= e <= 1."""
    s = e / (e + 2.0)
    z = s * s
    half_square = (e * e) * 0.5
    return e - fma(-s, fma(z, polynomial(z, coefficients_of(e).log1p), half_square), half_square)


def sigmoid(x: Lanes) -> Lanes:
    f = format_of(x)
    # To choose last is shorter for who waits for it, and 4 instructions more: arrays would take 1.05 times as long.
    chooses_last = is_narrow(x)
    t, k, r = _reduce(x if chooses_last else at_most(f.saturation, at_least(f.exp_low, x)), -1.0)
    inverse = _inverse_power(t, k)
    above = inverse + 1.0
    lost = inverse - (above - 1.0)
    p = fma(r * r, polynomial(r, coefficients_of(r).exp), r + lost)
    result = inverse / (above + p)
    return select(x > f.saturation, 1.0, select(x < f.exp_low, 0.0, result)) if chooses_last else result


def _inverse_power(t: Lanes, k: Lanes) -> Lanes:
    """2^-k for t and k of `_reduce`, which may be subnormal."""
    f = format_of(t)
    if has_scaling(t):
        return scale_by_power(Lanes(t.builder, t.constant(1.0)), -k)
    difference = Lanes(t.builder, t.bits().constant(f.bias + f.sigmoid_shift)).integer_sub(t.bits())
    return (difference << f.significand_bits).floats() * 2.0**-f.sigmoid_shift


def tanh(x: Lanes) -> Lanes:
    f = format_of(x)
    half = -absolute(x)
    # An addition in place of a multiplication, which has the busier ports.
    t, k, r = _reduce(at_least(-f.saturation, half + half))
    p = _expm1_of_reduced(r)
    s = _power(t, k)
    return copysign(fma(s, p, s - 1.0) / fma(s, p, s + 1.0), x)


def softplus(x: Lanes) -> Lanes:
    positive = select(x < 0.0, 0.0, x)
    return positive + _log1p(_exp_of_negative(-absolute(x)))


def normal_density(x: Lanes) -> Lanes:
    return _exp_of_half_square(x) * coefficients_of(x).inverse_sqrt_2_pi


def normal_cdf(x: Lanes) -> Lanes:
    c = coefficients_of(x)
    a = at_most(64.0, absolute(x))
    inverse = 1.0 / (a + c.normal_fold)
    folded = (a - c.normal_fold) * inverse
    tail = _exp_of_half_square(x) * (polynomial(folded, c.normal_tail) * inverse)
    return select(x > 0.0, 1.0 - tail, tail)


def _exp_of_half_square(x: Lanes) -> Lanes:
    """exp(-x^2 / 2), with the rounding error of the square put back."""
    x = at_most(64.0, absolute(x))
    square = x * x
    rest = fma(x, x, -square)
    e = _exp_of_negative(square * -0.5)
    return fma(e, rest * -0.5, e)
