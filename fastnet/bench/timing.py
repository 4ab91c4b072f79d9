"""Interleaved timing: every peer has a turn in every round, so that what a shared machine does meets all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from fastnet.bench.workloads import Prepared

#: A turn is at least so long, in seconds: the work is repeated until it is.
LEAST_TURN = 0.005
#: Seconds over which a process is watched for threads that spin, the share of a core that counts as rest, and
#: after how many seconds it is waited no longer.
WATCHED, RESTING, LONGEST_WAIT = 0.004, 0.2, 0.5
#: The first time of work that takes longer is counted too.
LONG_RUN = 0.05


#: Rounds that there always are, if so many are asked for.
LEAST_ROUNDS = 3
#: The clock.
clock = time.perf_counter


def seconds(prepared: Prepared, times: int) -> float:
    """How long it takes to do the work so many times, from the start; the collector of garbage waits."""
    prepared.reset()
    enabled = gc.isenabled()
    gc.disable()
    try:
        begin = clock()
        prepared.run(times)
        return clock() - begin
    finally:
        if enabled:
            gc.enable()


def calls_in_a_turn(prepared: Prepared) -> int:
    """How often a call has to be repeated to make a turn."""
    times = 1
    while (taken := seconds(prepared, times)) < LEAST_TURN and times < 1 << 24:
        times = max(2 * times, int(1.2 * times * LEAST_TURN / max(taken, 1e-7)))
    return times


def wait_for_rest() -> None:
    """Wait until no thread of this process is busy.

    OpenBLAS's threads spin for 0.1 s after a product, on cores that the next peer wants: without a rest PyTorch took
    2.7 ms after NumPy for a step of 0.5 ms.
    """
    begin = clock()
    while clock() - begin < LONGEST_WAIT:
        start, used = clock(), time.process_time()
        time.sleep(WATCHED)
        if time.process_time() - used < RESTING * (clock() - start):
            return


def turn(prepared: Prepared, times: int) -> float:
    """Seconds of one run, the mean over a turn.

    What ran before has filled the caches, so that a short first time is not counted; and its threads may still be
    spinning in wait for more.
    """
    wait_for_rest()
    taken, n_runs = seconds(prepared, times), 1
    if taken < LONG_RUN:
        taken, n_runs = 0.0, 0
    while taken < LEAST_TURN:
        taken += seconds(prepared, times)
        n_runs += 1
    return taken / (n_runs * times)


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the rounds' ratios: what a round met, both have met.

    Examples
    --------
    >>> median_ratio([2.0, 8.0, 6.0], [1.0, 2.0, 3.0])
    2.0
    """
    return median(a / b for a, b in zip(these, those, strict=True))


class Rounds:
    """Rounds in which everything that is prepared has a turn.

    Parameters
    ----------
    prepared : mapping of str to Prepared
        What is timed, by name.
    times : mapping of str to int
        How many runs are timed at once.
    rounds : int
        The number of rounds, if that settles it.
    longest : float
        Seconds of rounds after which there are no more than three.
    between : callable
        Called at the start of each round.
    is_settled : callable
        Called with the times so far after the last of the rounds; as long as it says no there are more of them.

    Attributes
    ----------
    taken : dict of str to list of float
        Seconds of one run, an entry for each round.
    """

    def __init__(
        self,
        prepared: Mapping[str, Prepared],
        times: Mapping[str, int],
        rounds: int,
        longest: float = float("inf"),
        between: Callable[[], None] = lambda: None,
        is_settled: Callable[[Mapping[str, list[float]]], bool] = lambda taken: True,
    ) -> None:
        self.taken: dict[str, list[float]] = {name: [] for name in prepared}
        self._prepared, self._times = prepared, times
        self._rounds, self._longest = rounds, longest
        self._between, self._is_settled = between, is_settled
        self._done, self._spent = 0, 0.0

    def take(self) -> bool:
        """Take one more round, if there is to be one; say so."""
        if self._done >= LEAST_ROUNDS and self._spent > self._longest:
            return False
        if self._done >= self._rounds and self._is_settled(self.taken):
            return False
        begin = clock()
        self._between()
        for name, one in self._prepared.items():
            self.taken[name].append(turn(one, self._times[name]))
        self._done += 1
        self._spent += clock() - begin
        return True


def interleave(
    prepared: Mapping[str, Prepared],
    times: Mapping[str, int],
    rounds: int,
    longest: float = float("inf"),
    between: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time all in turn, round after round; the arguments are those of `Rounds`.

    Returns
    -------
    dict of str to list of float
        Seconds of one run, an entry for each round.

    Examples
    --------
    >>> idle = Prepared(lambda times: time.sleep(0.01 * times), lambda: None, lambda: None)
    >>> taken = interleave({"idle": idle}, {"idle": 1}, rounds=2)
    >>> [0.009 < s < 1 for s in taken["idle"]]
    [True, True]
    """
    all_rounds = Rounds(prepared, times, rounds, longest, between)
    while all_rounds.take():
        pass
    return all_rounds.taken
