"""Derivatives that a user has written, against those that follow from the function's values.

How far the two may be apart is not given but found out. The values of a function and of its gradient
have rounding errors, whose size shows in high differences of the values at neighbouring floating-point
numbers, where the smooth part cancels (Moré and Wild 2011, "Estimating computational noise"). The
error that is left of a difference quotient shows in how much it changes with the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.validation import check_array

Array = NDArray[np.floating]

#: Neighbours whose values are compared by differences of this order, in which what is smooth is gone.
_N_NEIGHBOURS = 13
_ORDER = 6
#: An error is at most so many times the noise: sqrt(3) standard deviations are the most of a uniform error such as
#: a rounding's, and an estimate from so few values may be 0.4 of what it should be.
_LARGEST = 4.0
#: Steps are 1/4, 1/16, … of an element's scale.
_N_STEPS = 14
#: Scales that are within this power of two of 1 need no steps of their own.
_NEAR = 10


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """What `check_gradient` has compared, element by element.

    Attributes
    ----------
    analytic, numeric : array of float64
        The gradient given, and that of the function's values.
    bound : array of float64
        How far apart rounding and extrapolation may have put them.
    """

    analytic: NDArray[np.float64]
    numeric: NDArray[np.float64]
    bound: NDArray[np.float64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where they are further apart than that, or are no numbers."""
        return ~(np.abs(self.analytic - self.numeric) <= self.bound)


def check_gradient(
    function: Callable[[Any], ArrayLike], gradient: Callable[[Any], ArrayLike], x: ArrayLike
) -> GradientCheck:
    """Require that a gradient is that of a function, as far as the function's values can tell.

    Parameters
    ----------
    function : callable
        Takes an array like `x`. It returns either one number, as a loss does, or an array of the shape of `x` each
        of whose elements depends on the same element of `x` only, as an activation does.
    gradient : callable
        Takes an array like `x`, and returns the derivatives, in the shape of `x`.
    x : array-like
        Where to compare them: float32 is kept, anything else becomes float64.

    Returns
    -------
    GradientCheck
        Both gradients and the bound.

    Raises
    ------
    AssertionError
        If an element of the gradient is further from the function's than the bound; the message names the worst.
    TypeError, ValueError
        If `x` is not finite, or a result has another shape.

    Notes
    -----
    Central differences are extrapolated, which leaves some 10 digits in float64. A complex step would leave more, but
    not for functions with absolute values, maxima or comparisons, as losses have them. Where
    the function has a kink, every slope between those of its two sides is right.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([-1.0, 0.5, 3.0])
    >>> checked = check_gradient(np.tanh, lambda x: 1 - np.tanh(x) ** 2, x)
    >>> bool(checked.bound.max() < 1e-9)
    True
    >>> check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x + [0, 1e-6, 0], x)
    Traceback (most recent call last):
        ...
    AssertionError: 1 of 3 elements of the gradient are wrong; the worst is [1], where x is 0.5: ...
    """
    __tracebackhide__ = True
    dtype = np.dtype(np.float32 if getattr(x, "dtype", None) == np.float32 else np.float64)
    point = check_array("x", x, dtype, np.ndim(x))
    with np.errstate(all="ignore"):
        value, analytic = np.asarray(function(point)), np.asarray(gradient(point))
        if value.ndim and value.shape != point.shape:
            raise ValueError(f"function must return a number or an array of shape {point.shape}; got {value.shape}")
        if analytic.shape != point.shape:
            raise ValueError(f"gradient must return an array of shape {point.shape}; got {analytic.shape}")
        eps = max(float(np.finfo(array.dtype).eps) for array in (point, value, analytic) if array.dtype.kind == "f")
        one_by_one = value.ndim < point.ndim
        numeric, bound = _differences(function, point, eps, one_by_one)
        offset = _scales(point)[0] * point.dtype.type(eps**0.5)
        of_gradient = _noise(gradient, point, eps, offset, one_by_one) + eps * np.abs(value)
        checked = GradientCheck(analytic.astype(np.float64), numeric, bound + of_gradient)
    if checked.wrong.any():
        raise AssertionError(_message(point, checked))
    return checked


def _message(x: Array, checked: GradientCheck) -> str:
    apart = np.abs(checked.analytic - checked.numeric)
    with np.errstate(all="ignore"):
        excess = np.where(checked.wrong, np.nan_to_num(apart / checked.bound, nan=np.inf), -1.0)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(excess), x.shape))
    return (
        f"{np.count_nonzero(checked.wrong)} of {x.size} elements of the gradient are wrong; the worst is "
        f"[{', '.join(map(str, index))}], where x is {float(x[index])!r}: {float(checked.analytic[index])!r}, but the "
        f"function's values say {float(checked.numeric[index])!r}; they are {apart[index]:.3g} apart, and rounding and "
        f"extrapolation account for {checked.bound[index]:.3g}"
    )


def _moved(function: Callable[[Any], ArrayLike], x: Array, offset: Array, one_by_one: bool) -> NDArray[np.float64]:
    """Values that belong to the elements of x, where each of them is moved: one after the other, or all at once."""
    if not one_by_one:
        return np.asarray(function(x + offset), np.float64)
    values = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += offset[index]
        value = np.asarray(function(moved))
        values[index] = value[index] if value.shape == x.shape else value.item()
    return values


def _scales(x: Array) -> list[Array]:
    """Within which lengths a function may change: the size of x, as a logarithm does, but at most 1; then 1."""
    one = x.dtype.type(1)
    size = np.where(x == 0, one, np.minimum(np.abs(x), one))
    return [size, np.ones_like(x)] if (size < 2.0**-_NEAR).any() else [size]


def _noise(
    function: Callable[[Any], ArrayLike], x: Array, eps: float, offset: Array, one_by_one: bool
) -> NDArray[np.float64]:
    """The largest error that values are likely to have, from their differences at neighbours so far apart."""
    steps = np.arange(_N_NEIGHBOURS) - _N_NEIGHBOURS // 2
    table = np.array([_moved(function, x, offset * x.dtype.type(k), one_by_one) for k in steps])
    weight = factorial(_ORDER) ** 2 / factorial(2 * _ORDER)
    noise = np.sqrt(weight * (np.diff(table, _ORDER, axis=0) ** 2).mean(axis=0))
    # The last rounding is there even if these values happen to have none; numbers may underflow to 0.
    rounding = 0.5 * eps * np.abs(table).max(axis=0) + np.finfo(x.dtype).smallest_normal
    largest: NDArray[np.float64] = _LARGEST * np.fmax(noise, rounding)
    return largest


def _differences(
    function: Callable[[Any], ArrayLike], x: Array, eps: float, one_by_one: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extrapolated central differences, and the bound of their error, for the step that has the least.

    A coarse step has to agree with the finer ones, or it does not see how fast the function changes.
    """
    center = _moved(function, x, np.zeros_like(x), one_by_one)
    best, least = np.full(x.shape, np.nan), np.full(x.shape, np.inf)
    for scale in _scales(x):
        for value, bound in reversed(_table(function, x, scale, center, eps, one_by_one)):
            agrees = np.isnan(best) | (np.abs(value - best) <= bound + least)
            better = np.isfinite(value) & (bound < least) & agrees
            best, least = np.where(better, value, best), np.where(better, bound, least)
    return best, least


def _table(
    function: Callable[[Any], ArrayLike],
    x: Array,
    scale: Array,
    center: NDArray[np.float64],
    eps: float,
    one_by_one: bool,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Derivatives and bounds of their errors, for ever finer steps."""
    # The sixth differences of what is smooth are about eps with the wider spacing, which also sees values that
    # stay the same over a stretch because something in them was rounded.
    wide = x.dtype.type(eps ** (1 / _ORDER))
    near_noise = _noise(function, x, eps, scale * x.dtype.type(eps**0.5), one_by_one)
    wide_noise = np.fmax(near_noise, _noise(function, x, eps, scale * wide, one_by_one))
    stretch_noise = np.fmax(wide_noise, _noise(function, x, eps, np.full_like(x, wide), one_by_one))
    steps = [scale * x.dtype.type(0.25 ** (k + 1)) for k in range(_N_STEPS)]
    values = [[_moved(function, x, sign * h, one_by_one) for sign in (1, -1)] for h in steps]
    silent = [
        (above == center) & (below == center) & (x + h != x) for h, (above, below) in zip(steps, values, strict=True)
    ]
    has_stretches = np.logical_or.reduce(silent)
    estimates = []
    quotient = change = gap = kink = np.full(x.shape, np.inf)
    for h, (above, below) in zip(steps, values, strict=True):
        # What has really been added; the sum is rounded.
        up, down = (x + h).astype(np.float64) - x, x.astype(np.float64) - (x - h)
        noise = np.where(has_stretches, stretch_noise, np.where(h >= scale * wide, wide_noise, near_noise))
        rounding = 2 * (noise + eps * np.maximum(np.abs(above), np.abs(below))) / (up + down)
        coarser, quotient = quotient, (above - below) / (up + down)
        extrapolated = (16 * quotient - coarser) / 15
        # Of a smooth function the gap between the two sides goes with the step, to a quarter; at a kink it stays.
        gap_before, gap = gap, np.abs((above - center) / up - (center - below) / down)
        kink_before, kink = kink, np.where(gap > 0.5 * gap_before + 4 * rounding, gap, 0.0)
        # Of a smooth function the change is 16 times what is left, and a sixteenth of the one before, which is
        # looked at because one of them may be small by chance. The rounding error of the coarser quotient
        # is a quarter of the finer one's, and both together take part with less than 1.2 times that.
        change_before, change = change, np.abs(extrapolated - coarser)
        truncation = np.maximum(change, change_before / 16)
        estimates.append((extrapolated, truncation + 1.2 * rounding + np.maximum(kink, kink_before)))
    return estimates
