"""Machine code to Python functions, by LLVM's linker and Python's C interface."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import llvmlite.binding as llvm

_CPU_VARIABLES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX")
#: What C functions are called with, as Python's METH_VARARGS and METH_O say it.
TUPLE_OF_ARGUMENTS, ONE_ARGUMENT = 1, 8
#: What functions need for as long as they may be called, which is to the end of the process.
_kept: list[Any] = []


class _MethodDefinition(ctypes.Structure):
    """Python's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


@cache
def target() -> str:
    """What decides which instructions Numba uses: this CPU, as LLVM knows it, and variables that name another one."""
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:
        features = ""
    chosen = {name: os.environ[name] for name in _CPU_VARIABLES if name in os.environ}
    return repr((llvm.get_process_triple(), llvm.get_host_cpu_name(), features, chosen))


def load(name: str, code: bytes, symbol: str, externals: Iterable[str]) -> Callable[..., Any]:
    """The Python function at a symbol of machine code.

    Parameters
    ----------
    name : str
        What Python calls the function.
    code : bytes
        An object file.
    symbol : str
        Of a C function that Python can call with a tuple of arguments.
    externals : iterable of str
        The symbols from elsewhere; of one that is missing LLVM would end the process.

    Raises
    ------
    LookupError
        If a symbol is missing.
    """
    _initialize()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    # Only now LLVM knows the symbols of this process.
    missing = [name for name in externals if llvm.address_of_symbol(name) is None]
    if missing:
        raise LookupError(f"machine code needs symbols that are not there: {', '.join(missing)}")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(symbol)
    if not address:
        raise LookupError(f"machine code has no {symbol}")
    _kept.append(engine)
    return python_function(name, address, TUPLE_OF_ARGUMENTS)


def python_function(name: str, address: int, called_with: int, *of: Any) -> Callable[..., Any]:
    """The Python function at an address.

    Parameters
    ----------
    name : str
        What Python calls it.
    address : int
        Of a C function, which stays there.
    called_with : int
        ``TUPLE_OF_ARGUMENTS`` or ``ONE_ARGUMENT``, which is passed on sooner.
    *of : object, optional
        What the C function gets before that; else nothing.
    """
    definition = _MethodDefinition(name.encode(), address, called_with, None)
    _kept.append(definition)
    # Of no object it is a null pointer.
    function: Callable[..., Any] = _new_function(ctypes.byref(definition), ctypes.py_object(*of), None)
    return function


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


# A prototype of our own: to set the types of `ctypes.pythonapi`'s functions would be to set them for everybody.
_new_function = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.POINTER(_MethodDefinition), ctypes.py_object, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))
