"""The micro-kernel of the matrix products: LLVM functions that compute one register tile each.

A tile is some rows times up to three vectors of the result, one accumulator for each element. For
every term, in order, the vectors of b are loaded, an element of each row of a is broadcast, and every
accumulator takes one fma. Where at most half of the last vector is wanted, half is computed: 100 columns
of float32 are 6.5 vectors. On their way to memory, while they are in registers, sums can become relu's outputs, or
the deltas below a relu: forward and backward passes of tabular took 0.96 of the time, those of digits 0.98 and 0.88.
The functions are emitted whole, loop included: type inference sees one statement, and all the products of a module
share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.contract import RELU, VECTOR_BYTES
from fastnet.kernels.formulas import activations
from fastnet.kernels.memory import load_vector, store_vector
from fastnet.kernels.simd import INT32, INTP, Lanes, Vector, broadcast, fma

#: What becomes of complete sums: nothing; their relu; the flushed delta below a relu, of which there are the outputs.
(AS_SUMMED, RELU_FORWARD, RELU_BACKWARD) = range(3)


class Shape(NamedTuple):
    """The register tiles of a CPU."""

    #: Rows and vectors of the largest tile.
    rows: int
    vectors: int
    #: Rows of the tile for what is left.
    few_rows: int
    #: Terms that a turn of the loop takes, and with rows of a that are packed; 0 where these do not pay.
    terms: int
    packed_terms: int


@cache
def shape_for(triple: str, cpu: str, features: str) -> Shape:
    """The tile for a CPU, by what LLVM makes of a sum of two vectors.

    A vector is one of 32 registers with AVX-512, two of 16 with AVX, four of 16 with SSE. In the first
    case 8 x 3 keep 24 accumulators, and one load feeds 2.2 fma; 8 x 2 and 12 x 2 lost by up to 8 % where
    the matrices exceed the caches, and as many accumulators in fewer rows won nowhere. In the second one
    the 12 fma of a term take 6 cycles, into which all else has to fit: two terms in a turn of the loop
    gained 7 to 19 % in float32 and up to 12 % in float64; four lost, for want of registers for addresses. Where a's
    rows are packed the addresses are constants, and four terms in a turn took 7 % less than two.
    """
    lanes = VECTOR_BYTES // 4
    kind = f"<{lanes} x float>"
    text = f"define {kind} @f({kind} %a, {kind} %b) {{\n %c = fadd {kind} %a, %b\n ret {kind} %c\n}}"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    assembly = machine.emit_assembly(llvm.parse_assembly(text))
    if "zmm" in assembly:
        return Shape(rows=8, vectors=3, few_rows=4, terms=1, packed_terms=0)
    if "ymm" in assembly:
        return Shape(rows=6, vectors=1, few_rows=4, terms=2, packed_terms=4)
    return Shape(rows=2, vectors=1, few_rows=1, terms=1, packed_terms=0)


def shape_of(context: Any) -> Shape:
    """The tiles of the CPU that is compiled for."""
    return shape_for(*context.codegen().magic_tuple())


class Tile(NamedTuple):
    """What is particular to a micro-kernel."""

    rows: int
    #: Terms that a turn of the loop takes.
    terms: int
    #: Whether no row is missing in the last tile.
    is_whole: bool = True
    #: Whether the rows of a lie packed.
    is_strip: bool = False


def _number(choose: Callable[[Shape], int]) -> Any:
    """An intrinsic for a number of the CPU's `Shape`, a constant; it is called with a pointer."""

    @intrinsic
    def number(typing_context, data):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            return ir.Constant(INTP, choose(shape_of(context)))

        return types.intp(data), codegen

    return number


#: Rows and vectors of the largest tile, rows of the lowest, and terms for packed rows of a: 0 if these do not pay.
tile_rows, tile_vectors = _number(lambda shape: shape.rows), _number(lambda shape: shape.vectors)
few_rows, packed_terms = _number(lambda shape: shape.few_rows), _number(lambda shape: shape.packed_terms)


@intrinsic
def zeros(typing_context, data):
    """Where as many zeros lie as the widest tile has columns."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        vector = context.get_value_type(Vector(data.dtype))
        name = f"fastnet.zeros.{vector.count}"
        if name not in builder.module.globals:
            constant = ir.GlobalVariable(builder.module, ir.ArrayType(vector, shape_of(context).vectors), name)
            constant.linkage, constant.global_constant = "linkonce_odr", True
            constant.initializer = ir.Constant(constant.type.pointee, None)
        return builder.bitcast(builder.module.globals[name], values[0].type)

    return data(data), codegen


@intrinsic
def panel_product(
    typing_context,
    is_strip,
    halves,
    c,
    c_row,
    n_rows,
    start,
    start_row,
    finish,
    outputs,
    a,
    a_row,
    a_column,
    b,
    b_row,
    n_terms,
):
    """``n_rows`` rows of a product, whole multiples of `tile_rows`, in tiles of up to `tile_vectors` vectors.

    ``halves`` counts half vectors; where it is odd, the other half of the last vector of c becomes +0.
    c, start, a and b point to the first elements; rows are ``..._row`` elements apart, the terms of a
    ``a_column``; with ``is_strip``, only where there are `packed_terms`, a lies as
    `fastnet.kernels.packing.pack_strips` has copied it. Sums begin with ``start``; ``finish`` is one of the constants
    above, and ``outputs`` points to a relu's outputs, whose rows are ``c_row`` apart.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        shape, vector = shape_of(context), context.get_value_type(Vector(c.dtype))
        strip, *values = values
        tile = Tile(shape.rows, shape.terms)
        if shape.packed_terms == 0:
            _call_by_width(builder, vector, tile, shape.vectors, values)
            return context.get_dummy_value()
        with builder.if_else(strip) as (packed, as_it_is):
            with packed:
                *before, _, _, b, b_row, n_terms = values
                packed_tile = Tile(shape.rows, shape.packed_terms, is_strip=True)
                _call_by_width(builder, vector, packed_tile, shape.vectors, [*before, b, b_row, n_terms])
            with as_it_is:
                _call_by_width(builder, vector, tile, shape.vectors, values)
        return context.get_dummy_value()

    intp = types.intp
    kinds = (types.boolean, intp, c, intp, intp, c, intp, intp, c, c, intp, intp, c, intp, intp)
    return types.none(*kinds), codegen


@intrinsic
def last_rows_product(
    typing_context, c, c_row, n_rows, start, start_row, finish, outputs, a, a_row, a_column, b, b_row, n_terms
):
    """`panel_product` of one vector and any number of rows, in low tiles of which the last may not be full."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        shape, vector = shape_of(context), context.get_value_type(Vector(c.dtype))
        tile = Tile(shape.few_rows, shape.terms, is_whole=False)
        builder.call(_micro_kernel(builder.module, vector, tile, 2), values)
        return context.get_dummy_value()

    intp = types.intp
    return types.none(c, intp, intp, c, intp, intp, c, c, intp, intp, c, intp, intp), codegen


def shared_function(module: ir.Module, name: str, parameters: list[ir.Type]) -> tuple[ir.Function, bool]:
    """The function of this name, which modules share when they are linked; and whether it is new."""
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    # Loops are written as long as they should be; LLVM would unroll them all.
    function.attributes.add("optsize")
    return function, True


def _call_by_width(
    builder: ir.IRBuilder, vector: ir.VectorType, tile: Tile, most_vectors: int, values: Sequence[ir.Value]
) -> None:
    """Call the micro-kernel of as many half vectors as the first value says, with the others."""
    done = builder.append_basic_block("panel.done")
    blocks = [builder.append_basic_block(f"panel.{halves}") for halves in range(1, 2 * most_vectors + 1)]
    branch = builder.switch(values[0], blocks[-1])
    for halves, block in enumerate(blocks, start=1):
        branch.add_case(ir.Constant(INTP, halves), block)
        builder.position_at_end(block)
        builder.call(_micro_kernel(builder.module, vector, tile, halves), values[1:])
        builder.branch(done)
    builder.position_at_end(done)


def _micro_kernel(module: ir.Module, vector: ir.VectorType, tile_kind: Tile, halves: int) -> ir.Function:
    """The function behind the products of panels."""
    rows, terms_at_once, is_whole, is_strip = tile_kind
    pointer = vector.element.as_pointer()
    steps_of_a = [] if is_strip else [INTP, INTP]
    parameters = [pointer, INTP, INTP, pointer, INTP, INTP, pointer, pointer, *steps_of_a, pointer, INTP, INTP]
    name = f"fastnet.{'strip' if is_strip else 'panel'}.{vector.count}.{rows}.{halves}"
    function, is_new = shared_function(module, name, parameters)
    if not is_new:
        return function
    c, c_row, n_rows, start, start_row, finish, outputs, a, *steps_of_a, b, b_row, n_terms = function.args
    half = ir.VectorType(vector.element, vector.count // 2)
    kinds = [vector] * (halves // 2) + [half] * (halves % 2)
    vectors = len(kinds)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    tile, following, end = (function.append_basic_block(label) for label in ("tile", "following", "end"))

    def number(value: int) -> ir.Constant:
        return ir.Constant(INTP, value)

    def place(pointer: ir.Value, column: int) -> ir.Value:
        return builder.gep(pointer, [number(column * vector.count)])

    a_row, a_column = steps_of_a or (number(1), number(rows))
    to_next_rows = builder.mul(n_terms if is_strip else a_row, number(rows))
    entry = builder.block
    builder.cbranch(builder.icmp_signed(">", n_rows, number(0)), tile, end)

    builder.position_at_end(tile)
    carried = [_phi(builder, [(value, entry)]) for value in (c, start, outputs, a, n_rows)]
    c_tile, start_tile, outputs_tile, a_tile, rows_left = carried
    # One address and the same distances in every term are all that the loop needs of a's rows.
    exists, distances = [], []
    for row in range(rows):
        exists.append(None if is_whole or row == 0 else builder.icmp_signed("<", number(row), rows_left))
        distance = builder.mul(a_row, number(row))
        if terms_at_once > 1 and row > 0 and not is_strip:
            distance = _opaque(builder, distance)
        distances.append(distance if exists[row] is None else builder.select(exists[row], distance, number(0)))
    totals = []
    for row in range(rows):
        distance = builder.mul(start_row, number(row))
        if exists[row] is not None:
            distance = builder.select(exists[row], distance, number(0))
        pointer_to_row = builder.gep(start_tile, [distance])
        totals += [load_vector(builder, place(pointer_to_row, column), kind) for column, kind in enumerate(kinds)]

    state = [n_terms, a_tile, b, *totals]
    for at_once in sorted({terms_at_once, 1}, reverse=True):
        before = builder.block
        loop, done = function.append_basic_block("loop"), function.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">=", state[0], number(at_once)), loop, done)
        builder.position_at_end(loop)
        phis = [_phi(builder, [(value, before)]) for value in state]
        left, factors, terms, *totals = phis
        for _ in range(at_once):
            columns = [Lanes(builder, load_vector(builder, place(terms, i), kind)) for i, kind in enumerate(kinds)]
            added = []
            for row in range(rows):
                scalar = builder.load(builder.gep(factors, [distances[row]]))
                factors_of = {kind: Lanes(builder, broadcast(builder, scalar, kind.count)) for kind in kinds}
                row_totals = totals[row * vectors : (row + 1) * vectors]
                for kind, right, total in zip(kinds, columns, row_totals, strict=True):
                    added.append(fma(factors_of[kind], right, Lanes(builder, total)).value)
            totals = added
            factors, terms = builder.gep(factors, [a_column]), builder.gep(terms, [b_row])
        after = [builder.sub(left, number(at_once)), factors, terms, *totals]
        for phi, value in zip(phis, after, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed(">=", after[0], number(at_once)), loop, done)
        builder.position_at_end(done)
        state = [_phi(builder, [(old, before), (new, loop)]) for old, new in zip(state, after, strict=True)]

    totals = state[3:]
    finishes = {code: function.append_basic_block("finish") for code in (AS_SUMMED, RELU_FORWARD, RELU_BACKWARD)}
    branch = builder.switch(finish, finishes[AS_SUMMED])
    for code, block in finishes.items():
        branch.add_case(number(code), block)
        builder.position_at_end(block)
        for row in range(rows):
            if exists[row] is not None:
                present = function.append_basic_block()
                builder.cbranch(exists[row], present, following)
                builder.position_at_end(present)
            distance = builder.mul(c_row, number(row))
            pointer_to_row, outputs_row = (builder.gep(first, [distance]) for first in (c_tile, outputs_tile))
            for column, kind in enumerate(kinds):
                total = Lanes(builder, totals[row * vectors + column])
                if code == RELU_FORWARD:
                    total = activations.forward(RELU, total)
                elif code == RELU_BACKWARD:
                    output = Lanes(builder, load_vector(builder, place(outputs_row, column), kind))
                    total = activations.flushed_backward(RELU, total, output, output)
                value = total.value
                if kind == half:
                    value = builder.shuffle_vector(value, ir.Constant(half, None), _in_order(vector.count))
                store_vector(builder, value, place(pointer_to_row, column))
        builder.branch(following)

    builder.position_at_end(following)
    fewer = builder.sub(rows_left, number(rows))
    steps = ((c_tile, c_row), (start_tile, start_row), (outputs_tile, c_row))
    moved = [builder.gep(pointer, [builder.mul(step, number(rows))]) for pointer, step in steps]
    moved.append(builder.gep(a_tile, [to_next_rows]))
    for phi, value in zip(carried, [*moved, fewer], strict=True):
        phi.add_incoming(value, following)
    builder.cbranch(builder.icmp_signed(">", fewer, number(0)), tile, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _opaque(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The integer, as one of which LLVM knows nothing.

    Where it knows that the distances are multiples of one, it adds that up in the loop: one addition after another
    takes as long as all of a tile's fma.
    """
    return builder.asm(ir.FunctionType(INTP, [INTP]), "", "=r,0", [value], False)


def _phi(builder: ir.IRBuilder, incoming: list[tuple[ir.Value, ir.Block]]) -> ir.PhiInstr:
    phi = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi


def _in_order(lanes: int) -> ir.Constant:
    """All lanes of one vector, then those of another."""
    return mask(range(lanes))


def mask(chosen: Iterable[int]) -> ir.Constant:
    """Which lanes a shuffle takes."""
    lanes = [ir.Constant(INT32, lane) for lane in chosen]
    return ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
