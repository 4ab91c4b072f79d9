"""The elementary functions against true values, and the table of their errors against both."""

from __future__ import annotations

from functools import cache

import mpmath as mp
import numpy as np
import pytest
from numpy.typing import NDArray

from fastnet.reference import exact
from fastnet.testing.cases import edge_values
from tests.support import bit_patterns, neighbours
from tools import accuracy, true_values

FUNCTIONS = list(accuracy.DOMAINS)
TABLE = accuracy.read_table()
ROW_IDS = [f"{row.function}-{row.dtype}" for row in TABLE]
# The table's errors have four decimals.
HALF_DIGIT = 0.5e-4

inf, nan = np.inf, np.nan


@cache
def sample(name: str) -> NDArray[np.float64]:
    """The sample that is part of every sweep."""
    return accuracy.float64_inputs(name, accuracy.SAMPLE, seed=0)


@cache
def true_sample(name: str) -> list[mp.mpf]:
    return [true_values.true_value(name, x) for x in sample(name).tolist()]


def within(name: str, x: NDArray[np.float64], dtype: type[np.floating]) -> NDArray[np.floating]:
    """Those of x that ``dtype`` holds and ``name`` is defined for."""
    x = x[np.abs(x) <= np.finfo(dtype).max].astype(dtype)
    return x[x > 0] if name == "log" else x


def edges(name: str, dtype: type[np.floating]) -> NDArray[np.floating]:
    """Edge values and the numbers around the borders of the range, inside the function's domain."""
    info, domain = np.finfo(dtype), accuracy.DOMAINS[name]
    exponents = np.array([info.maxexp, info.minexp, info.minexp - info.nmant, info.minexp - info.nmant - 1, -1, 1])
    borders = np.concatenate([np.log(2) * exponents, domain.border(2.0 * exponents), domain[:2]])
    near = neighbours(within(name, borders, dtype), dtype, 3).astype(np.float64)
    return within(name, np.concatenate([edge_values(dtype).astype(np.float64), near]), dtype)


# --- the table ---


def test_table_has_every_function_once_for_each_dtype() -> None:
    assert sorted((row.function, row.dtype) for row in TABLE) == sorted(
        (name, dtype) for name in FUNCTIONS for dtype in accuracy.DTYPES
    )
    assert list(true_values.BY_PAIRS) == list(true_values.BY_MPMATH) == list(true_values.BY_FLOAT64) == FUNCTIONS


@pytest.mark.parametrize("row", TABLE, ids=ROW_IDS)
def test_row(row: accuracy.Row) -> None:
    """The table's input has the table's error, which is within the limit; the row is what the script prints."""
    dtype = accuracy.DTYPES[row.dtype]
    x = np.array([row.x], dtype)
    assert float(x[0]) == row.x
    actual = getattr(exact, row.function)(x)
    error = true_values.error_by_mpmath(row.function, row.x, float(actual[0]), dtype)
    assert f"{error:.4f}" == row.error
    assert float(row.error) <= row.limit
    assert row.n_inputs == 2**32 if row.dtype == "float32" else row.n_inputs >= 10**7
    assert str(row) in accuracy.PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("row", TABLE, ids=ROW_IDS)
def test_no_sampled_error_is_above_the_table(row: accuracy.Row) -> None:
    """The sample is part of the sweep that the table was made from, so its errors are not above the table's."""
    function = getattr(exact, row.function)
    if row.dtype == "float64":
        x = sample(row.function)
        pairs = zip(x.tolist(), function(x).tolist(), strict=True)
        errors = np.array([true_values.error_by_mpmath(row.function, *pair, np.float64) for pair in pairs])
    else:
        patterns = np.arange(0, 1 << 32, 16_411, dtype=np.uint32).view(np.float32)
        x = np.concatenate([patterns, within(row.function, sample(row.function), np.float32)])
        errors = accuracy.errors(row.function, x, function)
    worst = int(np.argmax(errors))
    assert errors[worst] <= float(row.error) + HALF_DIGIT, f"at {x[worst]!r}"


@pytest.mark.parametrize("row", TABLE, ids=ROW_IDS)
def test_edges_are_as_accurate(row: accuracy.Row) -> None:
    """Around the borders of the format and of the range."""
    dtype = accuracy.DTYPES[row.dtype]
    x = edges(row.function, dtype)
    actual = getattr(exact, row.function)(x)
    for argument, result in zip(x.tolist(), actual.tolist(), strict=True):
        error = true_values.error_by_mpmath(row.function, argument, result, dtype)
        assert error <= min(row.limit, float(row.error) + HALF_DIGIT), f"at {argument!r}"


# --- special values ---

SPECIAL_VALUES: dict[str, list[tuple[float, float]]] = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (1e30, inf), (-1e30, 0.0)],
    "expm1": [(0.0, 0.0), (inf, inf), (-inf, -1.0), (1e30, inf), (-1e30, -1.0)],
    "log": [(0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf), (-inf, nan), (-1.0, nan), (-1e-40, nan)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (1e30, 1.0), (-1e30, 0.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (1e30, 1.0), (-1e30, -1.0)],
    "softplus": [(inf, inf), (-inf, 0.0), (1e30, 1e30), (-1e30, 0.0)],
    "normal_cdf": [(inf, 1.0), (-inf, 0.0), (1e30, 1.0), (-1e30, 0.0)],
    "normal_density": [(inf, 0.0), (-inf, 0.0), (1e30, 0.0), (-1e30, 0.0)],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", accuracy.DTYPES.values())
def test_special_values(dtype: type[np.floating], name: str) -> None:
    x, desired = np.array([*SPECIAL_VALUES[name], (nan, nan), (-nan, nan)], dtype).T
    actual = getattr(exact, name)(x)
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, desired)
    numbers = ~np.isnan(desired)
    np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(desired[numbers]))


@pytest.mark.parametrize("dtype", accuracy.DTYPES.values())
def test_tanh_is_odd(dtype: type[np.floating]) -> None:
    x = bit_patterns(dtype, 10_000, seed=7)
    np.testing.assert_array_equal(exact.tanh(-x), -exact.tanh(x))


# --- the references themselves ---


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pairs_are_true(name: str) -> None:
    """Pairs differ from mpmath by less than 2^-90 of the value: an error in ULP is then right to 2^-37.

    Values below 2^-1100 count as zero: they are less than 2^-26 of the smallest number.
    """
    with np.errstate(all="ignore"):
        pairs = true_values.BY_PAIRS[name](sample(name))
    with mp.workprec(true_values.PRECISION):
        for x, *parts, true in zip(
            sample(name).tolist(), *(part.tolist() for part in pairs), true_sample(name), strict=True
        ):
            high, low, exponent = parts
            distance = abs(mp.ldexp(mp.mpf(high) + mp.mpf(low), exponent) - true)
            assert distance <= max(abs(true), mp.ldexp(1, -1010)) * mp.ldexp(1, -90), f"at {x!r}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_true_enough_for_float32(name: str) -> None:
    """2^-40 of the value is at most 2^-16 ULP of float32, less than half a unit of the table's last digit."""
    x = within(name, sample(name), np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        values = true_values.BY_FLOAT64[name](x)
    for argument, value in zip(x.tolist(), values.tolist(), strict=True):
        true = true_values.true_value(name, argument)
        if abs(true) < 2.0**128:
            assert abs(value - true) <= max(abs(true), 2.0**-170) * 2.0**-40, f"at {argument!r}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_those_of_mpmath(name: str) -> None:
    """Results that are wrong by some units get the same error from the fast references as from mpmath."""
    rng = np.random.default_rng(8)
    for dtype in accuracy.DTYPES.values():
        x = within(name, rng.choice(sample(name), 400), dtype)
        wrong = getattr(exact, name)(x)
        significand = np.abs(np.frexp(wrong)[0])
        for _ in range(4):
            wrong = np.where(rng.random(x.size) < 0.5, np.nextafter(wrong, dtype(2)), wrong)
        fast = accuracy.errors(name, x, lambda _, wrong=wrong: wrong)
        pairs = zip(x.tolist(), wrong.tolist(), strict=True)
        slow = np.array([true_values.error_by_mpmath(name, *pair, dtype) for pair in pairs])
        # Next to a power of two, float64 does not tell on which side of it the true value is.
        clear = (significand != 0.5) & (significand < 1 - 4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(fast[clear], slow[clear], rtol=0, atol=2.0**-16)
        assert (slow[clear] > 1).mean() > 0.3


def test_errors_beyond_the_format() -> None:
    x = np.array([1000.0, 1000.0])
    results = np.array([inf, np.finfo(float).max])
    np.testing.assert_array_equal(accuracy.errors("exp", x, lambda _: results), [0, inf])
    results = np.array([inf, np.finfo(np.float32).max], np.float32)
    np.testing.assert_array_equal(accuracy.errors("exp", x.astype(np.float32), lambda _: results), [0, inf])
    assert true_values.error_by_mpmath("exp", 1000.0, inf, np.float64) == 0
    assert true_values.error_by_mpmath("exp", 1000.0, 1e308, np.float64) == inf
    assert true_values.error_by_mpmath("exp", 0.0, inf, np.float64) > 1e15


# --- the whole measurement ---


@pytest.mark.exhaustive
@pytest.mark.parametrize("row", TABLE, ids=ROW_IDS)
def test_measurement(row: accuracy.Row) -> None:
    from fastnet.kernels import arithmetic

    error, x, n_inputs = accuracy.measure(row.function, row.dtype, getattr(arithmetic, row.function))
    assert row == row._replace(error=error, x=x, n_inputs=n_inputs)
