"""Memory in jitted code: pointers, vectors in and out of it, and the register tile of the micro-kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

from fastnet.contract import VECTOR_BYTES
from fastnet.kernels.simd import INT32, INTP, Lanes, Vector, broadcast, fma, switch


class Tile(types.Type):
    """Numba type of ``rows`` x ``vectors`` vectors that live in registers: the sums of a micro-kernel."""

    def __init__(self, vector: Vector, rows: int, vectors: int) -> None:
        self.vector = vector
        self.rows = rows
        self.vectors = vectors
        super().__init__(name=f"Tile({vector}, {rows}, {vectors})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        vector = manager.lookup(tile.vector).get_value_type()
        super().__init__(manager, tile, ir.ArrayType(vector, tile.rows * tile.vectors))


@intrinsic
def pointer(typing_context, array):
    """Address of a C-contiguous array's first element.

    Kernels hand pointers on, not arrays: an array's reference count is an atomic operation at each
    call (an epoch of the 3-4-1 network took 1600 ns with arrays, 520 with pointers). The array must
    outlive the pointer (see `keep`).
    """
    if array.layout != "C":
        raise TypingError("a kernel needs a C-contiguous array")
    if array.dtype not in (types.float32, types.float64, types.int64):
        raise TypingError(f"a kernel needs an array of float32 or float64; got {array.dtype}")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def keep(typing_context, array):
    """Hold an array until here, past the last use of a pointer into it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.get_dummy_value()

    return types.none(array), codegen


@intrinsic
def aligned(typing_context, pointer):
    """The first address from a pointer on that begins a cache line.

    A vector that lies across two lines is stored and loaded at half the speed.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        address = builder.ptrtoint(values[0], INTP)
        address = builder.and_(
            builder.add(address, ir.Constant(INTP, VECTOR_BYTES - 1)), ir.Constant(INTP, -VECTOR_BYTES)
        )
        return builder.inttoptr(address, values[0].type)

    return pointer(pointer), codegen


@intrinsic
def lanes_of(typing_context, pointer):
    """Lanes in a vector of the pointer's dtype."""
    lanes = Vector(pointer.dtype).lanes

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(INTP, lanes)

    return types.intp(pointer), codegen


def _load(builder: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Load with the alignment of an element, since rows of a user's array lie anywhere."""
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=VECTOR_BYTES // vector.count)


def _store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    target = builder.bitcast(pointer, value.type.as_pointer())
    builder.store(value, target, align=VECTOR_BYTES // value.type.count)


@intrinsic
def load(typing_context, pointer, index):
    """The vector that begins ``index`` elements on."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        return _load(builder, pointer, context.get_value_type(vector))

    return vector(pointer, types.intp), codegen


@intrinsic
def store(typing_context, pointer, index, value):
    """Store a vector ``index`` elements on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        _store(builder, values[2], pointer)
        return context.get_dummy_value()

    return types.none(pointer, types.intp, value), codegen


def _part_sizes(lanes: int) -> list[int]:
    """1, 2, 4, …: the elements that rows can share a vector with."""
    return [1 << bit for bit in range(lanes.bit_length() - 1)]


@intrinsic
def join_rows(typing_context, pointer, index, step, part):
    """A vector of the first ``part`` elements of as many rows as fit, ``step`` apart; ``part`` divides the lanes."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data, first, row_step, count = values
        whole = context.get_value_type(vector)

        def join(size: int) -> Lanes:
            row_start = builder.gep(data, [first])
            parts = []
            for _ in range(vector.lanes // size):
                parts.append(_load_part(builder, row_start, ir.VectorType(whole.element, size)))
                row_start = builder.gep(row_start, [row_step])
            while len(parts) > 1:
                parts = [_concatenate(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
            return Lanes(builder, parts[0])

        cases = {size: partial(join, size) for size in [*_part_sizes(vector.lanes), vector.lanes]}
        return switch(builder, count, cases).value

    return vector(pointer, types.intp, types.intp, types.intp), codegen


@intrinsic
def split_rows(typing_context, pointer, index, step, part, value):
    """Store what `join_rows` has joined: each part in the first elements of its row's vector, then zeros."""
    lanes = value.lanes

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data, first, row_step, count, joined = values
        zeros = ir.Constant(joined.type, [ir.Constant(joined.type.element, 0.0)] * lanes)

        def split(size: int) -> None:
            row_start = builder.gep(data, [first])
            for row in range(lanes // size):
                lane_of = [row * size + lane if lane < size else lanes for lane in range(lanes)]
                _store(builder, builder.shuffle_vector(joined, zeros, _mask(lane_of)), row_start)
                row_start = builder.gep(row_start, [row_step])

        done = builder.append_basic_block("split.done")
        whole = builder.append_basic_block("split.whole")
        branch = builder.switch(count, whole)
        for size, block in [*((size, builder.append_basic_block()) for size in _part_sizes(lanes)), (lanes, whole)]:
            if block is not whole:
                branch.add_case(ir.Constant(INTP, size), block)
            builder.position_at_end(block)
            split(size)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.none(pointer, types.intp, types.intp, types.intp, value), codegen


def _load_part(builder: ir.IRBuilder, pointer: ir.Value, part: ir.VectorType) -> ir.Value:
    bytes_of_element = 4 if isinstance(part.element, ir.FloatType) else 8
    return builder.load(builder.bitcast(pointer, part.as_pointer()), align=bytes_of_element)


def _concatenate(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    return builder.shuffle_vector(left, right, _mask(list(range(2 * left.type.count))))


def _mask(lanes: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(INT32, len(lanes)), [ir.Constant(INT32, lane) for lane in lanes])


@intrinsic
def splat(typing_context, pointer, value):
    """A scalar, rounded to the pointer's dtype, in every lane."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        number = context.cast(builder, values[1], signature.args[1], pointer.dtype)
        return broadcast(builder, number, vector.lanes)

    return vector(pointer, value), codegen


@intrinsic
def keep_first(typing_context, vector, count):
    """The first ``count`` lanes, and +0 in the others."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        lanes = vector.lanes
        positions = ir.Constant(ir.VectorType(INTP, lanes), [ir.Constant(INTP, lane) for lane in range(lanes)])
        kept = builder.icmp_signed("<", positions, broadcast(builder, values[1], lanes))
        x = Lanes(builder, values[0])
        return builder.select(kept, x.value, x.constant(0.0))

    return vector(vector, types.intp), codegen


@intrinsic
def all_zero(typing_context, vector):
    """Whether every lane is a zero of either sign; NaN is not."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        x = Lanes(builder, values[0])
        mask = builder.fcmp_unordered("!=", x.value, x.constant(0.0))
        word = ir.IntType(vector.lanes)
        return builder.icmp_unsigned("==", builder.bitcast(mask, word), ir.Constant(word, 0))

    return types.boolean(vector), codegen


def _tile_of(pointer: types.CPointer, rows: Any, vectors: Any) -> Tile:
    return Tile(Vector(pointer.dtype), rows.literal_value, vectors.literal_value)


@intrinsic(prefer_literal=True)
def tile_zero(typing_context, pointer, rows, vectors):
    """A tile of +0; ``rows`` and ``vectors`` are literals."""
    tile = _tile_of(pointer, rows, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(pointer, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def tile_broadcast(typing_context, pointer, index, rows, vectors):
    """A tile whose rows are all the vectors that begin at ``index``."""
    tile = _tile_of(pointer, rows, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        vector = context.get_value_type(tile.vector)
        start = builder.gep(values[0], [values[1]])
        result = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for column in range(tile.vectors):
            offset = ir.Constant(INTP, column * tile.vector.lanes)
            row_vector = _load(builder, builder.gep(start, [offset]), vector)
            for row in range(tile.rows):
                result = builder.insert_value(result, row_vector, row * tile.vectors + column)
        return result

    return tile(pointer, types.intp, rows, vectors), codegen


@intrinsic
def tile_fma(typing_context, tile, a, a_index, a_row, b, b_index):
    """Add to each row r of a tile the product of a[a_index + r a_row] and the vectors at b[b_index]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        result, a_value, a_first, row_step, b_value, b_first = values
        vector = context.get_value_type(tile.vector)
        b_start = builder.gep(b_value, [b_first])
        columns = [
            _load(builder, builder.gep(b_start, [ir.Constant(INTP, column * tile.vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        a_pointer = builder.gep(a_value, [a_first])
        for row in range(tile.rows):
            factor = Lanes(builder, broadcast(builder, builder.load(a_pointer), tile.vector.lanes))
            for column, right in enumerate(columns):
                position = row * tile.vectors + column
                total = Lanes(builder, builder.extract_value(result, position))
                joined = fma(factor, Lanes(builder, right), total)
                result = builder.insert_value(result, joined.value, position)
            a_pointer = builder.gep(a_pointer, [row_step])
        return result

    return tile(tile, a, types.intp, types.intp, b, types.intp), codegen


@intrinsic
def tile_store(typing_context, tile, pointer, index, row_step, add):
    """Store a tile's rows ``row_step`` apart, or add them to what is there."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        value, array_value, first, step, is_added = values
        vector = context.get_value_type(tile.vector)
        pointer = builder.gep(array_value, [first])
        for row in range(tile.rows):
            for column in range(tile.vectors):
                target = builder.gep(pointer, [ir.Constant(INTP, column * tile.vector.lanes)])
                total = builder.extract_value(value, row * tile.vectors + column)
                with builder.if_else(is_added) as (yes, no):
                    with yes:
                        _store(builder, builder.fadd(_load(builder, target, vector), total), target)
                    with no:
                        _store(builder, total, target)
            pointer = builder.gep(pointer, [step])
        return context.get_dummy_value()

    return types.none(tile, pointer, types.intp, types.intp, types.boolean), codegen
