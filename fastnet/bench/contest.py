"""One workload on every peer: the results are checked first, then times are taken round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fastnet.bench import timing
from fastnet.bench.peak import FlopsMeter, bandwidth
from fastnet.bench.peers.base import Array, Peer, UnsupportedError
from fastnet.bench.results import OWN, Cell, Measurement
from fastnet.bench.workloads import Operation, Prepared, Workload

#: Rounds of a full and of a quick run.
ROUNDS, QUICK_ROUNDS = 11, 1
#: A workload's rounds end after so many seconds, when there have been three.
LONGEST = 60.0
#: A full run goes on until fastnet's medians, but for points of curves, are known to such a share of themselves, for so
#: many rounds at most. On a shared machine these differ by 3 % between two runs; medians known to 2.5 % differed by 5.
SETTLED_ERROR, MOST_ROUNDS = 0.0125, 99


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
        What was found so far.
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
        prepared, checked = self._check(peers)
        times = {name: workload.runs or timing.calls_in_a_turn(one) for name, one in prepared.items()}
        self._meter = _peak_meter(workload, threads)
        rounds = rounds if workload.most_rounds is None else min(rounds, workload.most_rounds)
        self._goes_on = rounds >= ROUNDS and not workload.axis
        self._rounds = timing.Rounds(prepared, times, rounds, LONGEST, self._measure_peak, self._is_settled)
        if rounds == 0:
            self._note_times({name: [seconds] for name, seconds in checked.items()})

    def _check(self, peers: Sequence[Peer]) -> tuple[dict[str, Prepared], dict[str, float]]:
        """What is ready to be timed, because its result is fastnet's, and the seconds of its checked run.

        The others are told of in the measurement.
        """
        measurement, workload = self.measurement, self.workload
        desired: dict[Workload, Array] = {}
        prepared: dict[str, Prepared] = {}
        checked: dict[str, float] = {}
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
            checked[peer.name] = (end - run_start) / done.checked_runs
            known = None if peer is own else difference
            measurement.cells.append(Cell(peer.name, peer.label, [], end - start, known, None, note))
        return prepared, checked

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
        if not self._rounds.take():
            return False
        self._note_times(self._rounds.taken)
        return True

    def _note_times(self, taken: Mapping[str, list[float]]) -> None:
        for cell in self.measurement.cells:
            cell.seconds[:] = [seconds / self.workload.units for seconds in taken[cell.peer]]


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
