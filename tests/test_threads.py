"""Threads: the same bits with any number of them, after a fork, side by side, and when some cannot be started."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from llvmlite import ir

import fastnet
from fastnet import prediction
from fastnet import threads as settings
from fastnet.kernels import starting, team
from fastnet.kernels.memory import pointer
from fastnet.kernels.simd import INTP
from fastnet.kernels.starting import call_together
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

#: Of threads whose stacks are to be too large.
STACK_BYTES = 1 << 30


def system_function(name: str) -> Any:
    """A function of the system without arguments, of which the compiler knows nothing."""
    function = getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
    if function is not None:
        function.argtypes = []
    return function


#: What it may have changed is read again after it.
sched_yield = system_function("sched_yield")
sched_getcpu = system_function("sched_getcpu")


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of a process")
def test_no_thread_stays(many_cores: None) -> None:
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    trained(CASE, 3)
    # Linux lists a thread for a moment after it has been waited for.
    deadline = time.monotonic() + 10.0
    while set(tasks.iterdir()) != before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert set(tasks.iterdir()) == before


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


@pytest.mark.skipif(sys.platform != "linux", reason="memory for stacks is limited as Linux does it")
@pytest.mark.parametrize("n_started", [0, 1])
def test_threads_that_cannot_be_started(n_started: int) -> None:
    """For want of memory for their stacks: one does all alone, and who waited for another thread ends."""
    code = f"""
import resource
import numpy as np
from fastnet import threads as settings
from fastnet.runtime import threads
from fastnet.runtime.pace import Pace
from fastnet.testing.rung_context import digest
from tests.test_threads import CASE, cores_of_threads
settings.usable_cores = lambda: 3
threads.WORK_PER_THREAD = 1
def sizes():
    sizes = np.zeros(3, np.int64)
    cores_of_threads(np.empty(3, np.int64), sizes, threads.core_masks(1), 3)
    return sizes.tolist()
Pace.proposal = lambda pace, n_blocks: (1, n_blocks)
before = digest(CASE.train("numba"))
cores_of_threads(np.empty(3, np.int64), np.empty(3, np.int64), threads.core_masks(1), 1)
Pace.proposal = lambda pace, n_blocks: (3, n_blocks)
with open("/proc/self/statm") as statm:
    pages = int(statm.read().split()[0])
limit = pages * resource.getpagesize() + int({n_started + 0.5} * {STACK_BYTES})
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, unlimited[1]))
assert digest(CASE.train("numba")) == before
assert sizes() == [1, 0, 0]
resource.setrlimit(resource.RLIMIT_AS, unlimited)
assert digest(CASE.train("numba")) == before
assert sizes() == [3, 3, 3]
"""
    # The size of stacks is that of the first thread's as the process begins.
    limited = f'ulimit -s {STACK_BYTES >> 10} && exec "$0" -W error -c "$1"'
    ran = subprocess.run(
        ["sh", "-c", limited, sys.executable, code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


@numba.njit(nogil=True)
def note_core(arguments, thread, n_threads):
    found, sizes = arguments
    found[thread] = sched_getcpu()
    sizes[thread] = n_threads


@numba.njit
def cores_of_threads(found, sizes, cores, n_threads):
    arguments = found, sizes
    call_together(note_core, arguments, n_threads, pointer(cores), cores.size // n_threads)


@pytest.mark.skipif(settings.usable_cores() < 2 or threads._getcpu is None, reason="there is no choice of cores")
def test_other_threads_begin_on_cores_of_their_own() -> None:
    """They are kept to them by their caller: on its core they would wait for its time to be over."""
    allowed = os.sched_getaffinity(0)
    for _ in range(20):
        found, sizes, masks = np.full(2, -1), np.zeros(2, np.int64), threads.core_masks(2)
        cores_of_threads(found, sizes, masks, 2)
        own, other = (int.from_bytes(words.tobytes(), sys.byteorder) for words in masks.reshape(2, -1))
        assert own | other == sum(1 << core for core in allowed)
        assert own & other == 0
        assert other >> int(found[1]) & 1
        assert sizes.tolist() == [2, 2]
    assert os.sched_getaffinity(0) == allowed, "the caller's own are as they were"


@pytest.mark.skipif(sched_getcpu is None, reason="this system has no sched_getcpu")
@pytest.mark.parametrize("n_threads", [1, 2, 7, 64])
def test_every_thread_does_its_part_on_any_core(n_threads: int) -> None:
    found, sizes = np.full(n_threads, -1), np.zeros(n_threads, np.int64)
    cores_of_threads(found, sizes, threads.core_masks(1), n_threads)
    assert (found >= 0).all()
    assert (sizes == n_threads).all()


@numba.njit
def refuse(arguments, thread, n_threads):
    if thread == 0:
        raise ValueError("no")
    arguments[thread] = 1


@numba.njit
def refused(arguments, cores):
    call_together(refuse, arguments, 3, pointer(cores), 0)


def test_what_the_caller_raises_waits_for_the_others() -> None:
    done = np.zeros(3)
    with pytest.raises(ValueError, match="^no$"):
        refused(done, threads.core_masks(1))
    assert done.tolist() == [0, 1, 1]


@pytest.mark.parametrize("platform", [starting._Posix, starting._Linux, starting._Windows])
def test_code_for_every_system_is_sound(platform: type) -> None:
    """None but one of them runs here."""
    module, address = ir.Module(), ir.IntType(8).as_pointer()
    start = ir.Function(module, ir.FunctionType(address, [address]), "start")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INTP.as_pointer(), INTP]), "all")
    builder, (memory, size) = ir.IRBuilder(function.append_basic_block()), function.args
    system = platform()
    is_started = system.start(builder, start, memory, memory)
    with builder.if_then(is_started):
        system.keep_to(builder, builder.load(memory), memory, size)
        system.join(builder, builder.load(memory))
    builder.ret_void()
    llvm.parse_assembly(str(module)).verify()


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

    other_one = threading.Thread(target=rounds_in_order, args=(board, 1, 2, n_rounds))
    other_one.start()
    rounds_in_order(board, 0, 2, n_rounds)
    other_one.join()
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
