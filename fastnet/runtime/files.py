"""The disk cache of compiled kernels: a folder for each version of the sources, in it a file for each compilation.

A file begins with a line of JSON, which says what was compiled; its machine code follows, and then what Numba has to
know of it. A file is known by all that its code depends on. One that is damaged is compiled anew. Nothing is written
before something is compiled, so a folder that was filled by someone else may be read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

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


def key_of(function: str, types: str, target: str, code: str = "") -> dict[str, str]:
    """What tells compilations of a digest apart.

    Parameters
    ----------
    function : str
        Name of the module and the function.
    types : str
        A text for the types of the arguments.
    target : str
        Of `fastnet.runtime.loader`.
    code : str, optional
        What functions of one name may differ in.
    """
    return {"function": function, "types": types, "cpu": target, "code": code}


def file_of(digest: str, key: dict[str, str]) -> Path:
    """The file of a compilation, by what tells it apart from others of the same digest."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return cache_folder(digest) / f"{key['function']}-{name}{_SUFFIX}"


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
    found = [(stat.st_mtime, path) for path, stat in _content(root) if _FOLDER.fullmatch(path.name)]
    return [path for _, path in sorted(found, reverse=True)]


def files(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder and their sizes."""
    return [(path, stat.st_size) for path, stat in _content(folder)]


def _content(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What a folder holds, but for what other processes rename or remove meanwhile."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with suppress(OSError):
            yield path, path.stat()


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
    found = sorted((stat.st_mtime, path) for path, stat in _content(folder))
    for _, path in found[:-_MOST_FILES]:
        # Another process may remove it, too.
        with suppress(OSError):
            path.unlink()


def read(path: Path, key: dict[str, str]) -> tuple[dict[str, Any], bytes] | None:
    """The header of a file and what follows it; None if there is none, or it is damaged."""
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
        header = json.loads(line)
        return (header, payload) if {**key, "checksum": zlib.crc32(payload)}.items() <= header.items() else None
    except (OSError, ValueError):
        return None


def write(path: Path, header: dict[str, Any], payload: bytes) -> None:
    """Write a file at once, with a checksum in its header: others see it whole or not at all."""
    header = {**header, "checksum": zlib.crc32(payload)}
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
def note_use(path: Path) -> None:
    """Let `remove_unused` and `_remove_oldest` know of a file or a folder, once a process."""
    try:
        os.utime(path)
    except OSError:
        # It may belong to someone else, or be gone.
        return


@cache
def warn_once(reason: str) -> None:
    """Warn that nothing is kept."""
    warnings.warn(f"fastnet compiles its kernels anew in every process, because {reason}", RuntimeWarning, stacklevel=2)
