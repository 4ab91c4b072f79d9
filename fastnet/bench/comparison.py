"""Two runs of the benchmarks: what got slower, beyond the noise.

A shared machine is slower at some times than at others. A measurement counts as slower only if every one of these
says so: the median time, its lower quartile, the time as a ratio to the machine's peak and to the peers' times in the
same rounds. Code that got slower shows in all of them; a machine that got slower does not show in the last two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median, quantiles

from fastnet.bench.results import OURS, Cell, Measurement, Results

#: What is slower by less is never reported.
LEAST_SLOWDOWN = 1.10
#: Standard errors of the medians that a slow-down has to exceed.
ERRORS = 3.0


@dataclass(frozen=True)
class Change:
    """How a cell of fastnet changed.

    Attributes
    ----------
    key, peer : str
        The measurement and the peer.
    ratio : float
        New time by old: the least of the estimates.
    limit : float
        Up to which ratio it may be noise.
    """

    key: str
    peer: str
    ratio: float
    limit: float

    @property
    def is_slower(self) -> bool:
        """Whether it got slower beyond the noise."""
        return self.ratio > self.limit

    def __str__(self) -> str:
        word = "SLOWER" if self.is_slower else "not slower"
        return f"{word}: {self.key}, {self.peer}: {self.ratio:.2f} times the time (up to {self.limit:.2f} is noise)"


def compare(old: Results, new: Results) -> list[Change]:
    """Compare fastnet's cells of two runs.

    Parameters
    ----------
    old, new : Results
        Runs of the same cases on the same machine.

    Returns
    -------
    list of Change
        One for each cell of fastnet that both have.

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
    changes = []
    for now in new.measurements:
        then = before.get(now.key)
        if then is None:
            continue
        for peer in OURS:
            old_cell, new_cell = then.cell(peer), now.cell(peer)
            if old_cell is not None and new_cell is not None:
                changes.append(_change(then, now, old_cell, new_cell))
    if not changes:
        raise ValueError("the runs have no measurement in common")
    return changes


def _change(then: Measurement, now: Measurement, old: Cell, new: Cell) -> Change:
    ratios = [new.median / old.median, _lower_quartile(new.seconds) / _lower_quartile(old.seconds)]
    ratios.append(ratios[0] / _drift(then, now))
    if then.peak and now.peak:
        ratios.append(ratios[0] * median(now.peak) / median(then.peak))
    noise = sqrt(_standard_error(old) ** 2 + _standard_error(new) ** 2)
    return Change(now.key, new.label, min(ratios), max(LEAST_SLOWDOWN, 1.0 + ERRORS * noise))


def _lower_quartile(seconds: list[float]) -> float:
    return quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]


def _drift(then: Measurement, now: Measurement) -> float:
    """How much slower the other peers' cells got: the median, or 1 without any."""
    pairs = [(then.cell(cell.peer), cell) for cell in now.cells if cell.peer not in OURS]
    drifts = [log(new.median / old.median) for old, new in pairs if old is not None]
    return exp(median(drifts)) if drifts else 1.0


def _standard_error(cell: Cell) -> float:
    """Of the median, as a share of it: for a normal distribution, from the distance of the quartiles."""
    return 1.2533 * cell.spread / 0.6745 / sqrt(len(cell.seconds))
