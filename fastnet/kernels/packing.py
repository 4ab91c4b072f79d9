"""Copies of matrices in the order in which the tiles of `fastnet.kernels.tiles` read them.

A panel is some columns of b, term by term; a strip is as many rows of a as a tile has, term by term. Numbers are moved
as they are.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import lanes_of, load, load_vector, moved, store, store_vector
from fastnet.kernels.simd import INTP, Vector
from fastnet.kernels.tiles import mask, shape_of, shared_function, tile_rows


@jit_inline
def pack_panel(scratch, source, row, n_terms, width):
    """Copy a panel of rows of whole vectors to where they lie one after another."""
    lanes = lanes_of(source)
    place = scratch
    for _ in range(n_terms):
        for offset in range(0, width, lanes):
            store(place, offset, load(source, offset))
        place, source = moved(place, width), moved(source, row)


@jit_inline
def pack_panel_of_columns(scratch, source, column, n_terms, n_columns, width):
    """`pack_panel` where columns are rows in memory, of whole vectors; ``n_columns`` are left."""
    lanes = lanes_of(source)
    for offset in range(0, width, lanes):
        for first in range(0, n_terms, lanes):
            place = moved(scratch, first * width + offset)
            transpose_square(place, width, moved(source, offset * column + first), column, n_columns - offset)


@jit_part
def pack_strips(strips, a, a_row, a_column, n_rows, n_terms):
    """Copy rows of a, whole multiples of `tile_rows`: strip by strip, term by term.

    Either the terms of a row lie one after another (``a_column`` is 1), or the rows of a term do. After the last strip
    half a vector more is written.
    """
    rows, terms = tile_rows(a), lanes_of(a) // 2
    n_transposed = n_terms - n_terms % terms if a_column == 1 else 0
    for low in range(0, n_rows, rows):
        source = moved(a, low * a_row)
        for term in range(0, n_transposed, terms):
            transpose_terms(strips, moved(source, term), a_row)
            strips = moved(strips, rows * terms)
        for term in range(n_transposed, n_terms):
            if a_row == 1:
                copy_term(strips, moved(source, term * a_column))
            else:
                for row in range(rows):
                    strips[row] = source[row * a_row + term * a_column]
            strips = moved(strips, rows)


@intrinsic
def copy_term(typing_context, target, source):
    """Copy as many elements as a tile has rows."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        left, done = shape_of(context).rows, 0
        while left > 0:
            part = ir.VectorType(context.get_value_type(target.dtype), 1 << (left.bit_length() - 1))
            to, of = (builder.gep(pointer, [ir.Constant(INTP, done)]) for pointer in values)
            store_vector(builder, load_vector(builder, of, part), to)
            left, done = left - part.count, done + part.count
        return context.get_dummy_value()

    return types.none(target, source), codegen


@intrinsic
def transpose_terms(typing_context, target, source, source_row):
    """As many terms as half a vector has lanes, of the rows of a tile: write them term by term.

    Half a vector more than that is written at most.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        half = ir.VectorType(context.get_value_type(target.dtype), Vector(target.dtype).lanes // 2)
        builder.call(_terms_transposer(builder.module, half, shape_of(context).rows), values)
        return context.get_dummy_value()

    return types.none(target, source, types.intp), codegen


def _terms_transposer(module: ir.Module, half: ir.VectorType, n_rows: int) -> ir.Function:
    pointer, terms = half.element.as_pointer(), half.count
    function, is_new = shared_function(module, f"fastnet.strip.{terms}.{n_rows}", [pointer, pointer, INTP])
    if not is_new:
        return function
    target, source, source_row = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    squares = []
    for first in range(0, n_rows, terms):
        rows = []
        for row in range(first, min(first + terms, n_rows)):
            distance = builder.mul(source_row, ir.Constant(INTP, row))
            rows.append(load_vector(builder, builder.gep(source, [distance]), half))
        rows += [rows[-1]] * (terms - len(rows))
        squares.append(_transposed(builder, rows))
    # What is written past a term's rows, the next term replaces.
    for term in range(terms):
        for number, square in enumerate(squares):
            place = builder.gep(target, [ir.Constant(INTP, term * n_rows + number * terms)])
            store_vector(builder, square[term], place)
    builder.ret_void()
    return function


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
    function, is_new = shared_function(module, f"fastnet.transpose.{lanes}", [pointer, INTP, pointer, INTP, INTP])
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
    for row in _transposed(builder, rows):
        store_vector(builder, row, target)
        target = builder.gep(target, [target_row])
    builder.ret_void()
    return function


def _transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square: in each one of 2, 4, 8, … rows the off-diagonal quarters change places."""
    rows, lanes, step = list(rows), len(rows), 1
    while step < lanes:
        for row in range(lanes):
            if row & step == 0:
                upper, lower = rows[row], rows[row + step]
                rows[row] = builder.shuffle_vector(upper, lower, _quarters(lanes, step, 0))
                rows[row + step] = builder.shuffle_vector(upper, lower, _quarters(lanes, step, step))
        step *= 2
    return rows


def _quarters(lanes: int, step: int, shift: int) -> ir.Constant:
    """Lanes of the upper row where the lane's bit ``step`` is off, of the lower where it is on."""
    return mask((lane & ~step) + shift + (lanes if lane & step else 0) for lane in range(lanes))
