"""The same bits when LLVM compiles for other CPUs, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastnet.testing.cases import small_cases
from fastnet.testing.rungs import digest
from tests.equality import cpu_cases

CASES = [*cpu_cases(), *small_cases().values()]

# Numba keeps the host's features unless they are cleared: with the name alone AVX-512 stays on.
CPUS = {"AVX2 and FMA": "haswell", "no FMA": "nehalem"}


@pytest.fixture(scope="module")
def desired() -> list[str]:
    """Digests of the exact reference."""
    return [digest(case.train("exact")) for case in CASES]


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS.keys())
def test_other_cpus_give_the_same_bits(cpu: str, desired: list[str]) -> None:
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.equality"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    compiled_for, *actual = completed.stdout.splitlines()
    assert compiled_for.strip() == cpu
    differing = [case for case, a, b in zip(CASES, actual, desired, strict=True) if a != b]
    assert differing == []


def test_this_cpu_gives_the_bits_of_the_reference(desired: list[str]) -> None:
    assert [digest(case.train("numba")) for case in CASES] == desired
