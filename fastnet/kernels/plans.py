"""Plans as Numba types, and where a plan's numbers lie in registers.

A `Plan` is an argument of `fastnet.kernels.small.train`: each plan is one compilation, found again in the disk cache.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import NativeValue, models, register_model, unbox

from fastnet.contract import BIAS, N_INPUTS, N_OUTPUTS, STRIDE, WEIGHTS
from fastnet.kernels.tracing import Places, groups, whole_lanes, width_of
from fastnet.runtime.plans import Plan


class TracedPlan(Plan):
    """A plan, and the vectors that hold its numbers."""

    def __reduce__(self) -> tuple[type[TracedPlan], tuple[Any, ...]]:
        # Without what is cached.
        return TracedPlan, self.fields

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
        self.plan = TracedPlan(*plan.fields)
        super().__init__(name=f"Plan({plan.digest})")


class SlotType(types.Type):
    """Numba type of the address of what stays in registers."""

    def __init__(self, plan: TracedPlan) -> None:
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
