"""Ctrl-C during a training: noted, to be looked for between two calls of compiled code."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """An event that is set by Ctrl-C, which then raises nothing; a second one raises `KeyboardInterrupt`.

    Only Python's own handler is replaced, and only in the main thread, which alone runs handlers:
    elsewhere the event is never set, and what the caller has arranged for Ctrl-C happens.
    """
    interrupted = threading.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # The functions of `signal` make enumerators of what these return, which takes longer than 100 epochs.
    if not in_main_thread or _signal.getsignal(_signal.SIGINT) is not signal.default_int_handler:
        yield interrupted
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    _signal.signal(_signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        _signal.signal(_signal.SIGINT, signal.default_int_handler)
