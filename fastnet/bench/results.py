"""What a benchmark found: numbers only, which reports are made of and files hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import sqrt
from os import PathLike
from pathlib import Path
from statistics import median, quantiles
from typing import Any

#: What the files begin with; another number is another format.
FORMAT = 1
#: fastnet's own kernels, and what ratios are taken to.
OWN, BASELINE = "numba", "numpy-loop"
#: The kernels compiled for one small network.
SPECIALIZED = "numba-specialized"
#: Peers that are fastnet itself.
OURS = (OWN, SPECIALIZED, "numpy")


@dataclass(frozen=True)
class Cell:
    """A peer's figures for one measurement.

    Attributes
    ----------
    peer, label : str
        Its name, and what tables show.
    seconds : list of float
        Time of a unit, one entry for each round.
    first_seconds : float or None
        Preparing and the first run, compilation included.
    difference : float or None
        How far its result lay from fastnet's; None where there is none to compare.
    allocated : float or None
        Bytes that a unit allocates after warm-up; None where it was not counted.
    note : str
        What other work it does.
    """

    peer: str
    label: str
    seconds: list[float]
    first_seconds: float | None = None
    difference: float | None = None
    allocated: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the rounds, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    @property
    def standard_error(self) -> float:
        """Of the median, as a share of it: for a normal distribution, from the distance of the quartiles."""
        return 1.2533 * self.spread / 0.6745 / sqrt(len(self.seconds))


@dataclass(frozen=True)
class Measurement:
    """One workload in one dtype.

    Attributes
    ----------
    case, title, dtype : str
        The name of the case, what was measured, and in which dtype.
    unit : str
        What a time is given for.
    flops, n_bytes : float
        Arithmetic, or memory traffic, of a unit; 0 where that does not measure it.
    bound : float or None
        The largest difference that was allowed.
    peak : list of float
        The machine's flops a second (or bytes a second) in each round.
    cells : list of Cell
        A cell for each peer.
    absent : dict of str to str
        Why other peers have none, by label.
    wrong : dict of str to str
        Peers whose result was not fastnet's, by label.
    axis, value : str, float
        For the points of a curve: what changes, and its value.
    """

    case: str
    title: str
    dtype: str
    unit: str
    flops: float = 0.0
    n_bytes: float = 0.0
    bound: float | None = None
    peak: list[float] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    axis: str = ""
    value: float = 0.0

    @property
    def key(self) -> str:
        """What tells it from other measurements."""
        return f"{self.case}, {self.title}, {self.dtype}"

    def cell(self, peer: str) -> Cell | None:
        """The cell of a peer, if there is one."""
        return next((cell for cell in self.cells if cell.peer == peer), None)

    @property
    def best_peer(self) -> Cell | None:
        """The fastest cell that is not fastnet's."""
        return min((cell for cell in self.cells if cell.peer not in OURS), key=lambda cell: cell.median, default=None)

    def speed(self, peer: str, versus: str) -> float | None:
        """How many times as fast a peer is as another: the median of the rounds' ratios."""
        own, other = self.cell(peer), self.cell(versus)
        if own is None or other is None:
            return None
        pairs = zip(own.seconds, other.seconds, strict=False)
        return median(theirs / ours for ours, theirs in pairs)

    def rate(self, cell: Cell) -> float | None:
        """Flops a second, or bytes a second."""
        work = self.flops or self.n_bytes
        return work / cell.median if work else None

    def share_of_peak(self, cell: Cell) -> float | None:
        """That rate as a share of the machine's peak, round by round."""
        work = self.flops or self.n_bytes
        if not work or not self.peak:
            return None
        return median(work / s / peak for s, peak in zip(cell.seconds, self.peak, strict=False))


@dataclass(frozen=True)
class Results:
    """A run of the benchmarks.

    Attributes
    ----------
    date : str
        When it ran, as ISO 8601.
    machine : dict of str to str
        CPU, system, versions.
    settings : dict of str to str
        How it was run.
    measurements : list of Measurement
        What it found.
    """

    date: str
    machine: dict[str, str]
    settings: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)

    def of_case(self, case: str) -> Iterator[Measurement]:
        """The measurements of a case."""
        return (one for one in self.measurements if one.case == case)

    @property
    def wrong(self) -> list[str]:
        """What was not as fastnet has it."""
        return [f"{m.key}: {label}: {why}" for m in self.measurements for label, why in m.wrong.items()]

    def write(self, path: str | PathLike[str]) -> None:
        """Write a JSON file."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")


def read_results(path: str | PathLike[str]) -> Results:
    """Read a file that `Results.write` has written.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds anything else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"{path} is of another format than {FORMAT}")
        measurements = [
            Measurement(**one | {"cells": [Cell(**cell) for cell in one["cells"]]}) for one in data.pop("measurements")
        ]
        return Results(**data, measurements=measurements)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a file written by `python -m fastnet bench --json`: {error}") from error
