"""`exact.fma` against the fma of the C library, in whose one rounding the whole specification trusts."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from fastnet.reference import exact
from fastnet.testing.cases import edge_values
from tests.support import assert_same_bits, bit_patterns, neighbours

Array = NDArray[np.floating]
Triple = tuple[Array, Array, Array]

DTYPES: list[type[np.floating]] = [np.float32, np.float64]
N = 10_000

_LIBM = ctypes.CDLL(ctypes.util.find_library("m") or "ucrtbase")


def _c_function(name: str, kind: type) -> Any:
    function = getattr(_LIBM, name)
    function.argtypes, function.restype = [kind] * 3, kind
    return function


FMA = {
    np.dtype(np.float32): _c_function("fmaf", ctypes.c_float),
    np.dtype(np.float64): _c_function("fma", ctypes.c_double),
}


def libm_fma(a: ArrayLike, b: ArrayLike, c: ArrayLike, dtype: type[np.floating]) -> Array:
    """a * b + c by the C library, element by element."""
    arrays = np.broadcast_arrays(*(np.asarray(operand, dtype) for operand in (a, b, c)))
    flat = zip(*(operand.ravel().tolist() for operand in arrays), strict=True)
    results: Array = np.array([FMA[np.dtype(dtype)](*triple) for triple in flat], dtype)
    return results.reshape(arrays[0].shape)


def _in_binade(dtype: type[np.floating], rng: np.random.Generator, exponent: ArrayLike = 0) -> Array:
    """Random numbers in [1, 2) with random signs, times 2^exponent."""
    values = rng.integers(0, 2 ** np.finfo(dtype).nmant, N) * float(np.finfo(dtype).eps) + 1
    return np.ldexp(rng.choice([-1, 1], N) * values, exponent).astype(dtype)


def random_bits(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    a, b, c = (bit_patterns(dtype, N, int(seed)) for seed in rng.integers(0, 2**31, 3))
    return a, b, c


def alike(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """Product and addend overlap in all possible ways."""
    reach = 2 * np.finfo(dtype).nmant + 6
    return _in_binade(dtype, rng), _in_binade(dtype, rng), _in_binade(dtype, rng, rng.integers(-reach, reach, N))


def cancelling(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """The addend is the negative product up to a few units in the last place: the product's error decides."""
    a, b = _in_binade(dtype, rng), _in_binade(dtype, rng)
    c = -(a * b)
    return a, b, c + rng.integers(-2, 3, N).astype(dtype) * np.spacing(c)


def cancelling_small(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """The same where the product's error comes near the smallest numbers, or below them."""
    info = np.finfo(dtype)
    exponent = info.minexp + rng.integers(0, 3 * info.nmant, N)
    a, b = _in_binade(dtype, rng, exponent // 2), _in_binade(dtype, rng, exponent - exponent // 2)
    c = -(a * b)
    return a, b, c + rng.integers(-2, 3, N).astype(dtype) * np.spacing(c)


def ties(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """The product is half a unit in the last place of the addend: exactly, or up to 2^-104 of it (float32: 2^-46)."""
    half_ulp = float(np.finfo(dtype).epsneg)
    above, below = np.nextafter(dtype(1), dtype(2)), np.nextafter(dtype(1), dtype(0))
    a = rng.choice(np.array([1, above, below], dtype), N)
    b = rng.choice(np.array([1, above, below], dtype), N) * dtype(half_ulp) * rng.choice([-1, 1], N).astype(dtype)
    return a, b, _in_binade(dtype, rng)


def subnormal(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """Products and sums around the smallest numbers, down to zero."""
    info = np.finfo(dtype)
    low = info.minexp - info.nmant
    first = rng.integers(low // 2, 0, N)
    second = rng.integers(low - 3, low + 2 * info.nmant, N) - first
    a, b = _in_binade(dtype, rng, first), _in_binade(dtype, rng, np.maximum(second, info.minexp))
    units = rng.integers(-(2**info.nmant), 2**info.nmant, N) >> rng.integers(0, info.nmant + 1, N)
    return a, b, np.ldexp(units.astype(dtype), low).astype(dtype)


def subnormal_ties(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """Odd multiples of half the smallest number, with and without a little more."""
    info = np.finfo(dtype)
    low = info.minexp - info.nmant
    half = dtype(2.0 ** (low // 2))
    odd = (2 * rng.integers(0, 100, N) + 1).astype(dtype)
    a = odd * dtype(2.0 ** (low - low // 2 - 1)) * (1 + dtype(info.eps) * rng.integers(-1, 2, N).astype(dtype))
    return a, np.full(N, half), np.ldexp(rng.integers(-100, 100, N).astype(dtype), low).astype(dtype)


def huge(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """Products and sums around the largest number, among them sums that come back from beyond it."""
    info = np.finfo(dtype)
    first = rng.integers(0, info.maxexp, N)
    second = info.maxexp - first - rng.integers(-2, 3, N)
    a, b = _in_binade(dtype, rng, first), _in_binade(dtype, rng, np.minimum(second, info.maxexp - 1))
    return a, b, _in_binade(dtype, rng, info.maxexp - rng.integers(1, 3, N))


def at_overflow(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """The largest number plus about half a unit in its last place, where rounding decides on infinity."""
    info = np.finfo(dtype)
    a, b, _ = ties(dtype, rng)
    return a, np.ldexp(b, info.maxexp - 1), rng.choice(np.array([info.max, -info.max]), N)


def edges(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """All triples of edge values: zeros of both signs, infinities, NaN, the borders of the format."""
    values = edge_values(dtype)
    a, b, c = (grid.ravel() for grid in np.meshgrid(values, values, values))
    return a, b, c


def borders_of_easy_range(dtype: type[np.floating], rng: np.random.Generator) -> Triple:
    """Around the magnitudes where float64's fma changes to rational numbers."""
    powers = np.array([-1074.0, -1000, -970, -901, -900, -899, -450, 0, 450, 899, 900, 901, 999, 1000, 1001, 1023])
    values = neighbours(np.ldexp(1.0, powers[np.abs(powers) <= np.finfo(dtype).maxexp].astype(int)), dtype, 2)
    a, b, c = (rng.choice(values, N) for _ in range(3))
    return a, b, c * rng.choice(np.array([-1, 1], dtype), N)


FAMILIES = [
    random_bits,
    alike,
    cancelling,
    cancelling_small,
    ties,
    subnormal,
    subnormal_ties,
    huge,
    at_overflow,
    edges,
    borders_of_easy_range,
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_as_libm(dtype: type[np.floating], family: Callable[..., Triple]) -> None:
    with np.errstate(all="ignore"):
        a, b, c = family(dtype, np.random.default_rng(1))
    assert_same_bits(exact.fma(a, b, c), libm_fma(a, b, c, dtype))


@pytest.mark.skipif(not hasattr(math, "fma"), reason="math.fma came with Python 3.13")
def test_same_bits_as_python() -> None:
    a, b, c = cancelling(np.float64, np.random.default_rng(2))
    desired = [math.fma(*triple) for triple in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]  # type: ignore[attr-defined]
    assert_same_bits(exact.fma(a, b, c), np.array(desired))


def test_families_reach_what_they_are_for() -> None:
    """Each special family has cases where one rounding and two differ, or where its border is crossed."""
    for dtype in DTYPES:
        info = np.finfo(dtype)
        with np.errstate(all="ignore"):
            for family in (alike, cancelling, cancelling_small, ties, subnormal):
                a, b, c = family(dtype, np.random.default_rng(1))
                assert (exact.fma(a, b, c) != a * b + c).sum() > N // 100, family.__name__
            a, b, c = huge(dtype, np.random.default_rng(1))
            assert (np.isinf(a * b) & np.isfinite(exact.fma(a, b, c))).sum() > N // 100
            for family in (subnormal, subnormal_ties):
                result = exact.fma(*family(dtype, np.random.default_rng(1)))
                assert ((np.abs(result) < info.smallest_normal) & (result != 0)).sum() > N // 10
            result = exact.fma(*at_overflow(dtype, np.random.default_rng(1)))
            assert 0 < np.isinf(result).sum() < N


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcasting(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(3)
    a, b, c = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 1, 3), (5, 1), (2, 1, 1, 1)))
    actual = exact.fma(a, b, c)
    assert actual.shape == (2, 4, 5, 3)
    assert_same_bits(actual, libm_fma(a, b, c, dtype))
    with np.errstate(over="ignore"):
        extreme = c * np.finfo(dtype).max
    assert_same_bits(exact.fma(a, b, extreme), libm_fma(a, b, extreme, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x", [0.1, 1e-30, 2.0**-900])
def test_python_floats_are_rounded_to_the_dtype(dtype: type[np.floating], x: float) -> None:
    a = np.random.default_rng(4).standard_normal(1000).astype(dtype)
    actual = exact.fma(a, x, -1 / 3)
    assert_same_bits(actual, libm_fma(a, np.full(1000, x, dtype), np.full(1000, -1 / 3, dtype), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_stay_as_they_are(dtype: type[np.floating]) -> None:
    a, b, c = random_bits(dtype, np.random.default_rng(5))
    copies = [operand.copy() for operand in (a, b, c)]
    exact.fma(a, b, c)
    for operand, copy in zip((a, b, c), copies, strict=True):
        assert_same_bits(operand, copy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 2.0**-70, 2.0**-500])
def test_matmul_is_one_fma_a_term(dtype: type[np.floating], scale: float) -> None:
    """matmul shares the products' error terms among its sums; the bits are those of fma after fma."""
    rng = np.random.default_rng(6)
    a, b = ((rng.standard_normal(shape) * scale).astype(dtype) for shape in ((3, 40), (40, 5)))
    desired = np.zeros((3, 5), dtype)
    for term in range(40):
        desired = libm_fma(a[:, term, None], b[term], desired, dtype)
    assert_same_bits(exact.matmul(a, b), desired)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_any_operands(data: st.DataObject, dtype: type[np.floating]) -> None:
    elements = st.floats(width=32 if dtype is np.float32 else 64)
    a, b, c = (data.draw(hnp.arrays(dtype, 8, elements=elements)) for _ in range(3))
    assert_same_bits(exact.fma(a, b, c), libm_fma(a, b, c, dtype))
