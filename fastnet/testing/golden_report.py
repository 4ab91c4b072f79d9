"""Replays of goldens: whether they agree, and if not, where they part and why that could be."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from fastnet.backends import Backend
from fastnet.history import DivergenceError
from fastnet.testing.comparison import Comparison, compare
from fastnet.testing.difference import Difference, first_difference
from fastnet.testing.golden_records import Bound, Entry, Golden, Index
from fastnet.testing.trajectory import Snapshot, Training
from fastnet.testing.ulp import max_ulp

Array = NDArray[np.floating]

#: Instructions on which floating-point code may depend.
_FEATURES = ("sse", "avx", "fma", "f16c", "neon", "sve", "fp")
#: How many steps trainings are compared after they parted.
_STEPS_AFTER = 10


class GoldenError(AssertionError):
    """A training that is not the recorded one, or went otherwise."""


def environment() -> dict[str, str]:
    """Versions, and the CPU for which Numba compiles: what a golden's header tells of the machine."""
    described = {}
    for package in ("fastnet", "numba", "llvmlite", "numpy"):
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = "not installed"
    described["python"], described["system"] = platform.python_version(), f"{platform.system()} {platform.machine()}"
    import llvmlite.binding as llvm

    # As Numba has it: an empty list of features is a choice, too.
    described["cpu"] = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    present = sorted(name[1:] for name in features.split(",") if name.startswith("+"))
    described["cpu features"] = " ".join(name for name in present if name.startswith(_FEATURES)) or "those of the name"
    return described


def backend_name(backend: str | Backend) -> str:
    """What messages and files call a backend."""
    return "a backend of one's own" if isinstance(backend, Backend) else backend


@dataclass(frozen=True)
class Parting:
    """Where a replay left its golden, as far as the file tells.

    Attributes
    ----------
    epoch : int
        The first recorded epoch that differs.
    differences : tuple of Difference
        For the loss and each array, the first shown element that differs, or is off by more than the bound.
    names : tuple of str
        All arrays that differ.
    diverged : str
        What a replay said that diverged.
    """

    epoch: int
    differences: tuple[Difference, ...]
    names: tuple[str, ...]
    diverged: str = ""

    def __str__(self) -> str:
        if self.diverged:
            return self.diverged
        lines = [str(difference) for difference in self.differences]
        if self.names and not any(difference.layer for difference in self.differences):
            lines.append(f"digests differ, first that of {self.names[0]}, but no parameter that the file shows")
        return "\n".join([*lines, f"arrays that differ: {', '.join(self.names) or 'none'}"])


@dataclass(frozen=True)
class GoldenReport:
    """What came of a replay; its text explains a failure.

    Attributes
    ----------
    name : str
        Name of the file.
    golden : Golden
        What was recorded.
    backend : str
        What replayed.
    n_checked : int
        How many recorded epochs agree.
    parting : Parting or None
        Where the replay left the golden; None if it agrees.
    agreeing : dict of str to bool
        Which backends agree with the golden up to that epoch.
    comparison : Comparison or None
        With a backend that agrees, step by step: the exact epoch, batch, array and index.
    distances : tuple of (int, int)
        Recorded epochs from that one on, and the largest distance to the golden in ULP, of the loss and
        of shown elements.
    changes : tuple of str
        What differs between the environment of the recording and this one.
    """

    name: str
    golden: Golden
    backend: str
    n_checked: int
    parting: Parting | None = None
    agreeing: Mapping[str, bool] = field(default_factory=dict)
    comparison: Comparison | None = None
    distances: tuple[tuple[int, int], ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the replay agrees with the golden."""
        return self.parting is None

    @property
    def epoch(self) -> int | None:
        """The first epoch that differs: of all, if a backend reproduces the golden, or of the recorded ones."""
        if self.comparison is not None and self.comparison.epoch is not None:
            return self.comparison.epoch
        return None if self.parting is None else self.parting.epoch

    def require(self) -> GoldenReport:
        """Return this report, or raise a `GoldenError` with its text if the replay failed."""
        __tracebackhide__ = True
        if not self.passed:
            raise GoldenError(str(self))
        return self

    def __str__(self) -> str:
        golden, parting = self.golden, self.parting
        agreement = "bit for bit" if golden.bound is None else f"within {golden.bound.size:g} {golden.bound.kind}"
        if parting is None:
            return f"{self.name}: {self.backend} agrees {agreement} in {self.n_checked} recorded epochs"
        lines = [
            f"the first recorded epoch that differs is {parting.epoch}, after {self.n_checked} that agree",
            str(parting),
        ]
        if self.comparison is not None and self.comparison.equal:
            lines.append("step by step there is no difference: it depends on how training is divided into calls")
        elif self.comparison is not None:
            lines = [str(self.comparison), *lines]
        lines += self._curve()
        lines += [
            f"{name} {'agrees' if yes else 'does not agree'} with the golden" for name, yes in self.agreeing.items()
        ]
        lines += [self._verdict(), *(self.changes or ["the environment is the one in the golden's header"])]
        last = golden.recordings[-1]
        lines.append(f"recorded on {last.date} by {last.author}: {last.reason}")
        title = f"{self.name}: {self.backend} does not agree {agreement}, from epoch {self.epoch} on"
        return "\n".join([title, *("  " + line for line in "\n".join(lines).splitlines())])

    def _verdict(self) -> str:
        if self.agreeing.get("exact"):
            return f"the reference still gives the golden: the fault is in {self.backend}, or in what compiled it"
        if self.agreeing.get("numba"):
            return f"the kernels still give the golden, {self.backend} does not: look at the reference"
        return "no backend gives the golden: the arithmetic or the file has changed; if it is meant to, record it again"

    def _curve(self) -> list[str]:
        """The distances as bars, and whether they grow."""
        if not self.distances:
            return []
        # As in `Comparison`: a rounding moves a number by a few units, a wrong term by half of its bits or more.
        jump = 1 << np.finfo(self.golden.architecture["dtype"]).nmant // 2
        first, last = self.distances[0][1], self.distances[-1][1]
        course = "it jumps" if first >= jump else "it grows" if last > first else "it stays small"
        lines = [f"distance to the golden by epoch, in ULP of the loss and of what is shown (# is four bits): {course}"]
        bars = (f"{epoch:>8} {ulp:>20} {'#' * -(-ulp.bit_length() // 4)}" for epoch, ulp in self.distances)
        return lines + [bar.rstrip() for bar in bars]


def replay(
    golden: Golden, training: Training, backend: str | Backend, name: str, threads: int | None = None
) -> GoldenReport:
    """Train, and compare with a golden of the same training; see `check`."""
    label = backend_name(backend)
    failed = _first_failing(golden, training, backend, golden.entries, threads)
    if failed is None:
        return GoldenReport(name, golden, label, len(golden.entries))
    up_to_here = golden.entries[: failed + 1]
    agreeing = {label: False}
    for other in ("exact", "numba"):
        if other != backend:
            agreeing[other] = _first_failing(golden, training, other, up_to_here) is None
    sound = next((other for other, agrees in agreeing.items() if agrees), None)
    comparison = None
    if sound is not None and golden.bound is None:
        # Some steps more, to see whether the distance grows.
        epochs = min(training.settings["epochs"], up_to_here[-1].epoch + 1 + _STEPS_AFTER)
        settings = training.settings | {"epochs": epochs, "sample_weight": training.sample_weight}
        of_training = (training.network, training.X, training.y)
        comparison = compare(backend, sound, *of_training, steps_after=_STEPS_AFTER, **settings)
    parting, distances = _recorded_parting(golden, training, backend, failed)
    here = environment()
    changes = tuple(
        f"{key}: {golden.environment.get(key, 'not stated')} in the golden, {here.get(key, 'not stated')} here"
        for key in sorted(golden.environment.keys() | (here.keys() if golden.bound is None else set()))
        if golden.environment.get(key) != here.get(key)
    )
    return GoldenReport(name, golden, label, failed, parting, agreeing, comparison, distances, changes)


def _first_failing(
    golden: Golden, training: Training, backend: str | Backend, entries: Sequence[Entry], threads: int | None = None
) -> int | None:
    """Number of the first entry with which a backend does not agree."""
    try:
        for number, snapshot in enumerate(training.snapshots([entry.epoch for entry in entries], backend, threads)):
            if not _agrees(entries[number], snapshot, golden.bound):
                return number
    except DivergenceError as error:
        # On the way to this one.
        return next(number for number, entry in enumerate(entries) if entry.epoch >= error.epoch)
    return None


def _agrees(entry: Entry, snapshot: Snapshot, bound: Bound | None) -> bool:
    if bound is None:
        return snapshot.entry({name: list(array.shown) for name, array in entry.arrays.items()}) == entry
    return not any(True for _ in _beyond(entry, snapshot, bound))


def _pairs(entry: Entry, snapshot: Snapshot) -> Iterator[tuple[str, list[Index], Array, Array]]:
    """What an entry shows: the name, indices, and both sides' numbers."""
    yield "loss", [(0,)], np.array([snapshot.loss]), np.array([entry.loss])
    for name, array in snapshot.parameters.items():
        shown = entry.arrays[name].shown
        if shown:
            indices = list(shown)
            actual = np.array([array[index] for index in indices])
            yield name, indices, actual, np.array(list(shown.values()), array.dtype)


def _beyond(entry: Entry, snapshot: Snapshot, bound: Bound | None) -> Iterator[Difference]:
    """For each array the first shown element that is off by more than the bound allows."""
    for name, indices, actual, desired in _pairs(entry, snapshot):
        for position, index in enumerate(indices):
            one, other = actual[position : position + 1], desired[position : position + 1]
            difference = first_difference({name: one}, {name: other})
            if difference is None or (bound is not None and _is_within(one, other, desired, bound)):
                continue
            yield Difference(
                name,
                index,
                difference.actual,
                difference.desired,
                difference.ulp,
                max_ulp(actual, desired),
                int(np.count_nonzero(actual != desired)),
                len(indices),
            )
            break


def _is_within(one: Array, other: Array, desired: Array, bound: Bound) -> bool:
    if bound.kind == "ulp":
        return max_ulp(one, other) <= bound.size
    largest = float(np.abs(desired).max())
    return bool(abs(float(one[0]) - float(other[0])) <= bound.size * largest)


def _recorded_parting(
    golden: Golden, training: Training, backend: str | Backend, failed: int
) -> tuple[Parting, tuple[tuple[int, int], ...]]:
    """The parting as the file tells it, and the distances of what it shows from there on."""
    parting, distances = None, []
    snapshots = training.snapshots([entry.epoch for entry in golden.entries], backend)
    try:
        for number, (entry, snapshot) in enumerate(zip(golden.entries, snapshots, strict=True)):
            if number == failed:
                differences = tuple(_beyond(entry, snapshot, golden.bound))
                now = snapshot.entry({}).arrays
                names = [name for name, array in entry.arrays.items() if now[name].digest != array.digest]
                if golden.bound is not None:
                    names = [difference.name for difference in differences if difference.layer]
                parting = Parting(entry.epoch, differences, tuple(names))
            if number >= failed:
                distances.append(
                    (entry.epoch, max(max_ulp(one, other) for _, _, one, other in _pairs(entry, snapshot)))
                )
    except DivergenceError as error:
        parting = parting or Parting(golden.entries[failed].epoch, (), (), str(error))
    if parting is None:
        raise AssertionError("the replay agreed when it was repeated: the backend is not deterministic")
    return parting, tuple(distances)
