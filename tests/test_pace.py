"""How the number of threads is chosen, with a clock of the tests' own."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fastnet.runtime.pace import Pace, pace_of


class Machine:
    """Works at the proposed number of threads, each of which takes so many seconds a block, and some to start."""

    def __init__(self, most: int, seconds_a_block: Mapping[int, float], overhead: float = 0.0) -> None:
        #: The time of day.
        self.now = 0.0
        self.pace, self.seconds_a_block = Pace(most, 1e-4, lambda: self.now), dict(seconds_a_block)
        self.overheads = {n_threads: overhead if n_threads > 1 else 0.0 for n_threads in seconds_a_block}

    def work(self, seconds: float, blocks_a_call: int = 1 << 30) -> dict[int, float]:
        """The share of the time that each number of threads was at work."""
        used = dict.fromkeys(self.seconds_a_block, 0.0)
        while sum(used.values()) < seconds:
            n_left = blocks_a_call
            while n_left > 0 and sum(used.values()) < seconds:
                n_threads, n_blocks = self.pace.proposal(n_left)
                taken = n_blocks * self.seconds_a_block[n_threads] + self.overheads[n_threads]
                self.now += taken
                self.pace.note(n_threads, n_blocks, taken)
                used[n_threads] += taken
                n_left -= n_blocks
        return {n_threads: taken / sum(used.values()) for n_threads, taken in used.items()}


@pytest.mark.parametrize("fastest", [1, 3, 6])
def test_the_fastest_is_used_nearly_all_the_time(fastest: int) -> None:
    machine = Machine(6, {n_threads: 1e-4 if n_threads == fastest else 2e-4 for n_threads in (6, 3, 1)})
    machine.work(0.1)
    assert machine.work(2.0)[fastest] > 0.97


def test_a_short_fit_spends_little_on_trials() -> None:
    assert Machine(2, {2: 1e-4, 1: 1.5e-4}).work(0.03)[2] > 0.9


@pytest.mark.parametrize("blocks_before", [1, 80])
@pytest.mark.parametrize(("blocks_a_call", "best"), [(80, 2), (1, 1)])
def test_what_it_takes_to_start_threads_counts(blocks_a_call: int, best: int, blocks_before: int) -> None:
    """Short calls get one thread and long ones two, whatever the calls before them were."""
    machine = Machine(2, {2: 1.2e-4, 1: 1.5e-4}, overhead=6e-5)
    machine.work(0.5, blocks_before)
    machine.work(0.1, blocks_a_call)
    assert machine.work(1.0, blocks_a_call)[best] > 0.95


@pytest.mark.parametrize("seconds", [0.1, 20.0])
def test_it_changes_with_the_machine(seconds: float) -> None:
    """However long it has been as it was, within seconds."""
    machine = Machine(2, {2: 1e-4, 1: 2e-4})
    machine.work(seconds)
    machine.seconds_a_block[2] = 4e-4
    machine.work(0.5)
    assert machine.work(1.0)[1] > 0.97
    machine.seconds_a_block[2] = 1e-4
    machine.work(10.0)
    assert machine.work(1.0)[2] > 0.97


def test_a_trial_that_stood_still_does_not_put_off_the_next_one() -> None:
    """As where the machine was suspended: by what it took the next one would come after a minute."""
    machine = Machine(2, {2: 2e-4, 1: 1e-4})
    machine.work(1.0)
    machine.seconds_a_block[2] = 0.1
    assert machine.work(0.6, 400)[2] > 0.5
    machine.seconds_a_block[2] = 5e-5
    machine.work(0.5, 400)
    assert machine.work(1.0)[2] > 0.95


def test_what_disturbed_more_threads_may_be_over_after_a_pause() -> None:
    """Fits of 8 ms: the next trial would be twenty of them away, which may be minutes."""
    machine = Machine(2, {2: 1e-4, 1: 1.5e-4})
    machine.work(0.1, 80)
    machine.seconds_a_block[2] = 4e-4
    machine.work(0.5, 80)
    machine.seconds_a_block[2] = 1e-4
    assert machine.work(0.008, 80)[1] == 1.0
    machine.now += 10.0
    machine.work(0.008, 80)
    assert machine.work(0.008, 80)[2] == 1.0


def test_after_a_pause_fewer_threads_are_not_tried() -> None:
    machine = Machine(2, {2: 1e-4, 1: 1.5e-4})
    machine.work(0.5, 80)
    shares = []
    for _ in range(9):
        machine.now += 10.0
        shares.append(machine.work(0.008, 80)[2])
    # One trial is due anyway.
    assert shares.count(1.0) >= 8


def test_one_disturbed_fit_changes_nothing() -> None:
    """With a mean of what a block takes it left the next ones to one thread."""
    machine = Machine(2, {2: 1e-4, 1: 1.5e-4})
    machine.work(0.1)
    machine.pace.note(2, 90, 90 * 4e-4)
    assert machine.work(0.05)[2] > 0.9


def test_what_was_the_fastest_is_soon_tried_again() -> None:
    """However long it was: a short fit that was disturbed left the next hundred to one thread."""
    machine = Machine(2, {2: 9e-5, 1: 1e-4})
    machine.work(1.0)
    machine.seconds_a_block[2] = 3e-4
    machine.work(0.1)
    machine.seconds_a_block[2] = 6e-5
    machine.work(0.2, 400)
    assert machine.work(1.0)[2] > 0.95


def test_a_disturbed_trial_is_forgotten() -> None:
    pace = Pace(2, guess=1e-4)
    pace.note(2, 1, 1.0)
    pace.note(2, 20, 20 * 9e-4)
    machine = Machine(2, {2: 1e-4, 1: 2e-4})
    machine.pace = pace
    machine.work(10.0)
    assert machine.work(1.0)[2] > 0.97


def test_a_disturbed_first_fit_does_not_decide_the_next_ones() -> None:
    """Nor do cold caches, with which every fit begins, and every other number of threads."""
    pace, seconds_a_block = Pace(2, guess=1e-3), {2: 6.5e-4, 1: 1.2e-3}
    used = {2: 0, 1: 0}
    for fit in range(12):
        n_left, threads_before = 78, 0
        while n_left > 0:
            n_threads, n_blocks = pace.proposal(n_left)
            taken = n_blocks * seconds_a_block[n_threads] + (0.0 if n_threads == threads_before else 1.5e-3)
            pace.note(n_threads, n_blocks, 4 * taken if fit == 0 and n_threads == 2 else taken)
            n_left, threads_before = n_left - n_blocks, n_threads
            if fit >= 4:
                used[n_threads] += n_blocks
    assert used[2] > 20 * used[1]


def test_other_numbers_than_the_proposed_do_not_count() -> None:
    pace = Pace(4, guess=1e-4)
    for _ in range(9):
        pace.note(3, 1, 1e-9)
    assert pace.proposal(100) == Pace(4, guess=1e-4).proposal(100)


def test_blocks_of_any_length() -> None:
    for seconds in (0.0, 1e-9, 10.0):
        machine = Machine(2, {2: seconds, 1: seconds})
        for _ in range(100):
            n_threads, n_blocks = machine.pace.proposal(100)
            assert 1 <= n_blocks <= 100
            machine.pace.note(n_threads, n_blocks, n_blocks * seconds)


def test_fits_alike_share_what_they_found_out() -> None:
    assert pace_of(("digits", 200), 2, 1e-4) is pace_of(("digits", 200), 2, 1e-4)
    assert pace_of(("digits", 200), 2, 1e-4) is not pace_of(("digits", 100), 2, 1e-4)
