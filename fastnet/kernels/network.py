"""Forward pass, backpropagation and the training loop.

A batch is worked through in blocks of at most 256 rows, and a block in two regions that threads can share. In the
first, rows go forward and their deltas backward; in the second, rows of the weights receive their gradient over all
the block's rows, and with the last block of a batch their step. No sum is split between threads, but for two of which
one goes on where the other has come to (`fastnet.kernels.relay`). The planes of a block (inputs of the activations,
their outputs, deltas) lie in one workspace of constant size. Lanes run across the units of a layer.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from fastnet.contract import (
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
)
from fastnet.kernels import losses, optimizers, signatures
from fastnet.kernels.jit import jit, jit_entry, jit_inline, jit_part
from fastnet.kernels.memory import (
    check_dtypes,
    destination,
    integers,
    is_nowhere,
    least,
    most,
    moved,
    nowhere,
    pointer,
    release,
    reserve,
    stack_memory,
)
from fastnet.kernels.prediction import (
    N_COUNTS,
    NEXT_PIECE,
    STACK_ELEMENTS,
    STOPPED,
    forward_blocks,
    forward_pieces,
    needs_of,
)
from fastnet.kernels.products import entry, layout_size, odd_stride, row_sum, view
from fastnet.kernels.regions import (
    Step,
    add_weights,
    all_finite,
    first_region,
    gather,
    is_finite,
    layer_gradient,
    penalty_of,
    rows_together,
    second_region,
    square_columns,
    sum_block,
)
from fastnet.kernels.relay import end_together, take_all_parameters, take_sums
from fastnet.kernels.starting import call_together
from fastnet.kernels.team import alone, announce, member, part_of, share, told, wait, wait_after, wait_for, whole
from fastnet.kernels.workspace import DELTA_PLANE, fill, make_net, parts_of, place
from fastnet.runtime.board import ENDED, FIRST_REGION, HANDED_ON, RETURNED, SECOND_REGION

__all__ = ["forward", "gradient", "train"]


class _Records(NamedTuple):
    """A `Progress` and the learning rates as pointers."""

    cursor: Any
    sums: Any
    gradient: Any
    loss_curve: Any
    mean_absolute_error: Any
    learning_rates: Any


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
    needs, memory = needs_of(layout, parameters, x.shape[0]), nowhere(pointer(parameters))
    if needs.size > 0:
        memory = reserve(memory, needs.size)
        if is_nowhere(memory):
            raise MemoryError
    forward_blocks(layout, parameters, x, out, 0, x.shape[0], needs, memory)
    if needs.size > 0:
        release(memory)
    return out


@jit_entry(signatures.forward)
def forward_finite(layout, parameters, x, out, workspace, rows_at_once, cores, n_threads):
    """`forward`, as long as the numbers in x are finite: returns 1 if all are, else 0.

    So many threads take a piece of so many rows each, one after the other, and of a piece that is not finite write
    nothing. Where the workspace, an array of the parameters' dtype, is too small, nothing is written either, and minus
    the number of elements that it has to have is returned. A few rows need none. ``cores`` is as for `train_together`.
    """
    _check_forward(layout, parameters, x, out)
    needs = needs_of(layout, parameters, least(rows_at_once, x.shape[0]))
    if workspace.size < n_threads * needs.size:
        return -n_threads * needs.size
    counts = stack_memory(integers(pointer(parameters)), N_COUNTS)
    counts[NEXT_PIECE], counts[STOPPED] = 0, 0
    arguments = layout, parameters, x, out, needs, pointer(workspace), rows_at_once, counts
    call_together(forward_pieces, arguments, n_threads, pointer(cores), cores.size // n_threads)
    return 1 - counts[STOPPED]


@jit_entry(signatures.values)
def finite(values):
    """Whether all numbers of a (size,) array are finite."""
    return all_finite(pointer(values), values.size)


@jit_inline
def _check_forward(layout, parameters, x, out):
    """Refuse arrays that do not fit together."""
    check_dtypes(parameters, x)
    if parameters.size < layout_size(layout):
        raise ValueError("parameters must have the size of the layout")
    if x.shape[1] != layout[0, N_INPUTS] or out.shape != (x.shape[0], layout[layout.shape[0] - 1, N_OUTPUTS]):
        raise ValueError("x and out must have a column for each input and output of the network, and as many rows")


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
    parts = parts_of(pointer(layout), layout.shape[0], data, block_rows, 0, n_samples, 1)
    is_small = parts.end <= STACK_ELEMENTS
    memory = stack_memory(data, STACK_ELEMENTS) if is_small else reserve(data, parts.end)
    if is_nowhere(memory):
        raise MemoryError
    team = alone(data)
    net = make_net(pointer(layout), layout.shape[0], data, parts, block_rows, memory, team)
    fill(net, block_rows, n_samples)
    rows, result = _sample_rows(samples, net.natural, False), destination(out)
    total = 0.0
    for low in range(0, n_samples, BLOCK_ROWS):
        n_rows = least(BLOCK_ROWS, n_samples - low)
        x = view(rows.x, low * n_inputs, n_inputs, 1)
        first_region(net, x, rows, low, objective, 0, n_rows, team, -1)
        loss, _ = sum_block(net, rows, low, 0, n_rows, False)
        total += loss
        for layer in range(net.n_layers):
            stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
            nothing, delta = view(net.parameters, -1, 0, 1), place(net, layer, DELTA_PLANE)
            n_weights = entry(net.layout, layer, N_INPUTS)
            layer_gradient(net, layer, x, 0, n_rows, result, nothing, low > 0, 0, n_weights)
            if bias >= 0:
                row_sum(result, bias, nothing, net.planes, delta, n_rows, stride, stride, low > 0)
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
    workspace = np.empty(_workspace(layout, parameters, samples, objective, 1).end, parameters.dtype)
    # Who is alone waits for nobody and has all shares.
    nothing = np.empty(0, np.int64)
    return train_together(
        layout, parameters, samples, objective, update, progress, n_blocks, workspace, nothing, nothing, 1
    )


@jit_entry(signatures.together)
def train_together(
    layout, parameters, samples, objective, update, progress, n_blocks, workspace, board, cores, n_threads
):
    """`train` by ``n_threads``, which are started for it.

    ``workspace`` is an array of the parameters' dtype, ``board`` what `fastnet.runtime.board.new_board` makes and
    ``cores`` what `fastnet.runtime.threads.core_masks` does. Where the workspace is too small, minus the number of
    elements that it has to have is returned. What does not fit together is not looked at: `train` has done that, or a
    fit, which has made it.
    """
    parts = _workspace(layout, parameters, samples, objective, n_threads)
    if workspace.size < most(parts.end, 1):
        return -parts.end
    rows = _sample_rows(samples, pointer(samples.order), samples.order.shape[0] > 0)
    state, records = optimizers.state_of(update, parameters.size), _records_of(update, progress)
    # Pointers, for to hand arrays on takes longer to compile.
    network, shared = (pointer(layout), layout.shape[0], pointer(parameters)), (pointer(workspace), pointer(board))
    arguments = network, rows, objective, state, records, parts, shared, n_blocks
    return call_together(_train, arguments, n_threads, pointer(cores), cores.size // n_threads)


@jit_inline
def _block_rows(objective, n_samples):
    return least(least(objective.batch_size, BLOCK_ROWS), n_samples)


@jit_inline
def _workspace(layout, parameters, samples, objective, n_threads):
    """The parts of the workspace of a training."""
    n_samples, n_inputs = samples.x.shape
    block_rows = _block_rows(objective, n_samples)
    n_gathered = block_rows * odd_stride(pointer(samples.x), n_inputs)
    return parts_of(pointer(layout), layout.shape[0], pointer(parameters), block_rows, n_gathered, n_samples, n_threads)


@jit_part
def _train(arguments, thread, n_threads):
    """One thread's part of a training: set up the network in its memory, and `_run`."""
    (layout, n_layers, parameters), rows, objective, state, records, parts, (memory, board), n_blocks = arguments
    team = member(board, thread, n_threads)
    block_rows = _block_rows(objective, rows.n_samples)
    net = make_net(layout, n_layers, parameters, parts, block_rows, memory, team)
    take_all_parameters(net, state.size)
    if team.thread == 0:
        fill(net, block_rows, 0 if rows.is_ordered else rows.n_samples)
    wait(team)
    order = rows.order if rows.is_ordered else net.natural
    in_order = losses.SampleRows(rows.x, rows.y, rows.weight, order, rows.n_samples, rows.n_inputs, rows.is_ordered)
    return _run(net, in_order, objective, state, records, team, n_blocks)


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


@jit_part
def _run(net, samples, objective, state, records, team, n_blocks):
    """`train` on pointers. Every thread keeps the books, but for the first one of a relay; one writes them down."""
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
    together = rows_together(net)
    is_relay = net.hands_on or net.goes_on
    writes = net.goes_on or (team.thread == 0 and not is_relay)
    status = FINISHED
    # Nobody writes to the records before all have read them.
    wait(team)
    part = part_of(SECOND_REGION, team)
    if is_relay:
        part = whole(part)
    # What has been counted in a relay before a block, and before the last one.
    turn, last_turn, waited = 0, -1, False
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
        if net.hands_on and last_turn >= 0:
            # The second thread has decided on the shares.
            wait_for(moved(team.board, RETURNED), last_turn + 1)
        part_of_rows = part_of(FIRST_REGION, team)
        own, beyond = share(n_rows, together, part_of_rows)
        if samples.is_ordered:
            first_row += (epoch - first_ordered_epoch) * n_samples
            gather(net, samples, first_row, own, beyond, 0, samples.n_inputs)
            x = view(net.gathered, 0, odd_stride(samples.x, samples.n_inputs), 1)
        first_region(net, x, samples, first_row, objective, own, beyond, team, last_turn)
        if net.hands_on and told(moved(team.board, RETURNED)) >= ENDED:
            break
        if is_last and objective.l2 != 0 and not net.hands_on:
            square_columns(net, whole(part_of_rows) if net.goes_on else part_of_rows)
        if is_relay:
            from_row, to_row, next_part = own, beyond, part
            if net.goes_on:
                take_sums(net, team, turn, waited)
        else:
            wait_after(FIRST_REGION, team)
            # Shares change at the end of a region: these are the next block's, which has to know them before it waits.
            from_row, to_row, next_part = 0, n_rows, part_of(SECOND_REGION, team)
        loss, error = sum_block(net, samples, first_row, from_row, to_row, net.goes_on)
        if net.hands_on:
            announce(moved(team.board, HANDED_ON), turn + 1)
        if low == first:
            batch_weight = 0.0
        scale, rate, learning_rate, steps = 1.0, 0.0, 0.0, False
        if not net.hands_on:
            loss_sum += loss
            error_sum += error
            batch_weight = add_weights(net, samples, first_row, n_rows, batch_weight)
            if is_last:
                if objective.l2 != 0:
                    loss_sum += penalty_of(net, objective.l2)
                learning_rate, steps = records.learning_rates[epoch], isfinite(loss_sum)
                scale, rate = optimizers.scale_of(objective, batch_weight), optimizers.rate_of(state, learning_rate)
        add = low > first and not net.hands_on
        low += n_rows
        last_turn = turn
        step, n_own = Step(steps, scale, rate, learning_rate), to_row - from_row
        turn, waited = second_region(
            net, x, from_row, n_own, records, add, step, objective, state, part, team, turn + 1
        )
        if is_last and not steps and not net.hands_on:
            if writes:
                records.loss_curve[epoch] = loss_sum
                records.mean_absolute_error[epoch] = error_sum / (end * n_outputs)
            status = NOT_FINITE
            break
        weight_sum += batch_weight if is_last else 0.0
        if not is_relay:
            wait_after(SECOND_REGION, team)
        part = next_part
        if not is_last:
            continue
        if writes:
            optimizers.count_step(state)
        first = end
        if end < n_samples:
            continue
        if not net.hands_on:
            mean_loss = loss_sum / (weight_sum if objective.mean else 1.0)
            if writes:
                records.loss_curve[epoch] = mean_loss
                records.mean_absolute_error[epoch] = error_sum / (n_samples * n_outputs)
            if not (isfinite(mean_loss) and is_finite(net.parameters, state.size)):
                status = NOT_FINITE
        loss_sum, error_sum, weight_sum, batch_weight = 0.0, 0.0, 0.0, 0.0
        first, low = 0, 0
        if status == NOT_FINITE:
            break
        epoch += 1
    if writes:
        cursor[EPOCH], cursor[BATCH_START], cursor[NEXT_ROW] = epoch, first, low
        sums[LOSS_SUM], sums[ERROR_SUM], sums[WEIGHT_SUM] = loss_sum, error_sum, weight_sum
        sums[BATCH_WEIGHT] = batch_weight
    return end_together(net, team, status)
