"""`python -m fastnet info`: what fastnet runs on, and what its cache holds."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fastnet
from fastnet import contract, threads
from fastnet.runtime import files
from fastnet.testing import machine

_PACKAGES = ("numpy", "numba", "llvmlite")
#: How the names of features begin that kernels make use of; JSON has all.
_VECTOR_FEATURES = ("avx", "fma", "neon", "sse", "sve")


def describe() -> dict[str, Any]:
    """Versions, CPU, kernels, threads and cache, as `json` can write them.

    Examples
    --------
    >>> describe()["versions"]["fastnet"] == fastnet.__version__
    True
    """
    from fastnet.kernels import jit, tiles

    triple, cpu, features = machine.compile_target()
    shape = tiles.shape_for(triple, cpu, features)
    return {
        "versions": {
            "fastnet": fastnet.__version__,
            "Python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "cpu": {
            "name": machine.cpu_name(),
            "target": triple,
            "llvm_name": cpu,
            "instructions": machine.vector_instructions(),
            "features": sorted(name[1:] for name in features.split(",") if name.startswith("+")),
        },
        "kernels": {
            "vector_bytes": contract.VECTOR_BYTES,
            "lanes": {"float32": contract.VECTOR_BYTES // 4, "float64": contract.VECTOR_BYTES // 8},
            "tile": shape._asdict(),
            "parts_are_shared": jit.SHARES_PARTS,
        },
        "threads": {
            "used_at_most": fastnet.get_threads(),
            "usable_cores": threads.usable_cores(),
            "cores": os.cpu_count(),
        },
        "kernel_cache": None if jit.DIGEST is None else _describe_cache(jit.DIGEST),
    }


def _describe_cache(digest: str) -> dict[str, Any]:
    folder = files.cache_folder(digest)
    return {
        **_describe_folder(folder),
        "digest": digest,
        "writable": _can_write(folder),
        "kernels": dict(Counter(entry["function"] for _, entry in files.entries(folder))),
        "compile_seconds": round(sum(entry["seconds"] for _, entry in files.entries(folder)), 1),
        "others": [_describe_folder(other) for other in files.folders(folder.parent) if other != folder],
    }


def _describe_folder(folder: Path) -> dict[str, Any]:
    sizes = [size for _, size in files.files(folder)]
    used = round(folder.stat().st_mtime) if sizes else None
    return {"folder": str(folder), "files": len(sizes), "bytes": sum(sizes), "last_used": used}


def _can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the folder above in which it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="write JSON")


def main(options: argparse.Namespace) -> int:
    """Describe."""
    description = describe()
    text = json.dumps(description, indent=2) if options.json else "\n".join(_lines(description))
    sys.stdout.write(f"{text}\n")
    return 0


def _lines(description: dict[str, Any]) -> list[str]:
    cpu, kernels, n_threads, cached = (description[name] for name in ("cpu", "kernels", "threads", "kernel_cache"))
    tile = kernels["tile"]
    features = [name for name in cpu["features"] if name.startswith(_VECTOR_FEATURES)]
    rows = [
        *description["versions"].items(),
        ("CPU", cpu["name"]),
        ("compiled for", f"{cpu['llvm_name']}, with {', '.join(cpu['instructions']) or 'scalar instructions'}"),
        ("features", " ".join(features) or "those of that CPU"),
        ("vectors", f"{kernels['vector_bytes']} bytes: " + ", ".join(f"{n} {t}" for t, n in kernels["lanes"].items())),
        ("tiles", f"{tile['rows']} rows by {tile['vectors']} vectors; for few rows {tile['few_rows']} by 1"),
        (
            "threads",
            f"{n_threads['used_at_most']} at most; {n_threads['usable_cores']} of {n_threads['cores']} cores usable",
        ),
    ]
    if not kernels["parts_are_shared"]:
        rows.append(("compiling", "takes longer, because this version of numba is not known"))
    if cached is None:
        rows.append(("cache", "none"))
    else:
        rows += [
            ("cache", _folder_text(cached) + ("" if cached["writable"] else "; it cannot be written")),
            *(("", f"{n} x {name}") for name, n in cached["kernels"].items()),
            *(("other version", _folder_text(other)) for other in cached["others"]),
        ]
    return [f"{name:15}{value}".rstrip() for name, value in rows]


def _folder_text(folder: dict[str, Any]) -> str:
    text = f"{folder['folder']}: {folder['files']} files, {folder['bytes'] / 1e6:.1f} MB"
    if folder["last_used"] is not None:
        text += f", last used {time.strftime('%Y-%m-%d %H:%M', time.localtime(folder['last_used']))}"
    return text
