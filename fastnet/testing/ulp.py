"""Distances between floating-point numbers in units in the last place.

The distance of two numbers is how many steps of `numpy.nextafter` lead from one to the other, so it
is counted in representable numbers, not in the spacing at one of them. Zeros of either sign are one
number, subnormals are steps like any other, and one step beyond the largest number is infinity.
A NaN is at distance 0 of any other NaN and at `NAN` of any number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The distance of a NaN and a number: larger than that of any two numbers, which is at most 2^64 - 2^53.
NAN = 2**64 - 1

#: Elements that are worked on at a time: few enough that all buffers stay in the cache.
_CHUNK = 1 << 15


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
    left, right = _bits(actual, desired)
    distances = np.zeros(left.size, np.uint64)
    for start, _, _, chunk in _differing_chunks(left, right):
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
    return max((int(chunk.max()) for _, _, _, chunk in _differing_chunks(*_bits(actual, desired))), default=0)


def _bits(actual: ArrayLike, desired: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of two arrays that go together, as signed integers of their width."""
    left, right = _floats("actual", actual), _floats("desired", desired)
    if left.dtype.type is not right.dtype.type:
        raise TypeError(f"desired must have the dtype of actual, {left.dtype.name}; got {right.dtype.name}")
    if left.shape != right.shape:
        raise ValueError(f"desired must have the shape of actual, {left.shape}; got {right.shape}")
    return _as_integers(left), _as_integers(right)


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


def _differing_chunks(
    left: NDArray[Any], right: NDArray[Any]
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[np.uint64]]]:
    """Go through the bits of two arrays in C order, leaving out chunks that are equal.

    Yields the flat index of a chunk's first element, both chunks' bits, and their distances. All
    of them are buffers: they hold only until the next chunk.
    """
    if left.size == 0:
        return
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
            nan = False
            for bits, key in zip((first, second), keys[:, :size], strict=True):
                # Sign and magnitude become one integer that counts the steps from zero.
                np.bitwise_and(bits, limits.max, out=key)
                nan |= bool(key.max() > infinity)
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
            if nan:
                left_nan, right_nan = ((bits & limits.max) > infinity for bits in (first, second))
                distances[left_nan & right_nan] = 0
                distances[left_nan ^ right_nan] = NAN
            yield start, first, second, distances
        start += size
