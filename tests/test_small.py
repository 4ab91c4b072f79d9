"""Kernels compiled for a small network alone: the same bits, where they are used, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from fastnet import contract, losses
from fastnet.backends import Backend, load_backend
from fastnet.network import Network
from fastnet.optimizers import SGD, RMSprop
from fastnet.runtime import digest, entry_points, payback, plans, trainers
from fastnet.testing.cases import NOTEBOOK, Case
from tests.support import assert_same_bits
from tests.test_equality import CASES as SHAPES
from tests.test_equality import SEARCH, assert_equal_training, runs_finitely

#: Of every activation, loss and optimizer something; groups of rows and rests of groups; rows that share vectors, rows
#: of one vector and of several; orders, weights, penalties; batches that are all samples, last ones that are smaller.
CASES = {
    "notebook": replace(NOTEBOOK, epochs=60),
    "one weight": Case((1, 1), "relu", "identity", optimizer="rmsprop_momentum", n_samples=3, batch_size=None),
    "rest of a group": Case((4, 3, 1), "sigmoid", "sigmoid", dtype="float32", n_samples=7, batch_size=None),
    "groups": Case((2, 8, 8, 1), "tanh", "identity", optimizer="adam", dtype="float32", n_samples=19, batch_size=8),
    "ordered": Case((2, 8, 8, 1), "gelu", "tanh", "huber", "adamw", n_samples=19, batch_size=8, shuffle=True),
    "softmax": Case((4, 16, 3), "relu", "softmax", "cross_entropy", "adam", n_samples=30, batch_size=8, shuffle=True),
    "softmax error": Case((4, 5, 3), "elu", "softmax", "squared_error", "sgd", "float32", n_samples=6, weighted=True),
    "nesterov": Case((2, 3, 2), "silu", "identity", "quantile", "nesterov", n_samples=5, l2=0.1, reduction="sum"),
    "poisson": Case((2, 3, 2), "gelu", "exponential", "poisson", "momentum", "float32", n_samples=5, l2=0.1),
    "deep": Case((3, 2, 4, 1), "softplus", "sigmoid", "binary_cross_entropy", "rprop", n_samples=9, batch_size=None),
    "wide": Case((5, 19, 2), "leaky_relu", "tanh", "absolute_error", "schedule", n_samples=3, batch_size=2, l2=0.01),
    "many rows": Case((6, 7, 5, 4), "sigmoid", "silu", "huber", n_samples=256, batch_size=47, weighted=True, l2=0.1),
    "one block": Case((3, 4, 1), "sigmoid", "identity", "squared_error", "rmsprop", n_samples=256, batch_size=None),
    "no bias": Case((3, 9, 9, 2), "tanh", "identity", optimizer="adam", dtype="float32", bias=False, weighted=True),
}


@pytest.mark.parametrize("name", CASES)
def test_same_bits(name: str) -> None:
    assert_equal_training(CASES[name], specialize=True)


@pytest.mark.exhaustive
@settings(SEARCH, max_examples=200)
@given(case=SHAPES.filter(runs_finitely))
def test_every_small_shape(case: Case) -> None:
    layer_sizes = tuple(1 + size % 8 for size in case.layer_sizes)
    assert_equal_training(replace(case, layer_sizes=layer_sizes, loss="huber"), specialize=True)


@pytest.mark.parametrize("name", ["notebook", "ordered"])
def test_same_bits_in_pieces(name: str) -> None:
    """Calls that end anywhere between two batches."""

    def trainer(*arguments: Any) -> Callable[..., int]:
        whole = load_backend("numba").trainer(*arguments)

        def train(*records_and_blocks: Any) -> int:
            *records, n_blocks = records_and_blocks
            status, piece = whole(*records, 0), 2
            while status == contract.PAUSED and n_blocks > 0:
                status = whole(*records, min(piece, n_blocks))
                n_blocks -= piece
            return status

        return train

    numba = load_backend("numba")
    pieces = Backend(numba.forward, numba.train, is_compiled=True, trainer=trainer)
    actual, desired = CASES[name].train(pieces, specialize=True), CASES[name].train("numba", specialize=False)
    for part in desired:
        assert_same_bits(actual[part], desired[part])


@pytest.mark.parametrize("n_samples", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deltas_are_flushed(dtype: str, n_samples: int) -> None:
    """In vectors of all widths: errors of a few times the threshold, which derivatives take across it."""
    threshold = contract.FLOAT32_FORMAT.flush_below if dtype == "float32" else contract.FLOAT64_FORMAT.flush_below
    networks = [Network([2, 7, 3, 1], "sigmoid", dtype=dtype).initialize(seed=3) for _ in range(2)]
    x = np.random.RandomState(0).standard_normal((n_samples, 2))
    weight = threshold * np.array([8.0, 16.0, 32.0, 64.0])[:n_samples]
    for network, backend in zip(networks, ["numba", "exact"], strict=True):
        for bias in network.biases:
            # What is added to a larger number does not show.
            bias[:] = 0.0
        how = {"optimizer": SGD(1.0), "reduction": "sum", "sample_weight": weight, "specialize": True}
        network.fit(x, np.ones(n_samples), epochs=1, backend=backend, **how)
    assert networks[0] == networks[1]
    changed = np.concatenate(networks[0].biases) != 0.0
    assert changed[-1]
    assert not changed.all()


@pytest.mark.parametrize("batch_size", [2, None])
def test_divergence_is_the_same(batch_size: int | None) -> None:
    case = Case((2, 3, 1), "relu", "identity", optimizer=SGD(1e200), n_samples=6, batch_size=batch_size, epochs=9)
    left = case.train("numba", specialize=True)
    assert "divergence" in left
    for name, desired in case.train("numba", specialize=False).items():
        assert_same_bits(left[name], desired)


def test_a_fit_goes_on_where_the_last_one_ended() -> None:
    case = CASES["groups"]
    networks = [case.network() for _ in range(2)]
    x, y, _ = case.data()
    for network, kinds in zip(networks, [(True, False, True), (False, True, False)], strict=True):
        for specialize in kinds:
            network.fit(x, y, **case.settings, specialize=specialize)
    assert_same_bits(networks[0].parameters, networks[1].parameters)


class TestChoice:
    """When kernels are compiled for a network alone."""

    @pytest.fixture(autouse=True)
    def nothing_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trainers._payback, "_missed", {})
        payback._was_kept.cache_clear()
        entry_points.entry_point("train_together", "float64")
        self.forget_plans(monkeypatch)
        monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))

    @staticmethod
    def chosen(case: Case, specialize: bool | str = "auto", n_epochs: int = 1) -> bool:
        """Whether a fit would use kernels of its own."""
        found: list[Any] = []

        def trainer(execution: contract.Execution, *arguments: Any) -> Callable[..., int]:
            chosen = load_backend("numba").trainer(execution._replace(n_epochs=n_epochs), *arguments)
            found.append(chosen)
            return chosen

        numba = load_backend("numba")
        case.train(Backend(numba.forward, numba.train, is_compiled=True, trainer=trainer), specialize=specialize)
        return isinstance(found[0], trainers.SmallTrainer)

    @staticmethod
    def forget_plans(monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process have no kernel of a plan in memory."""
        others = {key: kernel for key, kernel in entry_points._functions.items() if key[0] != "train"}
        monkeypatch.setattr(entry_points, "_functions", others)

    @staticmethod
    def plan(case: Case) -> plans.Plan:
        plan = plans.make_plan(*arguments_of(case)[:5], ordered=False)
        assert plan is not None
        return plan

    def epochs_worth(self, seconds: float, case: Case = NOTEBOOK) -> int:
        return int(seconds / trainers.saving(self.plan(case))) + 1

    def test_nobody_waits_for_what_does_not_pay(self) -> None:
        case = replace(NOTEBOOK, epochs=1)
        enough = self.epochs_worth(trainers.COMPILE_SECONDS)
        assert not self.chosen(case, n_epochs=enough // 2)
        assert not self.chosen(case, specialize=False, n_epochs=enough)
        assert self.chosen(case, n_epochs=enough)

    def test_what_was_asked_before_counts(self) -> None:
        case = replace(NOTEBOOK, epochs=1)
        half = self.epochs_worth(trainers.COMPILE_SECONDS / 2)
        assert [self.chosen(case, n_epochs=half) for _ in range(2)] == [False, True]
        # It is compiled now.
        assert self.chosen(case, n_epochs=1)

    def test_what_is_on_disk_is_used_sooner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Of no other test: what this process has compiled it does not write again.
        case = Case((5, 3, 1), n_samples=4, batch_size=None, epochs=1)
        assert self.chosen(case, specialize=True)
        self.forget_plans(monkeypatch)
        assert self.chosen(case, n_epochs=self.epochs_worth(payback.LOAD_SECONDS, case))
        self.forget_plans(monkeypatch)
        monkeypatch.setattr(trainers._payback, "_missed", {})
        assert not self.chosen(case, n_epochs=1)

    def test_nothing_is_on_disk_without_a_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digest, "loaded_digest", lambda: None)
        case = replace(NOTEBOOK, epochs=1)
        assert self.chosen(case, specialize=True)
        self.forget_plans(monkeypatch)
        assert not self.chosen(case, n_epochs=self.epochs_worth(payback.LOAD_SECONDS))

    @pytest.mark.parametrize("n_before", [0, 1, 2, 3])
    def test_what_compiles_sooner_comes_first(self, n_before: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing can train yet: but not network after network."""
        plan, other = (self.plan(Case((2, n, 1), n_samples=4, batch_size=None)) for n in (2, 3))
        monkeypatch.setattr(trainers, "is_loaded", lambda name, dtype: False)
        monkeypatch.setattr(trainers, "is_kept", lambda name, variant: False)
        monkeypatch.setattr(trainers, "n_variants", lambda name: n_before)
        assert trainers._pays(plan, 1, 4) == (n_before < 3)
        # So many epochs that the tiles of the other kernel would have been faster, had it been there.
        slow = self.plan(Case((10, 24, 4), n_samples=256, batch_size=None))
        worth = -trainers.GENERAL_SECONDS / trainers.saving(slow)
        assert trainers._pays(slow, int(worth / 2), 256) == (n_before == 0)
        assert not trainers._pays(slow, int(worth * 2), 256)
        monkeypatch.setattr(trainers, "is_kept", lambda name, variant: name == "train_together")
        assert not trainers._pays(other, 1, 4)
        monkeypatch.setattr(trainers, "is_loaded", lambda name, variant: name == "train_together")
        assert not trainers._pays(other, 1, 4)

    def test_a_process_without_kernels_compiles_one(self, tmp_path: Path) -> None:
        code = """
from fastnet import Network
from fastnet.runtime.entry_points import n_variants, origins
Network([2, 1]).initialize(seed=0).fit([[0.0, 1.0]], [1.0], epochs=3)
print(*(name for name, _ in origins()), n_variants("train"), n_variants("train_together"))
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout == "train 1 0\n"

    def test_many_rows_are_left_to_the_tiles(self) -> None:
        case = Case((10, 24, 4), n_samples=256, batch_size=None, epochs=1)
        assert not self.chosen(case, n_epochs=10**9)


def arguments_of(case: Case) -> tuple[Any, ...]:
    """What a case's plan is made of."""
    found: list[Any] = []

    def trainer(execution: contract.Execution, *arguments: Any) -> Callable[..., int]:
        found.extend(arguments)
        return load_backend("numba").trainer(execution, *arguments)

    numba = load_backend("numba")
    replace(case, epochs=1).train(Backend(numba.forward, numba.train, is_compiled=True, trainer=trainer))
    return tuple(found)


@pytest.mark.parametrize(
    ("layer_sizes", "n_samples", "got"),
    [
        ((20, 20, 1), 4, "420 weights, 1 outputs and batches of 4"),
        ((2, 2, 9), 4, "22 weights, 9 outputs and batches of 4"),
        ((2, 2), 257, "4 weights, 2 outputs and batches of 257"),
    ],
)
def test_what_is_not_small_is_refused(layer_sizes: tuple[int, ...], n_samples: int, got: str) -> None:
    network = Network(layer_sizes, dtype="float64").initialize(seed=0)
    before = network.parameters
    x, y = np.ones((n_samples, layer_sizes[0])), np.ones((n_samples, layer_sizes[-1]))
    with pytest.raises(
        ValueError, match=r"specialize=True needs .* 384 weights .* 8 outputs, .* 256 samples; got " + got
    ):
        network.fit(x, y, specialize=True)
    assert_same_bits(network.parameters, before)
    assert network._training is None


def test_truth_values_may_be_those_of_numpy() -> None:
    network = Network([20, 20, 1], dtype="float64").initialize(seed=0)
    with pytest.raises(ValueError, match="specialize=True needs"):
        network.fit(np.ones((2, 20)), np.ones((2, 1)), specialize=np.True_)


@pytest.mark.parametrize("specialize", ["yes", 1, None])
def test_other_values_are_refused(specialize: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"specialize must be one of 'auto', or True or False; got"):
        Network([1, 1]).initialize(seed=0).fit([[1.0]], [1.0], specialize=specialize)


def test_huber_parameters_are_no_part_of_a_plan() -> None:
    """One compilation serves every delta and every setting of an optimizer."""
    before = entry_points.origins()
    case = Case((2, 2, 1), "tanh", "identity", n_samples=3, batch_size=None)
    x, y, _ = case.data()
    for delta, optimizer in [(0.1, RMSprop()), (0.7, RMSprop(rho=0.5))]:
        settings = case.settings | {"loss": losses.Huber(delta), "optimizer": optimizer}
        results = []
        for backend in ("numba", "exact"):
            network = case.network()
            network.fit(x, y, **settings, specialize=True, backend=backend)
            results.append(network.parameters)
        assert_same_bits(*results)
    assert len(entry_points.origins().keys() - before) == 1
