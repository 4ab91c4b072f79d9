"""What is known of the training of a small network before it runs, to compile a kernel for it alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fastnet import contract
from fastnet.contract import N_INPUTS, N_OUTPUTS

#: Multiplications of a forward pass that is traced: the instructions are some ten times as many.
MOST_PRODUCTS = 384
#: Weights of samples that are looked at in Python.
_FEW = 64


@dataclass(frozen=True)
class Plan:
    """Sizes, functions and flags of a training."""

    #: The rows of the layout.
    layers: tuple[tuple[int, ...], ...]
    bits: int
    loss: int
    mean: bool
    #: Whether there is an l2 penalty.
    penalised: bool
    optimizer: int
    is_nesterov: bool
    n_slots: int
    batch_rows: int
    #: Rows of the last batch of an epoch, if it is smaller.
    tail_rows: int
    #: Whether the samples have an order of their own in each epoch.
    ordered: bool
    #: Whether samples have weights other than 1.
    weighted: bool
    #: Whether the samples are one batch, and one group, as they stand.
    is_whole: bool
    #: Rows that are traced; a batch of more is a loop over groups.
    group_rows: int

    @property
    def fields(self) -> tuple[Any, ...]:
        """All of it."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def digest(self) -> str:
        """A name for the plan."""
        return hashlib.sha256(repr(self.fields).encode()).hexdigest()[:32]

    @cached_property
    def n_products(self) -> int:
        """Multiplications of a row's forward pass."""
        return _n_products(self.layers)

    @property
    def is_grouped(self) -> bool:
        """Whether a batch is more than one group of rows."""
        return self.batch_rows > self.group_rows


def _n_products(layers: tuple[tuple[int, ...], ...]) -> int:
    return sum(layer[N_INPUTS] * layer[N_OUTPUTS] for layer in layers)


def most_outputs(bits: int) -> int:
    """Outputs of the widest network that is small: those of one vector."""
    return contract.VECTOR_BYTES * 8 // bits


def make_plan(
    layout: Any, parameters: Any, samples: contract.Samples, objective: contract.Objective, update: Any, ordered: bool
) -> Plan | None:
    """The plan of a training, or None if it is not small; ``ordered`` where samples will have orders."""
    return _make_plan(
        layout.tobytes(),
        parameters.dtype.itemsize * 8,
        len(samples.x),
        min(objective.batch_size, len(samples.x)),
        ordered,
        _is_weighted(samples.weight),
        objective.loss,
        objective.mean,
        objective.l2 != 0.0,
        update.kind,
        update.kind == contract.SGD and bool(update.settings[contract.SGD_NESTEROV] != 0.0),
        len(update.slots),
    )


def _is_weighted(weight: Any) -> bool:
    """Whether there are weights other than 1."""
    # A few are counted before NumPy has found out how to compare them.
    ones = weight.tolist().count(1.0) if weight.size <= _FEW else np.count_nonzero(weight == 1.0)
    return bool(ones < weight.size)


@lru_cache
def _make_plan(
    layout: bytes,
    bits: int,
    n_samples: int,
    batch_rows: int,
    ordered: bool,
    weighted: bool,
    loss: int,
    mean: bool,
    penalised: bool,
    optimizer: int,
    is_nesterov: bool,
    n_slots: int,
) -> Plan | None:
    numbers, columns = memoryview(layout).cast("q").tolist(), contract.LAYOUT_COLUMNS
    layers = tuple(tuple(numbers[first : first + columns]) for first in range(0, len(numbers), columns))
    n_products = _n_products(layers)
    # The sums of the output units are one vector; a batch is one block, whose sums begin once.
    if n_products > MOST_PRODUCTS or layers[-1][N_OUTPUTS] > most_outputs(bits) or batch_rows > contract.BLOCK_ROWS:
        return None
    group_rows = 1
    while group_rows < batch_rows and 2 * group_rows * n_products <= MOST_PRODUCTS:
        group_rows *= 2
    return Plan(
        layers=layers,
        bits=bits,
        loss=loss,
        mean=mean,
        penalised=penalised,
        optimizer=optimizer,
        is_nesterov=is_nesterov,
        n_slots=n_slots,
        batch_rows=batch_rows,
        tail_rows=n_samples % batch_rows,
        ordered=ordered,
        weighted=weighted,
        is_whole=batch_rows == n_samples <= group_rows and not ordered,
        group_rows=min(group_rows, batch_rows),
    )
