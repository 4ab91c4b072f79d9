"""Orders of samples: what NumPy draws, whoever draws it, and where the kernel does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import MT19937, PCG64, Generator, RandomState
from numpy.typing import NDArray

import fastnet
from fastnet import orders, seeding
from fastnet.backends import load_backend
from fastnet.orders import OrderSource
from fastnet.runtime import orders as runtime
from fastnet.runtime import payback
from tests.test_equality import SEARCH


class Reversed(RandomState):
    """A source with orders of its own."""

    def shuffle(self, x: Any) -> None:
        x[:] = x[::-1].copy()


SOURCES: dict[str, Callable[[], RandomState | Generator]] = {
    "RandomState": lambda: RandomState(8),
    "another generator's RandomState": lambda: RandomState(PCG64(8)),
    "Generator": lambda: np.random.default_rng(8),
    "Mersenne Twister's Generator": lambda: Generator(MT19937(8)),
}


@pytest.fixture(autouse=True)
def kernel() -> None:
    runtime.kernel()


def drawn(source: OrderSource, n_epochs: int, n_samples: int) -> NDArray[np.int64]:
    found = np.full((n_epochs, n_samples), -1, np.int64)
    source.fill(found)
    return found


def permutations(source: Any, n_epochs: int, n_samples: int) -> list[list[int]]:
    return [source.permutation(n_samples).tolist() for _ in range(n_epochs)]


def following(source: Any) -> list[int]:
    """What tells the states of two sources apart."""
    return source.permutation(1000).tolist()  # type: ignore[no-any-return]


class TestKernel:
    @given(
        seed=st.integers(0, 2**32 - 1),
        # Some words of a key are used up, all of them, none.
        n_before=st.integers(0, 1300),
        shapes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1500)), min_size=1, max_size=4),
    )
    @SEARCH
    def test_draws_what_numpy_draws(self, seed: int, n_before: int, shapes: list[tuple[int, int]]) -> None:
        source, expected = RandomState(seed), RandomState(seed)
        for either in (source, expected):
            either.bytes(4 * n_before)
        ours = OrderSource(source, runtime.draw_orders)
        for shape in shapes:
            assert drawn(ours, *shape).tolist() == permutations(expected, *shape)
        assert following(source) == following(expected)

    @pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 5, 255, 256, 257, 1 << 16, (1 << 16) + 1])
    def test_powers_of_two(self, n_samples: int) -> None:
        source, expected = RandomState(1), RandomState(1)
        found = drawn(OrderSource(source, runtime.draw_orders), 3, n_samples)
        assert found.tolist() == permutations(expected, 3, n_samples)
        assert following(source) == following(expected)

    def test_leaves_normal_numbers_alone(self) -> None:
        """RandomState keeps the second of a pair."""
        source, expected = RandomState(2), RandomState(2)
        assert source.standard_normal() == expected.standard_normal()
        drawn(OrderSource(source, runtime.draw_orders), 2, 9)
        permutations(expected, 2, 9)
        assert source.standard_normal(3).tolist() == expected.standard_normal(3).tolist()

    def test_draws_for_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes = []
        kernel = runtime.kernel()

        def counted(state: Any, words: Any, numbers: Any, found: NDArray[np.int64]) -> bool:
            shapes.append(found.shape)
            return kernel(state, words, numbers, found)

        monkeypatch.setattr(runtime, "kernel", lambda: counted)
        network = fastnet.Network([1, 1]).initialize(seed=0)
        network.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], epochs=5, batch_size=2, shuffle=True, seed=3)
        assert sum(n_epochs for n_epochs, _ in shapes) == 5
        assert {n_samples for _, n_samples in shapes} == {3}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("backend", ["numba", "exact"])
class TestSources:
    def test_fill(self, make: Callable[[], Any], backend: str) -> None:
        source, expected = make(), make()
        ours = OrderSource(source, load_backend(backend).draw_orders)
        assert drawn(ours, 4, 70).tolist() == permutations(expected, 4, 70)
        assert following(source) == following(expected)

    def test_rewind(self, make: Callable[[], Any], backend: str) -> None:
        source, expected = make(), make()
        ours = OrderSource(source, load_backend(backend).draw_orders)
        drawn(ours, 1, 70)
        state = ours.state()
        drawn(ours, 9, 70)
        ours.rewind(state, 2, 70)
        permutations(expected, 3, 70)
        assert following(source) == following(expected)


def test_a_source_with_orders_of_its_own() -> None:
    source = OrderSource(Reversed(0), runtime.draw_orders)
    assert drawn(source, 2, 4).tolist() == [[3, 2, 1, 0]] * 2


@pytest.mark.parametrize("backend", ["numba", "exact"])
def test_a_numpy_that_keeps_the_state_otherwise(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_has_words", lambda: False)
    TestSources().test_fill(lambda: RandomState(8), backend)
    TestSources().test_rewind(lambda: RandomState(8), backend)


def test_where_the_state_lies_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert orders._has_words()
    monkeypatch.setattr(orders, "_view", lambda generator: np.zeros(625, np.uint32))
    assert not orders._has_words.__wrapped__()


class TestChoice:
    @pytest.fixture(autouse=True)
    def nothing_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "is_loaded", lambda name, variant: False)
        monkeypatch.setattr(runtime, "_payback", payback.Payback("draw_orders", runtime.COMPILE_SECONDS))
        monkeypatch.setattr(payback, "_was_kept", lambda name, variant: False)

    @staticmethod
    def is_done(n_epochs: int, n_samples: int) -> bool:
        state: NDArray[np.uint32] = OrderSource(RandomState(0)).state()
        return runtime.draw_orders(state, np.empty((n_epochs, n_samples), np.int64))

    def test_nobody_waits_for_what_does_not_pay(self) -> None:
        enough = int(runtime.COMPILE_SECONDS / (runtime.ORDER_SECONDS + 2 * runtime.SAMPLE_SECONDS)) + 1
        assert [self.is_done(enough // 2 + 1, 2) for _ in range(2)] == [False, True]

    def test_what_is_on_disk_is_used_sooner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(payback, "_was_kept", lambda name, variant: name == "draw_orders")
        enough = int(payback.LOAD_SECONDS / runtime.SAMPLE_SECONDS) + 1
        assert [self.is_done(1, enough // 2) for _ in range(2)] == [False, True]

    def test_more_samples_than_a_word_counts(self) -> None:
        # Memory that is never touched.
        huge = np.broadcast_to(np.int64(0), (1, 1 << 32))
        assert not runtime.draw_orders(np.zeros(625, np.uint32), huge)


class TestSeeded:
    @pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
    def test_has_the_stream_of_numpy(self, seed: int) -> None:
        assert following(seeding.seeded(seed)) == following(RandomState(seed))

    def test_a_numpy_that_insists_on_an_array(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Any, n_words: int, dtype: Any) -> None:
            raise TypeError

        monkeypatch.setattr(seeding._Zeros, "generate_state", refuse)
        assert following(seeding.seeded(5)) == following(RandomState(5))
