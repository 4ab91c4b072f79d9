"""Trainings that are run in processes of their own, where LLVM compiles for another CPU."""

from __future__ import annotations

import sys
from dataclasses import replace

from numba.core import registry

from fastnet.testing.cases import BENCHMARKS, NOTEBOOK, Case, covering_cases, small_cases
from fastnet.testing.rungs import digest


def cpu_cases() -> list[Case]:
    """Cases that use every function of the kernels, the notebook at its length, and one of larger matrices."""
    digits = replace(BENCHMARKS["digits"], epochs=1, n_samples=209)
    others = [replace(case, dtype=dtype) for case in (NOTEBOOK, digits) for dtype in ("float64", "float32")]
    return [*covering_cases().values(), *others]


def main() -> None:
    """Print for which CPU LLVM compiles, then the digest of every case on the kernels."""
    lines = [" ".join(registry.cpu_target.target_context.codegen().magic_tuple()[1:])]
    lines += [digest(case.train("numba")) for case in cpu_cases()]
    lines += [digest(case.train("numba", specialize=True)) for case in small_cases().values()]
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main()
