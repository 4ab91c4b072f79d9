"""What two threads of a training hand each other between the regions of a step.

A cache line of which two cores have a copy takes its writer 7 ns: the other copy has to be called in. One that the
reader has written, too, belongs to it, and comes back within 1.2 ns (Zen 4). So each of two threads works on planes and
parameters of its own, and what the other one needs is copied once, through memory with one writer and one reader at a
time; the reader writes to each line what it has read. A step of 64-100-10 on 200 rows took 57 us where both worked on
the same memory, and takes 47.

With more threads a line would have several readers, and none could own it: these work on the same memory, as do two
whose copies would exceed `fastnet.kernels.workspace.EXCHANGED_BYTES`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.contract import BIAS, N_INPUTS, STRIDE, WEIGHTS
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import lanes_of, load, store
from fastnet.kernels.products import ROWS_TOGETHER, entry, padded
from fastnet.kernels.regions import gather
from fastnet.kernels.team import other_part, share
from fastnet.kernels.workspace import A_PLANE, DELTA_PLANE, place


@intrinsic
def _own_line(typing_context, pointer, index):
    """Write an element to where it has been read: the cache line is this core's then."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        word = ir.IntType(pointer.dtype.bitwidth)
        address = builder.bitcast(builder.gep(values[0], [values[1]]), word.as_pointer())
        # Atomic, or LLVM would leave out both.
        value = builder.load_atomic(address, "monotonic", word.width // 8)
        builder.store_atomic(value, address, "monotonic", word.width // 8)
        return context.get_dummy_value()

    return types.none(pointer, types.intp), codegen


@jit_part
def _copy(target, source, first, n_rows, width, stride, owns):
    """Copy rows of whole vectors to the same places of another memory; with ``owns`` this core has their lines then."""
    for _ in range(n_rows):
        for index in range(first, first + width, lanes_of(source)):
            store(target, index, load(source, index))
            if owns:
                _own_line(source, index)
        first += stride


@jit_inline
def give_rows(net, low, high, part):
    """After the first region: what the other thread needs of this one's rows, where ``part`` is this one's part.

    Nothing more: of what nobody takes, too, the other core would fetch a copy, because it reads ahead.
    """
    if net.exchanges:
        _copy_rows(net, low, high, other_part(part), True)


@jit_inline
def take_rows(net, samples, first_row, n_rows, together, part_of_rows, part):
    """Before the second region: what the thread needs of the other one's rows for its part of the weights."""
    if net.exchanges:
        low, high = share(n_rows, together, other_part(part_of_rows))
        if samples.is_ordered:
            low_input, high_input = share(samples.n_inputs, ROWS_TOGETHER, part)
            gather(net, samples, first_row, low, high, low_input, high_input)
        _copy_rows(net, low, high, part, False)


@jit_part
def _copy_rows(net, low, high, part, gives):
    """Deltas, losses and distances, and the outputs that are inputs of a part of the next layer's weights."""
    target, source = (net.shared_planes, net.planes) if gives else (net.planes, net.shared_planes)
    last, lanes = net.n_layers - 1, lanes_of(source)
    for layer in range(net.n_layers):
        stride = entry(net.layout, layer, STRIDE)
        first, size = low * stride, (high - low) * stride
        _copy(target, source, place(net, layer, DELTA_PLANE) + first, 1, size, size, not gives)
        if layer == last:
            _copy(target, source, net.losses + first, 1, size, size, not gives)
            _copy(target, source, net.distances + first, 1, size, size, not gives)
        else:
            low_unit, high_unit = share(entry(net.layout, layer + 1, N_INPUTS), ROWS_TOGETHER, part)
            low_unit = low_unit // lanes * lanes
            width = padded(source, high_unit - low_unit)
            _copy(target, source, place(net, layer, A_PLANE) + first + low_unit, high - low, width, stride, not gives)


@jit_inline
def give_parameters(net, part):
    """After the second region: the thread's part of the parameters."""
    if net.exchanges:
        _copy_parameters(net, part, True)


@jit_inline
def take_parameters(net, part):
    """Before the first region: the other thread's part of the parameters."""
    if net.exchanges:
        _copy_parameters(net, other_part(part), False)


@jit_part
def _copy_parameters(net, part, gives):
    """A part of the weights and biases of all layers."""
    target, source = (net.shared_parameters, net.parameters) if gives else (net.parameters, net.shared_parameters)
    for layer in range(net.n_layers):
        stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
        low, high = share(entry(net.layout, layer, N_INPUTS), ROWS_TOGETHER, part)
        size = (high - low) * stride
        _copy(target, source, entry(net.layout, layer, WEIGHTS) + low * stride, 1, size, size, not gives)
        if bias >= 0:
            low, high = share(stride, lanes_of(source), part)
            _copy(target, source, bias + low, 1, high - low, high - low, not gives)


@jit_inline
def take_all_parameters(net, size):
    """At the beginning of a call: all parameters, as they were given to it."""
    if net.exchanges:
        _copy(net.parameters, net.shared_parameters, 0, 1, size, size, False)
