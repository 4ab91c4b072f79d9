"""Trainings side by side: where they part, and that equal ones do not."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet.reference import exact
from fastnet.testing.cases import Case, covering_cases
from fastnet.testing.comparison import Comparison, Trainer, compare
from fastnet.testing.faults import FAULTS, Fault

LEARNING_RATE = 0.1
STEP_CASE = Case((3, 4, 2), "tanh", "identity", reduction="sum", n_samples=10, batch_size=4, epochs=3, seed=1)


def compare_case(a: Trainer, b: Trainer, case: Case, **settings: Any) -> Comparison:
    x, y, weight = case.data()
    return compare(a, b, case.network(), x, y, **({"sample_weight": weight} | case.settings | settings))


@pytest.mark.parametrize("judge", ["exact", "numba"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_found_where_it_is(fault: Fault, judge: str) -> None:
    comparison = compare_case(fault.backend(), judge, fault.case)
    assert comparison.difference is not None
    assert (comparison.epoch, comparison.batch, comparison.difference.name) == (0, fault.batch, fault.array)
    with pytest.raises(AssertionError) as error:
        comparison.raise_for_difference()
    message = str(error.value)
    array, _, layer = fault.array.partition(".")
    assert f"in epoch 0, batch {fault.batch} " in message
    assert (f"layer {int(layer) + 1}, {array}[" if layer else f"{array}[") in message


def test_later_epochs_are_named() -> None:
    """The ragged batch of the third epoch, which is shuffled, is the first that is wrong."""
    sound, faulty = FAULTS["dropped_row"].case, FAULTS["dropped_row"].backend()
    calls = 0

    def late(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        return (faulty if calls > 8 else exact_backend).train(*arguments)

    exact_backend = fastnet.backends.load_backend("exact")
    comparison = compare_case(replace(faulty, train=late), "exact", replace(sound, epochs=4, shuffle=True))
    assert (comparison.epoch, comparison.batch) == (2, 2)
    assert comparison.n_steps == 12
    assert len(comparison.ulp) == 4


@pytest.mark.parametrize("name", covering_cases())
def test_equal_backends_never_part(name: str) -> None:
    case = covering_cases()[name]
    comparison = compare_case("numba", "exact", case)
    assert comparison.equal, str(comparison)
    assert comparison.n_steps == case.epochs * -(-case.n_samples // (case.batch_size or case.n_samples))


def test_divergence_alike_is_equal() -> None:
    network = fastnet.Network([1, 1]).initialize(seed=0)
    optimizer = fastnet.SGD(learning_rate=1e200)
    comparison = compare("numba", "exact", network, [[1.0]], [1.0], optimizer=optimizer, epochs=50)
    assert comparison.equal
    assert comparison.n_steps < 50


def test_network_and_generator_stay_as_they_are() -> None:
    network = STEP_CASE.network()
    before, source = network.copy(), np.random.RandomState(0)
    state = source.get_state()
    x, y, _ = STEP_CASE.data()
    compare("exact", "numpy", network, x, y, shuffle=True, seed=source)
    assert network == before
    np.testing.assert_equal(source.get_state(), state)


def exact_step(weights: Any, biases: Any, x: Any, y: Any, fma: Any = exact.fma) -> Any:
    """Gradient descent on the summed squared error of a network with one hidden layer, tanh."""
    a = exact.tanh(exact.affine(x, weights[0], biases[0]))
    delta = exact.affine(a, weights[1], biases[1]) - y
    below = exact.back_projection(delta, weights[1]) * exact.fma(-a, a, 1.0)
    gradients = [exact.weight_gradient(x, below), exact.weight_gradient(a, delta)]
    of_biases = [exact.bias_gradient(below), exact.bias_gradient(delta)]
    rate = x.dtype.type(-LEARNING_RATE)
    weights = [fma(g, rate, w) for g, w in zip(gradients, weights, strict=True)]
    return weights, [exact.fma(g, rate, b) for g, b in zip(of_biases, biases, strict=True)]


def rounded_twice(weights: Any, biases: Any, x: Any, y: Any) -> Any:
    return exact_step(weights, biases, x, y, fma=lambda a, b, c: a * b + c)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_function(dtype: str) -> None:
    case = replace(STEP_CASE, dtype=dtype)
    settings = {"optimizer": fastnet.SGD(LEARNING_RATE)}
    for judge in ("exact", "numba", exact_step):
        comparison = compare_case(exact_step, judge, case, **settings)
        assert comparison.equal, str(comparison)
        assert comparison.n_steps == 9
    comparison = compare_case(rounded_twice, "numba", case, **settings)
    assert comparison.difference is not None
    assert (comparison.epoch, comparison.batch, comparison.difference.name) == (0, 0, "weights.0")
    assert str(comparison).startswith("rounded_twice parts from numba in epoch 0, batch 0 ")
    # The steps are so few that all of them have been followed.
    assert comparison.course != "jump"
    assert compare_case(rounded_twice, "numba", case, max_ulp=max(comparison.ulp), **settings).equal
    assert not compare_case(rounded_twice, "numba", case, max_ulp=max(comparison.ulp) - 1, **settings).equal


def test_bad_arguments_are_refused() -> None:
    x, y, _ = STEP_CASE.data()
    network = STEP_CASE.network()
    with pytest.raises(TypeError, match="settings .* callback"):
        compare("exact", "numba", network, x, y, callback=print)
    with pytest.raises(ValueError, match="sample_weight"):
        compare(exact_step, "numba", network, x, y, sample_weight=np.ones(10))
    with pytest.raises(TypeError, match="a step must return"):
        compare(lambda *_: None, "exact", network, x, y)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="a step must return weights"):
        compare(lambda w, b, x, y: ([v.astype("f4") for v in w], b), "exact", network, x, y)
    with pytest.raises(ValueError, match="max_ulp"):
        compare("exact", "numba", network, x, y, max_ulp=-1)


def test_page_shows_what_its_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    docs = Path(__file__).parents[1] / "docs"
    runpy.run_path(str(docs / "examples" / "planted_fault.py"), run_name="__main__")
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    page = (docs / "regression-testing.md").read_text(encoding="utf-8")
    assert printed in page, f"docs/regression-testing.md has to show:\n{printed}"
