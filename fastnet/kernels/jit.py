"""How kernels are compiled: the options and the cache. Flags are written here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba

from fastnet.kernels.compiler import PartCompiler

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

_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": PartCompiler}


def source_digest() -> str:
    """Digest of everything that compiled code depends on but Numba's own cache key leaves out."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    shared = [package.parent / "contract.py", package.parent / "coefficients.py"]
    for path in sorted([*package.rglob("*.py"), *shared]):
        digest.update(path.relative_to(package.parent).as_posix().encode())
        digest.update(path.read_bytes())
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_OPT"))
    versions = (numba.__version__, llvmlite.__version__, sys.version_info[:3])
    digest.update(repr((OPTIONS, settings, versions)).encode())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """``$FASTNET_CACHE_DIR``, or fastnet's folder among the user's caches."""
    chosen = os.environ.get("FASTNET_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastnet"


@cache
def cache_folder() -> Path | None:
    """The folder of this digest, or None, with one warning, where it cannot be written."""
    folder = cache_root() / source_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        warnings.warn(
            f"fastnet compiles its kernels anew in every process, because {folder} cannot be written "
            f"({error}); set FASTNET_CACHE_DIR to a writable folder",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return folder


def jit(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at its first call for each set of argument types, and keep it on disk."""
    return _compiled(function, cached=True)


def jit_inline(function: Callable[..., Any]) -> Any:
    """Compile ``function`` into each of its callers: for helpers, which are never called from Python."""
    return _compiled(function, cached=False, forceinline=True, **_PART)


def jit_part(function: Callable[..., Any]) -> Any:
    """Compile ``function`` once for all its callers in a kernel: for large helpers with several callers."""
    # What is not stated, the caller's options decide.
    return _compiled(function, cached=False, forceinline=False, **_PART)


def _compiled(function: Callable[..., Any], cached: bool, **more: Any) -> Any:
    folder = cache_folder() if cached else None
    if folder is None:
        return numba.jit(**OPTIONS, **more)(function)
    # Numba reads the folder while it decorates.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.jit(**OPTIONS, **more, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
