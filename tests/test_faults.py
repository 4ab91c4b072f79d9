"""Planted faults: each changes bits where it is meant to, and nothing but itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastnet.reference import activations, exact, network, optimizers
from fastnet.testing.faults import FAULTS, Fault, reference_backend, variant
from tests.support import assert_same_bits, same_bits

MODULES = (activations, exact, network, optimizers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_changes_bits(fault: Fault, dtype: str) -> None:
    case = replace(fault.case, dtype=dtype)
    sound, faulty = case.train("exact"), case.train(fault.backend())
    assert not same_bits(faulty["slots"], sound["slots"]).all() or fault.name == "adam_step_count"
    assert not same_bits(faulty["weights.0"], sound["weights.0"]).all()


def test_backend_without_a_fault_is_exact() -> None:
    case = next(iter(FAULTS.values())).case
    sound, other = case.train("exact"), case.train(reference_backend())
    for name, array in sound.items():
        assert_same_bits(other[name], array, name)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_modules_stay_as_they_are(fault: Fault) -> None:
    before = [dict(vars(module)) for module in MODULES]
    fault.case.train(fault.backend())
    assert [dict(vars(module)) for module in MODULES] == before


def test_rows_are_dropped_of_ragged_batches_only() -> None:
    """Also where a batch has several blocks of rows, and training is paused between them."""
    fault = FAULTS["dropped_row"]
    even = replace(fault.case, n_samples=24)
    sound, faulty = even.train("exact"), even.train(fault.backend())
    for name, array in sound.items():
        assert_same_bits(faulty[name], array, name)
    ragged = replace(fault.case, n_samples=1000, batch_size=600, epochs=1)
    assert not np.array_equal(ragged.train("exact")["loss_curve"], ragged.train(fault.backend())["loss_curve"])


def test_variant_needs_a_module_with_a_source() -> None:
    with pytest.raises(ValueError, match="module"):
        variant(type(exact)("nowhere"))
