"""What may make two machines' results differ, for a bug report."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastnet.threads import usable_cores

#: What is reported of the environment: all that begins so.
VARIABLES = ("FASTNET_", "GLIBC_TUNABLES", "LD_PRELOAD", "MKL_", "NPY_", "NUMBA_", "OMP_", "OPENBLAS_", "PYTHON")
PACKAGES = ("fastnet", "numpy", "numba", "llvmlite")

_FMA_OF_VECTORS = """
declare <8 x double> @llvm.fma.v8f64(<8 x double>, <8 x double>, <8 x double>)
define <8 x double> @f(<8 x double> %a, <8 x double> %b, <8 x double> %c) {
  %d = call <8 x double> @llvm.fma.v8f64(<8 x double> %a, <8 x double> %b, <8 x double> %c)
  ret <8 x double> %d
}
"""


def describe_machine() -> dict[str, str]:
    """CPU, system, versions and settings by name, to paste into a bug report.

    Examples
    --------
    >>> describe_machine()["system"] == platform.platform()
    True
    """
    _, cpu, features = compile_target()
    description = {
        "CPU": cpu_name(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "system": platform.platform(),
        "C library": " ".join(platform.libc_ver()) or "unknown",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {sys.byteorder}-endian",
        **{package: _version(package) for package in PACKAGES},
        "LLVM CPU": cpu,
        "LLVM instructions": ", ".join(vector_instructions()) or "scalar or unknown",
        "LLVM features": " ".join(name[1:] for name in features.split(",") if name.startswith("+")) or "by CPU",
        "NumPy features": " ".join(numpy_features()),
    }
    return description | {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def compile_target() -> tuple[str, str, str]:
    """The triple, CPU and features that Numba hands to LLVM."""
    from numba.core import registry

    triple, cpu, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features


def vector_instructions() -> list[str]:
    """Which of AVX-512, AVX and FMA LLVM uses for that target, told from what it makes of an fma of vectors."""
    import llvmlite.binding as llvm

    triple, cpu, features = compile_target()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    assembly = machine.emit_assembly(llvm.parse_assembly(_FMA_OF_VECTORS))
    marks = {"AVX-512": "zmm", "AVX": "ymm", "FMA": "vfmadd", "NEON": "fmla"}
    return [name for name, mark in marks.items() if mark in assembly]


def numpy_features() -> list[str]:
    """What NumPy may choose between when it starts, and this CPU has."""
    core = import_module("numpy._core._multiarray_umath")
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


def cpu_name() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
