"""Distances between floating-point numbers in units in the last place.

The distance of two numbers is how many steps of `numpy.nextafter` lead from one to the other, so it
is counted in representable numbers, not in the spacing at one of them. Zeros of either sign are one
number, subnormals are steps like any other, and one step beyond the largest number is infinity.
A NaN is at distance 0 of any other NaN and at `NAN` of any number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf, isinf, isnan, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.validation import check_integer

#: The distance of a NaN and a number: larger than that of any two numbers, which is at most 2^64 - 2^53.
NAN = 2**64 - 1

#: Elements that are worked on at a time: few enough that all buffers stay in the cache.
_CHUNK = 1 << 15
#: How many elements a message shows.
_SHOWN = 5
_COLUMNS = ("index", "ULP", "actual", "", "desired", "", "relative error")


def ulp_distance(actual: ArrayLike, desired: ArrayLike) -> NDArray[np.uint64]:
    """Distance of every two elements in units in the last place.

    Parameters
    ----------
    actual, desired : array-like of float16, float32 or float64
        Arrays of one dtype and one shape, in any layout and byte order; or two scalars.

    Returns
    -------
    numpy.ndarray of uint64
        The distances, in the shape of the arrays; `NAN` for a NaN against a number.

    Raises
    ------
    TypeError
        If an array is of another dtype, or the two dtypes differ.
    ValueError
        If the shapes differ (nothing is broadcast), or elements are masked.

    Examples
    --------
    >>> import numpy as np
    >>> ulp_distance(np.array([0.0, np.inf, 0.5]), np.array([-0.0, np.finfo(float).max, np.nextafter(0.5, 0)]))
    array([0, 1, 1], dtype=uint64)
    >>> ulp_distance(np.nan, 1.0) == NAN
    np.True_
    """
    left, right = _pair(actual, desired)
    distances = np.zeros(left.size, np.uint64)
    for start, chunk in _differing_chunks(left, right):
        distances[start : start + chunk.size] = chunk
    return distances.reshape(left.shape)


def max_ulp(actual: ArrayLike, desired: ArrayLike) -> int:
    """Largest distance of two elements in units in the last place, in constant memory.

    Parameters
    ----------
    actual, desired : array-like of float16, float32 or float64
        As for `ulp_distance`.

    Returns
    -------
    int
        The largest distance, 0 for empty arrays; `NAN` if a NaN stands against a number.

    Raises
    ------
    TypeError, ValueError
        As `ulp_distance` does.

    Examples
    --------
    >>> max_ulp([1.0, 2.0], [1.0, 2.0000000000000004])
    1
    """
    return max((int(chunk.max()) for _, chunk in _differing_chunks(*_pair(actual, desired))), default=0)


def assert_max_ulp(actual: ArrayLike, desired: ArrayLike, max_ulp: int = 0) -> None:
    """Require that no element is further away than a number of units in the last place.

    Memory is constant here as well. Where the arrays are as they should be, they are read once.

    Parameters
    ----------
    actual, desired : array-like of float16, float32 or float64
        As for `ulp_distance`.
    max_ulp : int
        The largest distance allowed. With 0, arrays must be equal; zeros of either sign are, and NaNs.

    Raises
    ------
    AssertionError
        If a distance is larger, or a NaN stands against a number. The message has a histogram of
        the distances, and the elements that are worst: index, both values, distance, relative error.
    TypeError, ValueError
        As `ulp_distance` does, and for a `max_ulp` that is no distance.

    Examples
    --------
    >>> assert_max_ulp([1.0, 2.0, 3.0], [1.0, 2.5, 3.0000000000000004], max_ulp=1)
    Traceback (most recent call last):
        ...
    AssertionError: elements more than 1 ULP apart: 1 of 3 (float64, shape (3,))
    elements that differ: 2, of them NaN on one side only: 0
    <BLANKLINE>
                   ULP  elements
                     0         1  33.33 %
                     1         1  33.33 %
      2^50 to 2^51 - 1         1  33.33 %
    <BLANKLINE>
    largest distances:
      index               ULP  actual                       desired                                     relative error
      [1]    1125899906842624  0x1.0000000000000p+1  (2.0)  0x1.4000000000000p+1  (2.5)                 0.2
      [2]                   1  0x1.8000000000000p+1  (3.0)  0x1.8000000000001p+1  (3.0000000000000004)  1.48e-16
    """
    __tracebackhide__ = True
    allowed = check_integer("max_ulp", max_ulp, 0, NAN - 1)
    left, right = _pair(actual, desired)
    if any(int(chunk.max()) > allowed for _, chunk in _differing_chunks(left, right)):
        raise AssertionError(_message(left, right, allowed))


@dataclass
class _Tally:
    """What is known of the distances of two arrays.

    Attributes
    ----------
    bins : numpy.ndarray of int64
        How many distances have so many binary digits, from 0 to 64, NaNs against numbers left out.
    n_exceeding, n_nan : int
        How many distances are larger than allowed, and how many of these are of NaNs against numbers.
    worst : list of (int, int)
        The largest distances, largest first, and the flat indices of the first elements that have them.
    first_nan : list of int
        The flat indices of the first NaNs against numbers.
    """

    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(65, np.int64))
    n_exceeding: int = 0
    n_nan: int = 0
    worst: list[tuple[int, int]] = field(default_factory=list)
    first_nan: list[int] = field(default_factory=list)

    def add(self, start: int, distances: NDArray[np.uint64], allowed: int) -> None:
        """Count distances that begin at a flat index. The array is overwritten."""
        self.n_exceeding += int(np.count_nonzero(distances > allowed))
        one_sided = np.flatnonzero(distances == NAN)
        if one_sided.size:
            self.n_nan += one_sided.size
            self.first_nan += [start + int(position) for position in one_sided[: _SHOWN - len(self.first_nan)]]
            distances[one_sided] = 0
        self.bins += _count_by_digits(distances)
        # With each NaN taken for a 0.
        self.bins[0] -= one_sided.size
        # Equal distances stay in the order of their indices, so that messages can be compared.
        while True:
            position = int(np.argmax(distances))
            distance = int(distances[position])
            if distance <= (self.worst[-1][0] if len(self.worst) == _SHOWN else 0):
                break
            self.worst.append((distance, start + position))
            self.worst.sort(key=lambda entry: -entry[0])
            del self.worst[_SHOWN:]
            distances[position] = 0


def _count_by_digits(distances: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the distances that have 0, 1, …, 64 binary digits."""
    # Without the second digit, rounding to float64 cannot carry into one more; its exponent is the number of digits.
    rounded = (distances & ~(distances >> 1)).astype(np.float64)
    exponents = rounded.view(np.int64) >> 52
    counts = np.bincount(exponents, minlength=1023 + 64)
    return np.concatenate([counts[:1], counts[1023:]])


def _message(actual: NDArray[Any], desired: NDArray[Any], allowed: int) -> str:
    """Say how two arrays differ, one of whose distances is larger than allowed."""
    tally = _Tally()
    counted = 0
    for start, distances in _differing_chunks(actual, desired):
        counted += distances.size
        tally.add(start, distances, allowed)
    tally.bins[0] += actual.size - counted
    rows = [("ULP", "elements", "")]
    rows += [(_bin_name(digits), *_share(int(n), actual.size)) for digits, n in enumerate(tally.bins) if n]
    if tally.n_nan:
        rows.append(("NaN", *_share(tally.n_nan, actual.size)))
    kind = f"{actual.dtype.name}, shape {actual.shape}"
    lines = [
        f"elements more than {allowed} ULP apart: {tally.n_exceeding} of {actual.size} ({kind})",
        f"elements that differ: {actual.size - int(tally.bins[0])}, of them NaN on one side only: {tally.n_nan}",
        "",
        *_table(rows, ">>>"),
    ]
    for title, elements in (
        ("largest distances", tally.worst),
        ("first NaNs on one side only", [(NAN, position) for position in tally.first_nan]),
    ):
        if elements:
            described = [_describe(actual, desired, position, distance) for distance, position in elements]
            lines += ["", f"{title}:", *_table([_COLUMNS, *described], "<><<<<<")]
    return "\n".join(lines)


def _bin_name(digits: int) -> str:
    if digits < 2:
        return str(digits)
    if digits < 10:
        return f"{1 << (digits - 1)} to {(1 << digits) - 1}"
    return f"2^{digits - 1} to 2^{digits} - 1"


def _share(n: int, size: int) -> tuple[str, str]:
    return str(n), f"{100 * n / size:.2f} %"


def _describe(actual: NDArray[Any], desired: NDArray[Any], position: int, distance: int) -> tuple[str, ...]:
    index = tuple(int(i) for i in np.unravel_index(position, actual.shape))
    values = [actual[index], desired[index]]
    shown = [text for value in values for text in (float(value).hex(), f"({value!s})")]
    error = _relative_error(float(values[0]), float(values[1]))
    where = f"[{', '.join(map(str, index))}]"
    return where, "NaN" if distance == NAN else str(distance), *shown, f"{error:.3g}"


def _relative_error(actual: float, desired: float) -> float:
    if isnan(actual) or isnan(desired):
        return nan
    if isinf(actual) or isinf(desired) or desired == 0:
        return inf
    try:
        # In floats the difference of large numbers is infinite, and small ones lose digits.
        return float(abs((Fraction(actual) - Fraction(desired)) / Fraction(desired)))
    except OverflowError:
        return inf


def _table(rows: Sequence[Sequence[str]], alignments: str) -> list[str]:
    """Lines with the cells of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    formats = [f"{{:{alignment}{width}}}" for alignment, width in zip(alignments, widths, strict=True)]
    return ["  " + "  ".join(formats).format(*row).rstrip() for row in rows]


def _pair(actual: ArrayLike, desired: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Check that two arrays go together."""
    left, right = _floats("actual", actual), _floats("desired", desired)
    if left.dtype.type is not right.dtype.type:
        raise TypeError(f"desired must have the dtype of actual, {left.dtype.name}; got {right.dtype.name}")
    if left.shape != right.shape:
        raise ValueError(f"desired must have the shape of actual, {left.shape}; got {right.shape}")
    return left, right


def _floats(argument: str, value: ArrayLike) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise ValueError(f"{argument} must not have masked elements; got {np.count_nonzero(value.mask)} of them")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument} must be an array or nested lists of equal lengths: {error}") from None
    if array.dtype.type not in (np.float16, np.float32, np.float64):
        raise TypeError(f"{argument} must hold float16, float32 or float64; got dtype {array.dtype}")
    return array


def _as_integers(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(np.dtype(f"i{array.dtype.itemsize}").newbyteorder(array.dtype.byteorder))


def _differing_chunks(actual: NDArray[Any], desired: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Go through two arrays in C order, leaving out chunks that are equal.

    Yields the flat index of a chunk's first element, and the distances in the chunk: a buffer, which
    holds them until the next chunk and may be overwritten.
    """
    if actual.size == 0:
        return
    left, right = _as_integers(actual), _as_integers(desired)
    native = left.dtype.newbyteorder("=")
    limits = np.iinfo(native)
    infinity = int(np.array(np.inf, f"f{native.itemsize}").view(native))
    keys = np.empty((2, _CHUNK), native)
    signs = np.empty(_CHUNK, native)
    equal = np.empty(_CHUNK, np.bool_)
    wide = np.empty(_CHUNK, np.uint64)
    chunks = np.nditer(
        (left, right),
        flags=["external_loop", "buffered"],
        op_flags=[["readonly", "nbo", "aligned"]] * 2,
        op_dtypes=[native, native],
        order="C",
        casting="equiv",
        buffersize=_CHUNK,
    )
    start = 0
    for first, second in chunks:
        size = first.size
        if not np.equal(first, second, out=equal[:size]).all():
            has_nan = False
            for bits, key in zip((first, second), keys[:, :size], strict=True):
                # Sign and magnitude become one integer that counts the steps from zero.
                np.bitwise_and(bits, limits.max, out=key)
                has_nan |= bool(key.max() > infinity)
                np.right_shift(bits, limits.bits - 1, out=signs[:size])
                np.bitwise_xor(key, signs[:size], out=key)
                np.subtract(key, signs[:size], out=key)
            above, below = keys[:, :size]
            np.minimum(above, below, out=signs[:size])
            np.maximum(above, below, out=above)
            # The difference may be too large for the signed integers, not for the unsigned ones it wraps to.
            np.subtract(above, signs[:size], out=above)
            distances = wide[:size]
            distances[...] = above.view(f"u{native.itemsize}")
            if has_nan:
                left_nan, right_nan = ((bits & limits.max) > infinity for bits in (first, second))
                distances[left_nan & right_nan] = 0
                distances[left_nan ^ right_nan] = NAN
            yield start, distances
        start += size
