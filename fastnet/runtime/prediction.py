"""Predictions by the kernels, on one thread or more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.runtime.entry_points import entry_point
from fastnet.runtime.threads import NO_CORES, core_masks

#: `fastnet.kernels.network.forward_finite`, and an empty workspace, by the dtypes' characters; then `finite`.
_forward: dict[str, tuple[Callable[..., int], NDArray[Any]]] = {}
_finite: dict[str, Callable[[Any], bool]] = {}


def forward_finite(
    layout: Any, parameters: Any, x: Any, out: Any, rows_at_once: int = sys.maxsize, n_threads: int = 1
) -> bool:
    """Write the outputs for C-contiguous inputs, in the dtype of the parameters, if they are finite; return whether.

    So many threads take a piece of so many rows each, one after the other; of one that is not finite there are no
    outputs.
    """
    dtype = parameters.dtype
    if dtype.char not in _forward:
        _forward[dtype.char] = entry_point("forward_finite", dtype.name), np.empty(0, dtype)
    kernel, workspace = _forward[dtype.char]
    # A call is a thirtieth of a prediction of one row.
    cores = core_masks(n_threads) if n_threads > 1 else NO_CORES
    found = kernel(layout, parameters, x, out, workspace, rows_at_once, cores, n_threads)
    if found < 0:
        workspace = np.empty(-found, dtype)
        found = kernel(layout, parameters, x, out, workspace, rows_at_once, cores, n_threads)
    return found > 0


def finite(values: NDArray[Any]) -> bool:
    """Whether all numbers of a C-contiguous array are finite."""
    char = values.dtype.char
    if char not in _finite:
        _finite[char] = entry_point("finite", values.dtype.name)
    return _finite[char](values.reshape(-1))
