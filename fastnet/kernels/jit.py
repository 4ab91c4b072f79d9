"""How kernels are compiled: the options. Flags are written here and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numba

from fastnet.kernels.signatures import variant_of
from fastnet.runtime.digest import source_digest

if numba.config.DISABLE_JIT:
    raise RuntimeError(
        "fastnet's kernels are machine code and cannot run while NUMBA_DISABLE_JIT is set; "
        'backend="exact" gives the same bits'
    )

#: Callees inherit what they do not state, so every option is stated. No fast-math flag: where two
#: operations fuse, the source says fma. The GIL is released; indices are not checked or wrapped.
OPTIONS: dict[str, Any] = {
    "nopython": True,
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "boundscheck": False,
    "parallel": False,
}

_KERNEL: dict[str, Any] = {}
_ENTRY: dict[str, Any] = {"no_cfunc_wrapper": True}
_FILLING: dict[str, Any] = {"no_cfunc_wrapper": True}
_SHARED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
try:
    from fastnet.kernels.compiler import EntryCompiler, FillingCompiler, KernelCompiler, PartCompiler

    for options, compiler in (
        (_KERNEL, KernelCompiler),
        (_ENTRY, EntryCompiler),
        (_FILLING, FillingCompiler),
        (_SHARED, KernelCompiler),
        (_PART, PartCompiler),
    ):
        options["pipeline_class"] = compiler
except (ImportError, AttributeError):
    # A Numba that is built otherwise: parts are functions as any other, of the same bits, and take longer to compile.
    pass
#: Whether a part is compiled once for all kernels that it is a part of.
SHARES_PARTS = "pipeline_class" in _PART

#: The digest that names the folder of the cache; None where nothing can be kept. It is that of the sources
#: that are imported, not of what they are when something is compiled.
DIGEST: str | None = None
try:
    from fastnet.kernels import cache

    DIGEST = source_digest()
except (ImportError, AttributeError, OSError) as error:
    warnings.warn(
        f"fastnet compiles its kernels anew in every process, because it cannot keep them with numba "
        f"{numba.__version__}: {error}",
        RuntimeWarning,
        stacklevel=2,
    )


def _kept(
    function: Callable[..., Any], options: dict[str, Any], names: Callable[[Any], str | None] | None = None
) -> Any:
    """A dispatcher whose compilations are kept."""
    dispatcher = numba.jit(**OPTIONS, **options)(function)
    if DIGEST is not None:
        dispatcher._cache = cache.KernelCache(function, DIGEST, names)
    return dispatcher


def jit(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at its first call for each set of argument types, and keep it on disk."""
    return _kept(function, _KERNEL)


def jit_entry(signature: Callable[..., tuple[Any, ...]]) -> Callable[[Callable[..., Any]], Any]:
    """`jit` for what the runtime loads: variants that it knows by name have the types of a ``signature``.

    From Python `fastnet.runtime.entry_points` calls it; jitted code may, too.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        # What Numba has wrapped the runtime cannot load.
        dispatcher = _kept(function, _ENTRY, partial(variant_of, signature) if SHARES_PARTS else None)
        dispatcher.signature = signature
        return dispatcher

    return decorate


def jit_filling(function: Callable[..., Any]) -> Any:
    """`jit` for what fills memory: of two pointers and a number of elements, to be called with an array for a new one.

    Python calls what its compilations are wrapped in (`fastnet.kernels.elementwise`).
    """
    return _kept(function, _FILLING)


def jit_shared(function: Callable[..., Any]) -> Any:
    """`jit` for large helpers of several kernels, which call it by its symbol; never called from Python."""
    return _kept(function, _SHARED)


def jit_inline(function: Callable[..., Any]) -> Any:
    """Compile ``function`` into each of its callers: for helpers, which are never called from Python."""
    return numba.jit(**OPTIONS, **_PART, forceinline=True)(function)


def jit_part(function: Callable[..., Any]) -> Any:
    """Compile ``function`` once for all its callers in a kernel: for large helpers with several callers."""
    # What is not stated, the caller's options decide.
    return numba.jit(**OPTIONS, **_PART, forceinline=False)(function)
