"""Functions of one array, element by element: as Python calls them, and as jitted code does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Self

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
    Beside the work that takes 0.13 us, by way of this class's `__call__` 0.22, Numba's way 0.67.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Of an array of any layout; returns a new one.
    fill : callable
        ``fill(values, results, size)`` on pointers, before it is compiled.
    """

    def __new__(cls, dispatcher: Any, fill: Callable[[Any, Any, int], None]) -> Self:
        """Make the one instance of a class of its own, which compiled code can be the `__call__` of."""
        return object.__new__(type(cls.__name__, (cls,), {}))

    def __init__(self, dispatcher: Any, fill: Callable[[Any, Any, int], None]) -> None:
        fill.__qualname__ = f"{dispatcher.py_func.__qualname__}.fill"
        self._fill = jit_filling(fill)
        #: The dtypes of plain arrays that are called in the short way.
        self.dtypes: set[Any] = set()
        self.dispatcher, self.py_func = dispatcher, dispatcher.py_func
        # What lends it to jitted code.
        self.compile, self.overloads = dispatcher.compile, dispatcher.overloads
        update_wrapper(self, self.py_func)
        # Compiled code takes no keywords.
        (x,) = inspect.signature(self.py_func).parameters.values()
        self.__signature__ = inspect.Signature([x.replace(kind=x.POSITIONAL_ONLY)])

    def __call__(self, x: NDArray[np.floating], /) -> NDArray[np.floating]:
        """The function of each element, in a new array.

        Raises
        ------
        TypeError
            If `x` is no array of float32 or float64 in native byte order.
        """
        given: Any = x
        if not isinstance(given, np.ndarray) or x.dtype not in _DTYPES:
            got = f"one of {x.dtype}" if isinstance(given, np.ndarray) else f"{x!r} of type {type(x).__name__}"
            raise TypeError(f"x must be an array of float32 or float64 in native byte order; got {got}")
        if type(x) is np.ndarray and x.dtype not in self.dtypes and _has_wrappers():
            type(self).__call__ = self._compiled(x.dtype)  # type: ignore[assignment, method-assign]
            self.dtypes.add(x.dtype)
            return self(x)
        return self.dispatcher(x)  # type: ignore[no-any-return]

    def _compiled(self, dtype: Any) -> Callable[[Any], Any]:
        """What is called with plain arrays of a dtype; what is none it leaves to what is called now."""
        pointer = types.CPointer(SCALARS[dtype.name])
        kinds = pointer, pointer, types.intp
        self._fill.compile(kinds)
        result = self._fill.overloads[kinds]
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cpython_wrapper_name)
        return loader.python_function(self._fill.__name__, address, loader.ONE_ARGUMENT, self.__call__)

    def __reduce__(self) -> str:
        return str(self.py_func.__name__)


def _has_wrappers() -> bool:
    """Whether Numba and NumPy are built as the wrappers need it."""
    if not SHARES_PARTS:
        return False
    from fastnet.kernels.wrapping import finds_numpy

    return finds_numpy()


@typeof_impl.register(Elementwise)
def _type_of(function: Elementwise, context: Any) -> types.Dispatcher:
    return types.Dispatcher(function.dispatcher)
