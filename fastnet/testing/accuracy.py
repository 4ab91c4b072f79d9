"""Errors of elementary functions in units in the last place, without packages beyond NumPy.

A unit is the spacing of the dtype's numbers in the binade of the true value. float64 functions are judged by a
table of true values, float32 functions by float64 arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

#: What the functions promise (docs/accuracy.md); normal_cdf and normal_density promise no bound.
LIMITS = {"exp": 1.0, "expm1": 2.5, "log": 1.0, "sigmoid": 2.5, "tanh": 2.5, "softplus": 2.5}
#: The table has its last column to six decimals.
HALF_DIGIT = 0.5e-6

_erfc = np.frompyfunc(math.erfc, 1, 1)
#: The functions in float64 arithmetic, to some of its units: about 2^-26 of a unit of float32.
IN_FLOAT64: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "normal_cdf": lambda x: 0.5 * np.asarray(_erfc(x * -math.sqrt(0.5)), np.float64),
    "normal_density": lambda x: np.exp(-0.5 * (x * x)) / math.sqrt(2 * math.pi),
}


def read_true_values() -> dict[str, tuple[NDArray[np.float64], ...]]:
    """Of each function: inputs, correctly rounded values, and by how many units the true values are above these."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for line in (files("fastnet.testing") / "true_values.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, x, rounded, rest = line.split()
            rows.setdefault(name, []).append((float.fromhex(x), float.fromhex(rounded), float(rest)))
    return {name: tuple(np.array(values).T.copy()) for name, values in rows.items()}


def float64_errors(
    actual: NDArray[np.float64], rounded: NDArray[np.float64], rest: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Errors of float64 results, by the columns of the table; infinite where only one of two is finite.

    Examples
    --------
    >>> import numpy as np
    >>> float64_errors(np.array([1.0]), np.array([1.0]), np.array([-0.25]))
    array([0.25])
    """
    with np.errstate(all="ignore"):
        # A power of two has numbers half as far apart below it, where the true value may be; of a rest too
        # small for its decimals the sign is left.
        is_below = np.signbit(rest) != np.signbit(rounded)
        significand, exponent = np.frexp(rounded)
        exponent = np.where(rounded == 0, -1021, exponent)
        exponent -= is_below & (np.abs(significand) == 0.5)
        units = np.ldexp(1.0, np.maximum(exponent, -1021) - 53)
        errors = np.abs((actual - rounded) / units - rest)
    return np.where(np.isfinite(actual) & np.isfinite(rounded), errors, np.where(actual == rounded, 0.0, np.inf))


def float32_errors(actual: NDArray[np.float32], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of float32 results, by true values in float64; NaN for NaN has none.

    Beyond the largest number infinity is right; where the true value is not beyond it, infinity counts as 2^128.
    """
    with np.errstate(all="ignore"):
        # A true value next to a power of two may be a little less, where the spacing is half as wide.
        _, exponent = np.frexp(true * (1 - 2.0**-53))
        units = np.ldexp(1.0, np.maximum(exponent, -125) - 24)
        errors = np.abs(np.clip(actual.astype(np.float64), -(2.0**128), 2.0**128) - true) / units
        errors = np.where(np.abs(true) < 2.0**128, errors, np.where(actual == np.copysign(np.inf, true), 0.0, np.inf))
    return np.where(np.isnan(true), np.where(np.isnan(actual), 0.0, np.inf), errors)
