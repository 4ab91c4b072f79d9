"""Losses over blocks of rows: the loops around `fastnet.kernels.formulas.losses`.

Lanes run across the output units; every unit has one accumulator over the rows, in order. The rows' losses are
computed apart from their sum, so that threads can share the rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet import contract
from fastnet.contract import CROSS_ENTROPY, MATCHED, QUANTILE, SOFTMAX
from fastnet.kernels.activations import backward, join_padded, log_softmax, softmax_backward_row
from fastnet.kernels.checks import check_array, require
from fastnet.kernels.formulas import activations, arithmetic, losses
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.memory import keep_first, lanes_of, load, load_first, pointer, splat, start, store
from fastnet.kernels.simd import Lanes, absolute, fma, plus, staged

__all__ = ["delta", "loss"]

_loss = staged(losses.loss)
_error = staged(losses.error)
_backward = staged(activations.backward)


@staged
def _weighted(value: Lanes, weight: Lanes, total: Lanes) -> Lanes:
    return fma(value, weight, total)


@staged
def _distance(a: Lanes, y: Lanes) -> Lanes:
    return absolute(a - y)


@staged
def _weighted_delta(delta: Lanes, weight: Lanes) -> Lanes:
    return arithmetic.flush(delta * weight)


@jit_inline
def case_of(loss, activation):
    """The case of `fastnet.kernels.formulas.losses` for a loss and an output activation."""
    if (
        (loss == contract.BINARY_CROSS_ENTROPY and activation == contract.SIGMOID)
        or (loss == contract.CROSS_ENTROPY and activation == contract.SOFTMAX)
        or (loss == contract.POISSON and activation == contract.EXPONENTIAL)
    ):
        return MATCHED + loss
    return loss


class Output(NamedTuple):
    """The planes of the output layer, as positions in ``buffer``: element (r, c) lies ``r * stride + c`` further."""

    buffer: Any
    #: Inputs of the activation (for softmax their logarithm), its outputs, and the derivatives by its inputs.
    z: int
    a: int
    delta: int
    #: The losses without weights, and the absolute errors.
    losses: int
    distances: int
    activation: int
    n_units: int
    stride: int


class SampleRows(NamedTuple):
    """Rows of samples in an order: row r is sample ``order[r]``."""

    x: Any
    y: Any
    weight: Any
    order: Any
    n_samples: int
    n_inputs: int
    #: Elements from one row of y to the next.
    y_row: int
    is_ordered: bool


@jit_inline
def rows_of(samples, order, is_ordered):
    """The pointers of samples in an order."""
    x, y, weight = pointer(samples.x), pointer(samples.y), pointer(samples.weight)
    return SampleRows(x, y, weight, order, samples.x.shape[0], samples.x.shape[1], samples.y.shape[1], is_ordered)


@jit_inline
def output_rows(objective, output, samples, first_row, low, high):
    """Losses, absolute errors and flushed, weighted derivatives by z of the rows from ``low`` to ``high``.

    Row r of the planes is row ``first_row + r`` of the samples.
    """
    buffer, stride, n_units, activation = output.buffer, output.stride, output.n_units, output.activation
    case = case_of(objective.loss, activation)
    derivative = contract.IDENTITY if case >= MATCHED or activation == SOFTMAX else activation
    lanes = lanes_of(buffer)
    parameters = splat(buffer, objective.parameter)
    for row in range(low, high):
        sample = samples.order[first_row + row]
        factor = splat(buffer, samples.weight[sample])
        for unit in range(0, stride, lanes):
            offset = row * stride + unit
            inputs, outputs = load(buffer, output.z + offset), load(buffer, output.a + offset)
            targets = load_first(samples.y, sample * samples.y_row + unit, n_units - unit)
            store(buffer, output.losses + offset, _loss(case, parameters, inputs, outputs, targets))
            store(buffer, output.distances + offset, _distance(outputs, targets))
            error = _error(case, parameters, outputs, targets)
            if activation == SOFTMAX and case < MATCHED:
                store(buffer, output.delta + offset, error)
            else:
                result = _weighted_delta(_backward(derivative, error, inputs, outputs), factor)
                store(buffer, output.delta + offset, keep_first(result, n_units - unit))
        if activation == SOFTMAX and case < MATCHED:
            first = output.delta + row * stride
            softmax_backward_row(buffer, first, output.a + row * stride, n_units)
            for unit in range(0, stride, lanes):
                result = _weighted_delta(load(buffer, first + unit), factor)
                store(buffer, first + unit, keep_first(result, n_units - unit))


@jit_inline
def sum_rows(output, samples, first_row, low, high, sums, goes_on):
    """The sums of the weighted losses, then of the absolute errors, of each unit over a block's rows, in order.

    With ``goes_on`` they go on from what is in ``sums``, which has room for two rows of the output's stride.
    """
    buffer, stride, lanes = output.buffer, output.stride, lanes_of(output.buffer)
    for unit in range(0, output.n_units, lanes):
        total_loss, total_distance = start(sums, unit), start(sums, stride + unit)
        if goes_on:
            total_loss, total_distance = load(sums, unit), load(sums, stride + unit)
        offset = low * stride + unit
        for row in range(first_row + low, first_row + high):
            factor = splat(buffer, samples.weight[samples.order[row]])
            total_loss = _weighted(load(buffer, output.losses + offset), factor, total_loss)
            total_distance = plus(total_distance, load(buffer, output.distances + offset))
            offset += stride
        store(sums, unit, total_loss)
        store(sums, stride + unit, total_distance)


@jit_inline
def sum_units(output, sums):
    """The sums of the weighted losses and of the absolute errors: those of the units, in order, in float64."""
    loss, error = 0.0, 0.0
    for unit in range(output.n_units):
        loss += np.float64(sums[unit])
        error += np.float64(sums[output.stride + unit])
    return loss, error


@jit_inline
def _check_arguments(loss, z, a, y):
    require(loss >= 0 and loss <= QUANTILE, "loss must be a code from 0 to {}; got {}", (QUANTILE, loss))
    check_array("z", z, 2, None)
    check_array("a", a, 2, z)
    check_array("y", y, 2, z)


@jit
def loss(loss, activation, parameter, z, a, y):
    """The loss of every output, before any sum; ``a`` is ``activation`` of ``z``; all matrices.

    Parameters
    ----------
    loss, activation : int
        Codes of `fastnet.contract`.
    parameter : float
        Huber's delta or the quantile.
    z, a, y : (n_samples, n_outputs) array of float32 or float64

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import contract
    >>> z = np.array([[1.0, 3.0]])
    >>> loss(contract.SQUARED_ERROR, contract.IDENTITY, 0.0, z, z, np.zeros((1, 2)))
    array([[0.5, 4.5]])
    """
    _check_arguments(loss, z, a, y)
    case = case_of(loss, activation)
    if case == MATCHED + CROSS_ENTROPY:
        z = log_softmax(z)
    planes = join_padded(z, a, y)
    buffer, size = pointer(planes), planes[0].size
    parameters = splat(buffer, parameter)
    for offset in range(0, size, lanes_of(buffer)):
        inputs, outputs, targets = load(buffer, offset), load(buffer, size + offset), load(buffer, 2 * size + offset)
        store(buffer, offset, _loss(case, parameters, inputs, outputs, targets))
    return planes[0, : z.shape[0], : z.shape[1]].copy()


@jit
def delta(loss, activation, parameter, z, a, y):
    """The derivative of `loss` by z, without weights."""
    _check_arguments(loss, z, a, y)
    case = case_of(loss, activation)
    planes = join_padded(z, a, y)
    buffer, size = pointer(planes), planes[0].size
    parameters = splat(buffer, parameter)
    for offset in range(0, size, lanes_of(buffer)):
        outputs, targets = load(buffer, size + offset), load(buffer, 2 * size + offset)
        store(buffer, 2 * size + offset, _error(case, parameters, outputs, targets))
    error = planes[2, : z.shape[0], : z.shape[1]].copy()
    if case >= MATCHED:
        return error
    return backward(activation, error, z, a)
