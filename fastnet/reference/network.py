"""Forward pass, backpropagation and training, over either arithmetic.

Buffers may carry leading axes: a stack of networks on the same samples is trained like one.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnet import contract
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.reference import activations, exact, losses, optimizers
from fastnet.reference.exact import Array
from fastnet.reference.records import check_parameters, check_records, check_samples

__all__ = ["forward", "gradient", "train"]


def layers(layout: np.ndarray, buffer: Array) -> list[tuple[Array, Array | None, int]]:
    """Views into a padded buffer: (weights, bias or None, code of the activation) for each layer."""
    views = []
    for n_inputs, n_outputs, stride, first, bias, activation in layout.tolist():
        rows = buffer[..., first : first + n_inputs * stride].reshape(*buffer.shape[:-1], n_inputs, stride)
        bias_row = buffer[..., bias : bias + n_outputs] if bias >= 0 else None
        views.append((rows[..., :n_outputs], bias_row, activation))
    return views


def forward(layout: np.ndarray, parameters: Array, x: Array, out: Array, arithmetic: ModuleType = exact) -> Array:
    """The network's outputs for the rows of x, written to ``out`` and returned.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (..., size) array
        Padded buffer.
    x : (n_samples, n_inputs) array
    out : (..., n_samples, n_outputs) array
    """
    check_parameters(layout, parameters)
    exact.check_dtype("x", x, parameters.dtype)
    n_inputs, desired = layout[0, contract.N_INPUTS], (len(x), int(layout[-1, contract.N_OUTPUTS]))
    if x.shape[1] != n_inputs:
        raise ValueError(f"x must have {n_inputs} columns, one for each input of the network; got shape {x.shape}")
    if out.shape[-2:] != desired:
        raise ValueError(
            f"out must have shape {desired}, a row for each row of x and a column for each output; got {out.shape[-2:]}"
        )
    with np.errstate(all="ignore"):
        a = x
        for weights, bias, activation in layers(layout, parameters):
            a = activations.forward(activation, arithmetic.affine(a, weights, bias), arithmetic)
        out[...] = a
    return out


def gradient(
    layout: np.ndarray,
    parameters: Array,
    samples: Samples,
    objective: Objective,
    out: Array,
    arithmetic: ModuleType = exact,
) -> float:
    """The gradient of the summed losses of all samples as one batch, written to ``out``; returns their sum.

    Neither the penalty nor the reduction to a mean is applied; `fastnet.reference.optimizers.step`
    does both. ``out`` is laid out like ``parameters``.
    """
    check_samples(layout, parameters, samples)
    exact.check_dtype("out", out, parameters.dtype)
    if out.shape != parameters.shape:
        raise ValueError(f"out must have {parameters.shape[-1]} elements, as parameters; got {out.shape[-1]}")
    total = 0.0
    with np.errstate(all="ignore"):
        for low in range(0, len(samples.x), contract.BLOCK_ROWS):
            rows = np.arange(low, min(low + contract.BLOCK_ROWS, len(samples.x)))
            block_loss, _ = _add_block(layout, parameters, samples, objective, rows, low == 0, out, arithmetic)
            total = total + block_loss
    return total


def _add_block(
    layout: np.ndarray,
    parameters: Array,
    samples: Samples,
    objective: Objective,
    rows: np.ndarray,
    is_first: bool,
    gradient: Array,
    arithmetic: ModuleType,
) -> tuple[float, float]:
    """Backpropagate a block of rows; add its gradient, or set it if the block is a batch's first.

    Returns the sums of the losses and of the absolute errors.
    """
    network = layers(layout, parameters)
    outputs = [samples.x[rows]]
    inputs = []
    for weights, bias, activation in network:
        inputs.append(arithmetic.affine(outputs[-1], weights, bias))
        outputs.append(activations.forward(activation, inputs[-1], arithmetic))

    y, weight = samples.y[rows], samples.weight[rows]
    of_output = (objective.loss, network[-1][2], objective.parameter, inputs[-1], outputs[-1], y, arithmetic)
    loss = _sum_units(arithmetic.weighted_row_sum(losses.loss(*of_output), weight))
    error = _sum_units(arithmetic.bias_gradient(np.abs(outputs[-1] - y)))

    delta = arithmetic.flush(losses.delta(*of_output) * weight[:, None])
    targets = layers(layout, gradient)
    for index in reversed(range(len(network))):
        weights_out, bias_out, _ = targets[index]
        _put(weights_out, arithmetic.weight_gradient(outputs[index], delta), is_first)
        if bias_out is not None:
            _put(bias_out, arithmetic.bias_gradient(delta), is_first)
        if index > 0:
            back = arithmetic.back_projection(delta, network[index][0])
            below = network[index - 1][2]
            delta = arithmetic.flush(activations.backward(below, back, inputs[index - 1], outputs[index], arithmetic))
    return loss, error


def _put(target: Array, value: Array, is_first: bool) -> None:
    target[...] = value if is_first else target + value


def _sum_units(sums: Array) -> Any:
    """The sums of the output units, added in float64 in order; one number for each network of a stack."""
    total = np.zeros(sums.shape[:-1])[()]
    for unit in range(sums.shape[-1]):
        total = total + sums[..., unit].astype(np.float64)
    return total


def _penalty(layout: np.ndarray, parameters: Array, l2: float, arithmetic: ModuleType) -> float:
    """l2 / 2 times the squared weights: each column in order, then the columns, then the layers."""
    total = 0.0
    for weights, _, _ in layers(layout, parameters):
        columns = np.zeros((*weights.shape[:-2], weights.shape[-1]), weights.dtype)
        for row in range(weights.shape[-2]):
            columns = arithmetic.fma(weights[..., row, :], weights[..., row, :], columns)
        total = total + _sum_units(columns)
    return 0.5 * l2 * total


def train(
    layout: np.ndarray,
    parameters: Array,
    samples: Samples,
    objective: Objective,
    update: Update,
    progress: Progress,
    n_blocks: int,
    arithmetic: ModuleType = exact,
) -> int:
    """Train in place up to the cursor's stop epoch, for at most ``n_blocks`` blocks of rows.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters : (..., size) array
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
    cursor, sums = progress.cursor, progress.sums
    n_samples = len(samples.x)
    with np.errstate(all="ignore"):
        while cursor[contract.EPOCH] < cursor[contract.STOP_EPOCH]:
            if n_blocks == 0:
                return contract.PAUSED
            n_blocks -= 1
            epoch = int(cursor[contract.EPOCH])
            first, low = int(cursor[contract.BATCH_START]), int(cursor[contract.NEXT_ROW])
            end = min(first + objective.batch_size, n_samples)
            high = min(low + contract.BLOCK_ROWS, end)
            if len(samples.order):
                rows = samples.order[epoch - cursor[contract.FIRST_ORDERED_EPOCH], low:high]
            else:
                rows = np.arange(low, high)
            loss, error = _add_block(
                layout, parameters, samples, objective, rows, low == first, progress.gradient, arithmetic
            )
            if low == first:
                sums[contract.BATCH_WEIGHT] = 0.0
            sums[contract.LOSS_SUM] += loss
            sums[contract.ERROR_SUM] += error
            for weight in samples.weight[rows].tolist():
                sums[contract.BATCH_WEIGHT] += weight
            cursor[contract.NEXT_ROW] = high
            if high < end:
                continue
            if objective.l2 != 0:
                sums[contract.LOSS_SUM] += _penalty(layout, parameters, objective.l2, arithmetic)
            n_outputs = layout[-1, contract.N_OUTPUTS]
            if not np.isfinite(sums[contract.LOSS_SUM]).all():
                progress.loss_curve[epoch] = sums[contract.LOSS_SUM]
                progress.mean_absolute_error[epoch] = sums[contract.ERROR_SUM] / (end * n_outputs)
                return contract.NOT_FINITE
            batch_weight = sums[contract.BATCH_WEIGHT]
            sums[contract.WEIGHT_SUM] += batch_weight
            optimizers.step(
                layout,
                parameters,
                progress.gradient,
                batch_weight.flat[0],
                objective,
                update,
                float(update.learning_rates[epoch]),
                arithmetic,
            )
            cursor[contract.BATCH_START] = end
            if end < n_samples:
                continue
            total_weight = sums[contract.WEIGHT_SUM] if objective.mean else 1.0
            progress.loss_curve[epoch] = sums[contract.LOSS_SUM] / total_weight
            progress.mean_absolute_error[epoch] = sums[contract.ERROR_SUM] / (n_samples * n_outputs)
            sums[...] = 0.0
            cursor[contract.BATCH_START] = cursor[contract.NEXT_ROW] = 0
            if not (np.isfinite(progress.loss_curve[epoch]).all() and np.isfinite(parameters).all()):
                return contract.NOT_FINITE
            cursor[contract.EPOCH] = epoch + 1
    return contract.FINISHED
