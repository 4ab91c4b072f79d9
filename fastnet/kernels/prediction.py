"""The forward pass alone, in blocks of rows that two planes of memory hold.

Lanes run across the units of a layer, as in training, or across rows of the samples: then no lane is idle, however
narrow a layer is, but inputs and outputs have to be transposed. The sums are the same, each over its terms in order.
"""

from __future__ import annotations

from typing import NamedTuple

from fastnet.contract import ACTIVATION, BIAS, BLOCK_ROWS, N_INPUTS, N_OUTPUTS, RELU, SOFTMAX, STRIDE, WEIGHTS
from fastnet.kernels.activations import forward_span, softmax_columns
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import (
    aligned,
    is_nowhere,
    lanes_of,
    least,
    most,
    moved,
    plain_pointer,
    pointer,
    splat,
    stack_memory,
    store,
)
from fastnet.kernels.packing import transpose_square
from fastnet.kernels.products import entry, finished_target, large_product, padded, rounded_up, scratch_size, view
from fastnet.kernels.regions import all_finite, layer_forward
from fastnet.kernels.team import count_up, tell, told
from fastnet.kernels.tiles import AS_SUMMED, RELU_FORWARD, few_rows, tile_vectors

#: Elements of the memory on the stack, and rows for which it is used.
STACK_ELEMENTS = 8192
FEW_ROWS = 16
#: Vectors of rows in a block with rows across the lanes: twice as many took 1.01, a third 1.02 of the time.
VECTORS_OF_ROWS = 12
#: What threads count that predict together, each in a cache line: pieces that are taken, and one that is not finite.
NEXT_PIECE, STOPPED, N_COUNTS = 0, 8, 16
#: What a vector of inputs or outputs takes to be transposed, in fma of vectors.
TRANSPOSED = 7


class Needs(NamedTuple):
    """What memory `forward_blocks` needs, and how it goes about it."""

    block_rows: int
    #: Rows of a plane with rows across the lanes, else its columns.
    widest: int
    #: Elements of memory; 0 if the stack will do.
    size: int
    has_rows_in_lanes: bool


@jit_inline
def needs_of(layout, parameters, n_samples):
    """What so many rows need: on the stack for a few rows, so that nothing is allocated."""
    table, n_layers, data = pointer(layout), layout.shape[0], pointer(parameters)
    widest, most_terms = 0, 0
    for layer in range(n_layers):
        widest = most(widest, entry(table, layer, STRIDE))
        most_terms = most(most_terms, entry(table, layer, N_INPUTS))
    # So few rows are multiplied without scratch memory.
    few = least(n_samples, FEW_ROWS)
    if n_samples == few and 2 * padded(data, few) * widest <= STACK_ELEMENTS:
        return Needs(few, widest, 0, False)
    has_rows_in_lanes = _pays_with_rows_in_lanes(table, n_layers, data, n_samples)
    if has_rows_in_lanes:
        widest = most(widest, padded(data, most_terms))
        block_rows = least(padded(data, n_samples), VECTORS_OF_ROWS * lanes_of(data))
        # The products' rows are units, and begin with as many vectors of biases as tiles have.
        size = (2 * block_rows + tile_vectors(data) * lanes_of(data)) * widest + scratch_size(data, widest, widest)
    else:
        block_rows = least(n_samples, BLOCK_ROWS)
        size = 2 * padded(data, block_rows) * widest + scratch_size(data, most_terms, block_rows)
    return Needs(block_rows, widest, size + lanes_of(data), has_rows_in_lanes)


@jit_inline
def _pays_with_rows_in_lanes(layout, n_layers, data, n_samples):
    """Whether rows across the lanes take fewer fma of vectors than units do."""
    lanes = lanes_of(data)
    with_units, with_rows = 0, TRANSPOSED * (entry(layout, 0, N_INPUTS) + entry(layout, n_layers - 1, N_OUTPUTS))
    for layer in range(n_layers):
        n_inputs, n_outputs = entry(layout, layer, N_INPUTS), entry(layout, layer, N_OUTPUTS)
        with_units += n_inputs * rounded_up(n_outputs, lanes // 2)
        with_rows += n_inputs * rounded_up(n_outputs, few_rows(data))
    return with_rows * padded(data, n_samples) < with_units * n_samples


@jit_inline
def forward_blocks(layout, parameters, x, out, low, end, needs, memory):
    """Write the outputs for the rows ``low`` to ``end`` of x to ``out``, in so much memory, or on the stack."""
    table, n_layers, data = pointer(layout), layout.shape[0], pointer(parameters)
    memory = stack_memory(data, STACK_ELEMENTS) if needs.size == 0 else aligned(memory)
    if needs.has_rows_in_lanes:
        _rows_in_lanes(table, n_layers, data, x, out, low, end, needs.block_rows, needs.widest, memory)
    else:
        _units_in_lanes(table, n_layers, data, x, out, low, end, needs.block_rows, needs.widest, memory)


@jit_part
def forward_pieces(arguments, thread, n_threads):
    """One thread's part of a prediction: pieces of rows, one after the other, until one is not finite."""
    layout, parameters, x, out, needs, workspace, rows_at_once, counts = arguments
    n_samples, n_inputs = x.shape
    memory = moved(workspace, thread * needs.size)
    low = count_up(moved(counts, NEXT_PIECE)) * rows_at_once
    while low < n_samples and told(moved(counts, STOPPED)) == 0:
        end = least(low + rows_at_once, n_samples)
        if all_finite(moved(pointer(x), low * n_inputs), (end - low) * n_inputs):
            forward_blocks(layout, parameters, x, out, low, end, needs, memory)
            low = count_up(moved(counts, NEXT_PIECE)) * rows_at_once
        else:
            tell(moved(counts, STOPPED), 1)


@jit_part
def _units_in_lanes(layout, n_layers, parameters, x, out, low, end, block_rows, widest, memory):
    """`forward_blocks` with units across the lanes; the memory holds two planes, then what products need."""
    values, n_inputs = pointer(x), x.shape[1]
    plane = padded(parameters, block_rows) * widest
    scratch = moved(memory, 2 * plane)
    last = n_layers - 1
    stride = entry(layout, last, STRIDE)
    for first in range(low, end, block_rows):
        n_rows = least(block_rows, end - first)
        source = view(values, first * n_inputs, n_inputs, 1)
        z = 0
        for layer in range(n_layers):
            # In place, but for the last layer's: softmax leaves its logarithm where its inputs were.
            a = z if layer < last else plane - z
            layer_forward(layout, layer, parameters, source, memory, z, a, n_rows, scratch)
            source = view(memory, a, entry(layout, layer, STRIDE), 1)
            z = plane - z
        for row in range(n_rows):
            for unit in range(entry(layout, last, N_OUTPUTS)):
                out[first + row, unit] = memory[a + row * stride + unit]


@jit_part
def _rows_in_lanes(layout, n_layers, parameters, x, out, low, end, block_rows, widest, memory):
    """`forward_blocks` with rows across the lanes: a plane has a row for each unit, of a column for each sample.

    The memory holds two planes, then vectors of biases, then what products need.
    """
    plane = block_rows * widest
    biases = moved(memory, 2 * plane)
    scratch = moved(biases, widest * tile_vectors(parameters) * lanes_of(parameters))
    for first in range(low, end, block_rows):
        n_rows = least(block_rows, end - first)
        width = padded(parameters, n_rows)
        _transpose_inputs(memory, width, x, first, n_rows)
        source, z = 0, plane
        for layer in range(n_layers):
            n_outputs, activation = entry(layout, layer, N_OUTPUTS), entry(layout, layer, ACTIVATION)
            large_product(
                finished_target(memory, z, width, RELU_FORWARD if activation == RELU else AS_SUMMED, 0),
                view(parameters, entry(layout, layer, WEIGHTS), 1, entry(layout, layer, STRIDE)),
                view(memory, source, width, 1),
                _bias_rows(biases, parameters, entry(layout, layer, BIAS), n_outputs),
                n_outputs,
                entry(layout, layer, N_INPUTS),
                width,
                scratch,
            )
            if activation == SOFTMAX:
                for column in range(0, width, lanes_of(parameters)):
                    softmax_columns(memory, z + column, source + column, n_outputs, width)
                z = source
            elif activation != RELU:
                forward_span(activation, memory, n_outputs * width, z, z)
            source, z = z, plane - z
        _transpose_outputs(out, first, n_rows, end, moved(memory, source), width, scratch)


@jit_inline
def _bias_rows(biases, parameters, bias, n_units):
    """The rows that sums begin with, each a unit's bias; the view's ``first`` is negative where there is none."""
    lanes = lanes_of(parameters)
    row = tile_vectors(parameters) * lanes
    if bias >= 0:
        for unit in range(n_units):
            vector = splat(parameters, parameters[bias + unit])
            for offset in range(0, row, lanes):
                store(biases, unit * row + offset, vector)
    return view(biases, 0 if bias >= 0 else -1, row, 0)


@jit_inline
def _transpose_inputs(to, width, x, first, n_rows):
    """Write rows of x as columns, and zeros past the last one."""
    values, n_inputs, lanes = pointer(x), x.shape[1], lanes_of(to)
    for row in range(0, n_rows, lanes):
        source, n = moved(values, (first + row) * n_inputs), least(lanes, n_rows - row)
        # What is narrower than a square is read with the beginning of the next row.
        if (first + row + n - 1) * n_inputs + lanes <= x.size:
            for column in range(0, n_inputs, lanes):
                low = most(0, least(column, n_inputs - lanes))
                transpose_square(moved(to, low * width + row), width, moved(source, low), n_inputs, n)
        else:
            for column in range(n_inputs):
                store(to, column * width + row, splat(to, 0.0))
                for lane in range(n):
                    to[column * width + row + lane] = source[lane * n_inputs + column]


@jit_inline
def _transpose_outputs(out, first, n_rows, end, source, width, scratch):
    """Write columns as rows of ``out``, which from the row ``end`` on belongs to others."""
    n_outputs, lanes = out.shape[1], lanes_of(source)
    target = plain_pointer(out, source)
    for row in range(0, n_rows, lanes):
        begin = first + row
        # What is narrower than a square is written with the beginning of the next row, which is written later.
        is_square = row + lanes <= n_rows and (begin + lanes - 1) * n_outputs + lanes <= end * n_outputs
        for column in range(0, n_outputs, lanes):
            low = most(0, least(column, n_outputs - lanes))
            square = moved(source, low * width + row)
            if is_square and not is_nowhere(target):
                place = moved(target, begin * n_outputs + low)
                transpose_square(place, n_outputs, square, width, n_outputs - low)
            else:
                transpose_square(scratch, lanes, square, width, n_outputs - low)
                for lane in range(least(lanes, n_rows - row)):
                    for unit in range(least(lanes, n_outputs - low)):
                        out[begin + lane, low + unit] = scratch[lane * lanes + unit]
