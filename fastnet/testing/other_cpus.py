"""The rung of other CPUs: trainings in processes that compile for these, and the digests that have to come of them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

from fastnet.testing.cases import NOTEBOOK, covering_cases, small_cases
from fastnet.testing.machine import numpy_features, vector_instructions
from fastnet.testing.rung_context import Context, Findings, digest, first_parting

#: CPUs that Numba is told to compile for; what LLVM must and must not use then; NumPy's names for what it must not.
CPUS: dict[str, tuple[str, set[str], set[str], tuple[str, ...]]] = {
    "AVX2": ("haswell", {"AVX", "FMA"}, {"AVX-512"}, ("AVX512", "X86_V4")),
    "no FMA": ("nehalem", set(), {"AVX-512", "AVX", "FMA"}, ("AVX512", "X86_V4", "AVX2", "FMA", "X86_V3")),
}


def reason_without_children(context: Context) -> str:
    """Why no other CPU can be compiled for, if that is so."""
    if context.backend != "numba":
        return "a backend that is no name cannot be handed to other processes"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"{platform.machine()} has neither AVX2 nor a CPU without FMA to compile for"
    return ""


def start_children(context: Context) -> None:
    """Let processes compile for other CPUs, beside all other checks."""
    if reason_without_children(context):
        return
    for name, (cpu, _, _, unwanted) in CPUS.items():
        # Numba keeps the host's features unless they are cleared: with the name alone AVX-512 stays on.
        # NumPy, which makes the data, is to do without them too.
        disabled = [feature for feature in numpy_features() if feature.startswith(unwanted)]
        variables = {
            "NUMBA_CPU_NAME": cpu,
            "NUMBA_CPU_FEATURES": "",
            "NPY_DISABLE_CPU_FEATURES": " ".join(disabled),
        }
        context.children[name] = subprocess.Popen(
            [sys.executable, "-c", "from fastnet.testing import other_cpus; other_cpus.main_of_child()"],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def stop_children(context: Context) -> None:
    """End those of these processes that are still running."""
    for child in context.children.values():
        if child.poll() is None:
            child.kill()
        child.communicate()


def check_cpus(context: Context) -> Findings:
    """Compiled for AVX2, and for a CPU without FMA, trainings have the same bits, on kernels of their own too."""
    reason = reason_without_children(context)
    if reason:
        return Findings(skipped=reason)
    if not context.children:
        start_children(context)
    findings = Findings(figures={"trainings": 0})
    desired = {name: digest(arrays) for name, arrays in (context.desired | context.desired_of_small).items()}
    desired["notebook"] = digest(NOTEBOOK.train(context.backend))
    for name, child in context.children.items():
        cpu, needed, unwanted, _ = CPUS[name]
        context.progress(f"{name} ({cpu})")
        output, errors = child.communicate(json.dumps(desired))
        if child.returncode != 0:
            findings.failures.append(f"{cpu}: the process ended with {child.returncode}: {errors.strip()[-500:]}")
            continue
        report = json.loads(output)
        instructions = set(report["instructions"])
        findings.figures[cpu] = " ".join(sorted(instructions)) or "SSE"
        findings.figures["trainings"] = int(findings.figures["trainings"]) + report["trainings"]
        if not needed <= instructions or instructions & unwanted:
            findings.failures.append(f"{cpu}: LLVM compiles for {', '.join(sorted(instructions)) or 'neither'}")
        findings.failures += [f"{cpu}: {failure}" for failure in report["failures"]]
    return findings


def main_of_child() -> None:
    """Train in a process that compiles for another CPU, and read the digests that are to come of it.

    It prints its instructions, how many trainings there were, and where those part whose digests are others. The exact
    reference, which takes seconds, is asked here only for these.
    """
    small, others = small_cases(), covering_cases() | {"notebook": NOTEBOOK}
    trained = {name: case.train("numba", specialize=True) for name, case in small.items()}
    trained |= {name: case.train("numba") for name, case in others.items()}
    desired = json.load(sys.stdin)
    failures = []
    for name, case in (small | others).items():
        found = digest(trained[name])
        if found == desired[name]:
            continue
        exact = case.train("exact")
        if found == digest(exact):
            parted = "exact has the same bits as the kernels, and others on this machine's own CPU"
        else:
            parted = first_parting(case, "numba", trained[name], exact)
        failures.append(f"{name}: {parted}")
    report = {"instructions": vector_instructions(), "failures": failures, "trainings": len(trained)}
    sys.stdout.write(json.dumps(report))
