"""Two runs of the benchmarks: what got slower, beyond the noise.

A shared machine is faster at one time than at another: by how much, the other peers' times tell, whose code is the
same in both runs, and how far these differ in that tells how sure it is. And it is disturbed for a while: a
measurement is slower only if the median of its rounds, their lower quartile and the least of them all say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median, quantiles

from fastnet.bench.results import OWN, SPECIALIZED, Measurement, Results

#: What is slower by less is never reported.
LEAST_SLOWDOWN = 1.10
#: Standard errors, of the medians and of the machine's drift, that a slow-down has to exceed.
ERRORS = 2.0
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
    drift, scatter = _drift(pairs)
    changes = []
    for key, old_cell, new_cell in own:
        ratios = [measure(new_cell.seconds) / measure(old_cell.seconds) for measure in (median, _lower_quartile, min)]
        noise = sqrt(old_cell.standard_error**2 + new_cell.standard_error**2 + scatter**2)
        changes.append(Change(key, min(ratios) / drift, max(LEAST_SLOWDOWN, 1.0 + ERRORS * noise)))
    return changes


def _drift(pairs: list[tuple[Measurement, Measurement]]) -> tuple[float, float]:
    """How much more time the other peers took: the median over all their cells, and the cells' standard deviation.

    Without any these are 1 and 0. The deviation is that of a normal distribution with the same quartiles.
    """
    logs = [
        log(min(cell.seconds) / min(before.seconds))
        for then, now in pairs
        for cell in now.cells
        if cell.peer not in (OWN, SPECIALIZED) and (before := then.cell(cell.peer)) is not None
    ]
    if len(logs) < LEAST_CHANGES:
        return exp(median(logs)) if logs else 1.0, 0.0
    low, middle, high = quantiles(logs, n=4, method="inclusive")
    return exp(middle), (high - low) / 2 / 0.6745


def _lower_quartile(seconds: list[float]) -> float:
    return quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]
