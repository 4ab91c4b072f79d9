"""The two regions of a step, on pointers: what happens to a block of rows, for threads to share.

In the first, rows go forward and their deltas backward; in the second, rows of the weights receive their gradient over
all the block's rows, and with the last block of a batch their step. No sum is split between threads, but for two of
which one goes on where the other has come to (`fastnet.kernels.relay`). Lanes run across the units of a layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastnet.contract import ACTIVATION, BIAS, N_INPUTS, N_OUTPUTS, RELU, STRIDE, WEIGHTS
from fastnet.kernels import activations, losses, optimizers
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import all_zero, lanes_of, least, load, most, moved, splat, store
from fastnet.kernels.narrow import narrow_product, takes_transpose
from fastnet.kernels.products import (
    ROWS_TOGETHER,
    copy_row,
    entry,
    finished_target,
    odd_stride,
    product,
    row_sum,
    target,
    view,
)
from fastnet.kernels.relay import hand_piece_on, piece_end, take_parameters, take_piece
from fastnet.kernels.simd import Lanes, fma, staged
from fastnet.kernels.team import share
from fastnet.kernels.tiles import AS_SUMMED, RELU_BACKWARD, RELU_FORWARD
from fastnet.kernels.workspace import A_PLANE, DELTA_PLANE, Z_PLANE, output_planes, place

#: Of 128 rows, two threads of mnist-like have better shares than with whole tiles (0.97 of the time).
HALF_TILE_ROWS = 4


@staged
def _square_added(w: Lanes, total: Lanes) -> Lanes:
    return fma(w, w, total)


@staged
def poisoned(total: Lanes, w: Lanes) -> Lanes:
    """The total, a zero, made NaN where w is not finite."""
    return fma(w, 0.0, total)


@jit_inline
def rows_together(net):
    """A block's rows are shared out in multiples of so many: of half tiles, and of rows that share a vector."""
    together = HALF_TILE_ROWS
    for layer in range(net.n_layers):
        part = 1
        while part < entry(net.layout, layer, N_OUTPUTS):
            part *= 2
        together = most(together, lanes_of(net.parameters) // least(part, lanes_of(net.parameters)))
    return together


@jit_inline
def forward_block(net, x, low, high, team, last_turn):
    """Inputs and outputs of every layer's activation, for the rows of the view x from ``low`` to ``high``.

    The first thread of a relay takes a layer's parameters when it comes to it.
    """
    source, number = view(x.data, x.first + low * x.row, x.row, x.column), last_turn + 2
    for layer in range(net.n_layers):
        if net.hands_on and last_turn >= 0:
            number = take_parameters(net, layer, team, number)
        stride = entry(net.layout, layer, STRIDE)
        z, a = place(net, layer, Z_PLANE) + low * stride, place(net, layer, A_PLANE) + low * stride
        layer_forward(net.layout, layer, net.parameters, source, net.planes, z, a, high - low, net.scratch)
        source = view(net.planes, a, stride, 1)


@jit_inline
def layer_forward(layout, layer, parameters, source, planes, z, a, n_rows, scratch):
    """Inputs and outputs of a layer's activation, written to positions z and a of the planes, for rows of a view."""
    stride, n_outputs = entry(layout, layer, STRIDE), entry(layout, layer, N_OUTPUTS)
    activation = entry(layout, layer, ACTIVATION)
    finish = RELU_FORWARD if activation == RELU and z == a else AS_SUMMED
    is_activated = product(
        finished_target(planes, z, stride, finish, 0),
        source,
        view(parameters, entry(layout, layer, WEIGHTS), stride, 1),
        view(parameters, entry(layout, layer, BIAS), 0, 1),
        n_rows,
        entry(layout, layer, N_INPUTS),
        n_outputs,
        scratch,
    )
    if not is_activated:
        activations.forward_rows(activation, planes, z, a, n_rows, n_outputs, stride)


@jit_inline
def backward_block(net, low, high):
    """The deltas of the layers below the last, for the rows from ``low`` to ``high``."""
    for layer in range(net.n_layers - 1, 0, -1):
        stride, width = entry(net.layout, layer, STRIDE), entry(net.layout, layer - 1, STRIDE)
        below, outputs = place(net, layer - 1, DELTA_PLANE) + low * width, place(net, layer - 1, A_PLANE) + low * width
        activation = entry(net.layout, layer - 1, ACTIVATION)
        finish = RELU_BACKWARD if activation == RELU else AS_SUMMED
        is_derived = product(
            finished_target(net.planes, below, width, finish, outputs),
            view(net.planes, place(net, layer, DELTA_PLANE) + low * stride, stride, 1),
            view(net.parameters, entry(net.layout, layer, WEIGHTS), 1, stride),
            view(net.parameters, -1, 0, 1),
            high - low,
            entry(net.layout, layer, N_OUTPUTS),
            entry(net.layout, layer, N_INPUTS),
            net.scratch,
        )
        if not is_derived:
            inputs = place(net, layer - 1, Z_PLANE) + low * width
            activations.backward_rows(activation, net.planes, below, inputs, outputs, high - low, width)


@jit_inline
def first_region(net, x, samples, first_row, objective, low, high, team, last_turn):
    """The first region, for the rows of a block from ``low`` to ``high``: forward, losses, backward.

    ``last_turn`` is what a relay had counted before the last block (`fastnet.kernels.relay`), or negative.
    """
    forward_block(net, x, low, high, team, last_turn)
    losses.output_rows(objective, output_planes(net), samples, first_row, low, high)
    backward_block(net, low, high)


@jit_inline
def layer_gradient(net, layer, x, first_row, n_rows, gradient, sums, add, low, high):
    """The gradient of a layer's rows of weights from ``low`` to ``high``, over ``n_rows`` rows of a block.

    It goes on from ``sums``, laid out like the gradient, unless ``sums.first`` is negative.
    """
    stride = entry(net.layout, layer, STRIDE)
    first, inputs = entry(net.layout, layer, WEIGHTS) + low * stride, view(x.data, x.first, x.column, x.row)
    if layer > 0:
        inputs = view(net.planes, place(net, layer - 1, A_PLANE), 1, entry(net.layout, layer - 1, STRIDE))
    result, n_outputs = target(gradient, first, stride, add), entry(net.layout, layer, N_OUTPUTS)
    inputs = view(inputs.data, inputs.first + low * inputs.row + first_row * inputs.column, inputs.row, inputs.column)
    deltas = view(net.planes, place(net, layer, DELTA_PLANE) + first_row * stride, stride, 1)
    begin = view(sums.data, sums.first + first if sums.first >= 0 else -1, stride, 1)
    # Of samples as they stand rows need not be whole vectors.
    if layer > 0 and takes_transpose(net.parameters, high - low, n_rows, n_outputs):
        narrow_product(result, inputs, deltas, begin, high - low, n_rows, n_outputs, net.scratch)
    else:
        product(result, inputs, deltas, begin, high - low, n_rows, n_outputs, net.scratch)


class Step(NamedTuple):
    """Whether a block is a batch's last one, after which a step is taken, and what it depends on."""

    is_taken: bool
    scale: float
    rate: float
    learning_rate: float


@jit_inline
def second_region(net, x, first_row, n_rows, records, add, step, objective, state, part, team, turn):
    """The second region: a part of the gradients, over some of a block's rows, and of the optimizer's step.

    ``turn`` is what a relay has counted before (`fastnet.kernels.relay`). Returns what it has counted then, and whether
    its second thread had to wait.
    """
    gradient = net.partial if net.hands_on else records.gradient
    begun = net.partial if add else records.gradient
    is_relay, waited, seen = net.hands_on or net.goes_on, False, 0
    scale, rate, learning_rate = step.scale, step.rate, step.learning_rate
    for layer in range(net.n_layers):
        stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
        low, end = share(entry(net.layout, layer, N_INPUTS), ROWS_TOGETHER, part)
        is_begun = False
        while low < end or not is_begun:
            high = piece_end(net, low, end, stride)
            if is_relay:
                turn += 1
                seen = take_piece(net, begun, layer, low, high, team, turn, seen)
                waited = waited or seen < 0
            for number in range(2):
                # Weights, then biases: one place where a step is taken, because it is a lot of code.
                l2 = objective.l2
                sums = view(begun, 0 if net.goes_on else -1, 0, 1)
                if number == 0:
                    first, last = low * stride, high * stride
                    layer_gradient(net, layer, x, first_row, n_rows, gradient, sums, add, low, high)
                    begin = entry(net.layout, layer, WEIGHTS)
                else:
                    l2 = 0.0
                    first, last = share(stride, lanes_of(net.parameters), part)
                    if bias < 0 or is_begun:
                        last = first
                    begin = bias
                    delta = place(net, layer, DELTA_PLANE) + first_row * stride + first
                    sums = view(begun, bias + first if net.goes_on else -1, 0, 1)
                    row_sum(gradient, bias + first, sums, net.planes, delta, n_rows, stride, last - first, add)
                if step.is_taken:
                    optimizers.step_span(
                        begin + first, begin + last, l2, scale, net.parameters, gradient, state, learning_rate, rate
                    )
            if is_relay:
                is_last = layer == net.n_layers - 1 and high == end
                hand_piece_on(net, layer, low, high, team, step.is_taken, turn, is_last)
            is_begun, low = True, high
    return turn, waited


@jit_inline
def square_columns(net, part):
    """A part of the sums of squares that `penalty_of` adds; it belongs to the first region."""
    position = 0
    for layer in range(net.n_layers):
        stride = entry(net.layout, layer, STRIDE)
        low, high = share(stride, lanes_of(net.parameters), part)
        for unit in range(low, high, lanes_of(net.parameters)):
            accumulator = splat(net.parameters, 0.0)
            index = entry(net.layout, layer, WEIGHTS) + unit
            for _ in range(entry(net.layout, layer, N_INPUTS)):
                accumulator = _square_added(load(net.parameters, index), accumulator)
                index += stride
            store(net.squares, position + unit, accumulator)
        position += stride


@jit_inline
def penalty_of(net, l2):
    """l2 / 2 times the squared weights: each column in order, then the columns, then the layers."""
    total, position = 0.0, 0
    for layer in range(net.n_layers):
        layer_total = 0.0
        for unit in range(entry(net.layout, layer, N_OUTPUTS)):
            layer_total += np.float64(net.squares[position + unit])
        total += layer_total
        position += entry(net.layout, layer, STRIDE)
    return 0.5 * l2 * total


@jit_inline
def sum_block(net, samples, first_row, low, high, goes_on):
    """The sums of the losses and of the absolute errors over a block's rows up to ``high``.

    They go on from ``net.sums`` with ``goes_on``; else ``low`` is the first row.
    """
    output = output_planes(net)
    losses.sum_rows(output, samples, first_row, low, high, net.sums, goes_on)
    return losses.sum_units(output, net.sums)


@jit_inline
def add_weights(net, samples, first_row, n_rows, total):
    """The samples' weights, added to ``total`` in order."""
    for row in range(first_row, first_row + n_rows):
        total += np.float64(samples.weight[samples.order[row]])
    return total


@jit_inline
def is_finite(data, size):
    """Whether the numbers of so many elements, which are whole vectors, are finite."""
    total = splat(data, 0.0)
    for index in range(0, size, lanes_of(data)):
        total = poisoned(total, load(data, index))
    return all_zero(total)


@jit_inline
def all_finite(data, size):
    """Whether so many numbers are finite."""
    whole = size // lanes_of(data) * lanes_of(data)
    rest = 0.0
    for index in range(whole, size):
        # Zero, or NaN.
        rest += data[index] * 0.0
    return rest == 0.0 and is_finite(data, whole)


@jit_part
def gather(net, samples, first_row, low, high, low_input, high_input):
    """Copy some inputs of the samples' rows from ``low`` to ``high`` to where rows lie `odd_stride` apart."""
    stride = odd_stride(samples.x, samples.n_inputs)
    for row in range(low, high):
        source = moved(samples.x, samples.order[first_row + row] * samples.n_inputs + low_input)
        copy_row(moved(net.gathered, row * stride + low_input), source, high_input - low_input)
