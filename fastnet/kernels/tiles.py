"""The micro-kernel of the matrix products: LLVM functions that compute one register tile each.

A tile is some rows times up to three vectors of the result, one accumulator for each element. For
every term, in order, the vectors of b are loaded, an element of each row of a is broadcast, and every
accumulator takes one fma. Where at most half of the last vector is wanted, half is computed: 100 columns
of float32 are 6.5 vectors. The functions are emitted whole, loop included: type inference sees one
statement, and all the products of a module share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.contract import VECTOR_BYTES
from fastnet.kernels.memory import load_vector, store_vector
from fastnet.kernels.simd import INT32, INTP, Lanes, Vector, broadcast, fma


class Shape(NamedTuple):
    """Rows and vectors of the largest register tile, rows of the tile for what is left, and terms that a loop takes."""

    rows: int
    few_rows: int
    vectors: int
    terms: int


@cache
def shape_for(triple: str, cpu: str, features: str) -> Shape:
    """The tile for a CPU, by what LLVM makes of a sum of two vectors.

    A vector is one of 32 registers with AVX-512, two of 16 with AVX, four of 16 with SSE. In the first
    case 8 x 3 keep 24 accumulators, and one load feeds 2.2 fma; 8 x 2 and 12 x 2 lost by up to 8 % where
    the matrices exceed the caches, and as many accumulators in fewer rows won nowhere. In the second one
    the 12 fma of a term take 6 cycles, into which all else has to fit: two terms in a turn of the loop
    gained 7 to 19 % in float32 and up to 12 % in float64; four lost.
    """
    lanes = VECTOR_BYTES // 4
    kind = f"<{lanes} x float>"
    text = f"define {kind} @f({kind} %a, {kind} %b) {{\n %c = fadd {kind} %a, %b\n ret {kind} %c\n}}"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    assembly = machine.emit_assembly(llvm.parse_assembly(text))
    if "zmm" in assembly:
        return Shape(8, 4, 3, 1)
    if "ymm" in assembly:
        return Shape(6, 4, 1, 2)
    return Shape(2, 1, 1, 1)


def _shape(context: Any) -> Shape:
    return shape_for(*context.codegen().magic_tuple())


@intrinsic
def tile_rows(typing_context, data):
    """Rows of the largest tile."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(INTP, _shape(context).rows)

    return types.intp(data), codegen


@intrinsic
def tile_vectors(typing_context, data):
    """Vectors of the largest tile."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(INTP, _shape(context).vectors)

    return types.intp(data), codegen


@intrinsic
def zeros(typing_context, data):
    """Where as many zeros lie as the widest tile has columns."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        vector = context.get_value_type(Vector(data.dtype))
        name = f"fastnet.zeros.{vector.count}"
        if name not in builder.module.globals:
            constant = ir.GlobalVariable(builder.module, ir.ArrayType(vector, _shape(context).vectors), name)
            constant.linkage, constant.global_constant = "linkonce_odr", True
            constant.initializer = ir.Constant(constant.type.pointee, None)
        return builder.bitcast(builder.module.globals[name], values[0].type)

    return data(data), codegen


@intrinsic
def panel_product(typing_context, halves, c, c_row, n_rows, start, start_row, a, a_row, a_column, b, b_row, n_terms):
    """``n_rows`` rows of a product, whole multiples of `tile_rows`, in tiles of up to `tile_vectors` vectors.

    ``halves`` counts half vectors; where it is odd, the other half of the last vector of c becomes +0.
    c, start, a and b point to the first elements; rows are ``..._row`` elements apart, the terms of a
    ``a_column``. Sums begin with ``start``.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        shape, vector = _shape(context), context.get_value_type(Vector(c.dtype))
        done = builder.append_basic_block("panel.done")
        blocks = [builder.append_basic_block(f"panel.{halves}") for halves in range(1, 2 * shape.vectors + 1)]
        branch = builder.switch(values[0], blocks[-1])
        for halves, block in enumerate(blocks, start=1):
            branch.add_case(ir.Constant(INTP, halves), block)
            builder.position_at_end(block)
            builder.call(_micro_kernel(builder.module, vector, shape.rows, halves, shape.terms, True), values[1:])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    intp = types.intp
    return types.none(intp, c, intp, intp, c, intp, c, intp, intp, c, intp, intp), codegen


@intrinsic
def last_rows_product(typing_context, c, c_row, n_rows, start, start_row, a, a_row, a_column, b, b_row, n_terms):
    """`panel_product` of one vector and any number of rows, in low tiles of which the last may not be full."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        shape, vector = _shape(context), context.get_value_type(Vector(c.dtype))
        builder.call(_micro_kernel(builder.module, vector, shape.few_rows, 2, shape.terms, False), values)
        return context.get_dummy_value()

    intp = types.intp
    return types.none(c, intp, intp, c, intp, c, intp, intp, c, intp, intp), codegen


def _function(module: ir.Module, name: str, parameters: list[ir.Type]) -> tuple[ir.Function, bool]:
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


def _micro_kernel(
    module: ir.Module, vector: ir.VectorType, rows: int, halves: int, terms_at_once: int, is_whole: bool
) -> ir.Function:
    """The function behind the products of panels; unless ``is_whole``, the last tile may lack rows."""
    pointer = vector.element.as_pointer()
    parameters = [pointer, INTP, INTP, pointer, INTP, pointer, INTP, INTP, pointer, INTP, INTP]
    function, is_new = _function(module, f"fastnet.panel.{vector.count}.{rows}.{halves}", parameters)
    if not is_new:
        return function
    c, c_row, n_rows, start, start_row, a, a_row, a_column, b, b_row, n_terms = function.args
    half = ir.VectorType(vector.element, vector.count // 2)
    kinds = [vector] * (halves // 2) + [half] * (halves % 2)
    vectors = len(kinds)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    tile, following, end = (function.append_basic_block(label) for label in ("tile", "following", "end"))

    def number(value: int) -> ir.Constant:
        return ir.Constant(INTP, value)

    def place(pointer: ir.Value, column: int) -> ir.Value:
        return builder.gep(pointer, [number(column * vector.count)])

    entry = builder.block
    builder.cbranch(builder.icmp_signed(">", n_rows, number(0)), tile, end)

    builder.position_at_end(tile)
    carried = [_phi(builder, [(value, entry)]) for value in (c, start, a, n_rows)]
    c_tile, start_tile, a_tile, rows_left = carried
    # One address and the same distances in every term are all that the loop needs of a's rows.
    exists, distances = [], []
    for row in range(rows):
        exists.append(None if is_whole or row == 0 else builder.icmp_signed("<", number(row), rows_left))
        distance = builder.mul(a_row, number(row))
        if terms_at_once > 1 and row > 0:
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
    for row in range(rows):
        if exists[row] is not None:
            present = function.append_basic_block()
            builder.cbranch(exists[row], present, following)
            builder.position_at_end(present)
        pointer_to_row = builder.gep(c_tile, [builder.mul(c_row, number(row))])
        for column in range(vectors):
            total = totals[row * vectors + column]
            if kinds[column] == half:
                total = builder.shuffle_vector(total, ir.Constant(half, None), _in_order(vector.count))
            store_vector(builder, total, place(pointer_to_row, column))
    builder.branch(following)

    builder.position_at_end(following)
    fewer = builder.sub(rows_left, number(rows))
    steps = ((c_tile, c_row), (start_tile, start_row), (a_tile, a_row))
    moved = [builder.gep(pointer, [builder.mul(step, number(rows))]) for pointer, step in steps]
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


@intrinsic
def transpose_square(typing_context, target, target_row, source, source_row, n_rows):
    """Write a square of as many rows as a vector has lanes, transposed; source rows from ``n_rows`` on count as +0."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        vector = context.get_value_type(Vector(target.dtype))
        builder.call(_transposer(builder.module, vector), values)
        return context.get_dummy_value()

    return types.none(target, types.intp, source, types.intp, types.intp), codegen


def _transposer(module: ir.Module, vector: ir.VectorType) -> ir.Function:
    pointer, lanes = vector.element.as_pointer(), vector.count
    function, is_new = _function(module, f"fastnet.transpose.{lanes}", [pointer, INTP, pointer, INTP, INTP])
    if not is_new:
        return function
    target, target_row, source, source_row, n_rows = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    zero = ir.Constant(vector, [ir.Constant(vector.element, 0.0)] * lanes)
    rows = []
    for row in range(lanes):
        exists = builder.icmp_signed("<", ir.Constant(INTP, row), n_rows)
        # What lies past the last row is not read.
        distance = builder.select(exists, builder.mul(source_row, ir.Constant(INTP, row)), ir.Constant(INTP, 0))
        loaded = load_vector(builder, builder.gep(source, [distance]), vector)
        rows.append(builder.select(exists, loaded, zero))
    # Swap the off-diagonal quarters of every square of 2, 4, 8, … rows.
    step = 1
    while step < lanes:
        for row in range(lanes):
            if row & step == 0:
                upper, lower = rows[row], rows[row + step]
                rows[row] = builder.shuffle_vector(upper, lower, _quarters(lanes, step, 0))
                rows[row + step] = builder.shuffle_vector(upper, lower, _quarters(lanes, step, step))
        step *= 2
    for row in rows:
        store_vector(builder, row, target)
        target = builder.gep(target, [target_row])
    builder.ret_void()
    return function


def _quarters(lanes: int, step: int, shift: int) -> ir.Constant:
    """Lanes of the upper row where the lane's bit ``step`` is off, of the lower where it is on."""
    return _mask((lane & ~step) + shift + (lanes if lane & step else 0) for lane in range(lanes))


def _in_order(lanes: int) -> ir.Constant:
    """All lanes of one vector, then those of another."""
    return _mask(range(lanes))


def _mask(chosen: Iterable[int]) -> ir.Constant:
    lanes = [ir.Constant(INT32, lane) for lane in chosen]
    return ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
