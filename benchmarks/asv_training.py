"""asv: trainings and predictions of the registry's cases, their memory, and their ratio to NumPy and to the peak."""

from __future__ import annotations

from typing import ClassVar

from fastnet.bench import endurance, timing
from fastnet.bench.peak import FlopsMeter
from fastnet.bench.peers import PEERS
from fastnet.bench.workloads import DTYPES, Prepared, Workload, get_workloads
from fastnet.threads import usable_cores

CASES = [
    "notebook",
    "notebook-bias",
    "digits",
    "tabular",
    "mnist-like",
    "mnist-wide",
    "regression",
    "deep",
    "predict-one",
    "predict-many",
]
#: Rounds from which a ratio is taken.
ROUNDS = 5


def workload_of(case: str, dtype: str) -> Workload:
    """The workload, on few samples."""
    (workload,) = get_workloads([case], [dtype], quick=True)
    return workload


def warm(workload: Workload, peer: str) -> Prepared:
    """A workload that has run once: kernels are compiled and loaded."""
    prepared = workload.prepare(PEERS[peer])
    prepared.run(1)
    prepared.reset()
    return prepared


class Case:
    """What the classes below share: one case in one dtype, warm."""

    params: ClassVar = (CASES, list(DTYPES))
    param_names: ClassVar = ["case", "dtype"]
    timeout = 300

    def setup(self, case: str, dtype: str) -> None:
        """Prepare, compile and warm up."""
        self.workload = workload_of(case, dtype)
        self.prepared = warm(self.workload, "numba")


class Time(Case):
    """Seconds and bytes."""

    def time_run(self, case: str, dtype: str) -> None:
        """An epoch, or a call."""
        self.prepared.run(1)

    def peakmem_run(self, case: str, dtype: str) -> None:
        """The process at its largest."""
        self.prepared.run(1)


class Ratio(Case):
    """Figures that a faster machine does not change, or hardly."""

    def track_speed_by_numpy_loop(self, case: str, dtype: str) -> float:
        """How many times as fast as the NumPy loop."""
        both = {"numba": self.prepared, "numpy-loop": warm(self.workload, "numpy-loop")}
        times = {name: self.workload.runs or timing.calls_in_a_turn(one) for name, one in both.items()}
        taken = timing.interleave(both, times, ROUNDS)
        return timing.median_ratio(taken["numpy-loop"], taken["numba"])

    track_speed_by_numpy_loop.unit = "times"  # type: ignore[attr-defined]

    def track_share_of_peak(self, case: str, dtype: str) -> float:
        """Flops a second, as a share of the machine's peak in the same rounds."""
        meter = FlopsMeter(dtype)
        peak: list[float] = []
        times = {"numba": self.workload.runs or timing.calls_in_a_turn(self.prepared)}
        taken = timing.interleave(
            {"numba": self.prepared}, times, ROUNDS, between=lambda: peak.append(usable_cores() * meter())
        )
        work = self.workload.flops * self.workload.units
        return timing.median_ratio([work / flops for flops in peak], taken["numba"])

    track_share_of_peak.unit = "share"  # type: ignore[attr-defined]


class Endurance:
    """What a long training costs beyond its steps."""

    params: ClassVar = list(DTYPES)
    param_names: ClassVar = ["dtype"]
    timeout = 300

    def track_time_of_late_steps(self, dtype: str) -> float:
        """A step after 10000, by one of the first."""
        return endurance.late_step_ratio(dtype)

    track_time_of_late_steps.unit = "times"  # type: ignore[attr-defined]

    def track_bytes_of_1000_steps(self, dtype: str) -> float:
        """Allocated by steps after warm-up."""
        counted = endurance.allocated_bytes(dtype)
        return float("nan") if counted is None else counted

    track_bytes_of_1000_steps.unit = "bytes"  # type: ignore[attr-defined]
