"""The training loop on pointers: forward pass, backpropagation and steps, block by block.

A batch is worked through in blocks of at most 256 rows, and a block in two regions that threads can share. In the
first, rows go forward and their deltas backward; in the second, rows of the weights receive their gradient over all
the block's rows, and with the last block of a batch their step. No sum is split between threads, but for two of which
one goes on where the other has come to (`fastnet.kernels.relay`). The planes of a block (inputs of the activations,
their outputs, deltas) lie in one workspace of constant size. Lanes run across the units of a layer.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

from fastnet.contract import (
    BATCH_START,
    BATCH_WEIGHT,
    BLOCK_ROWS,
    EPOCH,
    ERROR_SUM,
    FINISHED,
    FIRST_ORDERED_EPOCH,
    LOSS_SUM,
    N_OUTPUTS,
    NEXT_ROW,
    NOT_FINITE,
    PAUSED,
    STOP_EPOCH,
    WEIGHT_SUM,
)
from fastnet.kernels import losses, optimizers
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import least, moved, pointer
from fastnet.kernels.products import entry, odd_stride, view
from fastnet.kernels.regions import (
    Step,
    add_weights,
    first_region,
    gather,
    is_finite,
    penalty_of,
    rows_together,
    second_region,
    square_columns,
    sum_block,
)
from fastnet.kernels.relay import end_together, take_all_parameters, take_sums
from fastnet.kernels.team import announce, member, part_of, share, told, wait, wait_after, wait_for, whole
from fastnet.kernels.workspace import fill, make_net, parts_of
from fastnet.runtime.board import ENDED, FIRST_REGION, HANDED_ON, RETURNED, SECOND_REGION


class Records(NamedTuple):
    """A `Progress` and the learning rates as pointers."""

    cursor: Any
    sums: Any
    gradient: Any
    loss_curve: Any
    mean_absolute_error: Any
    learning_rates: Any


@jit_inline
def block_rows_of(objective, n_samples):
    """Rows of a whole block."""
    return least(least(objective.batch_size, BLOCK_ROWS), n_samples)


@jit_inline
def workspace_parts(layout, parameters, samples, objective, n_threads):
    """The parts of the workspace of a training."""
    n_samples, n_inputs = samples.x.shape
    block_rows = block_rows_of(objective, n_samples)
    n_gathered = block_rows * odd_stride(pointer(samples.x), n_inputs)
    return parts_of(pointer(layout), layout.shape[0], pointer(parameters), block_rows, n_gathered, n_samples, n_threads)


@jit_part
def train_part(arguments, thread, n_threads):
    """One thread's part of a training: set up the network in its memory, and `run`."""
    (layout, n_layers, parameters), rows, objective, state, records, parts, (memory, board), n_blocks = arguments
    team = member(board, thread, n_threads)
    block_rows = block_rows_of(objective, rows.n_samples)
    net = make_net(layout, n_layers, parameters, parts, block_rows, memory, team)
    take_all_parameters(net, state.size)
    if team.thread == 0:
        fill(net, block_rows, 0 if rows.is_ordered else rows.n_samples)
    wait(team)
    order = rows.order if rows.is_ordered else net.natural
    sizes = rows.n_samples, rows.n_inputs, rows.y_row
    in_order = losses.SampleRows(rows.x, rows.y, rows.weight, order, *sizes, rows.is_ordered)
    return run(net, in_order, objective, state, records, team, n_blocks)


@jit_inline
def records_of(update, progress):
    """The pointers of a `Progress`."""
    return Records(
        pointer(progress.cursor),
        pointer(progress.sums),
        pointer(progress.gradient),
        pointer(progress.loss_curve),
        pointer(progress.mean_absolute_error),
        pointer(update.learning_rates),
    )


@jit_part
def run(net, samples, objective, state, records, team, n_blocks):
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
