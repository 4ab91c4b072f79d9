"""Orders of samples by the kernel, where it pays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastnet.runtime.entry_points import entry_point, is_loaded
from fastnet.runtime.payback import Payback

#: Seconds to compile the kernel, in a process that has compiled nothing yet (later 0.3).
COMPILE_SECONDS = 0.8
#: Seconds that NumPy takes longer for a sample, and for an order.
SAMPLE_SECONDS, ORDER_SECONDS = 9e-9, 9e-7
_KERNEL = "draw_orders", "uint32"

_payback = Payback(_KERNEL[0], COMPILE_SECONDS)


def kernel() -> Callable[..., bool]:
    """`fastnet.kernels.orders.draw_orders`."""
    return entry_point(*_KERNEL)


def draw_orders(state: NDArray[np.uint32], orders: NDArray[np.int64]) -> bool:
    """Fill orders from the state of a Mersenne Twister, and move it on, if that pays.

    Parameters
    ----------
    state : (625,) uint32 array
        The key, and how many of its words are used up.
    orders : (n_epochs, n_samples) int64 array
        What is filled.

    Returns
    -------
    bool
        Whether it was done.
    """
    n_epochs, n_samples = orders.shape
    if n_samples > np.iinfo(np.uint32).max:
        # Each takes two words then.
        return False
    saved = orders.size * SAMPLE_SECONDS + n_epochs * ORDER_SECONDS
    if not (is_loaded(*_KERNEL) or _payback.is_due(_KERNEL[1], saved)):
        return False
    return kernel()(state, np.empty(len(state) - 1, np.uint32), np.empty(n_samples, np.uint32), orders)
