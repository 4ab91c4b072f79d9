"""The parts of a training step, each alone: the kernels of `fastnet.kernels.training` in its memory, so many times."""

from __future__ import annotations

from typing import Any

from fastnet.contract import ACTIVATION, BIAS, ERROR_SUM, LOSS_SUM, N_INPUTS, N_OUTPUTS, STRIDE, WEIGHTS
from fastnet.kernels import activations, losses, optimizers
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.memory import keep, pointer
from fastnet.kernels.products import entry, odd_stride, product, target, view
from fastnet.kernels.regions import Step, add_weights, backward_block, gather, layer_forward, second_region, sum_block
from fastnet.kernels.team import alone, part_of
from fastnet.kernels.training import block_rows_of, records_of, workspace_parts
from fastnet.kernels.workspace import A_PLANE, Z_PLANE, fill, make_net, output_planes, place
from fastnet.runtime.board import SECOND_REGION

#: The parts in the order of a step, and what each one is. The position of a name is its bit in `repeat_parts`.
PARTS = {
    "gather": "copies the batch's rows to where they lie one after another",
    "forward": "the affine maps of all layers, and the activations of the hidden ones",
    "output": "softmax, losses, and the deltas of the last layer",
    "backward": "the deltas of the layers below the last",
    "sums": "adds up the losses, the absolute errors and the weights of the samples",
    "gradient": "of all weights and biases",
    "optimizer": "changes the parameters and the optimizer's state",
}
(_GATHER, _FORWARD, _OUTPUT, _BACKWARD, _SUMS, _GRADIENT, _OPTIMIZER) = (1 << bit for bit in range(7))
#: All of them.
ALL = (1 << len(PARTS)) - 1


def bit_of(part: str) -> int:
    """The bit of a part in `repeat_parts`.

    Examples
    --------
    >>> bit_of("gather"), bit_of("optimizer")
    (1, 64)
    """
    return 1 << list(PARTS).index(part)


@jit_inline
def _affine_maps(net: Any, x: Any, n_rows: Any) -> None:
    """`fastnet.kernels.regions.forward_block` without the last layer's activation."""
    source, last = x, net.n_layers - 1
    for layer in range(last):
        z, a = place(net, layer, Z_PLANE), place(net, layer, A_PLANE)
        layer_forward(net.layout, layer, net.parameters, source, net.planes, z, a, n_rows, net.scratch)
        source = view(net.planes, a, entry(net.layout, layer, STRIDE), 1)
    stride = entry(net.layout, last, STRIDE)
    product(
        target(net.planes, place(net, last, Z_PLANE), stride, False),
        source,
        view(net.parameters, entry(net.layout, last, WEIGHTS), stride, 1),
        view(net.parameters, entry(net.layout, last, BIAS), 0, 1),
        n_rows,
        entry(net.layout, last, N_INPUTS),
        entry(net.layout, last, N_OUTPUTS),
        net.scratch,
    )


@jit_inline
def _output_rows(net: Any, objective: Any, samples: Any, first_row: Any, n_rows: Any) -> None:
    """The last layer's activation, losses and deltas."""
    last = net.n_layers - 1
    stride, n_outputs = entry(net.layout, last, STRIDE), entry(net.layout, last, N_OUTPUTS)
    z, a = place(net, last, Z_PLANE), place(net, last, A_PLANE)
    activations.forward_rows(entry(net.layout, last, ACTIVATION), net.planes, z, a, n_rows, n_outputs, stride)
    losses.output_rows(objective, output_planes(net), samples, first_row, 0, n_rows)


@jit_inline
def _optimizer_step(
    net: Any, records: Any, objective: Any, state: Any, scale: Any, rate: Any, learning_rate: Any
) -> None:
    """The step that `fastnet.kernels.regions.second_region` takes after each gradient."""
    for part in range(2 * net.n_layers):
        layer, l2 = part // 2, objective.l2
        stride = entry(net.layout, layer, STRIDE)
        first, n = entry(net.layout, layer, WEIGHTS), entry(net.layout, layer, N_INPUTS) * stride
        if part % 2 == 1:
            first, n, l2 = entry(net.layout, layer, BIAS), stride, 0.0
        if first >= 0:
            optimizers.step_span(
                first, first + n, l2, scale, net.parameters, records.gradient, state, learning_rate, rate
            )


@jit
def repeat_parts(
    layout: Any,
    parameters: Any,
    samples: Any,
    objective: Any,
    update: Any,
    progress: Any,
    workspace: Any,
    parts: Any,
    times: Any,
) -> None:
    """Do some parts of a step so many times, one whole block of rows after another, on one thread.

    A part works on what the others have left in ``workspace``, made by `fastnet.runtime.threads.make_workspace`.
    Repeated, none changes its own speed if the learning rate is 0. With another one parameters would grow without end
    under a gradient that stays as it is. So the optimizer's moments settle at the gradient and its square, and what
    would be subnormal of them is flushed. Softmax leaves its logarithm where its inputs were, and the softmax of that
    is the same.

    Parameters
    ----------
    layout, parameters, samples, objective, update, progress
        As for `fastnet.kernels.network.train`; samples with an order, and batches of at most 256 rows.
    workspace : array
        Of the parameters' dtype.
    parts : int
        The bits of `PARTS`.
    times : int
        How often they are done.
    """
    n_rows = block_rows_of(objective, samples.x.shape[0])
    places = workspace_parts(layout, parameters, samples, objective, 1)
    team = alone(pointer(parameters))
    net = make_net(pointer(layout), layout.shape[0], pointer(parameters), places, n_rows, pointer(workspace), team)
    fill(net, n_rows, 0)
    part, records = part_of(SECOND_REGION, team), records_of(update, progress)
    rows, state = losses.rows_of(samples, pointer(samples.order), True), optimizers.state_of(update, parameters.size)
    x = view(net.gathered, 0, odd_stride(rows.x, rows.n_inputs), 1)
    batch_weight = add_weights(net, rows, 0, n_rows, 0.0)
    learning_rate = records.learning_rates[0]
    rate, n_blocks = optimizers.rate_of(state, learning_rate), rows.n_samples // n_rows
    no_step = Step(False, 1.0, rate, learning_rate)
    for time in range(times):
        first_row = time % n_blocks * n_rows
        if parts & _GATHER:
            gather(net, rows, first_row, 0, n_rows, 0, rows.n_inputs)
        if parts & _FORWARD:
            _affine_maps(net, x, n_rows)
        if parts & _OUTPUT:
            _output_rows(net, objective, rows, first_row, n_rows)
        if parts & _BACKWARD:
            backward_block(net, 0, n_rows)
        if parts & _SUMS:
            loss, error = sum_block(net, rows, first_row, 0, n_rows, False)
            records.sums[LOSS_SUM] += loss
            records.sums[ERROR_SUM] += error
            batch_weight = add_weights(net, rows, first_row, n_rows, 0.0)
        scale = optimizers.scale_of(objective, batch_weight)
        if parts & _GRADIENT:
            second_region(net, x, 0, n_rows, records, False, no_step, objective, state, part, team, 0)
        if parts & _OPTIMIZER:
            _optimizer_step(net, records, objective, state, scale, rate, learning_rate)
    keep(workspace)
