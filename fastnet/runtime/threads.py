"""Kernels on several threads, and a training by such a team.

Threads are Python's, started for a call and ended with it, so that there is no pool that a `fork` would lose or that
two callers would share. Compiled code runs without the interpreter's lock.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

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
        self._train_member = entry_point("train_member", parameters.dtype.name)
        self._workspace = make_workspace(self._train_member, records, self._n_threads)
        self._boards = _Boards()
        #: When each thread began its part of the last call, and the caller ended its own.
        self._begun, self._ended = [0.0] * self._n_threads, 0.0

    def __call__(
        self, layout: Any, parameters: Any, samples: Any, objective: Any, update: Any, progress: Any, n_blocks: int
    ) -> int:
        """Train as `fastnet.kernels.network.train` does."""
        arguments = (layout, parameters, samples, objective, update, progress)
        if self._n_threads == 1 or n_blocks == 0:
            return self._member((*arguments, n_blocks), 0, 1)
        while True:
            n_threads, n_now = self._pace.proposal(n_blocks)
            with self.cores(n_threads) as n_threads:
                start = time.perf_counter()
                status = self._together((*arguments, n_now), n_threads)
                seconds = time.perf_counter() - start
                if status != contract.NOT_FINITE:
                    # Until all are there, nobody works.
                    working = self._ended - max(self._begun)
                    self._pace.note(n_threads, n_now, seconds, seconds - working)
            n_blocks -= n_now
            if status != contract.PAUSED or n_blocks == 0:
                return status

    def _together(self, arguments: tuple[Any, ...], n_threads: int) -> int:
        if n_threads == 1:
            return self._member(arguments, 0, 1)
        clear_arrivals(self._boards[n_threads])
        return run_together(lambda thread, n: self._member(arguments, thread, n), n_threads)

    def _member(self, arguments: tuple[Any, ...], thread: int, n_threads: int) -> int:
        self._begun[thread] = time.perf_counter()
        status: int = self._train_member(*arguments, self._workspace, self._boards[n_threads], thread, n_threads)
        if thread == 0:
            self._ended = time.perf_counter()
        return status


class _Boards(dict[int, Any]):
    """Boards by the number of threads: what one number has found out about the cores is not true of another."""

    def __missing__(self, n_threads: int) -> Any:
        board = self[n_threads] = new_board(n_threads)
        return board


def make_workspace(train_member: Callable[..., int], records: tuple[Any, ...], n_threads: int) -> Any:
    """The workspace of `fastnet.kernels.network.train_member` for the arguments of `train` but the last."""
    nothing, no_board = np.empty(0, records[1].dtype), np.empty(0, np.int64)
    return np.empty(-train_member(*records, 0, nothing, no_board, 0, n_threads), nothing.dtype)


def run_together(member: Callable[[int, int], int], n_threads: int) -> int:
    """Call ``member(thread, n_threads)`` in as many threads, this one being 0; return what this one returns.

    Where threads cannot be started, this one does it alone. An exception of another one is raised here.
    """
    cores = _core_groups(n_threads)
    others = [_Other(member, thread, n_threads) for thread in range(1, n_threads)]
    started = []
    try:
        for other in others:
            # `threading.Thread` waits until the other one runs, for longer than some calls take.
            ident = _thread.start_new_thread(other.run, ())
            started.append(other)
            _keep_to(ident, cores[other.thread])
    except RuntimeError:
        n_threads = 1
    finally:
        # An interrupt, too, must not leave others waiting for a member that does not come.
        for other in started:
            other.may_begin = len(started) == len(others)
            other.gate.release()
    result = member(0, n_threads)
    for other in started:
        other.end.acquire()
        if other.error is not None:
            raise other.error
    return result


def _core_groups(n_threads: int) -> list[set[int]]:
    """The cores for each of so many threads, of which the first, the caller, has its present one; empty: any.

    Left to itself, Linux started the second of two threads on the first one's core more often than not, where it stayed
    for the whole of a short training: digits took 150 us a step instead of 70, and 80 with one thread.
    """
    nobody: list[set[int]] = [set() for _ in range(n_threads)]
    if _getcpu is None or n_threads < 2:
        return nobody
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < n_threads:
        return nobody
    here = _getcpu()
    first = allowed.index(here) if here in allowed else 0
    allowed = allowed[first:] + allowed[:first]
    bounds = [len(allowed) * thread // n_threads for thread in range(n_threads + 1)]
    return [set(allowed[low:high]) for low, high in pairwise(bounds)]


def _keep_to(ident: int, cores: set[int]) -> None:
    """Keep a thread that has not ended to some cores, if there are any; where a sandbox forbids it, Linux chooses.

    The thread could do it by itself, once it runs: 3 ms later, where it waits for the core that its caller works on.
    """
    if cores and _setaffinity is not None:
        bits = ctypes.sizeof(ctypes.c_ulong) * 8
        words = (ctypes.c_ulong * (max(cores) // bits + 1))()
        for core in cores:
            words[core // bits] |= 1 << core % bits
        _setaffinity(ctypes.c_ulong(ident), ctypes.sizeof(words), words)


def _library_function(name: str) -> Any:
    """A function of the C library, or None where there is none, or where threads cannot be kept to cores.

    It is called with the interpreter's lock: the new thread would take that meanwhile, and keep its starter for 40 us.
    """
    return getattr(ctypes.PyDLL(None), name, None) if hasattr(os, "sched_setaffinity") else None


_getcpu = _library_function("sched_getcpu")
_setaffinity = _library_function("pthread_setaffinity_np")


class _Other:
    """A member in a thread of its own."""

    def __init__(self, member: Callable[[int, int], int], thread: int, n_threads: int) -> None:
        self.member, self.thread, self.n_threads = member, thread, n_threads
        self.may_begin = False
        self.error: Exception | None = None
        self.gate, self.end = _thread.allocate_lock(), _thread.allocate_lock()
        self.gate.acquire()
        self.end.acquire()

    def run(self) -> None:
        """Wait for the others to be there, and take part."""
        try:
            self.gate.acquire()
            if self.may_begin:
                self.member(self.thread, self.n_threads)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.end.release()
