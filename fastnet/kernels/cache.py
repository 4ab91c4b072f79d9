"""The disk cache of compiled kernels: a folder for each version of the sources, in it a file for each compilation.

It takes the place of Numba's, from which it differs in four things. A file is known by all that its code
depends on, whereas Numba's index can be written by two processes at once, after which a function is called with the
code of another dtype. A file that is damaged is compiled anew. Nothing is written before something is compiled, so
a folder that was filled by someone else may be read-only. And Numba's compiler is not set up only to load
machine code, which takes 0.2 s, most of them for SciPy.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import types
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

from fastnet.kernels.lending import is_lendable, lend, outline

#: Numba's settings that change machine code. The CPU's are in the key of each file.
_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LLVM_REFPRUNE_FLAGS")
#: A folder that is not the present one is removed when it has not been used for so many seconds, when so many
#: others were used later, or when with those it takes so many bytes.
_MOST_SECONDS = 60 * 86400
_MOST_FOLDERS = 8
_MOST_BYTES = 256 << 20
#: Files in a folder: kernels compiled for one network each could be any number. Those used longest ago are removed.
_MOST_FILES = 512
#: Names, to remove nothing else: a folder may be shared with others.
_FOLDER = re.compile(r"kernels-[0-9a-f]{16}")
_SUFFIX = ".kernel"


def source_digest(*settings: Any) -> str:
    """Digest of everything that compiled code depends on, but for the function, its types and the CPU.

    Raises
    ------
    OSError
        If the sources cannot be read, as in a zip file.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    shared = [package.parent / "contract.py", package.parent / "coefficients.py"]
    for path in sorted([*package.rglob("*.py"), *shared]):
        digest.update(path.relative_to(package.parent).as_posix().encode())
        digest.update(path.read_bytes())
    environment = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_OPT"))
    numba_settings = [(name, repr(getattr(numba.config, name, None))) for name in _SETTINGS]
    versions = (numba.__version__, llvmlite.__version__, sys.version_info[:3])
    digest.update(repr((settings, environment, numba_settings, versions)).encode())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """``$FASTNET_CACHE_DIR``, or fastnet's folder among the user's caches."""
    chosen = os.environ.get("FASTNET_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "fastnet"
    except RuntimeError:
        # A user without a home: a place where nothing can be kept.
        return Path(os.devnull) / "fastnet"


def cache_folder(digest: str) -> Path:
    """The folder of a digest, which need not exist."""
    return cache_root() / f"kernels-{digest}"


class KernelCache:
    """The compilations of a function on disk; what a Numba dispatcher calls of its cache."""

    def __init__(self, function: Callable[..., Any], digest: str) -> None:
        self._digest = digest
        self._begun = 0.0
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._function = function

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(cache_folder(self._digest))

    def enable(self) -> None:
        """Do nothing: it always is."""

    def flush(self) -> None:
        """Do nothing: a file whose code is out of date has another name."""

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compilation for a signature, or None."""
        key = self._key(signature, target_context.codegen())
        path = self._path(key)
        payload = _read(path, key)
        self._begun = time.perf_counter()
        if payload is None:
            return None
        try:
            rtsys.initialize(target_context)
            result = CompileResult._rebuild(target_context, *pickle.loads(payload))  # noqa: S301
        except Exception:  # noqa: BLE001 - whatever is wrong with a file, the function can be compiled
            return None
        _note_use(path)
        _note_use(path.parent)
        if is_lendable(self._function, result.library):
            lend(self._function, signature, result)
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compilation; where that is impossible, warn once."""
        if result.library.has_dynamic_globals:
            return
        key, seconds = self._key(signature, result.codegen), time.perf_counter() - self._begun
        is_lent = is_lendable(self._function, result.library)
        if is_lent:
            result.library._shared_module = outline(result.library)
        try:
            payload = dumps(result._reduce())
        finally:
            # In any case: callers that link an outline would have functions that do nothing.
            if is_lent:
                lend(self._function, signature, result)
        try:
            header = {**key, "checksum": zlib.crc32(payload), "seconds": round(seconds, 3)}
            _write(self._path(key), header, payload)
        except OSError as error:
            _warn(f"{self.cache_path} cannot be written ({error}); set FASTNET_CACHE_DIR to a writable folder")

    def _key(self, signature: Any, codegen: Any) -> dict[str, str]:
        """What tells compilations of a digest apart."""
        return {
            "function": self._name,
            "types": describe(normalize_signature(signature)),
            "cpu": describe(codegen.magic_tuple()),
            "code": self._code,
        }

    @cached_property
    def _code(self) -> str:
        """Digest of what functions of one name may differ in."""
        code = hashlib.sha256(self._function.__code__.co_code)
        if self._function.__closure__:
            code.update(dumps(tuple(cell.cell_contents for cell in self._function.__closure__)))
        if not self._name.startswith("fastnet.kernels."):
            # The digest of the folder does not know its source.
            code.update(Path(self._function.__code__.co_filename).read_bytes())
        return code.hexdigest()

    def _path(self, key: dict[str, str]) -> Path:
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        return cache_folder(self._digest) / f"{self._name}-{name}{_SUFFIX}"


def entries(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files in a folder, and their headers: what was compiled, and how many seconds that took."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            with path.open("rb") as file:
                yield path, json.loads(file.readline())
        except (OSError, ValueError):
            continue


def folders(root: Path) -> list[Path]:
    """The folders of all digests, last used first."""
    try:
        found = [(path.stat().st_mtime, path) for path in root.iterdir() if _FOLDER.fullmatch(path.name)]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def files(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder and their sizes."""
    try:
        return [(Path(entry), entry.stat().st_size) for entry in os.scandir(folder)]
    except OSError:
        return []


def remove_unused(root: Path, kept: Path) -> None:
    """Remove the folders of other digests that are not used any more.

    A process of theirs does not need the files that it has loaded, and compiles others anew.
    """
    others = [folder for folder in folders(root) if folder != kept]
    n_bytes = 0
    for place, folder in enumerate(others):
        n_bytes += sum(size for _, size in files(folder))
        try:
            age = time.time() - folder.stat().st_mtime
            if place >= _MOST_FOLDERS or n_bytes > _MOST_BYTES or age > _MOST_SECONDS:
                for path, _ in files(folder):
                    path.unlink(missing_ok=True)
                folder.rmdir()
        except OSError:
            # Another process removes it, too, or has just written to it.
            continue


def _remove_oldest(folder: Path) -> None:
    """Keep `_MOST_FILES` files."""
    found = [path for path, _ in files(folder)]
    if len(found) <= _MOST_FILES:
        return
    try:
        for path in sorted(found, key=lambda path: path.stat().st_mtime)[:-_MOST_FILES]:
            path.unlink(missing_ok=True)
    except OSError:
        # Another process removes them, too.
        return


def _read(path: Path, key: dict[str, str]) -> bytes | None:
    """The payload of a file; None if there is none, or it is damaged."""
    try:
        header, _, payload = path.read_bytes().partition(b"\n")
        known = {**key, "checksum": zlib.crc32(payload)}
        return payload if known.items() <= json.loads(header).items() else None
    except (OSError, ValueError):
        return None


def _write(path: Path, header: dict[str, Any], payload: bytes) -> None:
    """Write a file at once: others see it whole or not at all."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unused(path.parent.parent, path.parent)
    temporary = path.with_name(f"{os.urandom(8).hex()}.tmp")
    try:
        temporary.write_bytes(json.dumps(header).encode() + b"\n" + payload)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _remove_oldest(path.parent)


@cache
def _note_use(path: Path) -> None:
    """Let `remove_unused` and `_remove_oldest` know, once a process."""
    try:
        os.utime(path)
    except OSError:
        # It may belong to someone else, or be gone.
        return


@cache
def _warn(reason: str) -> None:
    warnings.warn(f"fastnet compiles its kernels anew in every process, because {reason}", RuntimeWarning, stacklevel=2)


def describe(part: Any) -> str:
    """A text that is the same for equal types or CPUs only, where names leave out whether arrays can be written to."""
    if isinstance(part, types.Type):
        return f"{type(part).__name__}[{describe(part.key)}]"
    if isinstance(part, tuple):
        return f"({', '.join(map(describe, part))})"
    if isinstance(part, type):
        return f"{part.__module__}.{part.__qualname__}"
    return repr(part)
