"""Products of matrices on pointers, for the training loop and for functions on arrays.

Lanes run across the columns of the result, which are output units (or, in the back-projection,
input units). Every element is one accumulator that takes its terms in order, one fma for each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.contract import BIAS, BLOCK_ROWS, LAYOUT_COLUMNS, N_INPUTS, STRIDE, WEIGHTS
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import at, lanes_of, least, load, most, moved, pointer, splat, store
from fastnet.kernels.packing import pack_panel, pack_panel_of_columns, pack_strips
from fastnet.kernels.simd import INTP, Lanes, fma, plus, staged
from fastnet.kernels.tiles import (
    AS_SUMMED,
    last_rows_product,
    packed_terms,
    panel_product,
    tile_rows,
    tile_vectors,
    zeros,
)

#: Terms that are added up at a time: a panel of b with so many stays in a cache.
TERMS_AT_ONCE = 1024
#: The same, and rows, where a is packed as well, so that the panel stays in the first-level cache and a's rows in the
#: second one.
STRIP_TERMS, STRIP_ROWS = BLOCK_ROWS, 192
#: The copy of a pays where more vectors of columns read it: 64 columns of float32 took 0.97 of the time without it.
STRIPS_FROM_VECTORS = 4
#: Rows of weights are shared out in multiples of so many, which are rows of tiles.
ROWS_TOGETHER = 8
#: Rows times terms up to which a product is small.
FEW_TERMS = 32
#: Panels are packed for products with so many rows, if b has rows some pages apart or so many elements; those of one
#: vector also if their rows crowd the sets that they share as more than so many lines would crowd all of a cache's.
PACKED_FROM_ROWS = 32
PACKED_FROM_SIZE = 1 << 17
PACKED_FROM_LINES = 256


class View(NamedTuple):
    """A matrix in memory: element (r, c) is at ``data[first + r * row + c * column]``."""

    data: Any
    first: int
    row: int
    column: int


class Target(NamedTuple):
    """Rows of whole vectors that results are stored to, or added to."""

    data: Any
    first: int
    row: int
    add: bool
    #: What becomes of them first (`fastnet.kernels.tiles`), and where in ``data`` the relu's outputs begin that decide.
    finish: int = AS_SUMMED
    outputs: int = 0


@intrinsic
def view(typing_context, data, first, row, column):
    """A `View`, of integers that are no literals: all views are of one type."""
    kind = types.NamedTuple([data, types.intp, types.intp, types.intp], View)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_tuple(builder, signature.return_type, values)

    return kind(*kind.types), codegen


@intrinsic
def target(typing_context, data, first, row, add):
    """A `Target` of sums as they are."""
    kind, given = _target_type(data), (data, types.intp, types.intp, types.boolean)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_tuple(builder, kind, [*values, ir.Constant(INTP, AS_SUMMED), ir.Constant(INTP, 0)])

    return kind(*given), codegen


@intrinsic
def finished_target(typing_context, data, first, row, finish, outputs):
    """A `Target` of sums of which something becomes."""
    kind, given = _target_type(data), (data, *[types.intp] * 4)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer, first, row, finish, outputs = values
        fields = [pointer, first, row, ir.Constant(ir.IntType(1), 0), finish, outputs]
        return context.make_tuple(builder, kind, fields)

    return kind(*given), codegen


def _target_type(data: types.Type) -> types.NamedTuple:
    return types.NamedTuple([data, types.intp, types.intp, types.boolean, types.intp, types.intp], Target)


@jit_inline
def entry(layout, layer, column):
    """An entry of a layout, by its pointer."""
    return at(layout, layer, LAYOUT_COLUMNS, column)


@jit_inline
def layout_size(layout):
    """The size of the buffers that a layout, an array, describes."""
    return buffer_size(pointer(layout), layout.shape[0])


@jit_inline
def buffer_size(layout, n_layers):
    """The size of the buffers that a layout describes, by its pointer."""
    last = n_layers - 1
    stride = entry(layout, last, STRIDE)
    end = entry(layout, last, WEIGHTS) + entry(layout, last, N_INPUTS) * stride
    return most(end, entry(layout, last, BIAS) + stride)


@jit_inline
def rounded_up(n, multiple):
    """The least multiple that is not below ``n``."""
    return (n + multiple - 1) // multiple * multiple


@jit_inline
def padded(data, width):
    """``width`` rounded up to whole vectors of the pointer's dtype."""
    return rounded_up(width, lanes_of(data))


@staged
def _term(factor: Lanes, right: Lanes, total: Lanes) -> Lanes:
    return fma(factor, right, total)


@jit_inline
def product(c, a, b, bias, n_rows, n_terms, n_columns, scratch):
    """c = a @ b, or c += a @ b; every sum from the bias, or from +0 where ``bias.first`` is negative.

    c is a `Target`; the others are `View`s. The bias is one row for all of c (``bias.row`` is 0) or has as many. Either
    the rows of b are whole vectors, or its columns are (``b.row`` is 1). To add to c takes at most `BLOCK_ROWS` terms.
    ``scratch`` has room for `scratch_size`. Returns whether ``c.finish`` was done; only tiles do it.
    """
    # Calls and tiles cost more than the smallest products (the 3-4-1 network: 260 ns an epoch).
    if n_rows * n_terms <= FEW_TERMS and n_columns <= lanes_of(c.data):
        _small_product(c, a, b, bias, n_rows, n_terms, n_columns)
        return False
    if n_rows == 1 and b.row != 1:
        row_product(c, a, b, bias, n_terms, padded(c.data, n_columns))
        return False
    large_product(c, a, b, bias, n_rows, n_terms, n_columns, scratch)
    return c.finish != AS_SUMMED


@jit_inline
def _small_product(c, a, b, bias, n_rows, n_terms, n_columns):
    """`product` of a vector's width, where it is worth no preparation."""
    for row in range(n_rows):
        a_index, b_index = a.first + row * a.row, b.first
        c_index = c.first + row * c.row
        if b.row == 1:
            store(c.data, c_index, splat(c.data, 0.0))
            for column in range(n_columns):
                total = c.data[c_index + column]
                for term in range(n_terms):
                    total = _term(a.data[a_index + term * a.column], b.data[b_index + term], total)
                c.data[c_index + column] = total
                b_index += b.column
        else:
            sums = load(bias.data, bias.first + row * bias.row) if bias.first >= 0 else splat(c.data, 0.0)
            for _ in range(n_terms):
                sums = _term(splat(a.data, a.data[a_index]), load(b.data, b_index), sums)
                a_index += a.column
                b_index += b.row
            store(c.data, c_index, plus(load(c.data, c_index), sums) if c.add else sums)


@jit_part
def row_product(c, a, b, bias, n_terms, n_columns):
    """`product` of one row by rows of whole vectors: four vectors at a time, for a fma waits for the one before."""
    lanes = lanes_of(c.data)
    column = 0
    while column < n_columns:
        n = least(4, (n_columns - column) // lanes)
        second, third, fourth = least(1, n - 1) * lanes, least(2, n - 1) * lanes, (n - 1) * lanes
        e = f = g = h = splat(c.data, 0.0)
        if bias.first >= 0:
            start = bias.first + column
            e, f = load(bias.data, start), load(bias.data, start + second)
            g, h = load(bias.data, start + third), load(bias.data, start + fourth)
        a_index, b_index = a.first, b.first + column
        for _ in range(n_terms):
            factor = splat(c.data, a.data[a_index])
            # Columns past the last one are computed again in its place.
            e = _term(factor, load(b.data, b_index), e)
            f = _term(factor, load(b.data, b_index + second), f)
            g = _term(factor, load(b.data, b_index + third), g)
            h = _term(factor, load(b.data, b_index + fourth), h)
            a_index += a.column
            b_index += b.row
        place = c.first + column
        if c.add:
            e, f = plus(load(c.data, place), e), plus(load(c.data, place + second), f)
            g, h = plus(load(c.data, place + third), g), plus(load(c.data, place + fourth), h)
        store(c.data, place, e)
        store(c.data, place + second, f)
        store(c.data, place + third, g)
        store(c.data, place + fourth, h)
        column += n * lanes


@jit_inline
def _lowest_bit(n):
    """The largest power of two that divides a positive integer."""
    return n & -n


@jit_inline
def _packs_panels(b, n_rows, n_terms, padded_columns):
    """Whether panels of b are copied to where their rows lie one after another."""
    lanes, most_vectors = lanes_of(b.data), tile_vectors(b.data)
    if b.row == 1:
        return True
    if n_rows < PACKED_FROM_ROWS or padded_columns <= most_vectors * lanes:
        return False
    # Rows whose distance is a power of two share the sets of a cache, and their panel does not stay in it.
    return (
        b.row % (32 * lanes) == 0
        or n_terms * b.row > PACKED_FROM_SIZE
        or (most_vectors == 1 and n_terms * _lowest_bit(b.row // lanes) > PACKED_FROM_LINES)
    )


@jit_inline
def _may_have_strips(data, n_rows):
    """Whether a product of so many rows packs a where b is wide enough."""
    return packed_terms(data) > 0 and n_rows >= PACKED_FROM_ROWS


@jit_part
def large_product(c, a, b, bias, n_rows, n_terms, n_columns, scratch):
    """`product` by panels of b, in tiles.

    Instead of one row for all of c the bias may have a row for each, with ``bias.column`` 0: as many vectors as a tile
    has, with which all columns of the row begin.

    Up to `STRIP_TERMS` terms, rows of c may be as long as they are wide if nothing is added to them and there is room
    for a vector after the last one.
    """
    lanes = lanes_of(c.data)
    padded_columns = padded(c.data, n_columns)
    most_vectors = tile_vectors(c.data)
    has_strips = _may_have_strips(c.data, n_rows) and padded_columns > STRIPS_FROM_VECTORS * lanes
    rows_at_once, terms_at_once = (STRIP_ROWS, STRIP_TERMS) if has_strips else (most(n_rows, 1), TERMS_AT_ONCE)
    is_packed = _packs_panels(b, n_rows, n_terms, padded_columns)
    sums = moved(scratch, padded(c.data, least(n_terms, terms_at_once)) * most_vectors * lanes)
    strips = moved(sums, least(n_rows, rows_at_once) * most_vectors * lanes if c.add else 0)
    for low in range(0, n_rows, rows_at_once):
        n_block = least(n_rows - low, rows_at_once)
        n_high = n_block - n_block % tile_rows(c.data)
        term = 0
        while True:
            n = least(n_terms - term, terms_at_once)
            factors = moved(a.data, a.first + low * a.row + term * a.column)
            if has_strips:
                pack_strips(strips, factors, a.row, a.column, n_high, n)
            # The last columns first: where rows of c are no whole vectors, these reach into the next row's first ones.
            column = padded_columns
            while column > 0:
                left = column // lanes
                # Two halves rather than a full tile and a vector.
                vectors = (left + 1) // 2 if left == most_vectors + 1 else least(left, most_vectors)
                width = vectors * lanes
                column -= width
                halves = 2 * vectors - (1 if n_columns - column <= width - lanes // 2 else 0)
                panel, panel_row = moved(b.data, b.first + term * b.row + column * b.column), b.row
                if is_packed:
                    if b.row == 1:
                        pack_panel_of_columns(scratch, panel, b.column, n, n_columns - column, width)
                    else:
                        pack_panel(scratch, panel, b.row, n, width)
                    panel, panel_row = scratch, width
                place = moved(c.data, c.first + low * c.row + column)
                result, result_row = (sums, width) if c.add else (place, c.row)
                finish = c.finish if term + n >= n_terms else AS_SUMMED
                outputs = moved(c.data, c.outputs + low * c.row + column)
                begin, begin_row = result, result_row
                if term == 0:
                    begin, begin_row = zeros(c.data), 0
                    if bias.first >= 0:
                        begin = moved(bias.data, bias.first + low * bias.row + column * bias.column)
                        begin_row = bias.row
                panel_product(
                    has_strips,
                    halves,
                    result,
                    result_row,
                    n_high,
                    begin,
                    begin_row,
                    finish,
                    outputs,
                    strips if has_strips else factors,
                    a.row,
                    a.column,
                    panel,
                    panel_row,
                    n,
                )
                if n_high < n_block:
                    for offset in range(width - lanes, -1, -lanes):
                        last_rows_product(
                            moved(result, n_high * result_row + offset),
                            result_row,
                            n_block - n_high,
                            moved(begin, n_high * begin_row + offset),
                            begin_row,
                            finish,
                            moved(outputs, n_high * c.row + offset),
                            moved(factors, n_high * a.row),
                            a.row,
                            a.column,
                            moved(panel, offset),
                            panel_row,
                            n,
                        )
                if c.add:
                    _add_rows(place, c.row, sums, n_block, width)
            term += n
            if term >= n_terms:
                break


@jit_inline
def _add_rows(target, row, source, n_rows, width):
    """Add rows of whole vectors that lie one after another to rows that lie ``row`` apart."""
    for _ in range(n_rows):
        for offset in range(0, width, lanes_of(source)):
            store(target, offset, plus(load(target, offset), load(source, offset)))
        target, source = moved(target, row), moved(source, width)


@jit_inline
def scratch_size(data, n_terms, n_rows):
    """Elements that `product` may need: a panel of b, sums that are to be added, and strips of a."""
    width = tile_vectors(data) * lanes_of(data)
    size = (padded(data, least(n_terms, TERMS_AT_ONCE)) + n_rows) * width
    if _may_have_strips(data, n_rows):
        size += least(n_terms, STRIP_TERMS) * least(n_rows, STRIP_ROWS) + lanes_of(data)
    return size


@jit_inline
def odd_stride(data, width):
    """``width`` rounded up to an odd number of vectors: rows so far apart do not share a cache's sets."""
    lanes = lanes_of(data)
    return ((width + lanes - 1) // lanes | 1) * lanes


@jit_inline
def row_sum(total, total_first, begin, values, first, n_rows, stride, width, add):
    """The sums of the first ``width`` columns of rows of whole vectors; with ``add`` they are added to ``total``.

    They go on from the row at ``begin``, a `View`, or from +0 where ``begin.first`` is negative. Rows are taken in
    order; four vectors of columns at a time, for an addition waits for the one before.
    """
    lanes = lanes_of(values)
    column = 0
    while column < width:
        n = least(4, (width - column) // lanes)
        a = b = c = d = splat(values, 0.0)
        index = first + column
        # Columns past the last one are summed again in its place.
        second, third, fourth = least(1, n - 1) * lanes, least(2, n - 1) * lanes, (n - 1) * lanes
        if begin.first >= 0:
            start = begin.first + column
            a, b = load(begin.data, start), load(begin.data, start + second)
            c, d = load(begin.data, start + third), load(begin.data, start + fourth)
        for _ in range(n_rows):
            a = plus(a, load(values, index))
            b = plus(b, load(values, index + second))
            c = plus(c, load(values, index + third))
            d = plus(d, load(values, index + fourth))
            index += stride
        place = total_first + column
        if add:
            # All are loaded before one is stored: some may be the same.
            a, b = plus(load(total, place), a), plus(load(total, place + second), b)
            c, d = plus(load(total, place + third), c), plus(load(total, place + fourth), d)
        store(total, place, a)
        store(total, place + second, b)
        store(total, place + third, c)
        store(total, place + fourth, d)
        column += n * lanes


@jit_inline
def copy_row(target, source, n_columns):
    """Copy a row, with a vector that overlaps the one before at the end; narrower ones element by element."""
    lanes = lanes_of(source)
    if n_columns < lanes:
        for column in range(n_columns):
            target[column] = source[column]
        return
    for column in range(0, n_columns - lanes, lanes):
        store(target, column, load(source, column))
    store(target, n_columns - lanes, load(source, n_columns - lanes))
