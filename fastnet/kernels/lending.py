"""How jitted callers reach a kernel: by its symbol, where its code is.

Numba would link a copy of the kernel into each caller, optimise it and emit its machine code again, several times
where the caller has a `prange`: 12 of the 15 s of docs/examples/many_starts.py, whose kernels were compiled before, and
which now takes 4.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm
from numba.core.sigutils import normalize_signature


def lend(function: Callable[..., Any], signature: Any, result: Any) -> None:
    """Let callers that are compiled from now on call a compilation of a function of a module.

    A caller that Numba keeps on disk calls `provide` when it is loaded.
    """
    module, name, library = function.__module__, function.__qualname__, result.library
    found = getattr(sys.modules[module], name, None)
    if getattr(found, "py_func", None) is not function or not hasattr(library, "_reload_init"):
        # A function within another, which nobody could provide; or a Numba that is built otherwise.
        return
    symbol = result.fndesc.llvm_func_name
    llvm.add_symbol(symbol, library.get_pointer_to_function(symbol))
    library._reload_init.add(partial(provide, module, name, normalize_signature(signature)[0], symbol))
    # What callers link. The file in the cache is written before, for Numba finds in it what is defined.
    library._shared_module = llvm.parse_assembly("")


def provide(module: str, name: str, types: tuple[Any, ...], symbol: str) -> None:
    """Load or compile a function of a module for some types, for code that knows it by a symbol."""
    dispatcher = getattr(import_module(module), name)
    dispatcher.compile(types)
    result = dispatcher.overloads[types]
    llvm.add_symbol(symbol, result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
