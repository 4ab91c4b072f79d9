"""Kernels run by Python: the same source, with sizes and positions as integers and data as LLVM values.

`traced` makes of a kernel a Python function with the same code, in which every helper and intrinsic is replaced by its
twin in this file. Loops over sizes run here and now; what is left of them are the instructions on the data, one after
another, without a loop, an address or a branch. Memory is a `Registers`: a note of which lane of which value an element
is, so that to load and store emits nothing but shuffles.

Rows of narrow layers share vectors, or a vector holds one unit of several rows: where a kernel works on the row at a
position, a `Places` of several will do. Lanes never meet, so the results are those of rows that have a vector each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.registry import CPUDispatcher

from fastnet.contract import SOFTMAX, VECTOR_BYTES
from fastnet.kernels import activations, losses, memory, narrow, products
from fastnet.kernels.simd import INT32, Lanes, broadcast, fma

#: A lane of a vector, or (None) a scalar; no element at all is +0.
Element = tuple[ir.Value, int | None] | None


def whole_lanes(element: ir.Type) -> int:
    """Lanes of a vector of the kernels."""
    return VECTOR_BYTES // (4 if isinstance(element, ir.FloatType) else 8)


def width_of(n_units: int, whole: int) -> int:
    """Elements that a row of so many units takes: a power of two below a whole vector, or whole vectors."""
    return 1 << (n_units - 1).bit_length() if n_units < whole else -(-n_units // whole) * whole


class Places:
    """Positions of several rows, on which kernels calculate as with one.

    ``width`` is the number of elements there, if it is not all that lie side by side.
    """

    def __init__(self, positions: Iterable[int], width: int | None = None) -> None:
        self.positions, self.width = tuple(positions), width

    def __add__(self, other: int) -> Places:
        return Places((position + other for position in self.positions), self.width)

    def __mul__(self, factor: int) -> Places:
        return Places((position * factor for position in self.positions), self.width)

    __radd__, __rmul__ = __add__, __mul__

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


def _rows_at(index: Places | int) -> Iterable[int]:
    return index if isinstance(index, Places) else (index,)


def groups(n_rows: int, width: int, lanes: int) -> list[Places]:
    """The numbers of rows of a width that share a vector of so many lanes."""
    n = max(1, lanes // width)
    return [Places(range(first, min(first + n, n_rows))) for first in range(0, n_rows, n)]


class Trace:
    """Where instructions go, and the vectors that have been put together there.

    ``lanes`` is the number of elements up to which rows share a vector.
    """

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, lanes: int) -> None:
        self.builder, self.element, self.lanes = builder, element, lanes
        self.whole = whole_lanes(element)
        self._vectors: dict[tuple[Element, ...], ir.Value] = {}

    def groups(self, n_rows: int, width: int) -> list[Places]:
        """The numbers of rows that share a vector."""
        return groups(n_rows, width, self.lanes)

    def vector(self, elements: Iterable[Element]) -> Lanes:
        """A vector of elements from anywhere."""
        key = tuple(elements)
        if key not in self._vectors:
            self._vectors[key] = self._gathered(key)
        return Lanes(self.builder, self._vectors[key])

    def _gathered(self, elements: Sequence[Element]) -> ir.Value:
        kind = ir.VectorType(self.element, len(elements))
        numbers: dict[ir.Value | None, int] = {}
        sources: list[ir.Value] = []
        chosen: list[tuple[int, int]] = []
        for position, element in enumerate(elements):
            value, lane = element or (None, None)
            if value not in numbers:
                numbers[value] = len(sources)
                if value is None:
                    source = ir.Constant(kind, None)
                elif lane is None:
                    source = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT32, 0))
                else:
                    source = value
                sources.append(source)
            chosen.append((numbers[value], position if value is None else lane or 0))
        return self._joined(sources, chosen, 0, len(sources), kind)

    def _joined(
        self, sources: list[ir.Value], chosen: list[tuple[int, int]], low: int, high: int, kind: ir.VectorType
    ) -> ir.Value:
        """A vector of the chosen lanes (source, lane) of the sources from ``low`` to ``high``; others hold anything."""
        left, right, size = sources[low], sources[high - 1], sources[low].type.count
        middle = high - 1
        if high - low > 2 or left.type != right.type:
            middle = (low + high) // 2
            left = self._joined(sources, chosen, low, middle, kind)
            right = self._joined(sources, chosen, middle, high, kind)
            size = kind.count
            chosen = [(source, position) for position, (source, _) in enumerate(chosen)]
        lanes = [
            (lane + size if source >= middle and high - low > 1 else lane) if low <= source < high else position % size
            for position, (source, lane) in enumerate(chosen)
        ]
        if left.type == kind and lanes == list(range(kind.count)):
            return left
        mask = ir.Constant(ir.VectorType(INT32, kind.count), [ir.Constant(INT32, lane) for lane in lanes])
        return self.builder.shuffle_vector(left, right, mask)


class Registers:
    """Elements by position; a vector has as many of them as lie side by side, up to a whole one."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.elements: dict[int, Element] = {}

    def row(self, position: int) -> list[Element]:
        """The elements from a position on, as far as there are any."""
        found: list[Element] = []
        while len(found) < self.trace.whole and position in self.elements:
            found.append(self.elements[position])
            position += 1
        return found

    def tiles(self, n_rows: int, n_units: int) -> Iterator[tuple[Places, range]]:
        """The vectors of a matrix: the rows of each, and their columns with padding."""
        width = width_of(n_units, self.trace.whole)
        for rows in self.trace.groups(n_rows, width):
            for first in range(0, width, self.trace.whole):
                yield rows, range(first, min(first + self.trace.whole, width))

    def load(self, index: Places | int) -> Lanes:
        """The vector of the rows at these positions."""
        width = index.width if isinstance(index, Places) else None
        return self.trace.vector(element for position in _rows_at(index) for element in self.row(position)[:width])

    def store(self, index: Places | int, value: Lanes) -> None:
        """Let the elements at these positions be those of a vector."""
        rows = list(_rows_at(index))
        width = value.value.type.count // len(rows)
        for number, position in enumerate(rows):
            for lane in range(width):
                self.elements[position + lane] = (value.value, number * width + lane)

    def pad(self, first: int, n_rows: int, n_units: int, stride: int) -> None:
        """Let there be zeros beside the units of rows, up to the width of a vector, unless there is something."""
        for row in range(n_rows):
            for unit in range(n_units, width_of(n_units, self.trace.whole)):
                self.elements.setdefault(first + row * stride + unit, None)

    def __getitem__(self, index: Places | int) -> Lanes:
        """The scalar at a position, or the vector of those at several."""
        elements = [self.elements[position] for position in _rows_at(index)]
        if len(elements) > 1:
            return self.trace.vector(elements)
        value, lane = elements[0] or (ir.Constant(self.trace.element, 0.0), None)
        if lane is not None:
            value = self.trace.builder.extract_element(value, ir.Constant(INT32, lane))
        return Lanes(self.trace.builder, value)


class Planes(Registers):
    """The planes of a block: where that makes no more vectors, each holds one unit of several rows.

    The sums of the next layer then begin with the first units while the last ones are on their way (5001 epochs of the
    3-4-1 network: 292 us instead of 296; 8 rows of a 2-3-1: 0.91 of the time).
    """

    def tiles(self, n_rows: int, n_units: int) -> Iterator[tuple[Places, range]]:
        """The vectors of a matrix: the rows of each, and their columns."""
        by_rows, together = list(super().tiles(n_rows, n_units)), min(n_rows, self.trace.lanes)
        firsts = range(0, n_rows, together)
        if len(firsts) * n_units > len(by_rows):
            yield from by_rows
            return
        for unit in range(n_units):
            for first in firsts:
                yield Places(range(first, min(first + together, n_rows)), 1), range(unit, unit + 1)


def _product(c: Any, a: Any, b: Any, bias: Any, n_rows: int, n_terms: int, n_columns: int, scratch: Any) -> bool:
    """`products.product` on registers, which finishes nothing; to add to c means to go on with its sums."""
    trace, data = c.data.trace, c.data

    def element(matrix: Any, row: int, column: int) -> Element:
        found: Element = matrix.data.elements.get(matrix.first + row * matrix.row + column * matrix.column)
        return found

    n_columns = sum(b.first + column * b.column in b.data.elements for column in range(n_columns))
    for rows, columns in data.tiles(n_rows, n_columns):
        lanes = [(row, column) for row in rows for column in columns]
        place = c.first + rows * c.row + columns[0]
        total = trace.vector(element(bias, 0, column) if bias.first >= 0 else None for _, column in lanes)
        if c.add:
            total = data.load(place)
        for term in range(n_terms):
            left = trace.vector(element(a, row, term) for row, _ in lanes)
            right = trace.vector(element(b, term, column) if column < n_columns else None for _, column in lanes)
            total = fma(left, right, total)
        data.store(place, total)
    data.pad(c.first, n_rows, n_columns, c.row)
    return False


def _row_sum(
    total: Registers,
    total_first: int,
    begin: Any,
    values: Registers,
    first: int,
    n_rows: int,
    stride: int,
    width: int,
    add: bool,
) -> None:
    """`products.row_sum` from +0; to add means to go on with the sums."""
    for column in range(0, width, values.trace.whole):
        one = values.load(first + column)
        accumulator = total.load(total_first + column) if add else Lanes(one.builder, one.constant(0.0))
        for row in range(n_rows):
            accumulator = accumulator + values.load(first + row * stride + column)
        total.store(total_first + column, accumulator)


def _forward_rows(activation: int, buffer: Planes, z: int, a: int, n_rows: int, n_units: int, stride: int) -> None:
    """`activations.forward_rows`, on rows that share vectors."""
    kernel = traced(activations.forward_rows)
    if activation == SOFTMAX:
        for rows in buffer.trace.groups(n_rows, width_of(n_units, buffer.trace.whole)):
            kernel(activation, buffer, z + rows * stride, a + rows * stride, 1, n_units, stride)
        return
    for rows, units in buffer.tiles(n_rows, n_units):
        place = rows * stride + units[0]
        kernel(activation, buffer, z + place, a + place, 1, len(units), len(units))
    buffer.pad(a, n_rows, n_units, stride)


def _backward_rows(activation: int, buffer: Planes, delta: int, z: int, a: int, n_rows: int, stride: int) -> None:
    """`activations.backward_rows`, on rows that share vectors."""
    kernel = traced(activations.backward_rows)
    n_units = sum(buffer.elements.get(z + unit) is not None for unit in range(stride))
    for rows, units in buffer.tiles(n_rows, n_units):
        place = rows * stride + units[0]
        kernel(activation, buffer, delta + place, z + place, a + place, 1, len(units))


def _output_rows(objective: Any, output: Any, samples: Any, first_row: int, low: int, high: int) -> None:
    """`losses.output_rows`, on rows that share vectors."""
    trace = output.buffer.trace
    for rows in trace.groups(high - low, width_of(output.n_units, trace.whole)):
        traced(losses.output_rows)(objective, output, samples, first_row, low + rows, high)


def _keep_first(vector: Lanes, count: int) -> Lanes:
    """The first ``count`` lanes of each row, and +0 in the others."""
    kind = vector.value.type
    width = width_of(count, whole_lanes(kind.element))
    if count >= width:
        return vector
    lanes = [lane if lane % width < count else kind.count + lane for lane in range(kind.count)]
    mask = ir.Constant(ir.VectorType(INT32, kind.count), [ir.Constant(INT32, lane) for lane in lanes])
    return Lanes(vector.builder, vector.builder.shuffle_vector(vector.value, ir.Constant(kind, None), mask))


def _range(first: Any, *others: Any) -> Iterable[Any]:
    """Python's range; places are one step."""
    return [first] if isinstance(first, Places) else range(first, *others)


def _as_float64(number: Lanes) -> Lanes:
    return _converted(number, ir.DoubleType())


def _converted(number: Lanes, element: ir.Type) -> Lanes:
    """A scalar, rounded to a type."""
    if number.value.type == element:
        return number
    convert = number.builder.fptrunc if isinstance(element, ir.FloatType) else number.builder.fpext
    return Lanes(number.builder, convert(number.value, element))


#: Helpers and intrinsics whose twin is not their own code.
_TWINS: dict[Any, Any] = {
    memory.load: lambda data, index: data.load(index),
    memory.load_first: lambda data, index, count: data.load(index),
    memory.store: lambda data, index, value: data.store(index, value),
    # Staged formulas broadcast by themselves, each row's number to the row.
    memory.splat: lambda data, number: number,
    memory.start: lambda data, index: data.load(index) if index in data.elements else 0.0,
    memory.lanes_of: lambda data: data.trace.whole,
    memory.at: lambda table, row, columns, column: table[row * columns + column],
    memory.least: min,
    memory.most: max,
    memory.keep_first: _keep_first,
    memory.join_rows: lambda data, index, step, part: data.load(index),
    memory.split_rows: lambda data, index, step, part, value: data.store(index, value),
    # No row is there but those that are asked for.
    activations.clear_rest: lambda *places: None,
    products.view: products.View,
    products.target: products.Target,
    products.finished_target: lambda data, first, row, finish, outputs: products.Target(data, first, row, False),
    products.product: _product,
    narrow.takes_transpose: lambda *arguments: False,
    products.row_sum: _row_sum,
}

#: The same for those that work on one row at a time, where others call them.
_GROUPED = {
    activations.forward_rows: _forward_rows,
    activations.backward_rows: _backward_rows,
    losses.output_rows: _output_rows,
}


def _lanes_in(number: Lanes) -> int:
    kind = number.value.type
    return kind.count if isinstance(kind, ir.VectorType) else 0


def _staged_twin(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A staged formula on traced arguments: of fewer elements than the longest has, each stands for several."""

    def call(*arguments: Any) -> Any:
        target = max((x for x in arguments if isinstance(x, Lanes)), key=_lanes_in)

        def lifted(argument: Any) -> Any:
            if isinstance(argument, float):
                return Lanes(target.builder, target.constant(argument))
            if not isinstance(argument, Lanes) or argument.value.type == target.value.type:
                return argument
            n = _lanes_in(target)
            if n == 0 or _lanes_in(argument) == 0:
                number = _converted(argument, target.element)
                return Lanes(target.builder, broadcast(target.builder, number.value, n)) if n else number
            lanes = [lane * _lanes_in(argument) // n for lane in range(n)]
            mask = ir.Constant(ir.VectorType(INT32, n), [ir.Constant(INT32, lane) for lane in lanes])
            return Lanes(target.builder, target.builder.shuffle_vector(argument.value, argument.value, mask))

        return formula(*map(lifted, arguments))

    return call


class _Module:
    """A module of kernels, whose functions are traced."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _twin(getattr(self._module, name))


def _span_twin(formula: Callable[..., Any]) -> Callable[..., None]:
    """A formula over memory, vector by vector."""

    def call(code: int, data: Registers, size: int, target: Any, *sources: Any) -> None:
        for offset in range(0, size, data.trace.whole):
            data.store(target + offset, formula(code, *(data.load(source + offset) for source in sources)))

    return call


def _twin(thing: Any) -> Any:
    """What stands for a global of a kernel when it is traced."""
    if hasattr(thing, "formula_of_span"):
        return _span_twin(thing.formula_of_span)
    if hasattr(thing, "formula"):
        return _staged_twin(thing.formula)
    if isinstance(thing, ModuleType):
        return SimpleNamespace(float64=_as_float64) if thing is np else _Module(thing)
    if isinstance(thing, CPUDispatcher):
        return _TWINS.get(thing) or _GROUPED.get(thing) or traced(thing)
    return _TWINS.get(thing, thing) if callable(thing) else thing


@cache
def traced(kernel: Any) -> Callable[..., Any]:
    """The Python function of a kernel, with the twins of what it calls."""
    function = kernel.py_func
    names = function.__code__.co_names
    twins = {name: _twin(function.__globals__[name]) for name in names if name in function.__globals__}
    return FunctionType(function.__code__, {**twins, "range": _range}, function.__name__, function.__defaults__)


#: Cycles until an instruction's result is there, about; 1 for those not named.
_LATENCIES = {"fadd": 3, "fsub": 3, "fmul": 3, "fdiv": 13, "call": 4, "select": 3, "load": 5}


def interleave(block: ir.Block, first: int) -> None:
    """Put first, of a block's instructions from one on, those from which the way to the end is longest.

    A trace emits one vector's formula after another's, each a long chain. The processor looks some 64 operations
    ahead and LLVM mostly keeps the order it is given, so that chains would not run side by side (an epoch of the
    3-4-1 network: 66 ns, 70 as traced; in the order in which operands are there, 67).
    """
    instructions = block.instructions[first:]
    position = {id(instruction): number for number, instruction in enumerate(instructions)}
    height = [_LATENCIES.get(instruction.opname, 1) for instruction in instructions]
    # What lies in memory is read and written in the order of the trace.
    inputs: list[list[int]] = []
    last_store: list[int] = []
    loads: list[int] = []
    for number, instruction in enumerate(instructions):
        needed = [position[id(operand)] for operand in instruction.operands if id(operand) in position]
        if instruction.opname == "load":
            needed += last_store
            loads.append(number)
        elif instruction.opname == "store":
            needed += last_store + loads
            last_store, loads = [number], []
        inputs.append(needed)
    for number in range(len(instructions) - 1, -1, -1):
        for before in inputs[number]:
            latency = _LATENCIES.get(instructions[before].opname, 1)
            height[before] = max(height[before], height[number] + latency)
    order = sorted(range(len(instructions)), key=lambda number: (-height[number], number))
    block.instructions[first:] = [instructions[number] for number in order]
