"""The harness against clocks of its own kind: its figures are those that bare loops give, and its counts are exact."""

from __future__ import annotations

import signal
import subprocess
import sys
import timeit
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from fastnet.bench import allocations, contest, runner, table, timing
from fastnet.bench.peak import FlopsMeter, bandwidth
from fastnet.bench.peers import PEERS
from fastnet.bench.peers.base import Problem, UnsupportedError
from fastnet.bench.peers.numpy_loop import NumpyLoop
from fastnet.bench.results import OWN, SPECIALIZED
from fastnet.bench.workloads import Operation, Prepared, Training, get_workloads
from fastnet.testing.cases import BENCHMARKS
from fastnet.testing.notebooks import NOTEBOOK_1

#: Two figures of the same work agree within this share.
AGREEMENT = 0.10
#: Rounds in which both are timed.
FEWEST, MOST = 7, 60


def assert_agree(measured: Callable[[], float], expected: Callable[[], float]) -> None:
    """The times of both, taken in turn, agree; more rounds make up for a machine that is busy.

    Either the smallest ones, or the ratios of most rounds: on a busy machine one of them may have met a rare moment of
    rest, which the other one never does.
    """
    ours: list[float] = []
    theirs: list[float] = []
    for done in range(MOST):
        ours.append(measured())
        # As a turn does: nobody else is busy, and a first time, for which the caches are not filled, does not count.
        timing.wait_for_rest()
        expected()
        theirs.append(expected())
        ratios = (min(ours) / min(theirs), timing.median_ratio(ours, theirs))
        if done + 1 >= FEWEST and any(abs(ratio - 1) <= AGREEMENT for ratio in ratios):
            return
    raise AssertionError(f"the harness measured {min(ours):.3e} s, a bare loop {min(theirs):.3e} s")


def test_the_notebooks_figure_is_that_of_timeit() -> None:
    (workload,) = get_workloads(["notebook"], ["float64"], quick=True)
    prepared = workload.prepare(PEERS["numpy-loop"])
    epochs = 500

    def bare() -> float:
        network = NOTEBOOK_1.network()
        weights = [w.copy() for w in network.weights]
        return timeit.timeit(lambda: NOTEBOOK_1.loop(NOTEBOOK_1.x, NOTEBOOK_1.y, weights, [], epochs), number=1)

    assert_agree(lambda: timing.turn(prepared, epochs), lambda: bare() / epochs)


def test_the_digits_figure_is_that_of_mlp_classifier() -> None:
    pytest.importorskip("sklearn")
    from sklearn.neural_network import MLPClassifier

    case = replace(BENCHMARKS["digits"], epochs=3)
    workload = Training("digits", "", "float64", case)
    prepared = workload.prepare(PEERS["scikit-learn"])
    problem = Problem(case)
    settings = {"batch_size": 200, "alpha": 0.0, "tol": 0.0, "n_iter_no_change": np.inf, "epsilon": 1e-12}

    def outside() -> float:
        model = MLPClassifier((100,), max_iter=case.epochs, random_state=0, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timeit.timeit(lambda: model.fit(problem.x, problem.labels), number=1)

    steps = case.epochs * workload.units
    assert_agree(lambda: timing.turn(prepared, case.epochs) * case.epochs / steps, lambda: outside() / steps)


def recorded(durations: dict[str, float], log: list[str]) -> dict[str, Prepared]:
    """Workloads that write down what is done with them."""

    def one(name: str) -> Prepared:
        def run(times: int) -> None:
            log.append(f"{name} {times}")
            timing.time.sleep(durations[name] * times)

        return Prepared(run, lambda: log.append(f"reset {name}"), lambda: np.zeros(1))

    return {name: one(name) for name in durations}


def test_peers_take_turns_and_start_anew() -> None:
    log: list[str] = []
    rounds: list[int] = []
    prepared = recorded({"slow": 0.06, "fast": 0.01}, log)
    taken = timing.interleave(prepared, {"slow": 1, "fast": 2}, 2, between=lambda: rounds.append(len(log)))
    # A short run is done once without being counted.
    a_round = ["reset slow", "slow 1", "reset fast", "fast 2", "reset fast", "fast 2"]
    assert log == a_round * 2
    assert rounds == [0, len(a_round)]
    assert [len(one) for one in taken.values()] == [2, 2]
    assert min(taken["slow"]) >= 0.06
    assert 0.01 <= min(taken["fast"]) < 0.02


def test_rounds_go_on_until_they_settle_it() -> None:
    prepared = {"work": Prepared(lambda times: None, lambda: None, lambda: None)}
    asked: list[int] = []

    def is_settled(taken: Mapping[str, list[float]]) -> bool:
        asked.append(len(taken["work"]))
        return len(asked) == 3

    rounds = timing.Rounds(prepared, {"work": 1000}, 4, is_settled=is_settled)
    assert [rounds.take() for _ in range(7)] == [True] * 6 + [False]
    assert asked == [4, 5, 6]
    assert len(rounds.taken["work"]) == 6


@pytest.mark.parametrize(("noise", "n_rounds"), [(0.0, contest.ROUNDS), (2.0, contest.MOST_ROUNDS)])
def test_a_disturbed_machine_gets_more_rounds(monkeypatch: pytest.MonkeyPatch, noise: float, n_rounds: int) -> None:
    random = np.random.default_rng(0)
    monkeypatch.setattr(timing, "turn", lambda prepared, times: 1.0 + noise * random.random())
    (workload, *_) = get_workloads(["predict-one"], ["float32"], True)
    measurement = contest.measure(workload, [PEERS[OWN]], contest.ROUNDS, threads=1)
    assert len(measurement.cells[0].seconds) == n_rounds


def test_workloads_take_turns_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def turn(prepared: Prepared, times: int) -> float:
        timed.append(id(prepared))
        return 1.0

    monkeypatch.setattr(timing, "turn", turn)
    monkeypatch.setattr(runner, "QUICK_ROUNDS", 3)
    results = runner.run(["notebook", "predict-one"], [OWN], ["float64"], quick=True)
    assert [len(cell.seconds) for one in results.measurements for cell in one.cells] == [3] * 4
    assert len(set(timed[:4])) == 4
    assert timed == timed[:4] * 3


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, which a shell's background processes do not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_rounds_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "QUICK_ROUNDS", 3)
    shown: list[str] = []

    def show(text: str, done: int, total: int) -> None:
        shown.append(text)
        if len(shown) == 5:
            # Both workloads are checked, and in the second round the first one's turn has come.
            signal.raise_signal(signal.SIGINT)

    results = runner.run(["notebook", "predict-one"], [OWN], ["float64"], quick=True, show=show)
    assert results.settings["interrupted"]
    rounds = {one.case: {len(cell.seconds) for cell in one.cells} for one in results.measurements}
    assert rounds == {"notebook": {2}, "predict-one": {1}}


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_drops_what_has_had_no_round() -> None:
    def show(text: str, done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    results = runner.run(["notebook", "predict-one"], [OWN], ["float64"], quick=True, show=show)
    assert [one.case for one in results.measurements] == ["notebook"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a workload that has had no round, too: it was found before the first one."""

    def failing(peer: NumpyLoop, problem: Problem, n_rows: int) -> None:
        raise RuntimeError("out of order")

    def show(text: str, done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(NumpyLoop, "prediction", failing)
    results = runner.run(["notebook", "predict-one"], [OWN], ["float64"], quick=True, show=show)
    _, without_times = results.measurements
    assert without_times.cells == []
    assert len(results.wrong) == 1
    assert results.wrong[0].endswith("float64: NumPy loop: it failed with RuntimeError: out of order")
    table.print_report(results)
    assert "WRONG NumPy loop: it failed" in capsys.readouterr().out


def test_ctrl_c_while_allocations_are_counted_keeps_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "count_allocations", interrupted)
    results = runner.run(["predict-one"], [OWN], ["float64"], quick=True, allocations=True)
    assert results.settings["interrupted"]
    assert len(results.measurements[0].cells[0].seconds) == contest.QUICK_ROUNDS


def test_quick_processes_are_timed_while_they_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def started(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setattr(timing, "clock", lambda: 0.5 * len(commands))
    (workload,) = (one for one in runner.workloads_of(["startup"], ["float64"], quick=True) if one.title == "import")
    measurement = contest.measure(workload, [PEERS[OWN]], contest.QUICK_ROUNDS, threads=1)
    assert len(commands) == 1
    assert measurement.cells[0].seconds == [0.5]


def test_quick_runs_start_no_training_of_a_library_that_has_to_be_installed() -> None:
    fits = [one for one in runner.workloads_of(["startup"], ["float64"], quick=True) if one.title != "import"]
    full = [one for one in runner.workloads_of(["startup"], ["float64"], quick=False) if one.title != "import"]
    assert [one.title for one in fits] == [one.title for one in full]

    class Elsewhere(NumpyLoop):
        distribution = "elsewhere"

    for quick_one, one in zip(fits, full, strict=True):
        quick_one.prepare(PEERS[OWN])
        quick_one.prepare(PEERS[SPECIALIZED])
        if "empty cache" not in one.title:
            quick_one.prepare(NumpyLoop())
            one.prepare(Elsewhere())
            with pytest.raises(UnsupportedError, match="quick"):
                quick_one.prepare(Elsewhere())


def test_rounds_end_when_they_take_too_long() -> None:
    prepared = recorded({"one": 0.01}, [])
    assert len(timing.interleave(prepared, {"one": 1}, 8, longest=0.0)["one"]) == timing.LEAST_ROUNDS
    assert len(timing.interleave(prepared, {"one": 1}, 4)["one"]) == 4


def test_short_calls_are_repeated_until_they_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def run(times: int) -> None:
        nonlocal now
        now += 1e-4 * times

    monkeypatch.setattr(timing, "clock", lambda: now)
    times = timing.calls_in_a_turn(Prepared(run, lambda: None, lambda: np.zeros(1)))
    assert timing.LEAST_TURN <= 1e-4 * times < 2 * timing.LEAST_TURN


def test_flops_and_bytes() -> None:
    # Forward 64-100-10, the gradients of both layers, and back through the second one.
    digits = next(w for w in get_workloads(["digits"], ["float32"]))
    per_sample = 2 * (64 * 100 + 100 * 10) * 2 + 2 * 100 * 10
    assert digits.flops * digits.units == pytest.approx(1797 * per_sample)
    product = Operation("kernels", "", "float32", "matmul", (3, 4, 5))
    assert (product.flops, product.n_bytes) == (120, 0)
    assert Operation("kernels", "", "float64", "exp", (10,)).n_bytes == 160
    assert Operation("kernels", "", "float32", "adam", (10,)).n_bytes == 280


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peaks_are_those_of_a_machine(dtype: str) -> None:
    # From a scalar unit at 1 GHz to two 512-bit units at 6 GHz; caches move from 1 GB/s to 10 TB/s.
    assert 1e8 < FlopsMeter(dtype)() < 6e9 * 2 * 2 * 16
    assert 1e9 < bandwidth(1e5) < 1e13


@pytest.mark.skipif(not allocations.is_available(), reason="glibc's debugging library is not there")
def test_allocations_are_counted_to_the_byte() -> None:
    counted = allocations.count_allocations(["numpy-loop"], ["kernels"], ["float64"], quick=True)
    # exp makes one array of 2048 numbers of 8 bytes; the sigmoid four, NumPy reusing none of them.
    of_exp = next(n for key, n in counted.items() if "exp of 2048" in key)
    of_matmul = next(n for key, n in counted.items() if "matmul 64 x 64 x 64" in key)
    assert of_exp == 2048 * 8
    assert 64 * 64 * 8 <= of_matmul < 64 * 64 * 8 + 1024


def test_a_process_that_cannot_be_traced_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocations, "is_available", lambda: False)
    assert allocations.count_allocations(["numba"], None, ["float32"], quick=True) == {}


def test_asv_finds_its_suite() -> None:
    pytest.importorskip("asv")
    code = (
        "from asv_runner.discovery import disc_benchmarks\n"
        "print(*sorted(found.name for found in disc_benchmarks('benchmarks')), sep='\\n')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(ran.stdout.split())
    assert {"asv_training.Time.time_run", "asv_training.Time.peakmem_run"} <= names
    assert {"asv_training.Ratio.track_speed_by_numpy_loop", "asv_training.Ratio.track_share_of_peak"} <= names
    assert {"asv_kernels.Accuracy.track_ulp", "asv_kernels.Processes.track_seconds"} <= names
    assert not any("test_" in name for name in names)
