"""Functions of one array, element by element: as Python calls them, and as jitted code does."""

from __future__ import annotations

from collections.abc import Callable
from functools import WRAPPER_ASSIGNMENTS
from typing import Any

import numpy as np
from numba import types
from numba.extending import typeof_impl
from numpy.typing import NDArray

from fastnet.kernels.jit import SHARES_PARTS, jit_filling
from fastnet.kernels.signatures import SCALARS
from fastnet.runtime import loader

_DTYPES = [np.dtype(name) for name in ("float32", "float64")]


class Elementwise:
    """A kernel of one array; to jitted code it is Numba's dispatcher.

    From Python a plain array takes a shorter way: `fastnet.kernels.wrapping` makes the result and ``fill`` fills it.
    Beside the work that takes 0.22 us, Numba's way 0.67.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Of an array of any layout; returns a new one.
    fill : callable
        ``fill(values, results, size)`` on pointers, before it is compiled.
    """

    def __init__(self, dispatcher: Any, fill: Callable[[Any, Any, int], None]) -> None:
        fill.__qualname__ = f"{dispatcher.py_func.__qualname__}.fill"
        self._calls = _Calls(jit_filling(fill))
        self.dispatcher, self.py_func = dispatcher, dispatcher.py_func
        # What lends it to jitted code. `__getattr__`, for all that a dispatcher has, would be in the way of each name;
        # so would `update_wrapper`, which changes how Python keeps an object's names: 40 ns a call each.
        self.compile, self.overloads = dispatcher.compile, dispatcher.overloads
        self.__wrapped__ = self.py_func
        for name in WRAPPER_ASSIGNMENTS:
            setattr(self, name, getattr(self.py_func, name))

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """The function of each element, in a new array.

        Raises
        ------
        TypeError
            If `x` is no array of float32 or float64 in native byte order.
        """
        result: Any
        try:
            result = self._calls[x.dtype](x)
        except AttributeError:
            result = False
        return self._by_numba(x) if result is False else result  # type: ignore[no-any-return]

    def _by_numba(self, x: Any) -> Any:
        """What is no plain array."""
        if not isinstance(x, np.ndarray) or x.dtype not in _DTYPES:
            got = f"one of {x.dtype}" if isinstance(x, np.ndarray) else f"{x!r} of type {type(x).__name__}"
            raise TypeError(f"x must be an array of float32 or float64 in native byte order; got {got}")
        return self.dispatcher(x)

    def __reduce__(self) -> str:
        return str(self.py_func.__name__)


class _Calls(dict[Any, Callable[[Any], Any]]):
    """What is called with arrays, by their dtypes; it returns False for what it leaves to Numba."""

    def __init__(self, fill: Any) -> None:
        self._fill = fill

    def __missing__(self, dtype: Any) -> Callable[[Any], Any]:
        if dtype not in _DTYPES or not _has_wrappers():
            return lambda x: False
        pointer = types.CPointer(SCALARS[dtype.name])
        kinds = pointer, pointer, types.intp
        self._fill.compile(kinds)
        result = self._fill.overloads[kinds]
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cpython_wrapper_name)
        self[dtype] = loader.python_function(self._fill.__name__, address, loader.ONE_ARGUMENT)
        return self[dtype]


def _has_wrappers() -> bool:
    """Whether Numba and NumPy are built as the wrappers need it."""
    if not SHARES_PARTS:
        return False
    from fastnet.kernels.wrapping import finds_numpy

    return finds_numpy()


@typeof_impl.register(Elementwise)
def _type_of(function: Elementwise, context: Any) -> types.Dispatcher:
    return types.Dispatcher(function.dispatcher)
