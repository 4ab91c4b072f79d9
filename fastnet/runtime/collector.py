"""Python's collector of garbage, which to import Numba and to compile by it takes a tenth of the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

#: After how many pauses of a process garbage may wait, 40 MB of it at most each, for Python's next look at all.
_MOST_THAT_LEAVE_GARBAGE = 4
_n_pauses = count()


@contextmanager
def paused() -> Iterator[None]:
    """Meanwhile Python looks for no garbage."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _age()
        gc.enable()


def _age() -> None:
    """Make all objects old, unless some are frozen: to look through those of a compilation takes 0.2 s.

    Python 3.12 has frozen some from the beginning.
    """
    if next(_n_pauses) < _MOST_THAT_LEAVE_GARBAGE and gc.get_freeze_count() == 0:
        gc.freeze()
        gc.unfreeze()
