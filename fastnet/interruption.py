"""Ctrl-C during a training: noted, to be looked for between two calls of compiled code."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from types import FrameType
from typing import Self


class HeldInterrupt:
    """A context in which Ctrl-C is noted and raises nothing; a second one raises `KeyboardInterrupt`.

    Only Python's own handler is replaced, and only in the main thread, which alone runs handlers:
    elsewhere nothing is ever noted, and what the caller has arranged for Ctrl-C happens.
    """

    # A generator that gives an event takes some per cent of the time of a small training.

    def __init__(self) -> None:
        self._is_held = self._is_noted = False

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        # The functions of `signal` make enumerators of what these return, which takes longer than 100 epochs.
        if in_main_thread and _signal.getsignal(_signal.SIGINT) is signal.default_int_handler:
            self._is_held = True
            _signal.signal(_signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_held:
            _signal.signal(_signal.SIGINT, signal.default_int_handler)

    def is_noted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._is_noted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._is_noted:
            raise KeyboardInterrupt
        self._is_noted = True
