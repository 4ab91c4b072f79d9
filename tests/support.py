"""What several test files share: comparisons, where parameters are, and inputs that reach every exponent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath as mp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnet.layout import buffer_size, parameter_views


def integers(x: NDArray[np.floating]) -> NDArray[np.unsignedinteger]:
    """The bits of ``x``, as unsigned integers of the same width."""
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}").reshape(x.shape)


def same_bits(actual: NDArray[np.floating], desired: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where two arrays of one dtype and shape are the same number: -0 is not +0, any NaN is any NaN."""
    same: NDArray[np.bool_] = integers(actual) == integers(desired)
    return same | (np.isnan(actual) & np.isnan(desired))


def assert_same_bits(actual: ArrayLike, desired: ArrayLike, what: str = "") -> None:
    """Require equal dtypes, shapes and bits (`same_bits`); name the first element that differs."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    where = f"{what}: " if what else ""
    assert actual.dtype == desired.dtype, f"{where}dtype {actual.dtype}, not {desired.dtype}"
    assert actual.shape == desired.shape, f"{where}shape {actual.shape}, not {desired.shape}"
    if actual.dtype.kind != "f":
        np.testing.assert_array_equal(actual, desired, err_msg=what)
        return
    different = ~same_bits(actual, desired)
    if not different.any():
        return
    index = tuple(int(i) for i in np.unravel_index(np.argmax(different), different.shape))
    raise AssertionError(
        f"{where}{np.count_nonzero(different)} of {different.size} elements differ, the first at {index}: "
        f"{float(actual[index]).hex()} ({actual[index]!r}), not {float(desired[index]).hex()} ({desired[index]!r})"
    )


def assert_within(
    actual: NDArray[np.floating], desired: Sequence[mp.mpf], bound: NDArray[np.floating], points: Any
) -> None:
    """|actual - desired| <= bound for every element, in mpmath's arithmetic."""
    flat = zip(actual.ravel().tolist(), desired, bound.ravel().tolist(), strict=True)
    for index, (value, true, limit) in enumerate(flat):
        assert abs(value - true) <= limit, f"at {np.ravel(points)[index]!r}: {value}, not {mp.nstr(true, 20)}"


def positions_of(layout: NDArray[np.int64]) -> list[list[NDArray[np.int64]]]:
    """Where in the buffer the weights are, and where the biases are."""
    views = parameter_views(np.arange(buffer_size(layout), dtype=np.float64), layout)
    return [[part.astype(np.int64) for part in parts] for parts in views]


def bit_patterns(dtype: DTypeLike, n: int, seed: int) -> NDArray[np.floating]:
    """``n`` uniformly random bit patterns: every exponent is as likely, NaN and infinity among them."""
    dtype = np.dtype(dtype)
    return np.frombuffer(np.random.default_rng(seed).bytes(n * dtype.itemsize), dtype).copy()


def neighbours(x: ArrayLike, dtype: DTypeLike, n: int) -> NDArray[np.floating]:
    """Each of ``x`` rounded to ``dtype``, with the ``n`` numbers below it and the ``n`` above it."""
    steps = [np.asarray(x, dtype)]
    for target in (-np.inf, np.inf):
        values = steps[0]
        for _ in range(n):
            with np.errstate(over="ignore", under="ignore"):
                values = np.nextafter(values, values.dtype.type(target))
            steps.append(values)
    return np.concatenate([np.ravel(values) for values in steps])
