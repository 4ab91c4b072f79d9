"""Threads: the same bits with any number of them, after a fork, side by side, and when some cannot be started."""

from __future__ import annotations

import _thread
import ctypes
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import numba
import numpy as np
import pytest

import fastnet
from fastnet import prediction
from fastnet import threads as settings
from fastnet.kernels import team
from fastnet.kernels.memory import pointer
from fastnet.kernels.workspace import RELAYED_BYTES
from fastnet.runtime import threads
from fastnet.runtime.board import FIRST_REGION, SECOND_REGION, new_board
from fastnet.runtime.pace import Pace
from fastnet.testing.cases import BENCHMARKS, Case, covering_cases
from tests.support import assert_same_bits

#: More than 256 rows to a batch, several layers, a penalty, weights, orders: everything that is shared out.
CASE = Case(
    (37, 70, 19, 5),
    "tanh",
    "softmax",
    "cross_entropy",
    "adam",
    "float32",
    n_samples=700,
    batch_size=300,
    l2=0.1,
    shuffle=True,
    weighted=True,
)


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let small trainings use as many threads as they are told, be they faster or not."""
    monkeypatch.setattr(settings, "usable_cores", lambda: 64)
    monkeypatch.setattr(threads, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(Pace, "proposal", lambda pace, n_blocks: (pace.most, n_blocks))
    yield
    fastnet.set_threads(None)


def trained(case: Case, n_threads: int | None) -> dict[str, np.ndarray]:
    fastnet.set_threads(n_threads)
    return case.train("numba")


def assert_equal(actual: dict[str, np.ndarray], desired: dict[str, np.ndarray], what: str) -> None:
    assert actual.keys() == desired.keys()
    for name, values in desired.items():
        assert_same_bits(actual[name], values, f"{what}, {name}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(many_cores: None, dtype: str) -> None:
    case = replace(CASE, dtype=dtype)
    desired = case.train("exact")
    for n_threads in (1, 2, 3, 5, 8, 16, 64):
        assert_equal(trained(case, n_threads), desired, f"{n_threads} threads")


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_give_the_bits_of_every_kernel(many_cores: None, n_threads: int) -> None:
    for name, case in covering_cases().items():
        assert_equal(trained(case, n_threads), trained(case, 1), name)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be kept to cores here")
@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_that_take_turns_on_one_core_give_the_same_bits(many_cores: None, n_threads: int) -> None:
    """Each comes to where it waits while another one has not run for long."""
    case, allowed = replace(CASE, batch_size=100, epochs=40), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert_equal(trained(case, n_threads), trained(case, 1), f"{n_threads} threads")
    finally:
        os.sched_setaffinity(0, allowed)


def test_two_threads_that_share_memory_give_the_same_bits(many_cores: None) -> None:
    """Their copies would be too large for a relay, by which smaller trainings here go."""
    case = replace(CASE, layer_sizes=(37, 301, 301, 5), epochs=2)
    bytes_of_planes = 3 * 256 * 2 * 301 * 4
    assert bytes_of_planes > RELAYED_BYTES
    assert_equal(trained(case, 2), trained(case, 1), "2 threads")


@pytest.mark.parametrize("n_threads", [2, 4])
@pytest.mark.parametrize(("rate", "n_samples", "is_in_loss"), [(1e38, 700, True), (1e39, 300, False)])
def test_a_training_that_diverges_does_so_alike(
    many_cores: None, rate: float, n_samples: int, is_in_loss: bool, n_threads: int
) -> None:
    """In the middle of an epoch, and at the end of one, where parameters show it and the loss does not yet."""
    case = replace(CASE, optimizer=fastnet.SGD(rate), epochs=9, n_samples=n_samples)
    one = trained(case, 1)
    assert "divergence" in one
    assert np.isfinite(one["loss_curve"]).all() != is_in_loss
    assert_equal(trained(case, n_threads), one, f"{n_threads} threads")


@pytest.mark.parametrize("n_threads", [2, 4])
def test_fit_goes_on_in_the_middle_of_an_epoch(
    many_cores: None, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    monkeypatch.setattr("fastnet.training._CALL_SECONDS", 0.0)
    assert_equal(trained(CASE, n_threads), CASE.train("exact"), "one block a call")


@pytest.mark.parametrize("n_rows", [1, 7, 16, 17])
def test_a_thread_may_have_no_rows(many_cores: None, n_rows: int) -> None:
    """Of a last batch of one row; it begins sums with zeros then."""
    case = replace(CASE, n_samples=300 + n_rows, dtype="float64")
    assert_equal(trained(case, 2), case.train("exact"), f"{n_rows} rows at the end")


def test_predictions_by_several_threads(many_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnet.prediction._PREDICTED_AT_ONCE", 1)
    network = replace(CASE, n_samples=3000).network()
    x = np.random.default_rng(0).standard_normal((3000, 37)).astype(np.float32)
    desired = network.predict(x, backend="exact")
    for n_threads in (1, 2, 7):
        fastnet.set_threads(n_threads)
        assert_same_bits(network.predict(x), desired, f"{n_threads} threads")


@pytest.mark.parametrize("cost", [14000, 110000, 700000])
@pytest.mark.parametrize("n_threads", [2, 5])
def test_every_thread_has_a_piece(n_threads: int, cost: int) -> None:
    """And of many rows some, which are none too short."""
    for n_rows in (16 * n_threads, 100 * n_threads, 3000, 100_000):
        rows = prediction._rows_of_a_piece(n_rows, n_threads, cost, 1 << 20)
        assert rows % 16 == 0
        assert n_rows > rows * (n_threads - 1)
        if n_rows == 100_000:
            assert rows * cost >= 1 << 22
            assert rows >= 64
            assert n_rows >= 10 * n_threads * rows


def test_several_fits_at_once(many_cores: None) -> None:
    desired = CASE.train("exact")
    fastnet.set_threads(2)
    results: list[dict[str, np.ndarray]] = []
    workers = [threading.Thread(target=lambda: results.append(CASE.train("numba"))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == len(workers)
    for result in results:
        assert_equal(result, desired, "side by side")
    assert settings._state.busy == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])
def test_after_a_fork(layer: str) -> None:
    """In the child as in the parent, whose threads and locks it does not have; Numba's pools are never entered."""
    code = """
import os, sys
import fastnet
from fastnet import prediction
from fastnet import threads as settings
from fastnet.runtime import threads
from fastnet.runtime.pace import Pace
from fastnet.testing.rung_context import digest
from tests.test_threads import CASE
settings.usable_cores = lambda: 4
threads.WORK_PER_THREAD = 1
Pace.proposal = lambda pace, n_blocks: (pace.most, n_blocks)
before = digest(CASE.train("numba"))
settings._state.lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if digest(CASE.train("numba")) == before else 1)
settings._state.lock.release()
_, status = os.waitpid(child, 0)
assert digest(CASE.train("numba")) == before
assert "numba.np.ufunc.omppool" not in sys.modules and "numba.np.ufunc.workqueue" not in sys.modules
sys.exit(os.waitstatus_to_exitcode(status))
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_threads_that_cannot_be_started(many_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    desired = CASE.train("exact")
    start, started = _thread.start_new_thread, []

    def first_only(function, arguments):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(start(function, arguments))
        return started[-1]

    monkeypatch.setattr(threads._thread, "start_new_thread", first_only)
    assert_equal(trained(CASE, 3), desired, "alone")
    assert started


@pytest.mark.skipif(settings.usable_cores() < 2 or threads._setaffinity is None, reason="there is no choice of cores")
def test_other_threads_begin_on_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept to them by their caller: on its core they would wait for its time to be over."""
    all_cores = os.sched_getaffinity(0)
    groups = threads._core_groups(2)
    monkeypatch.setattr(threads, "_core_groups", lambda n_threads: groups)
    found: dict[int, set[int]] = {}
    threads.run_together(lambda thread, n: found.setdefault(thread, os.sched_getaffinity(0)) and 0, 2)
    assert found == {0: all_cores, 1: groups[1]}
    assert groups[0] | groups[1] == all_cores
    assert not groups[0] & groups[1]


def test_an_error_in_another_thread_is_raised() -> None:
    def member(thread: int, n_threads: int) -> int:
        if thread == 1:
            raise MemoryError("no more")
        return n_threads

    with pytest.raises(MemoryError, match="no more"):
        threads.run_together(member, 2)


def test_an_interrupt_lets_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = _thread.start_new_thread, []

    def interrupted(function, arguments):
        if begun:
            raise KeyboardInterrupt
        begun.append(start(function, arguments))

    monkeypatch.setattr(threads._thread, "start_new_thread", interrupted)
    ran: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        threads.run_together(lambda thread, n_threads: ran.append(thread) or 0, 3)
    assert ran == []


def test_small_steps_are_not_shared() -> None:
    notebook = BENCHMARKS["notebook"].network().layout
    wide = BENCHMARKS["mnist-like"].network().layout
    assert threads.work_of(notebook, 4) < threads.WORK_PER_THREAD
    assert threads.work_of(wide, 128) > 2 * threads.WORK_PER_THREAD
    # A batch of several blocks is worked on a block at a time.
    assert threads.work_of(wide, 1000) == threads.work_of(wide, 256)


def test_the_number_of_threads_may_change_at_any_time(many_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    desired, turns = trained(CASE, 1), itertools.cycle((1, 4, 2, 3))
    proposed: list[int] = []

    def proposal(pace: Pace, n_blocks: int) -> tuple[int, int]:
        proposed.append(next(turns))
        return proposed[-1], 1

    monkeypatch.setattr(Pace, "proposal", proposal)
    assert_equal(trained(CASE, 4), desired, "1, 4, 2 or 3 threads")
    assert set(proposed) == {1, 2, 3, 4}


def test_no_bit_depends_on_the_shares(many_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cores that are not equally fast: whatever the members leave to each other."""
    desired, rng, boards = trained(CASE, 1), np.random.default_rng(0), []

    def uneven(n_threads: int) -> np.ndarray:
        boards.append(new_board(n_threads))
        shares = boards[-1][-2 * n_threads :]
        shares[:] = rng.integers(1, 1 << 20, len(shares))
        return boards[-1]

    monkeypatch.setattr(threads, "new_board", uneven)
    for n_threads in (2, 3, 5):
        assert_equal(trained(CASE, n_threads), desired, f"{n_threads} threads with uneven shares")
    assert any(board[0] > 0 for board in boards), "nobody has waited"


@numba.njit
def part_of(board, thread, n_threads, n, unit):
    return team.share(n, unit, team.part_of(FIRST_REGION, team.member(pointer(board), thread, n_threads)))


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_parts_follow_the_shares(n_threads: int) -> None:
    """One after another, in whole units but for the last; each as large as its share, to the nearest units."""
    board, rng = new_board(n_threads), np.random.default_rng(1)
    for n, unit in ((1024, 1), (1000, 8), (7, 8), (0, 8), (33, 16)):
        shares = board[-2 * n_threads : -n_threads]
        shares[:] = rng.integers(1, 1 << 20, n_threads)
        bounds = [part_of(board, thread, n_threads, n, unit) for thread in range(n_threads)]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == n
        assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(bounds))
        assert all(begin % unit == 0 for begin, _ in bounds if begin < n)
        for (begin, end), share in zip(bounds, shares, strict=True):
            assert abs(end - begin - n * share / shares.sum()) <= unit


#: A function of which the compiler knows nothing: what it may have changed is read again after it.
sched_yield = getattr(ctypes.CDLL(None), "sched_yield", None) if os.name == "posix" else None
if sched_yield is not None:
    sched_yield.argtypes = []


@numba.njit(nogil=True)
def rounds_in_order(board, thread, n_threads, n_rounds):
    """Thread 1 ends each round when the other one has: it looks at the number of arrivals."""
    me = team.member(pointer(board), thread, n_threads)
    for number in range(n_rounds):
        while thread == 1 and board[0] <= n_threads * number:
            sched_yield()
        team.wait_after(SECOND_REGION, me)


@pytest.mark.skipif(sched_yield is None, reason="this system has no sched_yield")
def test_who_comes_last_leaves_some_of_its_share() -> None:
    board, n_rounds = new_board(2), 100
    rounds_in_order(new_board(1), 0, 1, 1)
    first, (other, last) = board[-4:-2].copy(), board[-2:].tolist()

    def member(thread: int, n_threads: int) -> int:
        rounds_in_order(board, thread, n_threads, n_rounds)
        return 0

    threads.run_together(member, 2)
    for _ in range(n_rounds):
        left = last // 64
        other, last = other + left, last - left
    assert board[-2:].tolist() == [other, last]
    assert other > 8 * last
    assert np.array_equal(board[-4:-2], first), "the other region has shares of its own"


def test_threads_leave_cores_to_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "usable_cores", lambda: 4)
    with settings.cores(3) as first, settings.cores(3) as second, settings.cores(3) as third:
        assert (first, second, third) == (3, 1, 1)
    assert settings._state.busy == 0


def test_set_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "usable_cores", lambda: 4)
    assert fastnet.get_threads() == 4
    fastnet.set_threads(2)
    try:
        assert fastnet.get_threads() == 2
        assert settings.most_threads(3) == 3
        assert settings.most_threads(100) == 4
        for wrong in (0, -1, 1.5, "2", True):
            with pytest.raises((TypeError, ValueError), match="threads must be an integer of at least 1"):
                fastnet.set_threads(wrong)
        assert fastnet.get_threads() == 2
    finally:
        fastnet.set_threads(None)
