"""Forward pass, backpropagation and the training loop.

A batch is worked through in blocks of at most 256 rows: forward, backward, and the block's gradient
added to the batch's. The planes of a block (inputs of the activations, their outputs, deltas) lie
in one workspace of constant size. Lanes run across the units of a layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet.contract import (
    ACTIVATION,
    BATCH_START,
    BATCH_WEIGHT,
    BIAS,
    BLOCK_ROWS,
    EPOCH,
    ERROR_SUM,
    FINISHED,
    FIRST_ORDERED_EPOCH,
    LOSS_SUM,
    N_INPUTS,
    N_OUTPUTS,
    N_SUMS,
    NEXT_ROW,
    NOT_FINITE,
    PAUSED,
    STOP_EPOCH,
    STRIDE,
    WEIGHT_SUM,
    WEIGHTS,
)
from fastnet.kernels import activations, losses, optimizers
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.linear import copy_transposed, entry, layout_size, padded, product, row_sum, rows, target, view
from fastnet.kernels.memory import aligned, all_zero, keep, lanes_of, load, pointer, splat, store
from fastnet.kernels.simd import Lanes, fma, staged

__all__ = ["forward", "gradient", "train"]

#: Columns of a plan, which says where a block's planes begin in the workspace, with one row for each
#: layer: the inputs of its activation, its outputs, its deltas, its transposed weights.
(_Z, _A, _DELTA, _TRANSPOSED) = range(4)
_PLAN_COLUMNS = 4


class _Net(NamedTuple):
    """A network and the memory it is worked with, as pointers."""

    layout: Any
    n_layers: int
    parameters: Any
    plan: Any
    workspace: Any
    #: Weighted sums of the losses of each output unit, then sums of its absolute errors.
    unit_sums: Any


@staged
def _square_added(w: Lanes, total: Lanes) -> Lanes:
    return fma(w, w, total)


@staged
def _poisoned(total: Lanes, w: Lanes) -> Lanes:
    """The total, a zero, made NaN where w is not finite."""
    return fma(w, 0.0, total)


@jit_inline
def _place(net, layer, plane):
    return net.plan[layer * _PLAN_COLUMNS + plane]


@jit_inline
def _make_plan(layout, parameters, n_rows):
    """The plan for blocks of ``n_rows``, and the size of the workspace, with room to align it."""
    table, data = pointer(layout), pointer(parameters)
    plan = np.zeros((layout.shape[0], _PLAN_COLUMNS), np.int64)
    end = 0
    for layer in range(layout.shape[0]):
        for plane in range(_TRANSPOSED):
            plan[layer, plane] = end
            # Rows that share a vector are computed in groups, of which the last may not be full.
            end += padded(data, n_rows) * entry(table, layer, STRIDE)
        plan[layer, _TRANSPOSED] = end
        if layer > 0:
            end += entry(table, layer, N_OUTPUTS) * padded(data, entry(table, layer, N_INPUTS))
    return plan, end + lanes_of(data)


@jit_inline
def _net(layout, parameters, plan, workspace, unit_sums):
    """The pointers of these arrays, which have to outlive them."""
    return _Net(
        pointer(layout),
        layout.shape[0],
        pointer(parameters),
        pointer(plan),
        aligned(pointer(workspace)),
        pointer(unit_sums),
    )


@jit_inline
def _transpose_weights(net):
    """Refresh the transposed weights, which the back-projection reads row by row."""
    for layer in range(1, net.n_layers):
        n_inputs = entry(net.layout, layer, N_INPUTS)
        copy_transposed(
            net.workspace,
            _place(net, layer, _TRANSPOSED),
            entry(net.layout, layer - 1, STRIDE),
            net.parameters,
            entry(net.layout, layer, WEIGHTS),
            entry(net.layout, layer, STRIDE),
            n_inputs,
            entry(net.layout, layer, N_OUTPUTS),
        )


@jit_inline
def _forward_block(net, x, n_rows):
    """Inputs and outputs of every layer's activation, for the rows of the view x."""
    source = x
    for layer in range(net.n_layers):
        stride = entry(net.layout, layer, STRIDE)
        z, a = _place(net, layer, _Z), _place(net, layer, _A)
        bias = entry(net.layout, layer, BIAS)
        product(
            target(net.workspace, z, stride, False),
            source,
            rows(net.parameters, entry(net.layout, layer, WEIGHTS), stride),
            rows(net.parameters, bias, 0),
            n_rows,
            entry(net.layout, layer, N_INPUTS),
            stride,
        )
        n_outputs = entry(net.layout, layer, N_OUTPUTS)
        activations.forward_rows(entry(net.layout, layer, ACTIVATION), net.workspace, z, a, n_rows, n_outputs, stride)
        source = view(net.workspace, a, stride, 1)


@jit_inline
def _backward_block(net, x, n_rows, gradient, add):
    """Gradients of every layer from the deltas of the last, and the deltas on the way."""
    no_bias = rows(net.parameters, -1, 0)
    for layer in range(net.n_layers - 1, -1, -1):
        stride = entry(net.layout, layer, STRIDE)
        delta = rows(net.workspace, _place(net, layer, _DELTA), stride)
        if layer == 0:
            inputs = view(x.data, x.first, x.column, x.row)
        else:
            inputs = view(net.workspace, _place(net, layer - 1, _A), 1, entry(net.layout, layer - 1, STRIDE))
        product(
            target(gradient, entry(net.layout, layer, WEIGHTS), stride, add),
            inputs,
            delta,
            no_bias,
            entry(net.layout, layer, N_INPUTS),
            n_rows,
            stride,
        )
        bias = entry(net.layout, layer, BIAS)
        if bias >= 0:
            row_sum(gradient, bias, net.workspace, delta.first, n_rows, stride, add)
        if layer > 0:
            width = entry(net.layout, layer - 1, STRIDE)
            below = _place(net, layer - 1, _DELTA)
            product(
                target(net.workspace, below, width, False),
                view(net.workspace, delta.first, stride, 1),
                rows(net.workspace, _place(net, layer, _TRANSPOSED), width),
                no_bias,
                n_rows,
                entry(net.layout, layer, N_OUTPUTS),
                width,
            )
            activations.backward_rows(
                entry(net.layout, layer - 1, ACTIVATION),
                net.workspace,
                below,
                _place(net, layer - 1, _Z),
                _place(net, layer - 1, _A),
                n_rows,
                width,
            )


@jit_inline
def _block(net, x, y, weight, order, first_row, n_rows, objective, gradient, add):
    """Forward, loss and backward for a block: the view x, and the targets of the samples ``order[first_row:]``."""
    last = net.n_layers - 1
    n_outputs, stride = entry(net.layout, last, N_OUTPUTS), entry(net.layout, last, STRIDE)
    _forward_block(net, x, n_rows)
    losses.output_rows(
        objective.loss,
        entry(net.layout, last, ACTIVATION),
        objective.parameter,
        net.workspace,
        _place(net, last, _Z),
        _place(net, last, _A),
        _place(net, last, _DELTA),
        y,
        order,
        first_row,
        weight,
        n_rows,
        n_outputs,
        stride,
        net.unit_sums,
    )
    _backward_block(net, x, n_rows, gradient, add)
    loss, error = 0.0, 0.0
    for unit in range(n_outputs):
        loss += np.float64(net.unit_sums[unit])
        error += np.float64(net.unit_sums[stride + unit])
    return loss, error


@jit_inline
def _penalty(net, l2):
    """l2 / 2 times the squared weights: each column in order, then the columns, then the layers."""
    lanes = lanes_of(net.parameters)
    total = 0.0
    for layer in range(net.n_layers):
        stride, n_outputs = entry(net.layout, layer, STRIDE), entry(net.layout, layer, N_OUTPUTS)
        layer_total = 0.0
        for unit in range(0, stride, lanes):
            accumulator = splat(net.parameters, 0.0)
            index = entry(net.layout, layer, WEIGHTS) + unit
            for _ in range(entry(net.layout, layer, N_INPUTS)):
                accumulator = _square_added(load(net.parameters, index), accumulator)
                index += stride
            store(net.unit_sums, 0, accumulator)
            for lane in range(min(lanes, n_outputs - unit)):
                layer_total += np.float64(net.unit_sums[lane])
        total += layer_total
    return 0.5 * l2 * total


@jit_inline
def _is_finite(parameters, size):
    total = splat(parameters, 0.0)
    for index in range(0, size, lanes_of(parameters)):
        total = _poisoned(total, load(parameters, index))
    return all_zero(total)


@jit_inline
def _check_samples(layout, parameters, samples):
    """Refuse arrays that do not fit together: pointers would lead past their ends."""
    n_samples, n_inputs = samples.x.shape
    if parameters.size < layout_size(layout):
        raise ValueError("parameters must have the size of the layout")
    if n_inputs != layout[0, N_INPUTS]:
        raise ValueError("x must have a column for each input of the network")
    if samples.y.shape != (n_samples, layout[layout.shape[0] - 1, STRIDE]) or samples.weight.size != n_samples:
        raise ValueError("y, padded to the output layer's stride, and weight must have a row for each row of x")
    if samples.order.shape[1] != n_samples:
        raise ValueError("order must have a column for each row of x")
    for epoch in range(samples.order.shape[0]):
        for row in range(n_samples):
            if samples.order[epoch, row] < 0 or samples.order[epoch, row] >= n_samples:
                raise ValueError("order must hold numbers of rows of x")


@jit_inline
def _check_records(layout, objective, update, progress):
    """Refuse records of other sizes than the layout and the epochs have."""
    size, stop = layout_size(layout), progress.cursor[STOP_EPOCH]
    if progress.gradient.size != size or update.slots.shape[1] != size:
        raise ValueError("gradient and state must have the size of the layout")
    if min(progress.loss_curve.size, progress.mean_absolute_error.size, update.learning_rates.size) < stop:
        raise ValueError("the curves and the learning rates must reach up to the stop epoch")
    if objective.batch_size < 1:
        raise ValueError("batch_size must be at least 1")


@jit
def forward(layout, parameters, x, out):
    """The network's outputs for the rows of x, written to ``out`` and returned.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (size,) array
        Padded buffer.
    x : (n_samples, n_inputs) array, C-contiguous
    out : (n_samples, n_outputs) array
    """
    n_samples = x.shape[0]
    if parameters.size < layout_size(layout):
        raise ValueError("parameters must have the size of the layout")
    if x.shape[1] != layout[0, N_INPUTS] or out.shape != (n_samples, layout[layout.shape[0] - 1, N_OUTPUTS]):
        raise ValueError("x and out must have a column for each input and output of the network, and as many rows")
    plan, size = _make_plan(layout, parameters, min(n_samples, BLOCK_ROWS))
    workspace = np.zeros(size, parameters.dtype)
    net = _net(layout, parameters, plan, workspace, workspace)
    last = layout.shape[0] - 1
    n_inputs, stride = layout[0, N_INPUTS], layout[last, STRIDE]
    for low in range(0, n_samples, BLOCK_ROWS):
        n_rows = min(BLOCK_ROWS, n_samples - low)
        _forward_block(net, view(pointer(x), low * n_inputs, n_inputs, 1), n_rows)
        for row in range(n_rows):
            for unit in range(layout[last, N_OUTPUTS]):
                out[low + row, unit] = net.workspace[_place(net, last, _A) + row * stride + unit]
    keep(plan)
    keep(workspace)
    return out


@jit
def gradient(layout, parameters, samples, objective, out):
    """The gradient of the summed losses of all samples as one batch, written to ``out``; returns their sum.

    Neither the penalty nor the reduction to a mean is applied; `fastnet.kernels.optimizers.step`
    does both. ``out`` is laid out like ``parameters``.
    """
    _check_samples(layout, parameters, samples)
    if out.size != parameters.size:
        raise ValueError("out must have the size of the parameters")
    n_samples, n_inputs = samples.x.shape
    plan, size = _make_plan(layout, parameters, min(n_samples, BLOCK_ROWS))
    workspace = np.zeros(size, parameters.dtype)
    unit_sums = np.zeros(2 * layout[layout.shape[0] - 1, STRIDE], parameters.dtype)
    net = _net(layout, parameters, plan, workspace, unit_sums)
    _transpose_weights(net)
    natural = np.arange(n_samples)
    total = 0.0
    for low in range(0, n_samples, BLOCK_ROWS):
        loss, _ = _block(
            net,
            view(pointer(samples.x), low * n_inputs, n_inputs, 1),
            pointer(samples.y),
            pointer(samples.weight),
            pointer(natural),
            low,
            min(BLOCK_ROWS, n_samples - low),
            objective,
            pointer(out),
            low > 0,
        )
        total += loss
    keep(plan)
    keep(workspace)
    keep(unit_sums)
    keep(natural)
    return total


@jit
def train(layout, parameters, samples, objective, update, progress, n_blocks):
    """Train in place up to the cursor's stop epoch, for at most ``n_blocks`` blocks of rows.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (size,) array
        Padded buffer, changed in place.
    samples, objective, update, progress
        The records of `fastnet.contract`; ``update`` and ``progress`` are changed in place.
    n_blocks : int
        Blocks of at most 256 rows after which to pause, in the middle of an epoch if need be.

    Returns
    -------
    int
        ``FINISHED``, ``PAUSED`` or ``NOT_FINITE``. In the last case the cursor stays in the batch whose
        loss was not finite, which has changed no parameter, or at the epoch after which a parameter was not.
    """
    _check_samples(layout, parameters, samples)
    _check_records(layout, objective, update, progress)
    n_samples, n_inputs = samples.x.shape
    block_rows = min(objective.batch_size, BLOCK_ROWS, n_samples)
    plan, size = _make_plan(layout, parameters, block_rows)
    workspace = np.zeros(size, parameters.dtype)
    unit_sums = np.zeros(2 * layout[layout.shape[0] - 1, STRIDE], parameters.dtype)
    net = _net(layout, parameters, plan, workspace, unit_sums)
    is_ordered = samples.order.shape[0] > 0
    gathered = np.empty((block_rows if is_ordered else 0, n_inputs), parameters.dtype)
    natural = np.arange(0 if is_ordered else n_samples)
    order = pointer(samples.order) if is_ordered else pointer(natural)
    status = _run(
        net,
        pointer(samples.x),
        pointer(samples.y),
        pointer(samples.weight),
        order,
        n_samples,
        n_inputs,
        is_ordered,
        pointer(gathered),
        objective,
        optimizers.state_of(update, parameters.size),
        pointer(update.learning_rates),
        pointer(progress.cursor),
        pointer(progress.sums),
        pointer(progress.gradient),
        pointer(progress.loss_curve),
        pointer(progress.mean_absolute_error),
        n_blocks,
    )
    keep(plan)
    keep(workspace)
    keep(unit_sums)
    keep(gathered)
    keep(natural)
    return status


@jit_inline
def _gather(target, x, order, first_row, n_rows, n_inputs):
    for row in range(n_rows):
        source = order[first_row + row] * n_inputs
        for column in range(n_inputs):
            target[row * n_inputs + column] = x[source + column]


@jit_inline
def _run(
    net,
    x,
    y,
    weight,
    order,
    n_samples,
    n_inputs,
    is_ordered,
    gathered,
    objective,
    state,
    learning_rates,
    cursor,
    sums,
    gradient,
    loss_curve,
    mean_absolute_error,
    n_blocks,
):
    """`train` on pointers."""
    n_outputs = entry(net.layout, net.n_layers - 1, N_OUTPUTS)
    _transpose_weights(net)
    while cursor[EPOCH] < cursor[STOP_EPOCH]:
        if n_blocks == 0:
            return PAUSED
        n_blocks -= 1
        epoch, first, low = cursor[EPOCH], cursor[BATCH_START], cursor[NEXT_ROW]
        end = min(first + objective.batch_size, n_samples)
        high = min(low + BLOCK_ROWS, end)
        first_row = low
        block = view(x, low * n_inputs, n_inputs, 1)
        if is_ordered:
            first_row += (epoch - cursor[FIRST_ORDERED_EPOCH]) * n_samples
            _gather(gathered, x, order, first_row, high - low, n_inputs)
            block = view(gathered, 0, n_inputs, 1)
        loss, error = _block(net, block, y, weight, order, first_row, high - low, objective, gradient, low > first)
        if low == first:
            sums[BATCH_WEIGHT] = 0.0
        sums[LOSS_SUM] += loss
        sums[ERROR_SUM] += error
        for row in range(first_row, first_row + high - low):
            sums[BATCH_WEIGHT] += np.float64(weight[order[row]])
        cursor[NEXT_ROW] = high
        if high < end:
            continue
        if objective.l2 != 0:
            sums[LOSS_SUM] += _penalty(net, objective.l2)
        if not np.isfinite(sums[LOSS_SUM]):
            loss_curve[epoch] = sums[LOSS_SUM]
            mean_absolute_error[epoch] = sums[ERROR_SUM] / (end * n_outputs)
            return NOT_FINITE
        sums[WEIGHT_SUM] += sums[BATCH_WEIGHT]
        optimizers.step_layers(
            net.layout,
            net.n_layers,
            net.parameters,
            gradient,
            sums[BATCH_WEIGHT],
            objective,
            state,
            learning_rates[epoch],
        )
        _transpose_weights(net)
        cursor[BATCH_START] = end
        if end < n_samples:
            continue
        total_weight = sums[WEIGHT_SUM] if objective.mean else 1.0
        loss_curve[epoch] = sums[LOSS_SUM] / total_weight
        mean_absolute_error[epoch] = sums[ERROR_SUM] / (n_samples * n_outputs)
        for position in range(N_SUMS):
            sums[position] = 0.0
        cursor[BATCH_START] = 0
        cursor[NEXT_ROW] = 0
        if not (np.isfinite(loss_curve[epoch]) and _is_finite(net.parameters, state.size)):
            return NOT_FINITE
        cursor[EPOCH] = epoch + 1
    return FINISHED
