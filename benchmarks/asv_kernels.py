"""asv: single operations, their distance from the true values, and what compiling and importing cost."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from benchmarks.asv_training import warm
from fastnet import kernels
from fastnet.bench import timing
from fastnet.bench.peers import PEERS
from fastnet.bench.startup import startup_workloads
from fastnet.bench.workloads import DTYPES, get_workloads
from fastnet.testing.accuracy import IN_FLOAT64, LIMITS
from fastnet.testing.ulp import max_ulp


class Operations:
    """Matmul, exp, sigmoid, tanh and Adam, each alone."""

    titles: ClassVar = [one.title for one in get_workloads(["kernels"], ["float32"], quick=True)]
    params: ClassVar = (titles, list(DTYPES))
    param_names: ClassVar = ["operation", "dtype"]

    def setup(self, operation: str, dtype: str) -> None:
        """Prepare, compile and warm up."""
        found = {one.title: one for one in get_workloads(["kernels"], [dtype], quick=True)}
        self.prepared = warm(found[operation], "numba")

    def time_operation(self, operation: str, dtype: str) -> None:
        """One call."""
        self.prepared.run(1)


class Accuracy:
    """Distances of the elementary functions in float32 from what float64 arithmetic gives, rounded."""

    params: ClassVar = (list(LIMITS),)
    param_names: ClassVar = ["function"]

    def setup(self, function: str) -> None:
        """Draw arguments."""
        self.x = np.random.default_rng(0).uniform(1e-3, 80, 1 << 18).astype(np.float32)

    def track_ulp(self, function: str) -> int:
        """The largest distance from the correctly rounded value."""
        true = IN_FLOAT64[function](self.x.astype(np.float64)).astype(np.float32)
        return int(max_ulp(getattr(kernels, function)(self.x), true))

    track_ulp.unit = "ULP"  # type: ignore[attr-defined]


class Processes:
    """Whole processes: importing, and a first fit with and without kernels in the cache."""

    found: ClassVar = {f"{one.title}, {one.dtype}": one for one in startup_workloads(quick=False)}
    params: ClassVar = (list(found),)
    param_names: ClassVar = ["process"]
    timeout = 300

    def track_seconds(self, process: str) -> float:
        """From start to end, once the cache is as it is to be."""
        prepared = self.found[process].prepare(PEERS["numba"])
        if "empty" not in process:
            prepared.run(1)
        return timing.seconds(prepared, 1)

    track_seconds.unit = "s"  # type: ignore[attr-defined]
