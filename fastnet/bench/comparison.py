"""Two runs of the benchmarks: what got slower, beyond the noise.

A shared machine is faster at one time than at another: by how much, the other peers' times tell, whose code is the
same in both runs, and how far these differ in that tells how sure it is. A machine whose cores are shared has two
speeds, each for some seconds: least times depend on whether the faster one was met, and medians jump where both are
as frequent. So times are means of the middle half of the rounds, which are spread over the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, hypot, log
from statistics import fmean, median, quantiles

from fastnet.bench.results import OWN, SPECIALIZED, Cell, Measurement, Results

#: What is slower by less is never reported.
LEAST_SLOWDOWN = 1.10
#: Standard errors, of both times and of the machine's drift, that a slow-down has to exceed.
ERRORS = 3.0
#: Fewer changes than these have no scatter.
LEAST_CHANGES = 4


@dataclass(frozen=True)
class Change:
    """How one of fastnet's times changed.

    Attributes
    ----------
    key : str
        The measurement.
    ratio : float
        New time by old, without the machine's drift.
    limit : float
        Up to which ratio it may be noise.
    """

    key: str
    ratio: float
    limit: float

    @property
    def is_slower(self) -> bool:
        """Whether it got slower beyond the noise."""
        return self.ratio > self.limit

    def __str__(self) -> str:
        word = "SLOWER" if self.is_slower else "not slower"
        return f"{word}: {self.key}: {self.ratio:.2f} times the time (up to {self.limit:.2f} is noise)"


def compare(old: Results, new: Results) -> list[Change]:
    """Compare the times of fastnet's kernels in two runs.

    Parameters
    ----------
    old, new : Results
        Runs of the same cases on the same machine.

    Returns
    -------
    list of Change
        One for each measurement that both have.

    Raises
    ------
    ValueError
        If they have no measurement in common, or come from different machines or settings.
    """
    for what in ("CPU", "cores"):
        if old.machine.get(what) != new.machine.get(what):
            raise ValueError(f"the runs are of different machines: {old.machine.get(what)} and {new.machine.get(what)}")
    for setting in ("quick", "threads"):
        if old.settings[setting] != new.settings[setting]:
            raise ValueError(f"the runs differ in {setting}: {old.settings[setting]} and {new.settings[setting]}")
    before = {one.key: one for one in old.measurements}
    pairs = [(before[one.key], one) for one in new.measurements if one.key in before]
    own = [
        (now.key, old_cell, new_cell)
        for then, now in pairs
        if (old_cell := then.cell(OWN)) is not None and (new_cell := now.cell(OWN)) is not None
    ]
    if not own:
        raise ValueError("the runs have no measurement in common")
    drift, error = _drift(pairs)
    changes = []
    for key, old_cell, new_cell in own:
        noise = hypot(old_cell.standard_error, new_cell.standard_error, error)
        ratio = _middle(new_cell) / _middle(old_cell) / drift
        changes.append(Change(key, ratio, max(LEAST_SLOWDOWN, 1.0 + ERRORS * noise)))
    return changes


def _drift(pairs: list[tuple[Measurement, Measurement]]) -> tuple[float, float]:
    """How much more time the other peers took: the median over all their cells, and how sure that is.

    Without any cells these are 1 and 0. A cell shows its own error at least; where the cells differ by more, that is
    the standard deviation of a normal distribution with the same quartiles.
    """
    cells = [
        (before, cell)
        for then, now in pairs
        for cell in now.cells
        if cell.peer not in (OWN, SPECIALIZED) and (before := then.cell(cell.peer)) is not None
    ]
    if not cells:
        return 1.0, 0.0
    logs = [log(_middle(cell) / _middle(before)) for before, cell in cells]
    error = median(hypot(before.standard_error, cell.standard_error) for before, cell in cells)
    if len(logs) >= LEAST_CHANGES:
        low, _, high = quantiles(logs, n=4, method="inclusive")
        error = max(error, (high - low) / 2 / 0.6745)
    return exp(median(logs)), error


def _middle(cell: Cell) -> float:
    """The mean of the middle half of the rounds."""
    quarter = len(cell.seconds) // 4
    return fmean(sorted(cell.seconds)[quarter : len(cell.seconds) - quarter])
