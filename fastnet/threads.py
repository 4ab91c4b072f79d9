"""How many threads trainings and predictions may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastnet.validation import check_integer


class _State:
    """What this process knows of its threads."""

    def __init__(self) -> None:
        #: What `set_threads` was last told; None means all usable cores.
        self.wanted: int | None = None
        self.begin()

    def begin(self) -> None:
        """Start with no thread at work: in a forked process, too, where nobody opens a lock that another held."""
        self.busy = 0
        self.lock = threading.Lock()


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.begin)


def usable_cores() -> int:
    """The cores that this process may run on.

    Examples
    --------
    >>> 1 <= usable_cores() <= os.cpu_count()
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(n: int | None) -> None:
    """Say how many threads `fit` and `predict` may use at most, where they are not told.

    Results do not depend on it. Small networks use one thread in any case, because sharing them out takes longer.

    Parameters
    ----------
    n : int or None
        The number; None, with which fastnet starts, means all cores that the process may run on.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer of at least 1.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.set_threads(1)
    >>> fastnet.get_threads()
    1
    >>> fastnet.set_threads(None)
    """
    _state.wanted = check_threads(n)


def get_threads() -> int:
    """How many threads `fit` and `predict` may use at most, where they are not told."""
    return most_threads(None)


def check_threads(threads: Any) -> int | None:
    """Check a number of threads; None is passed on."""
    return None if threads is None else check_integer("threads", threads, 1)


def most_threads(threads: int | None) -> int:
    """The most threads for an argument: never more than there are cores."""
    wanted = threads if threads is not None else _state.wanted
    return usable_cores() if wanted is None else min(wanted, usable_cores())


@contextmanager
def cores(wanted: int) -> Iterator[int]:
    """Take so many cores, or as many as others of this process leave, but one at least.

    Members of a team wait for each other at every step: one without a core holds up all.
    """
    with _state.lock:
        n = max(1, min(wanted, usable_cores() - _state.busy))
        _state.busy += n
    try:
        yield n
    finally:
        with _state.lock:
            _state.busy -= n
