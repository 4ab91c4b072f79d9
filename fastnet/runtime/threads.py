"""Trainings by one thread or more, and the cores for each. Threads last as long as a kernel's call."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import contract
from fastnet.runtime.board import clear_arrivals, new_board
from fastnet.runtime.entry_points import entry_point
from fastnet.runtime.pace import pace_of

#: Multiplications of a step for each thread: with fewer, sharing takes longer than it saves.
WORK_PER_THREAD = 1 << 17
#: Multiplications a second of which a first trial is sized.
_SPEED = 1e10


def work_of(layout: Any, batch_rows: int) -> int:
    """Multiplications in a step for one block of rows."""
    rows = min(batch_rows, contract.BLOCK_ROWS)
    per_row = 0
    for n_inputs, _, stride, *_ in layout.tolist():
        # Three products; an activation is as long as some 30 multiplications.
        per_row += 3 * n_inputs * stride + 30 * stride
    return rows * per_row


class Trainer:
    """`fastnet.kernels.network.train` for one fit, whose memory is kept from call to call.

    Parameters
    ----------
    most_threads : callable
        Returns how many threads it may use; asked where a step is worth more than one.
    cores : callable
        Called with a number of threads; a context whose value is how many there may be now.
    layout, parameters, samples, objective, update, progress
        The arguments of the first call.
    """

    def __init__(self, most_threads: Callable[[], int], cores: Callable[[int], Any], *records: Any) -> None:
        layout, parameters, samples, objective, *_ = records
        self.cores = cores
        batch_rows = min(objective.batch_size, len(samples.x))
        work = work_of(layout, batch_rows)
        self._n_threads = max(1, work // WORK_PER_THREAD)
        if self._n_threads > 1:
            self._n_threads = min(self._n_threads, most_threads())
        if self._n_threads > 1:
            key = (layout.tobytes(), parameters.dtype, batch_rows)
            self._pace = pace_of(key, self._n_threads, work / _SPEED)
        self._train_together = entry_point("train_together", parameters.dtype.name)
        self._workspace = make_workspace(self._train_together, records, self._n_threads)
        self._boards = _Boards()

    def __call__(
        self, layout: Any, parameters: Any, samples: Any, objective: Any, update: Any, progress: Any, n_blocks: int
    ) -> int:
        """Train as `fastnet.kernels.network.train` does."""
        arguments = (layout, parameters, samples, objective, update, progress)
        if self._n_threads == 1 or n_blocks == 0:
            return self._train((*arguments, n_blocks), 1)
        while True:
            n_threads, n_now = self._pace.proposal(n_blocks)
            with self.cores(n_threads) as n_threads:
                start = time.perf_counter()
                status = self._train((*arguments, n_now), n_threads)
                if status != contract.NOT_FINITE:
                    self._pace.note(n_threads, n_now, time.perf_counter() - start)
            n_blocks -= n_now
            if status != contract.PAUSED or n_blocks == 0:
                return status

    def _train(self, arguments: tuple[Any, ...], n_threads: int) -> int:
        board = self._boards[n_threads]
        if n_threads > 1:
            clear_arrivals(board)
        status: int = self._train_together(*arguments, self._workspace, board, core_masks(n_threads), n_threads)
        return status


class _Boards(dict[int, Any]):
    """Boards by the number of threads: what one number has found out about the cores is not true of another."""

    def __missing__(self, n_threads: int) -> Any:
        board = self[n_threads] = new_board(n_threads)
        return board


def make_workspace(train_together: Callable[..., int], records: tuple[Any, ...], n_threads: int) -> Any:
    """The workspace of `fastnet.kernels.network.train_together` for the arguments of `train` but the last."""
    nothing, no_integers = np.empty(0, records[1].dtype), np.empty(0, np.int64)
    return np.empty(-train_together(*records, 0, nothing, no_integers, no_integers, n_threads), nothing.dtype)


def core_masks(n_threads: int) -> NDArray[np.int64]:
    """The cores for each of so many threads, as many words of bits for each; none where any core will do.

    The first thread is the caller, which has its present core. Left to itself, Linux started the second of two threads
    on the first one's core more often than not, where it stayed for the whole of a short training: digits took 150 us a
    step instead of 70, and 80 with one thread.
    """
    if n_threads < 2 or _getcpu is None:
        return NO_CORES
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < n_threads:
        return NO_CORES
    here = _getcpu()
    first = allowed.index(here) if here in allowed else 0
    n_bytes = (allowed[-1] // 64 + 1) * 8
    allowed = allowed[first:] + allowed[:first]
    bounds = [len(allowed) * thread // n_threads for thread in range(n_threads + 1)]
    masks = (sum(1 << core for core in allowed[low:high]) for low, high in pairwise(bounds))
    return np.frombuffer(b"".join(mask.to_bytes(n_bytes, "little") for mask in masks), "<i8").astype(np.int64)


#: The masks of threads that may be on any core.
NO_CORES = np.empty(0, np.int64)
# With the interpreter's lock, which another thread could take for longer than all of a small training.
_getcpu = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_getaffinity") else None
