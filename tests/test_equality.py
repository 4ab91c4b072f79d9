"""The kernels give the bits of the exact reference: in every combination, and in every shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fastnet import contract
from fastnet.kernels import linear
from fastnet.kernels.products import STRIP_TERMS, TERMS_AT_ONCE
from fastnet.reference import exact
from fastnet.testing.cases import BENCHMARKS, HIDDEN, NOTEBOOK, OPTIMIZERS, Case
from fastnet.testing.segments import fit_exactly
from tests.support import assert_same_bits


def assert_equal_training(case: Case, **how: Any) -> None:
    """Train on both backends and compare all that is left behind."""
    actual, desired = case.train("numba", **how), case.train("exact")
    assert actual.keys() == desired.keys()
    for name in desired:
        try:
            assert_same_bits(actual[name], desired[name])
        except AssertionError as error:
            raise AssertionError(f"{name} of {case}: {error}") from None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", contract.LOSSES)
def test_every_combination(loss: str, dtype: str, bias: bool) -> None:
    """For three steps, the last one of a smaller batch."""
    # Shapes go round with the combinations: narrower than a vector, one vector, several and a rest.
    widths = [(2, 3), (4, 9, 3), (3, 17, 2), (5, 1, 33)]
    for i, activation in enumerate(HIDDEN):
        for j, optimizer in enumerate(OPTIMIZERS):
            output = contract.ACTIVATIONS[(i + 3 * j) % len(contract.ACTIVATIONS)]
            assert_equal_training(
                Case(
                    widths[(i + j) % len(widths)],
                    activation,
                    output,
                    loss,
                    optimizer,
                    dtype,
                    bias,
                    n_samples=7,
                    batch_size=3,
                    epochs=1,
                    reduction=("mean", "sum")[j % 2],
                    l2=0.01 * (j % 3),
                    weighted=i % 2 == 1,
                    seed=i + 10 * j,
                )
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", contract.LOSSES)
@pytest.mark.parametrize("output_activation", contract.ACTIVATIONS)
def test_every_output(output_activation: str, loss: str, dtype: str) -> None:
    assert_equal_training(Case((3, 4, 5), "tanh", output_activation, loss, "adam", dtype, n_samples=9))


CASES = st.builds(
    Case,
    layer_sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5).map(tuple),
    activation=st.sampled_from(HIDDEN),
    output_activation=st.sampled_from(contract.ACTIVATIONS),
    loss=st.sampled_from(contract.LOSSES),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    dtype=st.sampled_from(["float32", "float64"]),
    bias=st.booleans(),
    n_samples=st.integers(1, 75),
    batch_size=st.one_of(st.none(), st.integers(1, 70)),
    epochs=st.just(1),
    reduction=st.sampled_from(["sum", "mean"]),
    l2=st.sampled_from([0.0, 0.01]),
    shuffle=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
).filter(lambda case: case.loss != "cross_entropy" or case.layer_sizes[-1] > 1)


# The same cases in every run, and failing ones as they were found: a shrunk one says no more.
SEARCH = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def runs_finitely(case: Case) -> bool:
    """Whether the case's batches are few enough for the reference, which takes milliseconds for each."""
    return case.n_samples <= 12 * (case.batch_size or case.n_samples)


@settings(SEARCH, max_examples=120)
@given(case=CASES.filter(runs_finitely))
def test_every_shape(case: Case) -> None:
    assert_equal_training(case)


@pytest.mark.exhaustive
@settings(SEARCH, max_examples=3000)
@given(case=CASES.filter(runs_finitely))
def test_every_shape_at_length(case: Case) -> None:
    assert_equal_training(replace(case, epochs=3))


@pytest.mark.parametrize("batch_size", [256, 257, 600, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_of_several_blocks(dtype: str, batch_size: int | None) -> None:
    assert_equal_training(
        Case((4, 9, 2), "silu", "identity", "huber", "adam", dtype, n_samples=700, batch_size=batch_size, l2=0.1)
    )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_several_panels(dtype: str, activation: str) -> None:
    """More terms than are added up at a time, forward and backward, in rows of whole tiles and one more."""
    sizes = (TERMS_AT_ONCE + 6, 20, TERMS_AT_ONCE + 6, 3)
    assert_equal_training(
        Case(sizes, activation, "identity", "squared_error", "adam", dtype, n_samples=9, batch_size=9, epochs=2)
    )


@pytest.mark.parametrize("n_terms", [1, 64, STRIP_TERMS, STRIP_TERMS + 1, TERMS_AT_ONCE + 6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_on_arrays(dtype: str, n_terms: int) -> None:
    """Less than a vector, whole tiles and more; rows that are whole vectors, and such that are not."""
    random = np.random.RandomState(n_terms)
    for n_rows in (1, 5, 8, 15, 33):
        for n_columns in (1, 9, 16, 24, 49, 100):
            a, b, bias = (
                random.standard_normal(shape).astype(dtype)
                for shape in ((n_rows, n_terms), (n_terms, n_columns), (n_columns,))
            )
            for name, arguments in {
                "matmul": (a, b),
                "affine": (a, b, bias),
                "back_projection": (a, b.T.copy()),
                "weight_gradient": (a.T.copy(), b),
            }.items():
                actual = getattr(linear, name)(*arguments)
                assert actual.flags.c_contiguous
                assert_same_bits(actual, getattr(exact, name)(*arguments))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_notebook(dtype: str) -> None:
    """At its length."""
    case = replace(NOTEBOOK, dtype=dtype, seed=4)
    (x, y, _), actual, desired = case.data(), case.network(), case.network()
    history = actual.fit(x, y, **case.settings)
    rate = OPTIMIZERS["sgd"].rates(0, 1).item()
    exact = fit_exactly(desired, x, y, epochs=case.epochs, learning_rate=rate, loss=case.loss, reduction=case.reduction)
    assert actual == desired
    assert_same_bits(history.loss_curve, exact.loss_curve)
    assert_same_bits(history.mean_absolute_error, exact.mean_absolute_error)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_benchmarked(name: str, dtype: str) -> None:
    """As it is timed, but for its length: one whole batch and a smaller one, or a part of a batch of a wide network."""
    case = BENCHMARKS[name]
    n_samples = case.n_samples if case.batch_size is None else case.batch_size + 9
    if case.layer_sizes[:2] == (784, 512):
        n_samples = 33
    assert_equal_training(replace(case, dtype=dtype, epochs=1, n_samples=n_samples))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_stays_zero(dtype: str) -> None:
    case = Case((3, 5, 3), "sigmoid", "sigmoid", "squared_error", "adam", dtype, epochs=20)
    network, (x, y, _) = case.network(), case.data()
    network.fit(x, y, **case.settings)
    assert np.count_nonzero(network.parameter_buffer) == network.n_parameters


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_of_a_dead_input_are_flushed(dtype: str) -> None:
    # A dead unit's moments decay by 0.9 and 0.999 a step, and would stay subnormal from step 830 on.
    case = Case((3, 4, 1), "relu", "identity", "squared_error", "adam", dtype, epochs=2000, batch_size=None)
    slots = case.train("numba")["slots"]
    magnitude = np.abs(slots[slots != 0])
    assert magnitude.min() >= (2.0**-100 if dtype == "float32" else 2.0**-900)
