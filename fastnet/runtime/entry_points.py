"""The kernels that trainings and predictions call: from memory, from the cache, or compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastnet.runtime import collector, digest, files, loader
from fastnet.runtime.plans import Plan

#: The module of each one.
_MODULES = {
    "train_together": "fastnet.kernels.network",
    "forward_finite": "fastnet.kernels.network",
    "finite": "fastnet.kernels.network",
    "train": "fastnet.kernels.small",
    "draw_orders": "fastnet.kernels.orders",
}

_functions: dict[tuple[str, str], Callable[..., Any]] = {}
_origins: dict[tuple[str, str], str] = {}


def entry_point(name: str, variant: str | Plan) -> Callable[..., Any]:
    """A kernel for arguments of the types that it has in a variant: they are taken as such, and not looked at.

    Parameters
    ----------
    name : str
        ``train_together``, ``forward_finite`` or ``finite`` of `fastnet.kernels.network`, ``train`` of
        `fastnet.kernels.small`, or ``draw_orders`` of `fastnet.kernels.orders`.
    variant : str or Plan
        The dtype of the parameters; of ``train`` the plan; of ``draw_orders`` uint32.

    Raises
    ------
    RuntimeError
        If `NUMBA_DISABLE_JIT` is set.
    """
    key = name, variant_name(variant)
    if key not in _functions:
        found = _from_cache(*key)
        _functions[key] = found or _compiled(name, variant)
        _origins[key] = "compiled" if found is None else "loaded"
    return _functions[key]


def origins() -> dict[tuple[str, str], str]:
    """The names and variants of the kernels in memory, each ``loaded`` from the cache or ``compiled``."""
    return dict(_origins)


def variant_name(variant: str | Plan) -> str:
    """A text for a variant."""
    return variant.digest if isinstance(variant, Plan) else variant


def is_loaded(name: str, variant: str | Plan) -> bool:
    """Whether a kernel is in memory."""
    return (name, variant_name(variant)) in _functions


def is_kept(name: str, variant: str | Plan) -> bool:
    """Whether a kernel is in the cache."""
    file, _ = _file(name, variant_name(variant))
    return file is not None and file.is_file()


def n_variants(name: str) -> int:
    """How many variants of a kernel are in the cache, or in memory where nothing can be kept."""
    sources = digest.loaded_digest()
    if sources is None:
        return sum(found == name for found, _ in _functions)
    return sum(1 for _ in files.cache_folder(sources).glob(f"{_MODULES[name]}.{name}-*"))


def _file(name: str, variant: str) -> tuple[Any, dict[str, str]]:
    """The file of an entry point, None where nothing can be kept, and its key."""
    sources = digest.loaded_digest()
    if sources is None:
        return None, {}
    key = files.key_of(f"{_MODULES[name]}.{name}", variant, loader.target())
    return files.file_of(sources, key), key


def _from_cache(name: str, variant: str) -> Callable[..., Any] | None:
    """An entry point that was compiled before."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        # The kernels refuse to be imported then, and say why.
        return None
    file, key = _file(name, variant)
    found = None if file is None else files.read(file, key)
    if found is None:
        return None
    header, payload = found
    try:
        function = loader.load(name, payload[: header["code_bytes"]], header["symbol"], header["externals"])
    except (LookupError, RuntimeError):
        # Whatever is wrong with a file, the kernel can be compiled.
        return None
    files.note_use(file)
    files.note_use(file.parent)
    return function


def _compiled(name: str, variant: str | Plan) -> Callable[..., Any]:
    with collector.paused():
        dispatcher = getattr(import_module(_MODULES[name]), name)
        kinds = dispatcher.signature(variant)
        dispatcher.compile(kinds)
    function: Callable[..., Any] = dispatcher.overloads[kinds].entry_point
    return function
