"""What is known of the training of a small network before it runs, as a Numba type.

A `Plan` is an argument of `fastnet.kernels.small.train`: each plan is one compilation, found again in the disk cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import NativeValue, models, register_model, unbox

from fastnet import contract
from fastnet.contract import BIAS, N_INPUTS, N_OUTPUTS, STRIDE, WEIGHTS
from fastnet.kernels.tracing import Places, groups, whole_lanes, width_of

#: Multiplications of a forward pass that is traced: the instructions are some ten times as many.
MOST_PRODUCTS = 384


@dataclass(frozen=True)
class Plan:
    """Sizes, functions and flags of a training; `parts` says where its numbers lie in registers."""

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

    @cached_property
    def _numba_type_(self) -> PlanType:
        return PlanType(self)

    def __reduce__(self) -> tuple[type[Plan], tuple[Any, ...]]:
        # Without what is cached: the type leads back to the plan.
        return Plan, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def digest(self) -> str:
        """A name for the plan."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]

    @cached_property
    def n_products(self) -> int:
        """Multiplications of a row's forward pass."""
        return _n_products(self.layers)

    @property
    def element(self) -> ir.Type:
        """The LLVM type of the parameters."""
        return ir.FloatType() if self.bits == 32 else ir.DoubleType()

    @property
    def whole(self) -> int:
        """Lanes of a vector of the kernels."""
        return whole_lanes(self.element)

    @property
    def lanes(self) -> int:
        """Elements up to which rows share a vector."""
        widest = max(width_of(layer[N_OUTPUTS], self.whole) for layer in self.layers)
        return min(self.whole, max(4, widest))

    @property
    def size(self) -> int:
        """Elements of the parameter buffer."""
        n_inputs, _, stride, weights, bias, _ = self.layers[-1]
        return max(weights + n_inputs * stride, bias + stride)

    @property
    def is_grouped(self) -> bool:
        """Whether a batch is more than one group of rows."""
        return self.batch_rows > self.group_rows

    def vectors(self, column: int) -> list[tuple[Places, int]]:
        """The rows of weights, or of biases, that share a vector: positions, and elements of each."""
        found: list[tuple[Places, int]] = []
        for layer in self.layers:
            if layer[column] >= 0:
                width = width_of(layer[N_OUTPUTS], self.whole)
                for rows in groups(layer[N_INPUTS] if column == WEIGHTS else 1, width, self.lanes):
                    first = layer[column] + rows * layer[STRIDE]
                    found += [(first + unit, min(width, self.whole)) for unit in range(0, width, self.whole)]
        return found

    @cached_property
    def parts(self) -> dict[str, list[tuple[Places, int]]]:
        """The vectors of what stays from batch to batch, by name."""
        parameters = self.vectors(WEIGHTS) + self.vectors(BIAS)
        slots = [(places + slot * self.size, width) for slot in range(self.n_slots) for places, width in parameters]
        width = width_of(self.layers[-1][N_OUTPUTS], self.whole)
        sums = [(Places([0]), width), (Places([self.whole]), width)]
        return {"parameters": parameters, "gradient": parameters, "slots": slots, "sums": sums}


class PlanType(types.Type):
    """Numba type of a `Plan`, which it holds."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__(name=f"Plan({plan.digest})")


class SlotType(types.Type):
    """Numba type of the address of what stays in registers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__(name=f"Slot({PlanType(plan).name})")


register_model(PlanType)(models.OpaqueModel)


@register_model(SlotType)
class _SlotModel(models.PrimitiveModel):
    def __init__(self, manager: Any, slot: SlotType) -> None:
        super().__init__(manager, slot, slot.plan.element.as_pointer())


@unbox(PlanType)
def _unbox_plan(plan_type: PlanType, plan: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


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
        not bool((samples.weight == 1.0).all()),
        objective.loss,
        objective.mean,
        objective.l2 != 0.0,
        update.kind,
        update.kind == contract.SGD and bool(update.settings[contract.SGD_NESTEROV] != 0.0),
        len(update.slots),
    )


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
