"""pytest-benchmark: every case on every peer that is installed, grouped so that peers stand side by side.

`pytest benchmarks --benchmark-only`; with ``--quick`` on fewer samples. Results are checked before they are timed.
"""

from __future__ import annotations

import pytest

from fastnet.bench.peers import PEERS
from fastnet.bench.peers.base import UnsupportedError
from fastnet.bench.workloads import Workload, case_names, get_workloads

#: torch.compile takes up to a minute for each case.
NAMES = [name for name, peer in PEERS.items() if name != "torch.compile"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    workloads = get_workloads(case_names(), quick=metafunc.config.getoption("--quick"))
    metafunc.parametrize("peer", NAMES)
    metafunc.parametrize("workload", workloads, ids=[workload.key for workload in workloads])


def test_case(benchmark, workload: Workload, peer: str) -> None:
    adapter = PEERS[peer]
    if reason := adapter.absence():
        pytest.skip(reason)
    try:
        workload, _ = workload.variant(adapter)
        prepared = workload.prepare(adapter)
    except UnsupportedError as error:
        pytest.skip(str(error))
    prepared.run(workload.checked_runs)
    desired = workload.prepare(PEERS["numba"])
    desired.run(workload.checked_runs)
    assert workload.distance(prepared.result(), desired.result()) <= workload.bound
    benchmark.group = workload.key
    benchmark.extra_info["units"] = workload.units * (workload.runs or 1)
    benchmark.pedantic(
        prepared.run, (workload.runs or 1,), setup=prepared.reset, rounds=5, warmup_rounds=1, iterations=1
    )
