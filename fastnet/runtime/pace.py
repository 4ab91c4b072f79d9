"""How many threads are fastest, found out while they work.

Results have the same bits with any number of threads, so that the number may change at any time. What another thread
gains depends on the machine, on how long a core waits for what another one has written, and on what else runs: on one
machine two threads took 0.6 of the time of one for a step of 784-512-10, and for 8-64-64-2 between 0.7 and 1.8 of it.
To start threads and to end them takes some 0.06 ms, as long as a step of 64-100-10, and is part of what blocks take.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import lru_cache
from math import inf

#: Seconds for which a number of threads is tried, and how much longer the fastest is used than the others are tried; a
#: quarter of that at first.
_TRIAL_SECONDS = 0.002
_TIMES_LONGER = 64
#: Seconds without work after which more threads than have been the fastest are tried first of all: what disturbed them
#: may be over, and in work alone the next trial could be a dozen short fits away.
_PAUSE = 1.0
#: How many times of late the best counts of: what disturbs makes slow, and never fast. Who has been thought too fast is
#: used, and so known better soon.
_OF_LATE = 3
#: What a trial of a number that is not the fastest consists of: as much work with the fastest, a block that does not
#: count, and what counts.
(_BEFORE, _COLD, _COUNTED) = range(3)
_N_STAGES = 3


class _Choice:
    """A number of threads: what is known of it."""

    def __init__(self) -> None:
        #: Seconds that a block took, of late.
        self.blocks: deque[float] = deque(maxlen=_OF_LATE)
        #: What a trial takes that nothing disturbs, and seconds of others since this number was last used.
        self.trial_seconds = self.since = 0.0

    @property
    def seconds_a_block(self) -> float:
        """What a block takes."""
        return min(self.blocks)


class Pace:
    """What a block of rows takes with as many threads as there may be, half of them, … and one.

    Parameters
    ----------
    most : int
        The most threads.
    guess : float
        Seconds that a block may take, as long as none has been timed.
    clock : callable
        Returns the present time in seconds.

    Attributes
    ----------
    most : int

    Examples
    --------
    >>> pace = Pace(2, guess=1e-4)
    >>> pace.note(*pace.proposal(100), seconds=1.0)  # The first time does not count: caches are cold.
    >>> for n_threads, seconds_a_block in ((2, 1e-4), (1, 2e-4)):
    ...     proposed, n_blocks = pace.proposal(100)
    ...     assert proposed == n_threads
    ...     pace.note(n_threads, n_blocks, n_blocks * seconds_a_block)
    >>> pace.proposal(100)[0]
    2
    """

    def __init__(self, most: int, guess: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most
        self._guess = guess
        self._clock, self._noted_at = clock, clock()
        self._is_warm = False
        #: How far a trial has come, and of which number of threads.
        self._stage, self._on_trial = _COUNTED, 0
        #: Trials that have counted, after the first one of each number.
        self._n_trials = 0
        self._choices = {most >> halvings: _Choice() for halvings in range(most.bit_length())}

    def proposal(self, n_blocks: int) -> tuple[int, int]:
        """How many threads to use now, and for how many of the blocks that are to be done."""
        choices = self._choices
        known = [n_threads for n_threads, choice in choices.items() if choice.blocks]
        best = min(known, key=lambda n_threads: choices[n_threads].seconds_a_block, default=None)
        if best is not None and self._clock() - self._noted_at > _PAUSE:
            for n_threads, choice in choices.items():
                choice.since = inf if n_threads > best else choice.since
        others = [n_threads for n_threads in choices if n_threads != best]
        # What was never timed comes first.
        n_threads = self._on_trial = min(others, key=self._seconds_until_trial)
        seconds, left = _TRIAL_SECONDS, self._seconds_until_trial(n_threads)
        if best is not None and n_threads in known:
            if left > 0.0:
                n_threads, seconds = best, max(left, _TRIAL_SECONDS)
            else:
                # The first blocks of a fit, and the first one of cores that have slept, wait for memory.
                self._stage = (self._stage + 1) % _N_STAGES
                if self._stage == _COLD:
                    return n_threads, 1
                n_threads = best if self._stage == _BEFORE else n_threads
        like = n_threads if n_threads in known else best
        estimate = self._guess if like is None else choices[like].seconds_a_block
        return n_threads, max(1, min(n_blocks, int(seconds / estimate)))

    def _seconds_until_trial(self, n_threads: int) -> float:
        """For how much longer other numbers are to be used before this one is tried again."""
        choice, n_others = self._choices[n_threads], len(self._choices) - 1
        # The first trials may have been disturbed: the next ones come soon.
        longer = _TIMES_LONGER if self._n_trials > n_others else _TIMES_LONGER // 4
        return n_others * longer * choice.trial_seconds - choice.since if choice.blocks else -inf

    def note(self, n_threads: int, n_blocks: int, seconds: float) -> None:
        """Say what so many blocks have taken; other numbers of threads than the proposed ones do not count.

        Parameters
        ----------
        n_threads, n_blocks : int
            What has been done.
        seconds : float
            All that it took, until the threads had ended.
        """
        self._noted_at = self._clock()
        if not self._is_warm or n_threads not in self._choices:
            self._is_warm = True
            return
        choice, is_trial = self._choices[n_threads], n_threads == self._on_trial
        if is_trial and self._stage == _COLD:
            return
        # A clock may stand still.
        seconds = max(seconds, 1e-9)
        self._n_trials += is_trial and bool(choice.blocks)
        choice.blocks.append(seconds / n_blocks)
        if is_trial:
            # With the block that has not counted.
            choice.trial_seconds = (n_blocks + 1) * choice.seconds_a_block
        for other in self._choices.values():
            other.since += seconds
        choice.since = 0.0


@lru_cache(maxsize=256)
def pace_of(work: Hashable, most: int, guess: float) -> Pace:
    """The pace of some work in this process: one fit goes on from what others like it have found out."""
    return Pace(most, guess)
