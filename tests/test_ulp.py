"""Distances in ULP against orderings that know nothing of the bit tricks, and the message of the assertion."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastnet.testing.cases import edge_values
from fastnet.testing.ulp import NAN, assert_max_ulp, max_ulp, ulp_distance
from tests.support import bit_patterns

DTYPES = ("float16", "float32", "float64")
CODES = {"float16": "<eH", "float32": "<fI", "float64": "<dQ"}
# Several chunks and a part of one, whatever their size between 2^10 and 2^16.
LONG = 3 * 2**16 + 5

inf, nan = math.inf, math.nan


def position(value: Any) -> int:
    """How many steps a number is above zero, from its sign and the bits of its magnitude."""
    order, code, word = CODES[value.dtype.name]
    (magnitude,) = struct.unpack(order + word, struct.pack(order + code, abs(float(value))))
    return -magnitude if value < 0 else magnitude


def slow_distance(a: Any, b: Any) -> int:
    if math.isnan(a) or math.isnan(b):
        return 0 if math.isnan(a) and math.isnan(b) else NAN
    return abs(position(a) - position(b))


def slow_distances(a: NDArray[Any], b: NDArray[Any]) -> list[int]:
    return [slow_distance(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True)]


def differing(n: int, dtype: str = "float32") -> tuple[NDArray[Any], NDArray[Any]]:
    """Two arrays of every kind of number, equal in a third of the elements."""
    a, b = bit_patterns(dtype, n, seed=1), bit_patterns(dtype, n, seed=2)
    b[::3] = a[::3]
    b[1::31] = nan
    return a, b


def from_steps(steps: int) -> float:
    """The float64 that is so many steps above zero."""
    value: float = struct.unpack("<d", struct.pack("<Q", abs(steps)))[0]
    return math.copysign(value, steps)


def message(actual: Any, desired: Any, allowed: int = 0) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_max_ulp(actual, desired, allowed)
    return str(caught.value)


def histogram(text: str) -> dict[str, int]:
    rows = re.findall(r"^ +(\d.*?|NaN) +(\d+) +[\d.]+ %$", text, re.MULTILINE)
    return {name: int(count) for name, count in rows}


def section(text: str, title: str) -> list[list[str]]:
    """The cells of the rows below a title."""
    if f"\n{title}:\n" not in text:
        return []
    _, *rows = text.partition(f"\n{title}:\n")[2].partition("\n\n")[0].split("\n")
    return [re.split(r"  +", row.strip()) for row in rows]


# --- distances ---


@pytest.mark.parametrize("seed", range(8))
def test_every_float16_against_ranks(seed: int) -> None:
    a = np.arange(2**16, dtype=np.uint16).view(np.float16)
    b = np.random.default_rng(seed).permutation(a)
    # Sorting puts zeros of either sign in one place, and neighbours one place apart.
    ordered = np.unique(a[~np.isnan(a)].astype(np.float64))
    ranks_a, ranks_b = (np.searchsorted(ordered, x.astype(np.float64)) for x in (a, b))
    expected = np.abs(ranks_a - ranks_b).astype(np.uint64)
    expected[np.isnan(a) & np.isnan(b)] = 0
    expected[np.isnan(a) != np.isnan(b)] = NAN
    np.testing.assert_array_equal(ulp_distance(a, b), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_edge_values(dtype: str) -> None:
    a, b = np.meshgrid(edge_values(dtype), edge_values(dtype))
    distances = ulp_distance(a, b)
    assert distances.dtype == np.uint64
    assert distances.shape == a.shape
    assert distances.ravel().tolist() == slow_distances(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_bits_over_several_chunks(dtype: str) -> None:
    a, b = differing(LONG, dtype)
    distances = ulp_distance(a, b)
    # The parts at the borders of chunks one by one, and the whole against other chunks.
    for start in (0, 2**15 - 50, 2**16 - 50, 2**17 - 50, LONG - 100):
        part = slice(start, start + 100)
        assert distances[part].tolist() == slow_distances(a[part], b[part])
    np.testing.assert_array_equal(distances[::-1], ulp_distance(a[::-1].copy(), b[::-1].copy()))
    np.testing.assert_array_equal(distances, ulp_distance(b, a))
    assert max_ulp(a, b) == NAN
    numbers = distances != NAN
    assert max_ulp(a[numbers], b[numbers]) == distances[numbers].max()


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.floats(width=64), st.integers(0, 40), st.sampled_from([-inf, inf]))
@example(0.0, 1, -inf)
@example(5e-324, 3, -inf)
@example(sys.float_info.max, 1, inf)
@example(sys.float_info.min, 2, -inf)
def test_float64_steps(start: float, n: int, target: float) -> None:
    end, taken = start, 0
    for _ in range(n):
        taken += math.nextafter(end, target) != end and not math.isnan(end)
        end = math.nextafter(end, target)
    assert max_ulp(start, end) == taken == int(ulp_distance([start], [end])[0])


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.floats(width=32, allow_nan=False), st.integers(0, 40), st.sampled_from([-inf, inf]))
@example(0.0, 3, -inf)
def test_float32_steps(start: float, n: int, target: float) -> None:
    ends = [np.float32(start)]
    for _ in range(n):
        with np.errstate(over="ignore", under="ignore"):
            ends.append(np.nextafter(ends[-1], np.float32(target)))
    # From infinity there is no step on.
    assert max_ulp(np.float32(start), ends[-1]) == len(set(ends)) - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_one_number(dtype: str) -> None:
    least = np.finfo(dtype).smallest_subnormal
    zeros = np.array([0.0, -0.0, 0.0, -0.0], dtype)
    assert ulp_distance(zeros, np.array([-0.0, 0.0, least, -least], dtype)).tolist() == [0, 0, 1, 1]
    assert max_ulp(least, -least) == 2


def test_nan_payloads_and_signs_are_one() -> None:
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert max_ulp(*np.meshgrid(nans, nans)) == 0
    for other in (0.0, -0.0, inf, -inf, 1.0):
        assert ulp_distance(nans, np.full(4, other, np.float32)).tolist() == [NAN] * 4


def test_extreme_distances_fit() -> None:
    for dtype, largest in (("float16", 2 * 0x7C00), ("float32", 2 * 0x7F800000), ("float64", 2 * 0x7FF0000000000000)):
        ends = np.array([inf, -inf], dtype)
        assert ulp_distance(ends, -ends).tolist() == [largest, largest]
        assert largest < NAN


LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "fortran": np.asfortranarray,
    "swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "reversed": lambda x: x[::-1].copy()[::-1],
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "subarray": lambda x: np.pad(x, 3)[3:-3, 3:-3],
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "field": lambda x: np.rec.fromarrays([x, x], names="a,b")["a"],
    "subclass": lambda x: np.ma.masked_array(x, mask=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: str, layout: str) -> None:
    a, b = (x.reshape(311, 227) for x in differing(311 * 227, dtype))
    expected = ulp_distance(a, b)
    assert expected.ravel()[:500].tolist() == slow_distances(a.ravel()[:500], b.ravel()[:500])
    other_a, other_b = LAYOUTS[layout](a), LAYOUTS[layout](b)
    kept = other_a.tobytes(), other_b.tobytes()
    for x in (other_a, other_b):
        x.flags.writeable = False
    for pair in ((other_a, other_b), (a, other_b), (other_a, b)):
        np.testing.assert_array_equal(ulp_distance(*pair), expected)
        assert max_ulp(*pair) == NAN
        assert message(*pair) == message(a, b)
    assert kept == (other_a.tobytes(), other_b.tobytes())


def test_result_is_an_array_of_its_own() -> None:
    a, b = differing(LONG)
    first = ulp_distance(a, b)
    kept = first.copy()
    ulp_distance(b[::-1], a)
    np.testing.assert_array_equal(first, kept)
    first[:] = 7


def test_scalars_and_empty_arrays() -> None:
    assert ulp_distance(np.float32(1), np.array(1.5, np.float32)).shape == ()
    assert max_ulp(1.0, -1.0) == 2 * 0x3FF0000000000000
    assert max_ulp(1.0, nan) == NAN
    for shape in ((0,), (3, 0), (0, 2, 5)):
        empty = np.zeros(shape, np.float16)
        assert ulp_distance(empty, empty).shape == shape
        assert max_ulp(empty, empty) == 0
        assert_max_ulp(empty, empty)
    np.testing.assert_array_equal(ulp_distance(np.broadcast_to(1.0, (2, 3)), np.ones((2, 3))), np.zeros((2, 3)))


FUNCTIONS = (ulp_distance, max_ulp, assert_max_ulp)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("actual", "desired", "error", "words"),
    [
        ([1, 2], [1.0, 2.0], TypeError, "actual must hold float16, float32 or float64; got dtype int64"),
        ([1.0], [1j], TypeError, "desired must hold float16, float32 or float64; got dtype complex128"),
        (np.ones(2, "g"), np.ones(2, "g"), TypeError, "actual must hold float16, float32 or float64; got dtype "),
        ([1.0], [None], TypeError, "desired must hold float16, float32 or float64; got dtype object"),
        (np.float32(1), 1.0, TypeError, "desired must have the dtype of actual, float32; got float64"),
        ([1.0], [[1.0]], ValueError, "desired must have the shape of actual, (1,); got (1, 1)"),
        ([1.0, 1.0], 1.0, ValueError, "desired must have the shape of actual, (2,); got ()"),
        ([1.0], [], ValueError, "desired must have the shape of actual, (1,); got (0,)"),
        ([[1.0], [1.0, 2.0]], 1.0, ValueError, "actual must be an array or nested lists of equal lengths"),
        ([1.0], np.ma.masked_array([1.0], [True]), ValueError, "desired must not have masked elements; got 1 of them"),
    ],
)
def test_refusals(function: Callable[..., Any], actual: Any, desired: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}"):
        function(actual, desired)


# --- the assertion ---


@pytest.mark.parametrize("allowed", [0, 1, 7, 2**40])
def test_the_bound_itself_is_allowed(allowed: int) -> None:
    a = np.full(LONG, 1.0)
    b = a.copy()
    b[-1] = from_steps(position(np.float64(1)) + allowed)
    assert_max_ulp(a, b, allowed)
    b[-1] = np.nextafter(b[-1], 2)
    text = message(a, b, allowed)
    assert text.startswith(f"elements more than {allowed} ULP apart: 1 of {LONG} (float64, shape ({LONG},))\n")
    assert section(text, "largest distances")[0][:2] == [f"[{LONG - 1}]", str(allowed + 1)]


def test_nan_on_one_side_fails_whatever_is_allowed() -> None:
    assert_max_ulp([nan, inf], [-nan, inf])
    assert_max_ulp([-inf], [inf], NAN - 1)
    text = message([nan, 1.0, nan, 2.0], [nan, nan, 3.0, 2.5], NAN - 1)
    assert "elements more than 18446744073709551614 ULP apart: 2 of 4" in text
    assert "elements that differ: 3, of them NaN on one side only: 2\n" in text
    assert histogram(text) == {"0": 1, "2^50 to 2^51 - 1": 1, "NaN": 2}
    assert [row[:2] for row in section(text, "largest distances")] == [["[3]", str(2**50)]]
    assert section(text, "first NaNs on one side only") == [
        ["[1]", "NaN", "0x1.0000000000000p+0", "(1.0)", "nan", "(nan)", "nan"],
        ["[2]", "NaN", "nan", "(nan)", "0x1.8000000000000p+1", "(3.0)", "nan"],
    ]


@pytest.mark.parametrize("allowed", [-1, NAN, 0.5, True, None])
def test_bounds_that_are_none(allowed: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^max_ulp must be an integer of at least 0 and at most"):
        assert_max_ulp([1.0], [1.0], allowed)


def test_bins_are_powers_of_two() -> None:
    # Both sides of every power of two, where rounding to float64 would carry; beyond 2^63 signs differ.
    steps = sorted({step for k in range(65) for step in (2**k - 1, 2**k) if step <= 2 * 0x7FF0000000000000})
    a = [from_steps(-(step // 2)) for step in steps]
    b = [from_steps(step - step // 2) for step in steps]
    expected: dict[str, int] = {}
    for step in steps:
        digits = step.bit_length()
        name = str(step) if step < 2 else f"{2 ** (digits - 1)} to {2**digits - 1}"
        name = name if digits < 10 else f"2^{digits - 1} to 2^{digits} - 1"
        expected[name] = expected.get(name, 0) + 1
    assert ulp_distance(a, b).tolist() == steps
    assert histogram(message(a, b)) == expected
    assert list(histogram(message(a, b))) == list(expected)


def test_worst_elements_over_the_chunks() -> None:
    a = np.ones((LONG, 2), np.float32)
    b = a.copy()
    bits = b.view(np.int32)
    # Ties at both ends: those with the smaller index are shown.
    for place, steps in ((7, 3), (2**16, 900), (2**16 + 1, 900), (2**17, 901), (LONG - 1, 5000), (9, 4), (LONG - 2, 4)):
        bits[place, 1] += steps
    text = message(a, b, 3)
    assert "ULP apart: 6 of" in text
    assert "elements that differ: 7, of them NaN on one side only: 0\n" in text
    assert [row[:2] for row in section(text, "largest distances")] == [
        [f"[{LONG - 1}, 1]", "5000"],
        [f"[{2**17}, 1]", "901"],
        [f"[{2**16}, 1]", "900"],
        [f"[{2**16 + 1}, 1]", "900"],
        ["[9, 1]", "4"],
    ]
    counts = {"0": 2 * LONG - 7, "2 to 3": 1, "4 to 7": 2, "2^9 to 2^10 - 1": 3, "2^12 to 2^13 - 1": 1}
    assert histogram(text) == counts


@pytest.mark.parametrize("dtype", DTYPES)
def test_message_agrees_with_all_distances(dtype: str) -> None:
    a, b = differing(LONG, dtype)
    a[2**15 : 2**17] = b[2**15 : 2**17]
    text, distances = message(a, b, 1000), ulp_distance(a, b)
    numbers = distances != NAN
    assert f"ULP apart: {np.count_nonzero(distances > 1000)} of {LONG} " in text
    assert f"elements that differ: {np.count_nonzero(distances)}, " in text
    assert f"NaN on one side only: {np.count_nonzero(~numbers)}\n" in text
    assert histogram(text).pop("NaN") == np.count_nonzero(~numbers)
    assert sum(histogram(text).values()) == LONG
    order = np.argsort(np.where(numbers, -distances.astype(object), 1), kind="stable")[:5]
    rows = section(text, "largest distances")
    assert [row[:2] for row in rows] == [[f"[{i}]", str(distances[i])] for i in order]
    # What is shown gives the values back, from hex and from decimal.
    for row, i in zip(rows, order, strict=True):
        for value, hexadecimal, decimal in ((a[i], *row[2:4]), (b[i], *row[4:6])):
            assert float.fromhex(hexadecimal) == value == a.dtype.type(decimal.strip("()"))
    first = [f"[{i}]" for i in np.flatnonzero(~numbers)[:5]]
    assert [row[0] for row in section(text, "first NaNs on one side only")] == first


@pytest.mark.parametrize(
    ("actual", "desired", "shown"),
    [
        (1.0, 2.0, "0.5"),
        (2.0, -1.0, "3"),
        (0.0, 4.0, "1"),
        (1.0, 0.0, "inf"),
        (inf, 1.0, "inf"),
        (1.0, -inf, "inf"),
        (-1.7e308, 1.7e308, "2"),
        (5e-324, 1e-323, "0.5"),
        (1e308, 5e-324, "inf"),
        (1.0, math.nextafter(1, 2), "2.22e-16"),
    ],
)
def test_relative_error(actual: float, desired: float, shown: str) -> None:
    (row,) = section(message(actual, desired), "largest distances")
    assert row[-1] == shown
    assert row[0] == "[]"


def test_columns_are_aligned() -> None:
    text = message([1.0, -100.0, 3.0], [1.5, -1e300, 3.0000000000000004])
    head, *rows = text.split("largest distances:\n")[1].split("\n")
    assert len(rows) == 3
    for column in ("actual", "desired", "relative error"):
        assert all(row[head.index(column) - 2 :][:2] == "  " != row[head.index(column)] for row in rows)
    ends = {re.match(r" +\S+ +\d+", row).end() for row in rows}  # type: ignore[union-attr]
    assert ends == {head.index("ULP") + 3}


# --- memory ---


@pytest.mark.parametrize("kind", ["equal", "differing", "swapped"])
def test_memory_is_constant(kind: str) -> None:
    n = 8 * 10**6
    a = np.ones(n, np.float32)
    b = a if kind == "equal" else a + np.float32(1)
    if kind == "swapped":
        b = b.astype(">f4" if sys.byteorder == "little" else "<f4")
    tracemalloc.start()
    try:
        max_ulp(a, b)
        if kind == "equal":
            assert_max_ulp(a, b)
        else:
            message(a, b)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Even one truth value for each element is more.
    assert peak < n / 2


def test_benchmark_runs() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "ulp.py"
    run = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True, check=True)
    assert len(re.findall(r"1000000 float32 +[\d.]+ s +[\d.-]+ MiB beyond the inputs\n", run.stdout)) == 4
