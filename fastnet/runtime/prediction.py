"""Predictions by the kernels: in one call, or in pieces by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.runtime.entry_points import entry_point
from fastnet.runtime.threads import run_together


class _Forward:
    """`fastnet.kernels.network.forward_finite` in a dtype."""

    def __init__(self, dtype: Any) -> None:
        self.kernel = entry_point("forward_finite", dtype.name)
        self.nothing: NDArray[Any] = np.empty(0, dtype)

    def __call__(self, layout: Any, parameters: Any, x: Any, out: Any, workspace: NDArray[Any]) -> NDArray[Any] | None:
        """Write the outputs; returns the workspace, or a larger one that was needed, and None if x is not finite."""
        found = self.kernel(layout, parameters, x, out, workspace)
        if found < 0:
            workspace = np.empty(-found, workspace.dtype)
            found = self.kernel(layout, parameters, x, out, workspace)
        return workspace if found else None


#: By the dtypes' characters.
_forward: dict[str, _Forward] = {}
_finite: dict[str, Callable[[Any], bool]] = {}


def _forward_of(parameters: Any) -> _Forward:
    dtype = parameters.dtype
    if dtype.char not in _forward:
        _forward[dtype.char] = _Forward(dtype)
    return _forward[dtype.char]


def forward_finite(layout: Any, parameters: Any, x: Any, out: Any) -> bool:
    """Write the outputs for C-contiguous inputs, in the dtype of the parameters, if they are finite; return whether."""
    forward = _forward_of(parameters)
    return forward(layout, parameters, x, out, forward.nothing) is not None


def forward_together(layout: Any, parameters: Any, x: Any, out: Any, rows_at_once: int, n_threads: int) -> bool:
    """`forward_finite` on pieces of so many rows, which threads take one after the other.

    Returns False when a piece is not finite; then others may be missing.
    """
    forward = _forward_of(parameters)
    pieces, stopped, failed = count(0, rows_at_once), threading.Event(), threading.Event()

    def work(thread: int = 0, n: int = 1) -> int:
        workspace: NDArray[Any] | None = forward.nothing
        while workspace is not None and not stopped.is_set() and (low := next(pieces)) < len(x):
            piece = slice(low, low + rows_at_once)
            workspace = forward(layout, parameters, x[piece], out[piece], workspace)
        if workspace is None:
            failed.set()
            stopped.set()
        return 0

    try:
        run_together(work, n_threads)
    finally:
        stopped.set()
    return not failed.is_set()


def finite(values: NDArray[Any]) -> bool:
    """Whether all numbers of a C-contiguous array are finite."""
    char = values.dtype.char
    if char not in _finite:
        _finite[char] = entry_point("finite", values.dtype.name)
    return _finite[char](values.reshape(-1))
