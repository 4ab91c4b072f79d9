"""The three backends: which functions each one has, loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from fastnet import threads
from fastnet.validation import all_finite, check_choice

BACKENDS = ("numba", "exact", "numpy")
_loaded: dict[str, Backend] = {}

#: Bytes from which a kernel looks through an array (31 MB: 2.1 ms, 4.2 with NumPy, which writes what it finds); loading
#: it takes some ms.
_LARGE = 1 << 21


@dataclass(frozen=True)
class Backend:
    """The functions of a backend, which `fastnet.reference.network` describes.

    Attributes
    ----------
    forward, train : callable
        Called with the arguments of those functions but for ``arithmetic``.
    is_compiled : bool
        Whether `train` is one step to Python: signal handlers run before or after it, not within.
    trainer : callable, optional
        Called with a `fastnet.contract.Execution` and then as `train` but for the last argument; returns the
        function that trains in place of `train`, compiled, which may keep memory from call to call.
    forward_finite : callable, optional
        `forward` for inputs that may not be finite: then it does nothing and returns False, else True. With two
        arguments more, ``rows_at_once, n_threads``, so many threads take pieces of so many rows, of which some may be
        done when one is not finite.
    all_finite : callable
        Whether all numbers of a C-contiguous float32 or float64 array are finite.
    draw_orders : callable, optional
        Called as ``draw_orders(state, orders)``: fill (n_epochs, n_samples) orders as
        `numpy.random.RandomState.permutation` would from the state of a Mersenne Twister, 624 words and a position, and
        move that on; returns False if it has not.
    """

    forward: Callable[..., Any]
    train: Callable[..., int]
    is_compiled: bool
    trainer: Callable[..., Callable[..., int]] | None = None
    forward_finite: Callable[..., bool] | None = None
    all_finite: Callable[[NDArray[Any]], bool] = all_finite
    draw_orders: Callable[[NDArray[Any], NDArray[Any]], bool] | None = None


def load_backend(backend: Any) -> Backend:
    """The backend of a name, whose modules are imported now, or a backend of one's own as it is.

    Raises
    ------
    TypeError, ValueError
        If there is no backend of that name.
    """
    if isinstance(backend, Backend):
        return backend
    name = check_choice("backend", backend, BACKENDS, "a fastnet.backends.Backend")
    if name not in _loaded:
        _loaded[name] = _load(name)
    return _loaded[name]


def _load(name: str) -> Backend:
    if name == "numba":
        from fastnet.runtime import orders, prediction
        from fastnet.runtime.trainers import trainer

        return Backend(
            partial(_call_kernel, "forward"),
            partial(_call_kernel, "train"),
            is_compiled=True,
            trainer=partial(trainer, most_threads=threads.most_threads, cores=threads.cores),
            forward_finite=prediction.forward_finite,
            all_finite=partial(_all_finite, prediction.finite),
            draw_orders=orders.draw_orders,
        )
    from fastnet.reference import blas, exact
    from fastnet.reference import network as reference

    arithmetic = exact if name == "exact" else blas
    forward = partial(reference.forward, arithmetic=arithmetic)
    train = partial(reference.train, arithmetic=arithmetic)
    return Backend(forward, train, is_compiled=False)


def _call_kernel(name: str, *arguments: Any) -> Any:
    """Call a function of `fastnet.kernels.network`, which imports Numba; `fit` and `predict` do without."""
    from fastnet.kernels import network

    return getattr(network, name)(*arguments)


def _all_finite(finite: Callable[[NDArray[Any]], bool], array: NDArray[Any]) -> bool:
    """`all_finite`, where there is much to look through by a kernel, ``finite``, that only reads."""
    return finite(array) if array.nbytes >= _LARGE else all_finite(array)
