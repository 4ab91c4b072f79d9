"""The orders in which epochs take the samples, drawn from a source of random numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.random import MT19937, BitGenerator, RandomState
from numpy.typing import NDArray

from fastnet.validation import RandomSource

#: Words of the state of a Mersenne Twister: the key, and how many of its words are used up.
_STATE_WORDS = 625
#: Python's function for the pointer in a capsule.
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class OrderSource:
    """A source of random numbers, as far as orders are drawn from it.

    Parameters
    ----------
    source : numpy.random.RandomState or numpy.random.Generator
        What they are drawn from.
    draw : callable, optional
        `fastnet.backends.Backend.draw_orders`.
    """

    def __init__(
        self, source: RandomSource, draw: Callable[[NDArray[np.uint32], NDArray[np.int64]], bool] | None = None
    ) -> None:
        self._source = source
        # `Generator.permutation` draws otherwise, and may change (NEP 19); a class of one's own may, too.
        self._draw = draw if type(source) is RandomState else None
        self._generator = source._bit_generator if isinstance(source, RandomState) else source.bit_generator
        self._words = _words_of(self._generator)

    def fill(self, orders: NDArray[np.int64]) -> None:
        """Fill the rows of (n_epochs, n_samples) orders with what ``source.permutation`` draws, one after the other."""
        if self._draw is not None and self._words is not None:
            with self._generator.lock:
                if self._draw(self._words, orders):
                    return
        natural_order = np.arange(orders.shape[1])
        for row in orders:
            # As `permutation`, in memory that is there.
            row[:] = natural_order
            self._source.shuffle(row)

    def state(self) -> Any:
        """What `rewind` needs to come back here."""
        return self._generator.state if self._words is None else self._words.copy()

    def rewind(self, state: Any, n_epochs: int, n_samples: int) -> None:
        """Leave the source as if only so many orders had been drawn since a state."""
        if self._words is None:
            self._generator.state = state
        else:
            self._words[:] = state
        order = np.empty((1, n_samples), np.int64)
        for _ in range(n_epochs):
            self.fill(order)


def _words_of(generator: BitGenerator) -> NDArray[np.uint32] | None:
    """The state of a Mersenne Twister in the memory where NumPy has it; None for others, and where it has it otherwise.

    To ask NumPy for it takes as long as 3000 samples of an order, for each word becomes an object.
    """
    return _view(generator) if type(generator) is MT19937 and _has_words() else None


def _view(generator: MT19937) -> NDArray[np.uint32]:
    # Its C interface begins with the address of its state; `MT19937.ctypes`, which has that too, makes four functions.
    interface = _pointer_of(generator.capsule, b"BitGenerator")
    address = ctypes.c_void_p.from_address(interface).value or 0
    return np.ctypeslib.as_array((ctypes.c_uint32 * _STATE_WORDS).from_address(address))


@cache
def _has_words() -> bool:
    """Whether NumPy has key and position where `_view` looks for them."""
    generator = MT19937(0)
    generator.random_raw(5)
    state: Any = generator.state["state"]
    return bool(np.array_equal(_view(generator), [*state["key"], state["pos"]]))
