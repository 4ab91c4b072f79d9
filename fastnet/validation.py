"""Checks of arguments, shared by everything public.

Every check takes the argument's name first, returns the value in the form that the caller works
with, and raises a `TypeError` or `ValueError` that names the argument, the value and what is
allowed. Values are never changed in place.
"""

from __future__ import annotations

import contextlib
import numbers
import operator
from collections.abc import Callable, Sequence
from math import inf, isfinite, nan
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Names in quotes do not import numpy.random, which takes half as long as all of fastnet.
RandomSource: TypeAlias = Union["np.random.RandomState", "np.random.Generator"]

_BOOLEANS = (bool, np.bool_)
#: Numbers that Python adds up before NumPy has found out how to look at them. Their sum can be infinite, too.
_FEW = 64
#: Python's own first, for which `isinstance` need not ask the abstract class.
_NUMBERS = (float, int, numbers.Real)
_FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_DIMENSIONS = {0: "a number", 1: "1-dimensional", 2: "2-dimensional"}
_KINDS = {"O": "objects", "c": "complex numbers", "U": "strings", "S": "bytes", "M": "dates", "m": "time differences"}


def check_choice(argument: str, value: Any, allowed: Sequence[str], alternative: str = "") -> str:
    """Check that a value is one of some names.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : str
        The value to check.
    allowed : sequence of str
        The known names.
    alternative : str
        What the caller takes besides names, for the message.

    Returns
    -------
    str
        `value`.

    Raises
    ------
    TypeError
        If `value` is not a string.
    ValueError
        If it is an unknown name; the message suggests the nearest one.

    Examples
    --------
    >>> check_choice("activation", "sigmod", ("sigmoid", "tanh"))
    Traceback (most recent call last):
        ...
    ValueError: activation must be one of 'sigmoid', 'tanh'; got 'sigmod'. Did you mean 'sigmoid'?
    """
    if isinstance(value, str) and value in allowed:
        return value
    wanted = "one of " + ", ".join(map(repr, allowed)) + (f", or {alternative}" if alternative else "")
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be {wanted}; got {value!r} of type {type(value).__name__}")
    import difflib

    near = difflib.get_close_matches(value.lower(), allowed, n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} must be {wanted}; got {value!r}{hint}")


def check_boolean(argument: str, value: Any) -> bool:
    """Check that a value is a truth value, and not merely something with one.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : bool or numpy.bool
        The value to check.

    Returns
    -------
    bool
        `value` as Python's bool.

    Raises
    ------
    TypeError
        If it is anything else.

    Examples
    --------
    >>> check_boolean("bias", True)
    True
    """
    if not isinstance(value, _BOOLEANS):
        raise TypeError(f"{argument} must be True or False; got {value!r} of type {type(value).__name__}")
    return bool(value)


def check_integer(argument: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Check that a value is an integer in a range.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : int or numpy.integer
        The value to check; truth values and floats are refused.
    minimum, maximum : int
        The smallest and the largest integer allowed; no largest one by default.

    Returns
    -------
    int
        `value` as Python's int.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> check_integer("epochs", 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: epochs must be an integer of at least 1; got 0
    """
    if type(value) is int and minimum <= value and (maximum is None or value <= maximum):
        return value
    wanted = f"an integer of at least {minimum}" + (f" and at most {maximum}" if maximum is not None else "")
    if isinstance(value, _BOOLEANS):
        raise TypeError(f"{argument} must be {wanted}; got {value!r} of type {type(value).__name__}")
    try:
        integer = operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be {wanted}; got {value!r} of type {type(value).__name__}") from None
    if integer < minimum or (maximum is not None and integer > maximum):
        raise ValueError(f"{argument} must be {wanted}; got {integer}")
    return integer


def check_number(
    argument: str,
    value: Any,
    *,
    low: float = -inf,
    high: float = inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Check that a value is a finite real number in an interval.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : float
        The value to check: any real number of Python or NumPy, but no truth value and no array.
    low, high : float
        The ends of the interval.
    low_open, high_open : bool
        Whether that end itself is refused.

    Returns
    -------
    float
        `value` as Python's float.

    Raises
    ------
    TypeError
        If it is not a real number.
    ValueError
        If it is NaN, infinite or outside the interval.

    Examples
    --------
    >>> check_number("momentum", 1.0, low=0.0, high=1.0, high_open=True)
    Traceback (most recent call last):
        ...
    ValueError: momentum must be a number in [0, 1); got 1.0
    """
    is_number = isinstance(value, _NUMBERS) and not isinstance(value, _BOOLEANS)
    try:
        number = float(value) if is_number else nan
    except OverflowError:
        number = inf
    inside = (number > low if low_open else number >= low) and (number < high if high_open else number <= high)
    if isfinite(number) and inside:
        return number
    left = "(" if low_open or low == -inf else "["
    right = ")" if high_open or high == inf else "]"
    wanted = "a finite number" if low == -inf and high == inf else f"a number in {left}{low:g}, {high:g}{right}"
    if not is_number:
        raise TypeError(f"{argument} must be {wanted}; got {value!r} of type {type(value).__name__}")
    raise ValueError(f"{argument} must be {wanted}; got {value}")


def check_dtype(argument: str, value: Any) -> np.dtype[Any]:
    """Check that a value names one of the two dtypes that networks have.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : dtype or str
        float32 or float64, in native byte order, in any of NumPy's spellings.

    Returns
    -------
    numpy.dtype
        That dtype.

    Raises
    ------
    TypeError
        If `value` does not describe a dtype.
    ValueError
        If it is another one.

    Examples
    --------
    >>> check_dtype("dtype", "float32")
    dtype('float32')
    """
    if isinstance(value, np.dtype) and value in _FLOAT_DTYPES:
        return value
    wanted = "'float32' or 'float64'"
    dtype: np.dtype[Any] | None = None
    # To NumPy, None means float64.
    if value is not None:
        with contextlib.suppress(TypeError):
            dtype = np.dtype(value)
    if dtype is None:
        raise TypeError(f"{argument} must be {wanted}; got {value!r} of type {type(value).__name__}")
    if dtype not in _FLOAT_DTYPES:
        raise ValueError(f"{argument} must be {wanted}; got {value!r}")
    return dtype


def check_random_source(argument: str, value: Any) -> RandomSource:
    """Turn a seed into a source of random numbers.

    An integer seeds NumPy's `RandomState`, whose stream will never change (NEP 19), so that a
    seed means the same numbers with every version of NumPy.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : None, int, numpy.random.RandomState or numpy.random.Generator
        None takes fresh entropy; an integer lies in [0, 2^32); a source is returned as it is, and
        drawing from it moves it on.

    Returns
    -------
    numpy.random.RandomState or numpy.random.Generator
        The source.

    Raises
    ------
    TypeError
        If `value` is of another type.
    ValueError
        If the integer is out of range.

    Examples
    --------
    >>> check_random_source("seed", 4).random((2,)).round(8).tolist()
    [0.96702984, 0.54723225]
    """
    check_seed(argument, value)
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return value
    if value is None:
        return np.random.RandomState()
    from fastnet.seeding import seeded

    return seeded(int(value))


def check_seed(argument: str, value: Any) -> None:
    """Refuse what `check_random_source` refuses, without making a source."""
    if value is None or isinstance(value, np.random.RandomState | np.random.Generator):
        return
    if isinstance(value, _BOOLEANS) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{argument} must be None, an integer, a numpy.random.RandomState or a numpy.random.Generator; "
            f"got {value!r} of type {type(value).__name__}"
        )
    check_integer(argument, value, 0, 2**32 - 1)


def all_finite(array: NDArray[Any]) -> bool:
    """Whether all numbers of an array are finite.

    Examples
    --------
    >>> all_finite(np.array([1.0, np.inf]))
    False
    """
    if array.size <= _FEW and isfinite(sum(array.ravel().tolist())):
        return True
    # Half the time of `all`, which goes through Python.
    return int(np.count_nonzero(np.isfinite(array))) == array.size


def check_array(
    argument: str,
    value: Any,
    dtype: DTypeLike,
    ndim: int,
    *,
    column: bool = False,
    is_finite: Callable[[NDArray[Any]], bool] = all_finite,
) -> NDArray[np.floating]:
    """Turn a value into an array that kernels take: C-contiguous, aligned, in native byte order, finite.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : array-like
        Truth values, integers or floats, in anything that `numpy.asarray` takes. It is not
        changed; the result shares its memory, and its being read-only, when nothing is to convert.
    dtype : dtype
        float32 or float64. Numbers are rounded to it.
    ndim : int
        The number of dimensions.
    column : bool
        Whether a 1-dimensional value of n samples stands for a 2-dimensional one of shape (n, 1).
    is_finite : callable
        What finds out whether all numbers of an array as kernels take it are finite.

    Returns
    -------
    numpy.ndarray of `dtype`, with `ndim` dimensions
        The array, which has at least one element.

    Raises
    ------
    TypeError
        If the elements are objects, complex, strings, dates or the like.
    ValueError
        If the array is ragged, empty, masked, of another number of dimensions, or holds a NaN, an
        infinity, or a number too large for `dtype`.

    Examples
    --------
    >>> check_array("y", [0, 1], "float32", 2, column=True)
    array([[0.],
           [1.]], dtype=float32)
    """
    dtype = check_dtype("dtype", dtype)
    if type(value) is np.ndarray and value.ndim == ndim and value.dtype.kind in "biuf":
        # What most callers give needs none of the care below, which takes as long as 50 epochs of a small network.
        if value.dtype is dtype and value.size > 0 and value.flags.carray and is_finite(value):
            return value
        with np.errstate(all="ignore"):
            array = np.asarray(value, dtype, order="C")
            if array.size > 0 and array.flags.aligned and is_finite(array):
                return array
    source = _as_array(argument, value)
    if source.dtype.kind not in "biuf":
        kind = _KINDS.get(source.dtype.kind, "other things than numbers")
        raise TypeError(f"{argument} must hold real numbers; got {kind} (dtype {source.dtype})")
    if column and ndim == 2 and source.ndim == 1:
        source = source[:, np.newaxis]
    if source.ndim != ndim:
        wanted = _DIMENSIONS.get(ndim, f"{ndim}-dimensional")
        raise ValueError(f"{argument} must be {wanted}; got an array of shape {source.shape}")
    if source.size == 0:
        raise ValueError(f"{argument} must not be empty; got an array of shape {source.shape}")
    with np.errstate(all="ignore"):
        array = np.require(source, dtype, ["C", "A"])
        finite = np.isfinite(array)
        if not finite.all():
            _refuse_not_finite(argument, source, finite, dtype)
    return array


def check_output(argument: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Check that results can be written to an array.

    Parameters
    ----------
    argument : str
        Name of the argument, for the message.
    value : numpy.ndarray
        The array: writable, C-contiguous, in native byte order.
    shape : tuple of int
        The shape that it has to have.
    dtype : numpy.dtype
        The dtype that it has to have.

    Returns
    -------
    numpy.ndarray
        `value`.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it is of another shape or dtype, not contiguous or not writable.

    Examples
    --------
    >>> check_output("out", np.zeros((2, 1)), (3, 1), np.dtype("float64"))
    Traceback (most recent call last):
        ...
    ValueError: out must have shape (3, 1) and dtype float64; got (2, 1) and float64
    """
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{argument} must be a numpy.ndarray; got {value!r} of type {type(value).__name__}")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{argument} must have shape {shape} and dtype {dtype}; got {value.shape} and {value.dtype}")
    if not value.flags.carray:
        raise ValueError(f"{argument} must be C-contiguous, aligned and writable; got flags\n{value.flags}")
    return value


def _as_array(argument: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{argument} must not have masked elements; got {np.count_nonzero(value.mask)} of them")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument} must be an array or nested lists of equal lengths: {error}") from None


def _refuse_not_finite(argument: str, source: NDArray[Any], finite: NDArray[np.bool_], dtype: np.dtype[Any]) -> None:
    given = np.isfinite(source)
    if given.all():
        wrong, what = ~finite, f"too large for {dtype}"
    else:
        wrong, what = ~given, "NaN or infinite"
    first = tuple(int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape))
    position = first[0] if len(first) == 1 else first
    raise ValueError(
        f"{argument} must be finite: {np.count_nonzero(wrong)} of {wrong.size} numbers are {what}, "
        f"the first at index {position}: {source[first]}"
    )
