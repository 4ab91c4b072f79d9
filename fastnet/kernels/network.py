"""Forward pass, backpropagation and the training loop.

A batch is worked through in blocks of at most 256 rows, and a block in two regions that threads can share. In the
first, rows go forward and their deltas backward; in the second, rows of the weights receive their gradient over all
the block's rows, and with the last block of a batch their step. Nothing is summed across threads. The planes of a
block (inputs of the activations, their outputs, deltas) lie in one workspace of constant size. Lanes run across the
units of a layer.
"""

from __future__ import annotations

from math import isfinite
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
    NEXT_ROW,
    NOT_FINITE,
    PAUSED,
    STOP_EPOCH,
    STRIDE,
    WEIGHT_SUM,
    WEIGHTS,
)
from fastnet.kernels import activations, losses, optimizers
from fastnet.kernels.jit import jit, jit_inline, jit_part
from fastnet.kernels.linear import (
    copy_row,
    entry,
    layout_size,
    odd_stride,
    padded,
    product,
    row_sum,
    scratch_size,
    target,
    view,
)
from fastnet.kernels.memory import (
    aligned,
    all_zero,
    at,
    check_dtypes,
    destination,
    integers,
    is_nowhere,
    lanes_of,
    least,
    load,
    most,
    moved,
    pointer,
    release,
    reserve,
    splat,
    stack_memory,
    store,
)
from fastnet.kernels.simd import Lanes, fma, staged
from fastnet.kernels.team import alone, member, share, wait

__all__ = ["forward", "gradient", "train"]

#: Columns of a plan, which says where a block's planes begin in the workspace, with one row for each
#: layer: the inputs of its activation, its outputs, its deltas.
(_Z, _A, _DELTA) = range(3)
_PLAN_COLUMNS = 3
#: Elements of the memory on the stack, and rows for which it is used.
STACK_ELEMENTS = 8192
FEW_ROWS = 16


class _Net(NamedTuple):
    """A network and the memory it is worked with, as pointers."""

    layout: Any
    n_layers: int
    parameters: Any
    #: Where the planes begin.
    plan: Any
    planes: Any
    #: Positions of the planes of the losses and the absolute errors of the last layer.
    losses: int
    distances: int
    #: The sums of the squares of each column of weights, for the penalty.
    squares: Any
    #: Rows of a block in their order.
    gathered: Any
    #: 0, 1, 2, …
    natural: Any
    #: Of this thread alone: what the products need, and two vectors.
    scratch: Any
    sums: Any


class _Parts(NamedTuple):
    """Where the parts of a workspace begin, in elements."""

    squares: int
    gathered: int
    #: The parts of the threads, one after another.
    own: int
    n_own: int
    integers: int
    end: int


class _Records(NamedTuple):
    """A `Progress` and the learning rates as pointers."""

    cursor: Any
    sums: Any
    gradient: Any
    loss_curve: Any
    mean_absolute_error: Any
    learning_rates: Any


@staged
def _square_added(w: Lanes, total: Lanes) -> Lanes:
    return fma(w, w, total)


@staged
def _poisoned(total: Lanes, w: Lanes) -> Lanes:
    """The total, a zero, made NaN where w is not finite."""
    return fma(w, 0.0, total)


@jit_inline
def _place(net, layer, plane):
    return at(net.plan, layer, _PLAN_COLUMNS, plane)


@jit_inline
def _parts(layout, n_layers, data, n_rows, n_gathered, n_natural, n_threads):
    """The parts of the workspace for blocks of ``n_rows``."""
    n_planes, most_terms, n_squares = 0, n_rows, 0
    for layer in range(n_layers):
        stride = entry(layout, layer, STRIDE)
        # Rows that share a vector are computed in groups, of which the last may not be full.
        n_planes += _PLAN_COLUMNS * padded(data, n_rows) * stride
        most_terms = most(most_terms, most(entry(layout, layer, N_INPUTS), stride))
        n_squares += stride
    squares = n_planes + 2 * padded(data, n_rows) * entry(layout, n_layers - 1, STRIDE)
    gathered = squares + n_squares
    own = gathered + padded(data, n_gathered)
    n_own = padded(data, scratch_size(data, most_terms, most_terms)) + 2 * lanes_of(data)
    whole = own + n_threads * n_own
    # An integer takes at most two elements; then room to align the whole.
    return _Parts(
        squares, gathered, own, n_own, whole, whole + 2 * (n_layers * _PLAN_COLUMNS + n_natural) + lanes_of(data)
    )


@jit_inline
def _make_net(layout, n_layers, parameters, parts, n_rows, memory, thread):
    """The network with its memory; `_fill` has to be called once."""
    workspace = aligned(memory)
    last = n_layers - 1
    n_plane = padded(parameters, n_rows) * entry(layout, last, STRIDE)
    plan = integers(moved(workspace, parts.integers))
    own = moved(workspace, parts.own + thread * parts.n_own)
    return _Net(
        layout,
        n_layers,
        parameters,
        plan,
        workspace,
        parts.squares - 2 * n_plane,
        parts.squares - n_plane,
        moved(workspace, parts.squares),
        moved(workspace, parts.gathered),
        moved(plan, n_layers * _PLAN_COLUMNS),
        moved(own, 2 * lanes_of(parameters)),
        own,
    )


@jit_inline
def _fill(net, n_rows, n_natural):
    """Write the plan and the natural order."""
    position, end = 0, 0
    for layer in range(net.n_layers):
        for _ in range(_PLAN_COLUMNS):
            net.plan[position] = end
            position += 1
            end += padded(net.parameters, n_rows) * entry(net.layout, layer, STRIDE)
    for row in range(n_natural):
        net.natural[row] = row


@jit_inline
def _output(net):
    """The planes of the last layer."""
    last = net.n_layers - 1
    return losses.Output(
        net.planes,
        _place(net, last, _Z),
        _place(net, last, _A),
        _place(net, last, _DELTA),
        net.losses,
        net.distances,
        entry(net.layout, last, ACTIVATION),
        entry(net.layout, last, N_OUTPUTS),
        entry(net.layout, last, STRIDE),
    )


@jit_inline
def _rows_together(net):
    """A block's rows are shared out in multiples of so many: of tiles, and of rows that share a vector."""
    together = 8
    for layer in range(net.n_layers):
        part = 1
        while part < entry(net.layout, layer, N_OUTPUTS):
            part *= 2
        together = most(together, lanes_of(net.parameters) // least(part, lanes_of(net.parameters)))
    return together


@jit_inline
def _forward_rows(net, x, low, high):
    """Inputs and outputs of every layer's activation, for the rows of the view x from ``low`` to ``high``."""
    source = view(x.data, x.first + low * x.row, x.row, x.column)
    for layer in range(net.n_layers):
        stride = entry(net.layout, layer, STRIDE)
        z, a = _place(net, layer, _Z) + low * stride, _place(net, layer, _A) + low * stride
        _layer_forward(net.layout, layer, net.parameters, source, net.planes, z, a, high - low, net.scratch)
        source = view(net.planes, a, stride, 1)


@jit_inline
def _layer_forward(layout, layer, parameters, source, planes, z, a, n_rows, scratch):
    """Inputs and outputs of a layer's activation, written to positions z and a of the planes, for rows of a view."""
    stride, n_outputs = entry(layout, layer, STRIDE), entry(layout, layer, N_OUTPUTS)
    product(
        target(planes, z, stride, False),
        source,
        view(parameters, entry(layout, layer, WEIGHTS), stride, 1),
        view(parameters, entry(layout, layer, BIAS), 0, 1),
        n_rows,
        entry(layout, layer, N_INPUTS),
        n_outputs,
        scratch,
    )
    activations.forward_rows(entry(layout, layer, ACTIVATION), planes, z, a, n_rows, n_outputs, stride)


@jit_inline
def _backward_rows(net, low, high):
    """The deltas of the layers below the last, for the rows from ``low`` to ``high``."""
    for layer in range(net.n_layers - 1, 0, -1):
        stride, width = entry(net.layout, layer, STRIDE), entry(net.layout, layer - 1, STRIDE)
        below = _place(net, layer - 1, _DELTA) + low * width
        product(
            target(net.planes, below, width, False),
            view(net.planes, _place(net, layer, _DELTA) + low * stride, stride, 1),
            view(net.parameters, entry(net.layout, layer, WEIGHTS), 1, stride),
            view(net.parameters, -1, 0, 1),
            high - low,
            entry(net.layout, layer, N_OUTPUTS),
            entry(net.layout, layer, N_INPUTS),
            net.scratch,
        )
        activations.backward_rows(
            entry(net.layout, layer - 1, ACTIVATION),
            net.planes,
            below,
            _place(net, layer - 1, _Z) + low * width,
            _place(net, layer - 1, _A) + low * width,
            high - low,
            width,
        )


@jit_inline
def _block_rows(net, x, samples, first_row, objective, low, high):
    """The first region, for the rows of a block from ``low`` to ``high``: forward, losses, backward."""
    _forward_rows(net, x, low, high)
    losses.output_rows(objective, _output(net), samples, first_row, low, high)
    _backward_rows(net, low, high)


@jit_inline
def _layer_gradient(net, layer, x, n_rows, gradient, add, low, high):
    """The gradient of a layer's rows of weights from ``low`` to ``high``, over ``n_rows`` rows of a block."""
    stride = entry(net.layout, layer, STRIDE)
    inputs = view(x.data, x.first, x.column, x.row)
    if layer > 0:
        inputs = view(net.planes, _place(net, layer - 1, _A), 1, entry(net.layout, layer - 1, STRIDE))
    product(
        target(gradient, entry(net.layout, layer, WEIGHTS) + low * stride, stride, add),
        view(inputs.data, inputs.first + low * inputs.row, inputs.row, inputs.column),
        view(net.planes, _place(net, layer, _DELTA), stride, 1),
        view(net.parameters, -1, 0, 1),
        high - low,
        n_rows,
        entry(net.layout, layer, N_OUTPUTS),
        net.scratch,
    )


@jit_inline
def _update(net, x, n_rows, records, add, steps, objective, state, scale, rate, learning_rate, team):
    """The second region: the thread's share of the gradients, and with ``steps`` of the optimizer's step."""
    for part in range(2 * net.n_layers):
        # Weights, then biases, of each layer: one place where a step is taken, because it is a lot of code.
        layer, l2 = part // 2, objective.l2
        stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
        if part % 2 == 0:
            low, high = share(entry(net.layout, layer, N_INPUTS), 8, team)
            _layer_gradient(net, layer, x, n_rows, records.gradient, add, low, high)
            first = entry(net.layout, layer, WEIGHTS)
            low, high = low * stride, high * stride
        else:
            l2 = 0.0
            low, high = share(stride, lanes_of(net.parameters), team)
            if bias < 0:
                high = low
            first = bias
            delta = _place(net, layer, _DELTA) + low
            row_sum(records.gradient, bias + low, net.planes, delta, n_rows, stride, high - low, add)
        if steps:
            optimizers.step_span(
                first + low, first + high, l2, scale, net.parameters, records.gradient, state, learning_rate, rate
            )


@jit_inline
def _square_columns(net, team):
    """The thread's share of the sums of squares that `_penalty` adds."""
    position = 0
    for layer in range(net.n_layers):
        stride = entry(net.layout, layer, STRIDE)
        low, high = share(stride, lanes_of(net.parameters), team)
        for unit in range(low, high, lanes_of(net.parameters)):
            accumulator = splat(net.parameters, 0.0)
            index = entry(net.layout, layer, WEIGHTS) + unit
            for _ in range(entry(net.layout, layer, N_INPUTS)):
                accumulator = _square_added(load(net.parameters, index), accumulator)
                index += stride
            store(net.squares, position + unit, accumulator)
        position += stride


@jit_inline
def _penalty(net, l2):
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
def _sum_rows(net, samples, first_row, n_rows):
    """`losses.sum_rows` for a block."""
    return losses.sum_rows(_output(net), samples, first_row, n_rows, net.sums)


@jit_inline
def _add_weights(net, samples, first_row, n_rows, total):
    """The samples' weights, added to ``total`` in order."""
    for row in range(first_row, first_row + n_rows):
        total += np.float64(samples.weight[samples.order[row]])
    return total


@jit_inline
def _is_finite(data, size):
    """Whether the numbers of so many elements, which are whole vectors, are finite."""
    total = splat(data, 0.0)
    for index in range(0, size, lanes_of(data)):
        total = _poisoned(total, load(data, index))
    return all_zero(total)


@jit_inline
def _all_finite(data, size):
    """Whether so many numbers are finite."""
    whole = size // lanes_of(data) * lanes_of(data)
    rest = 0.0
    for index in range(whole, size):
        # Zero, or NaN.
        rest += data[index] * 0.0
    return rest == 0.0 and _is_finite(data, whole)


@jit_inline
def _check_samples(layout, parameters, samples):
    """Refuse arrays that do not fit together: pointers would lead past their ends."""
    check_dtypes(parameters, samples.x)
    check_dtypes(parameters, samples.y)
    check_dtypes(parameters, samples.weight)
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
    n_epochs = least(progress.loss_curve.size, progress.mean_absolute_error.size)
    if least(n_epochs, update.learning_rates.size) < stop:
        raise ValueError("the curves and the learning rates must reach up to the stop epoch")
    if objective.batch_size < 1:
        raise ValueError("batch_size must be at least 1")


@jit
def forward(layout, parameters, x, out):
    """The network's outputs for the rows of x, written to ``out`` and returned.

    Up to 16 rows through layers of up to 256 units take no memory but the stack's.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (size,) array of float32 or float64
        Padded buffer.
    x : (n_samples, n_inputs) array of the same dtype, C-contiguous
    out : (n_samples, n_outputs) array

    Returns
    -------
    (n_samples, n_outputs) array
        ``out``.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    TypeError
        When it is compiled for arrays of other dtypes or memory layouts.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import Network
    >>> network = Network.from_arrays([[[2.0], [3.0]]], [[1.0]])
    >>> forward(network.layout, network.parameter_buffer, np.array([[1.0, 10.0]]), np.empty((1, 1)))
    array([[33.]])
    """
    _check_forward(layout, parameters, x, out)
    _forward(layout, parameters, x, out)
    return out


@jit
def forward_finite(layout, parameters, x, out):
    """`forward` if all numbers in x are finite; else nothing is written. Returns whether they are."""
    _check_forward(layout, parameters, x, out)
    if not _all_finite(pointer(x), x.size):
        return False
    _forward(layout, parameters, x, out)
    return True


@jit_inline
def _check_forward(layout, parameters, x, out):
    """Refuse arrays that do not fit together."""
    check_dtypes(parameters, x)
    if parameters.size < layout_size(layout):
        raise ValueError("parameters must have the size of the layout")
    if x.shape[1] != layout[0, N_INPUTS] or out.shape != (x.shape[0], layout[layout.shape[0] - 1, N_OUTPUTS]):
        raise ValueError("x and out must have a column for each input and output of the network, and as many rows")


@jit_inline
def _forward(layout, parameters, x, out):
    """`forward` with memory: on the stack for a few rows, so that nothing is allocated."""
    table, data, n_layers, n_samples = pointer(layout), pointer(parameters), layout.shape[0], x.shape[0]
    widest, most_terms = 0, 0
    for layer in range(n_layers):
        widest = most(widest, entry(table, layer, STRIDE))
        most_terms = most(most_terms, entry(table, layer, N_INPUTS))
    # So few rows are multiplied without scratch memory.
    few = least(n_samples, FEW_ROWS)
    if n_samples == few and 2 * padded(data, few) * widest <= STACK_ELEMENTS:
        _forward_blocks(table, n_layers, data, x, out, few, widest, stack_memory(data, STACK_ELEMENTS))
        return
    block_rows = least(n_samples, BLOCK_ROWS)
    size = 2 * padded(data, block_rows) * widest + scratch_size(data, most_terms, block_rows)
    memory = reserve(data, size + lanes_of(data))
    if is_nowhere(memory):
        raise MemoryError
    _forward_blocks(table, n_layers, data, x, out, block_rows, widest, aligned(memory))
    release(memory)


@jit_part
def _forward_blocks(layout, n_layers, parameters, x, out, block_rows, widest, memory):
    """`forward` for blocks of so many rows; the memory holds two planes, then what products need."""
    values, n_inputs, n_samples = pointer(x), x.shape[1], x.shape[0]
    plane = padded(parameters, block_rows) * widest
    scratch = moved(memory, 2 * plane)
    last = n_layers - 1
    stride = entry(layout, last, STRIDE)
    for first in range(0, n_samples, block_rows):
        n_rows = least(block_rows, n_samples - first)
        source = view(values, first * n_inputs, n_inputs, 1)
        for layer in range(n_layers):
            _layer_forward(layout, layer, parameters, source, memory, 0, plane, n_rows, scratch)
            source = view(memory, plane, entry(layout, layer, STRIDE), 1)
        for row in range(n_rows):
            for unit in range(entry(layout, last, N_OUTPUTS)):
                out[first + row, unit] = memory[plane + row * stride + unit]


@jit
def gradient(layout, parameters, samples, objective, out):
    """The gradient of the summed losses of all samples as one batch, written to ``out``; returns their sum.

    Neither the penalty nor the reduction to a mean is applied; `fastnet.kernels.optimizers.step`
    does both. Up to 16 rows through two hidden layers of up to 32 units take no memory but the stack's.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (size,) array of float32 or float64
        Padded buffer.
    samples : Samples
        Arrays of the same dtype. They are taken as they stand; only `train` follows their ``order``.
    objective : Objective
        Of it the loss is used, and its parameter.
    out : (size,) array of the same dtype
        Laid out like ``parameters``.

    Returns
    -------
    float
        The sum of the weighted losses.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    TypeError
        When it is compiled for arrays of other dtypes or memory layouts, or that are read-only.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import Network, contract
    >>> from fastnet.contract import Objective, Samples
    >>> network = Network.from_arrays([[[2.0], [3.0]]])
    >>> y = np.zeros((1, network.layout[-1, contract.STRIDE]))
    >>> samples = Samples(np.array([[1.0, 10.0]]), y, np.ones(1), np.empty((0, 1), np.int64))
    >>> objective = Objective(contract.SQUARED_ERROR, 0.0, True, 0.0, 1)
    >>> out = np.zeros_like(network.parameter_buffer)
    >>> gradient(network.layout, network.parameter_buffer, samples, objective, out)
    512.0
    >>> out[:: network.layout[0, contract.STRIDE]]
    array([ 32., 320.])
    """
    _check_samples(layout, parameters, samples)
    check_dtypes(parameters, out)
    if out.size != parameters.size:
        raise ValueError("out must have the size of the parameters")
    data, n_samples, n_inputs = pointer(parameters), samples.x.shape[0], samples.x.shape[1]
    block_rows = least(n_samples, BLOCK_ROWS)
    parts = _parts(pointer(layout), layout.shape[0], data, block_rows, 0, n_samples, 1)
    is_small = parts.end <= STACK_ELEMENTS
    memory = stack_memory(data, STACK_ELEMENTS) if is_small else reserve(data, parts.end)
    if is_nowhere(memory):
        raise MemoryError
    net = _make_net(pointer(layout), layout.shape[0], data, parts, block_rows, memory, 0)
    _fill(net, block_rows, n_samples)
    rows, result = _sample_rows(samples, net.natural, False), destination(out)
    total = 0.0
    for low in range(0, n_samples, BLOCK_ROWS):
        n_rows = least(BLOCK_ROWS, n_samples - low)
        x = view(rows.x, low * n_inputs, n_inputs, 1)
        _block_rows(net, x, rows, low, objective, 0, n_rows)
        loss, _ = losses.sum_rows(_output(net), rows, low, n_rows, net.sums)
        total += loss
        for layer in range(net.n_layers):
            stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
            _layer_gradient(net, layer, x, n_rows, result, low > 0, 0, entry(net.layout, layer, N_INPUTS))
            if bias >= 0:
                row_sum(result, bias, net.planes, _place(net, layer, _DELTA), n_rows, stride, stride, low > 0)
    if not is_small:
        release(memory)
    return total


@jit_inline
def _sample_rows(samples, order, is_ordered):
    """The pointers of samples in an order."""
    n_samples, n_inputs = samples.x.shape
    return losses.SampleRows(
        pointer(samples.x), pointer(samples.y), pointer(samples.weight), order, n_samples, n_inputs, is_ordered
    )


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
    memory = reserve(pointer(parameters), _workspace(layout, parameters, samples, objective, 1).end)
    if is_nowhere(memory):
        raise MemoryError
    status = _train(
        layout, parameters, samples, objective, update, progress, n_blocks, memory, alone(pointer(parameters))
    )
    release(memory)
    return status


@jit
def workspace_size(layout, parameters, samples, objective, update, progress, n_threads):
    """Elements of the workspace that `train_member` needs; refuses what does not fit together, as `train` does."""
    _check_samples(layout, parameters, samples)
    _check_records(layout, objective, update, progress)
    return _workspace(layout, parameters, samples, objective, n_threads).end


@jit
def train_member(
    layout, parameters, samples, objective, update, progress, n_blocks, workspace, arrivals, thread, n_threads
):
    """`train` as one thread of ``n_threads``, all of whom call it with the same other arguments.

    ``workspace`` is an array of the parameters' dtype and of `workspace_size`; ``arrivals`` an array of one int64, 0
    before anyone calls.
    """
    team = member(pointer(arrivals), thread, n_threads)
    return _train(layout, parameters, samples, objective, update, progress, n_blocks, pointer(workspace), team)


@jit_inline
def _block_size(samples, objective):
    return least(least(objective.batch_size, BLOCK_ROWS), samples.x.shape[0])


@jit_inline
def _workspace(layout, parameters, samples, objective, n_threads):
    """The parts of the workspace of a training."""
    n_samples, n_inputs = samples.x.shape
    block_rows = _block_size(samples, objective)
    n_gathered = block_rows * odd_stride(pointer(samples.x), n_inputs)
    return _parts(pointer(layout), layout.shape[0], pointer(parameters), block_rows, n_gathered, n_samples, n_threads)


@jit_inline
def _train(layout, parameters, samples, objective, update, progress, n_blocks, memory, team):
    """Set up the network in its memory, and `_run`."""
    block_rows = _block_size(samples, objective)
    is_ordered = samples.order.shape[0] > 0
    parts = _workspace(layout, parameters, samples, objective, team.n_threads)
    net = _make_net(pointer(layout), layout.shape[0], pointer(parameters), parts, block_rows, memory, team.thread)
    if team.thread == 0:
        _fill(net, block_rows, 0 if is_ordered else samples.x.shape[0])
    wait(team)
    order = pointer(samples.order) if is_ordered else net.natural
    rows, state = _sample_rows(samples, order, is_ordered), optimizers.state_of(update, parameters.size)
    return _run(net, rows, objective, state, _records_of(update, progress), team, n_blocks)


@jit_inline
def _records_of(update, progress):
    """The pointers of a `Progress`."""
    return _Records(
        pointer(progress.cursor),
        pointer(progress.sums),
        pointer(progress.gradient),
        pointer(progress.loss_curve),
        pointer(progress.mean_absolute_error),
        pointer(update.learning_rates),
    )


@jit_inline
def _gather(target, stride, samples, first_row, low, high):
    """Copy the samples' rows from ``low`` to ``high`` to where they lie ``stride`` apart."""
    for row in range(low, high):
        source = moved(samples.x, samples.order[first_row + row] * samples.n_inputs)
        copy_row(moved(target, row * stride), source, samples.n_inputs)


@jit_part
def _run(net, samples, objective, state, records, team, n_blocks):
    """`train` on pointers. Every thread keeps the books; the first one writes them down."""
    cursor, sums = records.cursor, records.sums
    n_outputs, n_samples = entry(net.layout, net.n_layers - 1, N_OUTPUTS), samples.n_samples
    epoch, first, low = cursor[EPOCH], cursor[BATCH_START], cursor[NEXT_ROW]
    stop_epoch, first_ordered_epoch = cursor[STOP_EPOCH], cursor[FIRST_ORDERED_EPOCH]
    loss_sum, error_sum, weight_sum, batch_weight = (
        sums[LOSS_SUM],
        sums[ERROR_SUM],
        sums[WEIGHT_SUM],
        sums[BATCH_WEIGHT],
    )
    together = _rows_together(net)
    status = FINISHED
    # Nobody writes to the records before all have read them.
    wait(team)
    while epoch < stop_epoch:
        if n_blocks == 0:
            status = PAUSED
            break
        n_blocks -= 1
        end = least(first + objective.batch_size, n_samples)
        n_rows = least(BLOCK_ROWS, end - low)
        is_last = low + n_rows == end
        first_row = low
        x = view(samples.x, low * samples.n_inputs, samples.n_inputs, 1)
        own, beyond = share(n_rows, together, team)
        if samples.is_ordered:
            first_row += (epoch - first_ordered_epoch) * n_samples
            stride = odd_stride(samples.x, samples.n_inputs)
            _gather(net.gathered, stride, samples, first_row, own, beyond)
            x = view(net.gathered, 0, stride, 1)
        _block_rows(net, x, samples, first_row, objective, own, beyond)
        if is_last and objective.l2 != 0:
            _square_columns(net, team)
        wait(team)
        if low == first:
            batch_weight = 0.0
        loss, error = _sum_rows(net, samples, first_row, n_rows)
        loss_sum += loss
        error_sum += error
        batch_weight = _add_weights(net, samples, first_row, n_rows, batch_weight)
        add = low > first
        low += n_rows
        scale, rate, learning_rate, steps = 1.0, 0.0, 0.0, False
        if is_last:
            if objective.l2 != 0:
                loss_sum += _penalty(net, objective.l2)
            learning_rate, steps = records.learning_rates[epoch], isfinite(loss_sum)
            scale, rate = optimizers.scale_of(objective, batch_weight), optimizers.rate_of(state, learning_rate)
        _update(net, x, n_rows, records, add, steps, objective, state, scale, rate, learning_rate, team)
        if is_last and not steps:
            if team.thread == 0:
                records.loss_curve[epoch] = loss_sum
                records.mean_absolute_error[epoch] = error_sum / (end * n_outputs)
            status = NOT_FINITE
            break
        weight_sum += batch_weight if is_last else 0.0
        wait(team)
        if not is_last:
            continue
        if team.thread == 0:
            optimizers.count_step(state)
        first = end
        if end < n_samples:
            continue
        mean_loss = loss_sum / (weight_sum if objective.mean else 1.0)
        if team.thread == 0:
            records.loss_curve[epoch] = mean_loss
            records.mean_absolute_error[epoch] = error_sum / (n_samples * n_outputs)
        loss_sum, error_sum, weight_sum, batch_weight = 0.0, 0.0, 0.0, 0.0
        first, low = 0, 0
        if not (isfinite(mean_loss) and _is_finite(net.parameters, state.size)):
            status = NOT_FINITE
            break
        epoch += 1
    if team.thread == 0:
        cursor[EPOCH], cursor[BATCH_START], cursor[NEXT_ROW] = epoch, first, low
        sums[LOSS_SUM], sums[ERROR_SUM], sums[WEIGHT_SUM] = loss_sum, error_sum, weight_sum
        sums[BATCH_WEIGHT] = batch_weight
    return status
