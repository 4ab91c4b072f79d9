"""Memory in jitted code: pointers, and vectors in and out of it."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnet.contract import VECTOR_BYTES
from fastnet.kernels.simd import INT32, INTP, Lanes, Vector, broadcast, switch


def align_stack(function: ir.Function) -> None:
    """Let a function's stack begin at a multiple of a vector's size, whose slots then cross no line of the cache.

    With 16 bytes, which is what calls promise, one process in sixty took 397 us for 5001 epochs of the notebook's
    network instead of 298: a vector that each epoch stores lay across two pages.
    """
    # llvmlite writes the alignment beside other attributes only.
    function.attributes.add("nounwind")
    function.attributes.alignstack = VECTOR_BYTES


def _pointer_type(array: types.Array) -> types.CPointer:
    """The type of a pointer into an array that a kernel can read."""
    if array.layout != "C":
        raise TypeError("a kernel needs a C-contiguous array")
    if array.dtype not in (types.float32, types.float64, types.int64):
        raise TypeError(f"a kernel needs an array of float32 or float64; got {array.dtype}")
    return types.CPointer(array.dtype)


def _first_element(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
    return context.make_array(signature.args[0])(context, builder, values[0]).data


@intrinsic
def pointer(typing_context, array):
    """Address of a C-contiguous array's first element.

    Kernels hand pointers on, not arrays: an array's reference count is an atomic operation at each
    call (an epoch of the 3-4-1 network took 1600 ns with arrays, 520 with pointers). The array must
    outlive the pointer (see `keep`).
    """
    return _pointer_type(array)(array), _first_element


@intrinsic
def destination(typing_context, array):
    """`pointer`, to write through: not for a read-only array, such as a global one in a user's jitted code."""
    if not array.mutable:
        raise TypeError("a kernel cannot write to a read-only array")
    return _pointer_type(array)(array), _first_element


@intrinsic
def plain_pointer(typing_context, array, pointer):
    """`destination` of an array of the pointer's dtype, or nowhere if it is another array."""
    is_plain = array.mutable and array.layout == "C" and array.dtype == pointer.dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data = context.make_array(array)(context, builder, values[0]).data
        return data if is_plain else ir.Constant(values[1].type, None)

    return pointer(array, pointer), codegen


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
def moved(typing_context, pointer, count):
    """A pointer, ``count`` elements on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.gep(values[0], [values[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def nowhere(typing_context, pointer):
    """The null pointer of the pointer's type."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(values[0].type, None)

    return pointer(pointer), codegen


@intrinsic
def reserve(typing_context, pointer, count):
    """Memory for ``count`` elements of the pointer's dtype, to be given back by `release`.

    It holds anything, and begins anywhere. Arrays made by NumPy's functions cost half a second of
    compilation, and clear what is overwritten anyway.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        size = builder.mul(values[1], ir.Constant(INTP, pointer.dtype.bitwidth // 8))
        return builder.bitcast(context.nrt.allocate(builder, size), values[0].type)

    return pointer(pointer, types.intp), codegen


@intrinsic(prefer_literal=True)
def stack_memory(typing_context, pointer, size):
    """Room for ``size``, a literal, elements of the pointer's dtype, until the function returns; it holds anything."""
    count = size.literal_value

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        # Numba's `alloca_once` clears it at each call: 0.7 us for 64 KiB.
        with builder.goto_entry_block():
            slot = builder.alloca(ir.ArrayType(context.get_value_type(pointer.dtype), count))
        slot.align = VECTOR_BYTES
        return builder.bitcast(slot, values[0].type)

    return pointer(pointer, size), codegen


@intrinsic
def release(typing_context, pointer):
    """Give back what `reserve` returned."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        context.nrt.free(builder, builder.bitcast(values[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.none(pointer), codegen


@intrinsic
def is_nowhere(typing_context, pointer):
    """Whether this is the null pointer."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.icmp_unsigned("==", builder.ptrtoint(values[0], INTP), ir.Constant(INTP, 0))

    return types.boolean(pointer), codegen


@intrinsic
def integers(typing_context, pointer):
    """The same address, to read and write int64 at."""
    target = types.CPointer(types.int64)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.bitcast(values[0], context.get_value_type(target))

    return target(pointer), codegen


@intrinsic
def at(typing_context, table, row, columns, column):
    """The entry of a table of int64 with so many columns."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        start, row_number, n_columns, position = values
        index = builder.add(builder.mul(row_number, n_columns), position)
        return builder.load(builder.gep(start, [index]))

    return types.intp(table, types.intp, types.intp, types.intp), codegen


@intrinsic
def least(typing_context, a, b):
    """The smaller of two integers; Numba compiles ``min`` anew for each pair of types."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.select(builder.icmp_signed("<", *values), *values)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def most(typing_context, a, b):
    """The larger of two integers."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.select(builder.icmp_signed(">", *values), *values)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def lanes_of(typing_context, pointer):
    """Lanes in a vector of the pointer's dtype."""
    lanes = Vector(pointer.dtype).lanes

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(INTP, lanes)

    return types.intp(pointer), codegen


def load_vector(builder: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Load with the alignment of an element, since rows of a user's array lie anywhere."""
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=_element_bytes(vector))


def store_vector(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    """Store with the alignment of an element."""
    target = builder.bitcast(pointer, value.type.as_pointer())
    builder.store(value, target, align=_element_bytes(value.type))


def _element_bytes(vector: ir.VectorType) -> int:
    return 4 if isinstance(vector.element, ir.FloatType) else 8


@intrinsic
def load(typing_context, pointer, index):
    """The vector that begins ``index`` elements on."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        return load_vector(builder, pointer, context.get_value_type(vector))

    return vector(pointer, types.intp), codegen


@intrinsic
def load_first(typing_context, pointer, index, count):
    """`load` where only the first ``count`` elements are read, and the other lanes are +0: at the end of an array."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data, index, count = values
        kind = context.get_value_type(vector)
        address = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
        mask, zeros = first_lanes(builder, count, kind.count), ir.Constant(kind, None)
        name = f"llvm.masked.load.v{kind.count}f{8 * _element_bytes(kind)}.p0"
        parameters = [address.type, INT32, mask.type, kind]
        masked_load = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, parameters), name)
        return builder.call(masked_load, [address, ir.Constant(INT32, _element_bytes(kind)), mask, zeros])

    return vector(pointer, types.intp, types.intp), codegen


def first_lanes(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """For each lane, whether it is one of the first ``count``."""
    # Numbers as wide as the lanes, which one comparison of a vector is enough for.
    number = ir.IntType(8 * VECTOR_BYTES // lanes)
    positions = ir.Constant(ir.VectorType(number, lanes), [ir.Constant(number, lane) for lane in range(lanes)])
    if number.width < count.type.width:
        count = builder.trunc(count, number)
    return builder.icmp_signed("<", positions, broadcast(builder, count, lanes))


@intrinsic
def store(typing_context, pointer, index, value):
    """Store a vector ``index`` elements on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        store_vector(builder, values[2], pointer)
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
                parts.append(load_vector(builder, row_start, ir.VectorType(whole.element, size)))
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
                store_vector(builder, builder.shuffle_vector(joined, zeros, _mask(lane_of)), row_start)
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
def start(typing_context, pointer, index):
    """What a sum begins with that is stored ``index`` elements on: +0 (in `tracing` a group of rows goes on)."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(context.get_value_type(vector), None)

    return vector(pointer, types.intp), codegen


@intrinsic
def keep_first(typing_context, vector, count):
    """The first ``count`` lanes, and +0 in the others."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        x = Lanes(builder, values[0])
        return builder.select(first_lanes(builder, values[1], vector.lanes), x.value, x.constant(0.0))

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
