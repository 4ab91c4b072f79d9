"""Predictions by the kernels, on one thread or more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.runtime.entry_points import entry_point
from fastnet.runtime.threads import core_masks

_NO_CORES = core_masks(1)


class _Forward:
    """`fastnet.kernels.network.forward_finite` in a dtype."""

    def __init__(self, dtype: Any) -> None:
        self.kernel = entry_point("forward_finite", dtype.name)
        self.nothing: NDArray[Any] = np.empty(0, dtype)


#: By the dtypes' characters.
_forward: dict[str, _Forward] = {}
_finite: dict[str, Callable[[Any], bool]] = {}


def forward_finite(
    layout: Any, parameters: Any, x: Any, out: Any, rows_at_once: int = sys.maxsize, n_threads: int = 1
) -> bool:
    """Write the outputs for C-contiguous inputs, in the dtype of the parameters, if they are finite; return whether.

    So many threads take a piece of so many rows each, one after the other; of one that is not finite there are no
    outputs.
    """
    dtype = parameters.dtype
    forward = _forward.get(dtype.char) or _forward.setdefault(dtype.char, _Forward(dtype))
    cores = core_masks(n_threads) if n_threads > 1 else _NO_CORES
    found: int = forward.kernel(layout, parameters, x, out, forward.nothing, rows_at_once, cores, n_threads)
    if found < 0:
        workspace = np.empty(-found, dtype)
        found = forward.kernel(layout, parameters, x, out, workspace, rows_at_once, cores, n_threads)
    return found > 0


def finite(values: NDArray[Any]) -> bool:
    """Whether all numbers of a C-contiguous array are finite."""
    char = values.dtype.char
    if char not in _finite:
        _finite[char] = entry_point("finite", values.dtype.name)
    return _finite[char](values.reshape(-1))
