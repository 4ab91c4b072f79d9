"""How jitted callers, and other kernels, reach a kernel: by its symbol, where its code is.

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


def is_lendable(function: Callable[..., Any], library: Any) -> bool:
    """Whether `provide` would find the function, and Numba is built as it has to be."""
    found = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
    return getattr(found, "py_func", None) is function and hasattr(library, "_reload_init")


def outline(library: Any) -> Any:
    """A module with the names that the code defines for others: all that is read of it when it is loaded.

    Numba would keep the whole, for callers to link: half of a file, and a third of the time to load it.
    """
    local = (llvm.Linkage.internal, llvm.Linkage.private)
    functions, variables = (
        [one.name for one in found if not one.is_declaration and one.linkage not in local]
        for found in (library._final_module.functions, library._final_module.global_variables)
    )
    lines = [f'define void @"{name}"() {{ ret void }}' for name in functions]
    return llvm.parse_assembly("\n".join(lines + [f'@"{name}" = global i8 0' for name in variables]))


def lend(function: Callable[..., Any], signature: Any, result: Any) -> None:
    """Let callers that are compiled from now on call a compilation of a function.

    A caller that Numba keeps on disk calls `provide` when it is loaded.
    """
    symbol, library = result.fndesc.llvm_func_name, result.library
    types, _ = normalize_signature(signature)
    llvm.add_symbol(symbol, library.get_pointer_to_function(symbol))
    library._reload_init.add(partial(provide, function.__module__, function.__qualname__, types, symbol))
    # What callers link.
    library._shared_module = llvm.parse_assembly("")


def provide(module: str, name: str, types: tuple[Any, ...], symbol: str) -> None:
    """Load or compile a function of a module for some types, for code that knows it by a symbol."""
    dispatcher = getattr(import_module(module), name)
    dispatcher.compile(types)
    result = dispatcher.overloads[types]
    llvm.add_symbol(symbol, result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
