"""Forward pass, gradient and training as functions on arrays: for Python, for jitted code and for the runtime.

They look at what they are given where nobody else has, and hand pointers to `fastnet.kernels.prediction` and
`fastnet.kernels.training`.
"""

from __future__ import annotations

import numpy as np

from fastnet.contract import BIAS, BLOCK_ROWS, N_INPUTS, N_OUTPUTS, STRIDE
from fastnet.kernels import signatures
from fastnet.kernels.checks import check_plain, check_plain_writable, check_writable, require
from fastnet.kernels.jit import jit, jit_entry
from fastnet.kernels.losses import rows_of
from fastnet.kernels.memory import (
    destination,
    integers,
    is_nowhere,
    least,
    most,
    nowhere,
    pointer,
    release,
    reserve,
    stack_memory,
)
from fastnet.kernels.optimizers import state_of
from fastnet.kernels.prediction import (
    N_COUNTS,
    NEXT_PIECE,
    STACK_ELEMENTS,
    STOPPED,
    forward_blocks,
    forward_pieces,
    needs_of,
)
from fastnet.kernels.products import entry, row_sum, view
from fastnet.kernels.records import check_parameters, check_records, check_samples
from fastnet.kernels.regions import all_finite, first_region, layer_gradient, sum_block
from fastnet.kernels.starting import call_together
from fastnet.kernels.team import alone
from fastnet.kernels.training import records_of, train_part, workspace_parts
from fastnet.kernels.workspace import DELTA_PLANE, fill, make_net, parts_of, place

__all__ = ["forward", "gradient", "train"]


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
    check_parameters(layout, parameters)
    check_plain("x", x, 2, parameters)
    check_writable("out", out, 2, None)
    n_samples, n_inputs, n_outputs = x.shape[0], layout[0, N_INPUTS], layout[layout.shape[0] - 1, N_OUTPUTS]
    require(
        x.shape[1] == n_inputs,
        "x must have {} columns, one for each input of the network; got shape {}",
        (n_inputs, x.shape),
    )
    require(
        out.shape == (n_samples, n_outputs),
        "out must have shape {}, a row for each row of x and a column for each output; got {}",
        ((n_samples, n_outputs), out.shape),
    )
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
    That the arrays fit together `fastnet.Network.predict` has seen to.
    """
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
    >>> samples = Samples(np.array([[1.0, 10.0]]), np.zeros((1, 1)), np.ones(1), np.empty((0, 1), np.int64))
    >>> objective = Objective(contract.SQUARED_ERROR, 0.0, True, 0.0, 1)
    >>> out = np.zeros_like(network.parameter_buffer)
    >>> gradient(network.layout, network.parameter_buffer, samples, objective, out)
    512.0
    >>> out[:: network.layout[0, contract.STRIDE]]
    array([ 32., 320.])
    """
    check_samples(layout, parameters, samples)
    check_plain_writable("out", out, 1, parameters)
    require(
        out.size == parameters.size, "out must have {} elements, as parameters; got {}", (parameters.size, out.size)
    )
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
    rows, result = rows_of(samples, net.natural, False), destination(out)
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
    check_samples(layout, parameters, samples)
    check_records(layout, parameters, samples.order, objective, update, progress)
    workspace = np.empty(workspace_parts(layout, parameters, samples, objective, 1).end, parameters.dtype)
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
    parts = workspace_parts(layout, parameters, samples, objective, n_threads)
    if workspace.size < most(parts.end, 1):
        return -parts.end
    rows = rows_of(samples, pointer(samples.order), samples.order.shape[0] > 0)
    state, records = state_of(update, parameters.size), records_of(update, progress)
    # Pointers, for to hand arrays on takes longer to compile.
    network, shared = (pointer(layout), layout.shape[0], pointer(parameters)), (pointer(workspace), pointer(board))
    arguments = network, rows, objective, state, records, parts, shared, n_blocks
    return call_together(train_part, arguments, n_threads, pointer(cores), cores.size // n_threads)
