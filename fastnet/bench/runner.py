"""Running benchmarks: the cases asked for, on the peers that are there, in rounds that go through all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastnet.bench.allocations import count_allocations
from fastnet.bench.contest import QUICK_ROUNDS, ROUNDS, Contest
from fastnet.bench.peers import get_peers
from fastnet.bench.peers.base import Peer
from fastnet.bench.results import OWN, Measurement, Results
from fastnet.bench.scaling import scaling_workloads
from fastnet.bench.startup import startup_workloads
from fastnet.bench.workloads import DTYPES, Workload, case_names, get_workloads
from fastnet.interruption import HeldInterrupt
from fastnet.testing.machine import describe_machine
from fastnet.threads import usable_cores
from fastnet.validation import check_choice

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
        What was measured, and in `Results.wrong` what was not as fastnet has it. Ctrl-C ends the rounds early, or
        the count of allocations: the results are of the rounds that there were, say so in their settings, and lack the
        times of what has had none. A second Ctrl-C during a round raises `KeyboardInterrupt` at once.

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
    with HeldInterrupt() as interrupt:
        while contests and not interrupt.is_noted():
            total = max(total, done + len(contests))
            for contest in list(contests):
                show(contest.workload.key, done, total)
                done += 1
                if not contest.take_round():
                    contests.remove(contest)
                if interrupt.is_noted():
                    break
    if interrupt.is_noted():
        settings["interrupted"] = True
        timed = [replace(one, cells=[cell for cell in one.cells if cell.seconds]) for one in results.measurements]
        results.measurements[:] = [one for one in timed if one.cells or one.wrong]
    elif allocations:
        show("allocations", total, total)
        # Each peer is counted in a process that compiles all of its workloads anew.
        try:
            counted = count_allocations([OWN] if quick else [peer.name for peer in wanted], cases, dtypes, quick)
        except KeyboardInterrupt:
            settings["interrupted"] = True
        else:
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
