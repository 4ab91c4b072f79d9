"""How many threads are fastest, found out while they work.

Results have the same bits with any number of threads, so that the number may change at any time. What another thread
gains depends on the machine, on how long a core waits for what another one has written, and on what else runs: on one
machine two threads took 0.6 of the time of one for a step of 784-512-10, and for 8-64-64-2 between 0.7 and 1.8 of it.
To start threads and to end them took 0.3 ms there, as long as two steps of 64-100-10, so that it is known apart.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

#: Seconds for which a number of threads is tried, and how much longer the fastest is used than the others are tried; a
#: quarter of that at first.
_TRIAL_SECONDS = 0.002
_TIMES_LONGER = 64
#: Seconds that count in what a block takes of late, and after which what was tried begins to be forgotten.
_RECENT_SECONDS = 0.05
_REMEMBERED_SECONDS = 1.0
#: What a trial of a number that is not the fastest consists of: as much work with the fastest, a block that does not
#: count, and what counts.
(_BEFORE, _COLD, _COUNTED) = range(3)
_N_STAGES = 3
#: How much the latest start of threads counts in what it takes.
_OVERHEAD_WEIGHT = 0.25


class Pace:
    """What a block of rows takes with as many threads as there may be, half of them, … and one.

    Parameters
    ----------
    most : int
        The most threads.
    guess : float
        Seconds that a block may take, as long as none has been timed.

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
    ...     overhead = 1e-3 if n_threads == 2 else 0.0
    ...     pace.note(n_threads, n_blocks, overhead + n_blocks * seconds_a_block, overhead)
    >>> pace.proposal(100)[0], pace.proposal(5)[0]
    (2, 1)
    """

    def __init__(self, most: int, guess: float) -> None:
        self.most = most
        self._guess = guess
        self._is_warm = False
        #: How far a trial has come, and of which number of threads.
        self._stage, self._on_trial = _COUNTED, 0
        #: Trials that have counted, after the first one of each number.
        self._n_trials = 0
        choices = [most >> halvings for halvings in range(most.bit_length())]
        self._tried = dict.fromkeys(choices, 0.0)
        self._overheads = dict.fromkeys(choices, 0.0)
        self._seconds_a_block: dict[int, float] = {}

    def proposal(self, n_blocks: int) -> tuple[int, int]:
        """How many threads to use now, and for how many of the blocks that are to be done."""
        known, tried = self._seconds_a_block, self._tried
        best = min(known, key=lambda choice: self._overheads[choice] + n_blocks * known[choice], default=None)
        seconds = _TRIAL_SECONDS
        others = [n_threads for n_threads in tried if n_threads != best]
        n_threads = self._on_trial = min(others, key=tried.__getitem__)
        if best is not None and tried[n_threads] > 0.0:
            tried_others = sum(tried[other] for other in others)
            # The first trials may have been disturbed: the next ones come soon, and each lasts twice as long.
            longer = _TIMES_LONGER if self._n_trials > len(others) else _TIMES_LONGER // 4
            if tried[best] < longer * tried_others:
                n_threads, seconds = best, max(tried.values())
            else:
                # The first blocks of a fit, and the first one of cores that have slept, wait for memory.
                self._stage = (self._stage + 1) % _N_STAGES
                if self._stage == _COLD:
                    return n_threads, 1
                n_threads = best if self._stage == _BEFORE else n_threads
        estimate = known.get(n_threads, self._guess if best is None else known[best])
        return n_threads, max(1, min(n_blocks, int(seconds / estimate)))

    def note(self, n_threads: int, n_blocks: int, seconds: float, overhead: float = 0.0) -> None:
        """Say what so many blocks have taken; other numbers of threads than the proposed ones do not count.

        Parameters
        ----------
        n_threads, n_blocks : int
            What has been done.
        seconds : float
            All that it took.
        overhead : float
            The part of it that does not grow with the blocks: until all threads were at work, and to end them.
        """
        if not self._is_warm or n_threads not in self._tried:
            self._is_warm = True
            return
        is_trial = n_threads == self._on_trial
        if is_trial and self._stage == _COLD:
            return
        # A clock may stand still.
        seconds = max(seconds, 1e-9)
        latest = max(seconds - overhead, 1e-9) / n_blocks
        before = self._seconds_a_block.get(n_threads, latest)
        self._n_trials += is_trial and n_threads in self._seconds_a_block
        # What an earlier trial took says nothing any more: a disturbed one kept two threads from ten fits of 0.1 s.
        weight = 1.0 if is_trial else seconds / (seconds + min(self._tried[n_threads], _RECENT_SECONDS))
        self._seconds_a_block[n_threads] = before + weight * (latest - before)
        weight = _OVERHEAD_WEIGHT if self._tried[n_threads] > 0.0 else 1.0
        self._overheads[n_threads] += weight * (overhead - self._overheads[n_threads])
        self._tried[n_threads] += seconds
        if sum(self._tried.values()) > _REMEMBERED_SECONDS:
            for choice in self._tried:
                self._tried[choice] /= 2


@lru_cache(maxsize=256)
def pace_of(work: Hashable, most: int, guess: float) -> Pace:
    """The pace of some work in this process: one fit goes on from what others like it have found out."""
    return Pace(most, guess)
