"""The adapters: the same results as fastnet, from the same start, and wrong ones refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastnet.bench import contest
from fastnet.bench.peers import PEERS, c_loops, get_peers
from fastnet.bench.peers.base import Peer, Problem, UnsupportedError
from fastnet.bench.peers.fastnet_backends import Numba
from fastnet.bench.results import OWN
from fastnet.bench.workloads import DTYPES, Training, Workload, case_names, get_workloads
from fastnet.optimizers import Adam
from fastnet.testing.cases import ADAM, BENCHMARKS, Case
from tests.support import assert_same_bits

#: torch.compile takes up to a minute for each case; `make bench` runs it.
QUICK_PEERS = [name for name in PEERS if name not in ("torch.compile", OWN)]


def small(workload: Workload) -> Workload:
    """The workload with two batches and a smaller one, so that it takes little time."""
    if not isinstance(workload, Training) or workload.units == 1:
        return workload
    assert workload.case.batch_size is not None
    return replace(workload, case=replace(workload.case, n_samples=2 * workload.case.batch_size + 50))


#: What differs from digits, which is here, in sizes only; `fastnet bench --quick`, which CI runs, checks these, too.
OTHER_SIZES = {"tabular", "mnist-like", "mnist-wide"}
CASES = [name for name in case_names() if name not in OTHER_SIZES]
WORKLOADS = [small(workload) for workload in get_workloads(CASES, quick=True)]


def prepared_on(workload: Workload, peer: Peer):
    if reason := peer.absence():
        pytest.skip(reason)
    try:
        done, _ = workload.variant(peer)
        return done, done.prepare(peer)
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("peer", QUICK_PEERS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_results_are_fastnets(workload: Workload, peer: str) -> None:
    done, prepared = prepared_on(workload, PEERS[peer])
    prepared.run(done.checked_runs)
    actual = np.array(prepared.result())
    desired = done.prepare(PEERS[OWN])
    desired.run(done.checked_runs)
    assert done.distance(actual, np.array(desired.result())) <= done.bound


@pytest.mark.parametrize("peer", [OWN, *QUICK_PEERS])
@pytest.mark.parametrize("case", ["notebook", "digits"])
def test_reset_goes_back_to_the_start(case: str, peer: str) -> None:
    (workload,) = get_workloads([case], ["float64"], quick=True)
    _, prepared = prepared_on(small(workload), PEERS[peer])
    results = []
    for _ in range(2):
        prepared.reset()
        prepared.run(1)
        results.append(np.array(prepared.result()))
    # Threads may share sums in other ways.
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)
    prepared.run(1)
    assert not np.array_equal(np.array(prepared.result()), results[1])


class _Faulty(Numba):
    """fastnet on another case than it is asked for."""

    def __init__(self, **changes: object) -> None:
        self.changes = changes

    name, label = "numpy", "faulty"

    def training(self, problem: Problem):
        faulty = Problem(replace(problem.case, **self.changes), problem.threads)
        # The first parameters are right.
        faulty.network = problem.network
        return PEERS[OWN].training(faulty)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": Adam(0.00101, epsilon=ADAM.epsilon)},
        {"shuffle": False},
        {"reduction": "sum", "optimizer": "sgd"},
        {"batch_size": 199},
        {"l2": 0.1},
    ],
    ids=",".join,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_arithmetic_is_refused(changes: dict[str, object], dtype: str) -> None:
    (workload,) = get_workloads(["digits"], [dtype], quick=True)
    measurement = contest.measure(small(workload), [PEERS[OWN], _Faulty(**changes)], rounds=1, threads=1)
    assert set(measurement.wrong) == {"faulty"}
    assert "from fastnet's, more than" in measurement.wrong["faulty"]
    assert [cell.peer for cell in measurement.cells] == [OWN]


def test_an_adapter_that_fails_loses_only_its_own_figures() -> None:
    class Failing(Numba):
        name, label = "numpy", "failing"

        def training(self, problem: Problem):
            raise RuntimeError("out of order")

    (workload,) = get_workloads(["notebook"], ["float64"], quick=True)
    measurement = contest.measure(workload, [PEERS[OWN], Failing()], rounds=1, threads=1)
    assert measurement.wrong == {"failing": "it failed with RuntimeError: out of order"}
    assert [cell.peer for cell in measurement.cells] == [OWN]


def test_absent_peers_say_why() -> None:
    class Absent(Numba):
        name, label, distribution, modules = "numpy", "absent", "nosuchthing", ("nosuchthing",)

    (workload,) = get_workloads(["notebook"], ["float64"], quick=True)
    peers = [PEERS[OWN], Absent(), PEERS["onnxruntime"]]
    measurement = contest.measure(workload, peers, rounds=1, threads=1)
    assert measurement.absent["absent"] == "nosuchthing is not installed"
    assert "ONNX Runtime" in measurement.absent


@pytest.mark.parametrize("peer", [OWN, *QUICK_PEERS])
def test_subnormal_numbers_are_left_alone(peer: str) -> None:
    (workload,) = get_workloads(["notebook"], ["float64"], quick=True)
    _, prepared = prepared_on(workload, PEERS[peer])
    prepared.run(1)
    least = np.array([np.finfo(np.float64).smallest_subnormal])
    assert (least * 1.0)[0] > 0.0


def test_orders_are_those_of_fit() -> None:
    case = replace(BENCHMARKS["digits"], n_samples=40)
    orders = Problem(case).orders()
    source = np.random.RandomState(case.seed)
    for _ in range(3):
        np.testing.assert_array_equal(next(orders), source.permutation(40))
    assert next(Problem(replace(case, shuffle=False)).orders()) is None


def test_the_notebook_case_has_the_notebooks_weights() -> None:
    from fastnet.testing.notebooks import NOTEBOOK_1

    assert_same_bits(BENCHMARKS["notebook"].network().parameters, NOTEBOOK_1.network().parameters)


def test_labels_and_rows_of_one_are_the_same_targets() -> None:
    problem = Problem(replace(BENCHMARKS["digits"], n_samples=30))
    assert problem.labels is not None
    np.testing.assert_array_equal(problem.y.argmax(axis=1), problem.labels)
    one_output = Problem(Case((8, 4, 1), output_activation="sigmoid", dataset="classes", n_samples=30))
    np.testing.assert_array_equal(one_output.y.ravel(), one_output.labels)


def test_unknown_peers_are_named() -> None:
    with pytest.raises(ValueError, match="peers must be one of .*'jax'.*; got 'jaxx'. Did you mean 'jax'?"):
        get_peers(["jaxx"])
    assert [peer.name for peer in get_peers(["scikit-learn"])] == ["numba", "numpy-loop", "scikit-learn"]


@pytest.mark.skipif(PEERS["c"].absence() is not None, reason="gcc is not installed")
def test_c_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And anew for other options, and where what is kept is damaged."""
    (workload,) = get_workloads(["notebook"], ["float64"], quick=True)
    problem = workload.problem()
    defined = c_loops.definitions(problem, problem.batch_size)
    compiled: list[list[str]] = []

    def load(*flags: str) -> object:
        c_loops.compile_loops.cache_clear()
        return c_loops.compile_loops(flags, defined)

    def compile_noted(options: list[str], linked: Path) -> None:
        compiled.append(options)
        compile_loops(options, linked)

    compile_loops = c_loops._compile
    monkeypatch.setattr(c_loops, "_compile", compile_noted)
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    load("-O1")
    load("-O1")
    assert [options[0] for options in compiled] == ["-O1"]
    load("-O0")
    assert [options[0] for options in compiled] == ["-O1", "-O0"]
    for path in tmp_path.rglob("*c_loops*"):
        path.write_bytes(path.read_bytes()[:-1])
    load("-O0")
    assert [options[0] for options in compiled] == ["-O1", "-O0", "-O0"]
