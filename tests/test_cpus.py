"""The same bits when LLVM compiles for other CPUs, in processes of their own."""

from __future__ import annotations

import platform

import pytest

from fastnet.testing.other_cpus import check_cpus, stop_children
from fastnet.testing.rung_context import Context


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="haswell and nehalem are x86")
def test_other_cpus_give_the_same_bits() -> None:
    """By the rung of `verify`, in two processes at once: trainings, the notebook's, and those of small networks."""
    context = Context("numba")
    try:
        findings = check_cpus(context)
    finally:
        stop_children(context)
    assert findings.failures == []
    assert findings.figures["trainings"] == 2 * (len(context.cases) + 1 + len(context.desired_of_small))
    assert "AVX" in str(findings.figures["haswell"])
    assert findings.figures["nehalem"] == "SSE"
