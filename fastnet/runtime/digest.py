"""What compiled code depends on, but for the function, its types and the CPU."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

#: Numba's settings that change machine code. The CPU's are in the key of each file.
_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LLVM_REFPRUNE_FLAGS")
_CPU_SETTINGS = ("CPU_NAME", "CPU_FEATURES", "ENABLE_AVX")
#: How variables begin that are settings of the compiler.
_VARIABLES = (*(f"NUMBA_{name}" for name in (*_SETTINGS, "DEBUGINFO")), "NUMBA_OPT")


def source_digest() -> str:
    """Digest of the sources, versions and settings that machine code comes from.

    Raises
    ------
    OSError
        If the sources cannot be read, as in a zip file, or Numba's version is not to be found.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    shared = [package / name for name in ("contract.py", "coefficients.py")]
    for path in sorted([*(package / "kernels").rglob("*.py"), *(package / "runtime").rglob("*.py"), *shared]):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    for compiler in ("numba", "llvmlite"):
        digest.update(_version_file(compiler).read_bytes())
    python = (sys.version_info[:3], object.__basicsize__)
    environment = sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES))
    digest.update(repr((python, environment, _changed_settings())).encode())
    settings_file = Path(".numba_config.yaml")
    if settings_file.is_file():
        digest.update(settings_file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def loaded_digest() -> str | None:
    """The digest as it is at the first call; None where nothing can be kept."""
    try:
        return source_digest()
    except OSError:
        return None


def _version_file(package: str) -> Path:
    """The file that states a package's version; to import the package would take longer than all else."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is not installed as files")
    return Path(spec.origin).with_name("_version.py")


def _changed_settings() -> dict[str, Any]:
    """Settings that the program has changed since Numba has read them from its environment."""
    if "numba" not in sys.modules:
        return {}
    spec = find_spec("numba.core.config")
    if spec is None or spec.loader is None:
        return {}
    config, read_anew = sys.modules["numba"].config, module_from_spec(spec)
    spec.loader.exec_module(read_anew)
    found = {name: (getattr(config, name, None), getattr(read_anew, name, None)) for name in _SETTINGS + _CPU_SETTINGS}
    return {name: repr(value) for name, (value, original) in found.items() if value != original}
