"""The case `startup`: whole processes, timed from outside, from their start to their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, UnsupportedError
from fastnet.bench.results import OWN, SPECIALIZED
from fastnet.bench.workloads import DTYPES, Prepared, Training, Workload
from fastnet.testing.cases import BENCHMARKS


@dataclass(frozen=True)
class Process(Workload):
    """A process that imports a library and may train the notebook's network with it.

    Attributes
    ----------
    epochs : int
        For how long it trains; with 0 it only imports.
    cold : bool
        Whether fastnet's cache of kernels is empty before.
    installed : bool
        Whether libraries that have to be installed take part: PyTorch needs ten seconds on a slow core.
    """

    epochs: int
    cold: bool = False
    installed: bool = True

    unit: ClassVar[str] = "process"
    bounds: ClassVar[dict[str, float]] = Training.bounds

    @property
    def flops(self) -> float:
        """Not what the time goes into."""
        return 0.0

    @property
    def runs(self) -> int:
        """One process at a time."""
        return 1

    @property
    def training(self) -> Training:
        """The training of the process."""
        return Training(self.name, self.title, self.dtype, replace(BENCHMARKS["notebook"], epochs=self.epochs))

    def variant(self, peer: Peer) -> tuple[Process, str]:
        # The process finds the variant itself; results that are another training's are not comparable.
        case, note = peer.variant(self.training.case)
        if self.epochs and case != self.training.case:
            raise UnsupportedError("cannot train the notebook's network as it is")
        return self, note

    def prepare(self, peer: Peer) -> Prepared:
        code, has_kernels = peer.import_statement, peer.name in (OWN, SPECIALIZED)
        if self.cold and not has_kernels:
            raise UnsupportedError("has no such cache")
        if peer.distribution and not self.installed:
            raise UnsupportedError("only imports in a quick run")
        if self.epochs and (code is not None or has_kernels):
            # What it cannot do is known here, not in the process.
            peer.training(self.training.problem())
            code = f"from fastnet.bench.startup import train; train({peer.name!r}, {self.dtype!r}, {self.epochs})"
        if code is None:
            raise UnsupportedError("is not started in processes of its own")
        printed: list[str] = []

        def start(environment: Mapping[str, str]) -> None:
            ran = subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                # A Ctrl-C is for the benchmark, which ends its round.
                process_group=0 if os.name == "posix" else None,
            )
            printed[:] = ran.stdout.splitlines()

        def run(times: int) -> None:
            for _ in range(times):
                if self.cold:
                    with tempfile.TemporaryDirectory(prefix="fastnet-bench-") as folder:
                        start(os.environ | {"FASTNET_CACHE_DIR": folder})
                else:
                    start(os.environ)

        def result() -> Array:
            # An import has no result; one that fails ends in an error.
            return np.array(json.loads(printed[-1]), self.dtype) if self.epochs else np.zeros(1)

        return Prepared(run, lambda: None, result)

    def distance(self, actual: Array, desired: Array) -> float:
        """As for the training."""
        return self.training.distance(actual, desired) if self.epochs else 0.0


def train(peer: str, dtype: str, epochs: int) -> None:
    """Train the notebook's network, and print the parameters: what the processes do."""
    from fastnet.bench.peers import PEERS

    case = replace(BENCHMARKS["notebook"], dtype=dtype)
    training = PEERS[peer].training(Problem(case))
    training.run(epochs)
    sys.stdout.write(json.dumps([float(value) for value in training.parameters()]) + "\n")


def startup_workloads(quick: bool) -> list[Workload]:
    """Imports, first fits and whole processes.

    In a quick run each is started once, to be checked and timed; with an empty cache in one dtype only, and of other
    libraries than NumPy the imports only.
    """
    rounds, cold_rounds = (0, 0) if quick else (None, 3)

    def fit(title: str, dtype: str, epochs: int) -> Process:
        return Process("startup", title, dtype, epochs, installed=not quick, most_rounds=rounds)

    workloads: list[Workload] = [Process("startup", "import", "float64", 0, most_rounds=rounds)]
    for dtype in DTYPES:
        workloads.append(fit("first fit, kernels in the cache", dtype, 1))
        if not quick or dtype == "float64":
            workloads.append(Process("startup", "first fit, empty cache", dtype, 1, cold=True, most_rounds=cold_rounds))
    epochs = BENCHMARKS["notebook"].epochs
    workloads.append(fit(f"notebook, {epochs} epochs", "float64", epochs))
    return workloads
