"""What a traced kernel of a small network works on: registers, samples, and the slot in which its numbers stay."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import and_
from typing import Any

from llvmlite import ir

from fastnet import contract
from fastnet.contract import N_INPUTS, N_OUTPUTS, STRIDE
from fastnet.kernels import losses, regions, workspace
from fastnet.kernels.plans import TracedPlan
from fastnet.kernels.simd import INTP, Lanes
from fastnet.kernels.tracing import Places, Planes, Registers, Trace, interleave


class _Here:
    """The order of rows that are numbered as they are taken."""

    def __getitem__(self, index: Any) -> Any:
        return index


class _Ones:
    """Weights of samples that have none."""

    def __getitem__(self, index: Any) -> float:
        return 1.0


class Settings:
    """Settings of an optimizer, one of which decides what is traced."""

    def __init__(self, scope: Scope, pointer: ir.Value) -> None:
        self.scope, self.pointer = scope, pointer

    def __getitem__(self, index: int) -> Any:
        if self.scope.plan.optimizer == contract.SGD and index == contract.SGD_NESTEROV:
            return float(self.scope.plan.is_nesterov)
        return Lanes(self.scope.builder, self.scope.builder.load(self.scope.moved(self.pointer, index)))


class Scope:
    """Where a traced function works, in the middle of lowering: one block of a plan's training."""

    def __init__(self, builder: ir.IRBuilder, plan: TracedPlan, slot: ir.Value) -> None:
        self.builder, self.plan, self.slot = builder, plan, slot
        self.trace = Trace(builder, plan.element, plan.lanes)
        self.first = len(builder.block.instructions)

    def registers(self) -> Registers:
        """Registers with nothing in them."""
        return Registers(self.trace)

    def moved(self, pointer: ir.Value, count: ir.Value | int) -> ir.Value:
        """A pointer, ``count`` elements on."""
        return self.builder.gep(pointer, [ir.Constant(INTP, count) if isinstance(count, int) else count])

    def load(self, pointer: ir.Value, count: int) -> Lanes:
        """The vector of so many elements that lies anywhere."""
        return Lanes(self.builder, self.builder.load(self._vector_at(pointer, count), align=self.plan.bits // 8))

    def sample(self, pointer: ir.Value, count: int | None = None) -> ir.Value:
        """The number, or the vector of so many, at a place in the samples, which nothing changes during a call.

        So LLVM may load it once for all epochs. Loaded and put on the stack again in each one, samples of a 3-4-1
        network took 413 us instead of 312 where they and the stack lay at one distance from a multiple of 4096.
        """
        address = pointer if count is None else self._vector_at(pointer, count)
        loaded = self.builder.load(address, align=self.plan.bits // 8)
        loaded.set_metadata("invariant.load", self.builder.module.add_metadata([]))
        return loaded

    def _vector_at(self, pointer: ir.Value, count: int) -> ir.Value:
        return self.builder.bitcast(pointer, ir.VectorType(self.plan.element, count).as_pointer())

    def store(self, pointer: ir.Value, value: Lanes) -> None:
        """Store a vector anywhere."""
        address = self.builder.bitcast(pointer, value.value.type.as_pointer())
        self.builder.store(value.value, address, align=self.plan.bits // 8)

    def part(self, name: str) -> Registers:
        """What is in a part of the slot."""
        registers = self.registers()
        for places, width, address in self._vectors(name):
            registers.store(places, self.load(address, width * len(places)))
        return registers

    def keep(self, name: str, registers: Registers) -> None:
        """Put registers into a part of the slot."""
        for places, _, address in self._vectors(name):
            self.store(address, registers.load(places))

    def clear(self, name: str) -> None:
        """Fill a part of the slot with zeros."""
        for places, width, address in self._vectors(name):
            kind = ir.VectorType(self.plan.element, width * len(places))
            self.store(address, Lanes(self.builder, ir.Constant(kind, None)))

    def read_in(self, name: str, array: ir.Value) -> None:
        """Fill a part of the slot from a buffer."""
        for places, width, address in self._vectors(name):
            registers = self.registers()
            for position in places:
                registers.store(position, self.load(self.moved(array, position), width))
            self.store(address, registers.load(places))

    def write_out(self, name: str, array: ir.Value) -> None:
        """Write a part of the slot to a buffer."""
        registers = self.part(name)
        for places, _, _ in self._vectors(name):
            for position in places:
                self.store(self.moved(array, position), registers.load(position))

    def is_finite(self, name: str) -> Lanes:
        """`regions.is_finite` for a part of the slot, whose vectors are taken as they lie."""
        totals: dict[ir.Type, Lanes] = {}
        for places, width, address in self._vectors(name):
            vector = self.load(address, width * len(places))
            kind = vector.value.type
            totals[kind] = regions.poisoned.formula(totals.get(kind, Lanes(self.builder, vector.constant(0.0))), vector)
        return reduce(and_, map(_all_zero, totals.values()))

    def _vectors(self, part: str) -> Iterator[tuple[Places, int, ir.Value]]:
        """The vectors of a part: positions, elements of each, and the address in the slot."""
        number = 0
        for name, vectors in self.plan.parts.items():
            for places, width in vectors:
                if name == part:
                    yield places, width, self.moved(self.slot, number * self.plan.lanes)
                number += 1

    def net(self, n_rows: int) -> Any:
        """The network of `fastnet.kernels.workspace`, with planes for blocks of so many rows."""
        plan, planes, end = self.plan, [], 0
        for layer in plan.layers:
            for _ in range(3):
                planes.append(end)
                end += n_rows * layer[STRIDE]
        free, sums = Planes(self.trace), self.part("sums") if plan.is_grouped or n_rows == 0 else self.registers()
        table = tuple(entry for layer in plan.layers for entry in layer)
        distances = end + n_rows * plan.layers[-1][STRIDE]
        return workspace.Net(
            table,
            len(plan.layers),
            self.part("parameters"),
            planes,
            free,
            end,
            distances,
            self.registers(),
            None,
            None,
            None,
            sums,
            False,
            False,
            None,
            None,
            None,
            None,
        )

    def samples(self, n_rows: int, samples: Any, first: ir.Value) -> Any:
        """The rows of samples from one on, in registers, numbered from 0."""
        plan, n_inputs = self.plan, self.plan.layers[0][N_INPUTS]
        n_outputs = plan.layers[-1][N_OUTPUTS]
        x, y, weight = self.registers(), self.registers(), self.registers()
        for row in range(n_rows):
            sample = ir.Constant(INTP, row) if plan.is_whole else self.builder.add(first, ir.Constant(INTP, row))
            if plan.ordered:
                sample = self.sample(self.moved(samples.order, sample))
            x_row = self.moved(samples.x, self.builder.mul(sample, ir.Constant(INTP, n_inputs)))
            for column in range(n_inputs):
                x.elements[row * n_inputs + column] = (self.sample(self.moved(x_row, column)), None)
            y_row = self.moved(samples.y, self.builder.mul(sample, ir.Constant(INTP, n_outputs)))
            for unit in range(n_outputs):
                y.elements[row * plan.whole + unit] = (self.sample(self.moved(y_row, unit)), None)
            if plan.weighted:
                weight.elements[row] = (self.sample(self.moved(samples.weight, sample)), None)
        y.pad(0, n_rows, n_outputs, plan.whole)
        weights, sizes = weight if plan.weighted else _Ones(), (n_rows, n_inputs, plan.whole)
        return losses.SampleRows(x, y, weights, _Here(), *sizes, plan.ordered)

    def interleave(self) -> None:
        """Put what was emitted in order."""
        interleave(self.builder.block, self.first)


def _all_zero(vector: Lanes) -> Lanes:
    """`memory.all_zero`."""
    builder, word = vector.builder, ir.IntType(vector.value.type.count)
    differs = builder.bitcast(vector.differs(0.0).value, word)
    return Lanes(builder, builder.icmp_unsigned("==", differs, ir.Constant(word, 0)))
