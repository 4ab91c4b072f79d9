"""The same bits when LLVM compiles for other CPUs, in processes of their own."""

from __future__ import annotations

import platform

import pytest

from fastnet.testing import rungs


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="haswell and nehalem are x86")
def test_other_cpus_give_the_same_bits() -> None:
    """By the rung of `verify`, in two processes at once: trainings, the notebook's, and those of small networks."""
    context = rungs.Context("numba")
    try:
        findings = rungs.check_cpus(context)
    finally:
        context.stop_children()
    assert findings.failures == []
    assert findings.figures["trainings"] == 2 * (len(context.cases) + 1 + len(context.desired_of_small))
    assert "AVX" in str(findings.figures["haswell"])
    assert findings.figures["nehalem"] == "SSE"
