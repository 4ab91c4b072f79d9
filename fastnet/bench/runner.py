"""Running benchmarks: check every result, then time in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from fastnet.bench import timing
from fastnet.bench.allocations import count_allocations
from fastnet.bench.peak import FlopsMeter, bandwidth
from fastnet.bench.peers import get_peers
from fastnet.bench.peers.base import Array, Peer, UnsupportedError
from fastnet.bench.results import OWN, Cell, Measurement, Results
from fastnet.bench.scaling import scaling_workloads
from fastnet.bench.startup import startup_workloads
from fastnet.bench.workloads import DTYPES, Operation, Prepared, Workload, case_names, get_workloads
from fastnet.testing.machine import describe_machine
from fastnet.threads import usable_cores
from fastnet.validation import check_choice

#: Rounds of a full and of a quick run.
ROUNDS, QUICK_ROUNDS = 11, 3
#: A workload's rounds end after so many seconds, when there have been three.
LONGEST = 60.0
#: A full run goes on until fastnet's medians, but for points of curves, are known to such a share of themselves, for so
#: many rounds at most. On a shared machine these differ by 3 % between two runs; medians known to 2.5 % differed by 5.
SETTLED_ERROR, MOST_ROUNDS = 0.0125, 99

_GENERATED = {"startup": startup_workloads, "scaling": scaling_workloads}
#: The names of all cases.
CASES = (*case_names(), *_GENERATED)


def workloads_of(cases: Sequence[str] | None, dtypes: Sequence[str], quick: bool) -> list[Workload]:
    """The workloads of cases, in the order of `CASES`.

    Raises
    ------
    ValueError
        If there is no case of some name.
    """
    names = CASES if cases is None else [check_choice("case", name, CASES) for name in cases]
    found: list[Workload] = []
    for name in names:
        if name in _GENERATED:
            found += [workload for workload in _GENERATED[name](quick) if workload.dtype in dtypes]
        else:
            found += get_workloads([name], dtypes, quick)
    return found


def run(
    cases: Sequence[str] | None = None,
    peers: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    *,
    quick: bool = False,
    threads: int | None = None,
    allocations: bool = False,
    show: Callable[[str, int, int], Any] = lambda text, done, total: None,
) -> Results:
    """Run benchmarks.

    Parameters
    ----------
    cases, peers : sequence of str or None
        What to run, and on which peers; None means all. fastnet and the NumPy loop always take part.
    dtypes : sequence of str
        float32, float64.
    quick : bool
        Whether to do the same on fewer samples, for fewer epochs and in fewer rounds.
    threads : int or None
        How many threads the process has been limited to, for the record.
    allocations : bool
        Whether to count allocations too, in processes of their own; in a quick run those of fastnet only.
    show : callable
        Told what is done, how many workloads are finished, and of how many.

    Returns
    -------
    Results
        What was measured, and in `Results.wrong` what was not as fastnet has it.

    Raises
    ------
    ValueError
        If there is no case or peer of some name.
    """
    wanted = get_peers(peers)
    workloads = workloads_of(cases, dtypes, quick)
    machine = describe_machine() | {"packages": packages(wanted)}
    settings = {"quick": quick, "threads": threads or usable_cores(), "rounds": QUICK_ROUNDS if quick else ROUNDS}
    results = Results(datetime.now(UTC).isoformat(timespec="seconds"), machine, settings)
    total = len(workloads) * (1 + settings["rounds"])
    contests: list[Contest] = []
    for done, workload in enumerate(workloads):
        show(f"{workload.key}: results", done, total)
        taking_part = [peer for peer in wanted if workload.name != "scaling" or peer.is_everywhere or peers]
        contests.append(Contest(workload, taking_part, settings["rounds"], settings["threads"]))
    results.measurements.extend(contest.measurement for contest in contests)
    done = len(contests)
    # A round of all workloads, then the next one: what disturbs a shared machine for seconds meets a part of a
    # workload's rounds, not all of them.
    while contests:
        total = max(total, done + len(contests))
        for contest in list(contests):
            show(contest.workload.key, done, total)
            done += 1
            if not contest.take_round():
                contests.remove(contest)
    if allocations:
        show("allocations", total, total)
        # Each peer is counted in a process that compiles all of its workloads anew.
        counted = count_allocations([OWN] if quick else [peer.name for peer in wanted], cases, dtypes, quick)
        results.measurements[:] = [with_allocations(one, counted) for one in results.measurements]
    return results


def packages(peers: Sequence[Peer]) -> str:
    """The versions of what the peers need."""
    names = {name for peer in peers for name in peer.distribution.split(" and ") if name}
    found = []
    for name in sorted(names):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def with_allocations(measurement: Measurement, counted: dict[str, float]) -> Measurement:
    """The measurement with the bytes counted for its key and peers."""
    cells = [replace(cell, allocated=counted.get(f"{measurement.key}: {cell.peer}")) for cell in measurement.cells]
    return replace(measurement, cells=cells)


class Contest:
    """One workload on every peer that can do it: checked when this is made, then timed round by round.

    Parameters
    ----------
    workload : Workload
        The work.
    peers : sequence of Peer
        Who does it; fastnet is among them.
    rounds : int
        The number of rounds, if that settles it.
    threads : int
        How many cores the process has.

    Attributes
    ----------
    measurement : Measurement
        What was found so far; the times are there when there are no more rounds.
    """

    def __init__(self, workload: Workload, peers: Sequence[Peer], rounds: int, threads: int) -> None:
        self.workload = workload
        self.measurement = Measurement(
            workload.name,
            workload.title,
            workload.dtype,
            workload.unit,
            workload.flops,
            workload.n_bytes,
            workload.bound,
            axis=workload.axis,
            value=workload.value,
        )
        #: Seconds of the checked runs, which are the only ones of a workload without rounds.
        self._checked: dict[str, float] = {}
        prepared = self._check(peers)
        times = {name: workload.runs or timing.calls_in_a_turn(one) for name, one in prepared.items()}
        self._meter = _peak_meter(workload, threads)
        rounds = rounds if workload.most_rounds is None else min(rounds, workload.most_rounds)
        self._goes_on = rounds >= ROUNDS and not workload.axis
        self._rounds = timing.Rounds(prepared, times, rounds, LONGEST, self._measure_peak, self._is_settled)

    def _check(self, peers: Sequence[Peer]) -> dict[str, Prepared]:
        """What is ready to be timed, because its result is fastnet's; the others are told of in the measurement."""
        measurement, workload = self.measurement, self.workload
        desired: dict[Workload, Array] = {}
        prepared: dict[str, Prepared] = {}
        own = next(peer for peer in peers if peer.name == OWN)
        for peer in peers:
            reason = peer.absence()
            if reason is not None:
                measurement.absent[peer.label] = reason
                continue
            try:
                done, note = workload.variant(peer)
                start = timing.clock()
                ready = done.prepare(peer)
                run_start = timing.clock()
                ready.run(done.checked_runs)
                end = timing.clock()
                actual = np.array(ready.result())
            except UnsupportedError as unsupported:
                measurement.absent[peer.label] = str(unsupported)
                continue
            except Exception as error:  # noqa: BLE001
                # One adapter's failure is not to lose the figures of the others.
                measurement.wrong[peer.label] = f"it failed with {type(error).__name__}: {error}"
                continue
            if done not in desired:
                desired[done] = actual if peer is own else _result(done, own)
            difference = done.distance(actual, desired[done])
            if not difference <= workload.bound:
                measurement.wrong[peer.label] = (
                    f"its result is {difference:.1e} from fastnet's, more than {workload.bound:.0e}"
                )
                continue
            prepared[peer.name] = ready
            self._checked[peer.name] = (end - run_start) / done.checked_runs
            known = None if peer is own else difference
            measurement.cells.append(Cell(peer.name, peer.label, [], end - start, known, None, note))
        return prepared

    def _measure_peak(self) -> None:
        if self._meter is not None:
            self.measurement.peak.append(self._meter())

    def _is_settled(self, taken: Mapping[str, list[float]]) -> bool:
        cell = self.measurement.cell(OWN)
        if not self._goes_on or cell is None or len(taken[OWN]) >= MOST_ROUNDS:
            return True
        return replace(cell, seconds=taken[OWN]).standard_error <= SETTLED_ERROR

    def take_round(self) -> bool:
        """Give every peer a turn, if there is to be one more; say so."""
        if self._rounds.take():
            return True
        for cell in self.measurement.cells:
            taken = self._rounds.taken[cell.peer] or [self._checked[cell.peer]]
            cell.seconds[:] = [seconds / self.workload.units for seconds in taken]
        return False


def measure(workload: Workload, peers: Sequence[Peer], rounds: int, threads: int) -> Measurement:
    """Check and time one workload on every peer that can do it."""
    contest = Contest(workload, peers, rounds, threads)
    while contest.take_round():
        pass
    return contest.measurement


def _result(workload: Workload, peer: Peer) -> Array:
    """What fastnet gives for another variant of a workload."""
    prepared = workload.prepare(peer)
    prepared.run(workload.checked_runs)
    return np.array(prepared.result())


def _peak_meter(workload: Workload, threads: int) -> Callable[[], float] | None:
    """What a workload's rate is a share of: single operations are done by one thread."""
    if workload.flops:
        meter = FlopsMeter(workload.dtype)
        cores = 1 if isinstance(workload, Operation) else threads
        return lambda: cores * meter()
    if workload.n_bytes:
        return lambda: bandwidth(workload.n_bytes)
    return None
