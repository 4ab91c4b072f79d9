"""The case `scaling`: the time of a step against the width, the depth, the batch and the threads."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from fastnet.bench.workloads import DTYPES, Training, Workload
from fastnet.testing.cases import BENCHMARKS, Case
from fastnet.threads import usable_cores

#: What changes, and the values it takes; a quick run takes the first and a middle one.
AXES: dict[str, tuple[int, ...]] = {
    "width": (4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16),
    "batch": (1, 4, 16, 64, 256, 1024, 4096),
}
#: Of what does not change.
WIDTH, DEPTH, BATCH = 64, 2, 128
#: Multiplications of an epoch, about, and in a quick run: a step of the largest networks takes some hundredths of a
#: second.
_WORK, _QUICK_WORK, _MOST_STEPS = 2e9, 1e8, 40
#: Enough for every class to be among them.
_LEAST_SAMPLES = 256


def network_case(width: int, depth: int, batch: int, quick: bool) -> Case:
    """A classifier of ``depth`` hidden layers for ten classes, and an epoch of a few batches."""
    sizes = (width, *(width,) * depth, 10)
    steps = int((_QUICK_WORK if quick else _WORK) / (6 * batch * sum(a * b for a, b in pairwise(sizes))))
    n_samples = batch * max(-(-_LEAST_SAMPLES // batch), min(_MOST_STEPS, max(2, steps)))
    # A relu amplifies what is rounded differently, where it is at its kink, and results could not be compared.
    case = replace(BENCHMARKS["tabular"], layer_sizes=sizes, activation="tanh", batch_size=batch, n_samples=n_samples)
    return replace(case, epochs=1) if quick else case


def scaling_workloads(quick: bool) -> list[Workload]:
    """A workload for every point of every curve."""
    workloads: list[Workload] = []
    for dtype in DTYPES:
        for axis, values in AXES.items():
            for value in (values[0], values[len(values) // 2]) if quick else values:
                sizes = {"width": WIDTH, "depth": DEPTH, "batch": BATCH} | {axis: value}
                workloads.append(
                    Training(
                        "scaling", f"{axis} {value}", dtype, network_case(**sizes, quick=quick), axis=axis, value=value
                    )
                )
        case = network_case(WIDTH, DEPTH, 1024, quick)
        for threads in range(1, usable_cores() + 1):
            title = f"threads {threads}"
            workloads.append(Training("scaling", title, dtype, case, threads, axis="threads", value=threads))
    return workloads
