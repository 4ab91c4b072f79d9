"""Losses over blocks of rows: the loops around `fastnet.kernels.formulas.losses`.

Lanes run across the output units; every unit has one accumulator over the rows, in order.
"""

from __future__ import annotations

from fastnet import contract
from fastnet.contract import CROSS_ENTROPY, MATCHED, SOFTMAX
from fastnet.kernels.activations import backward, join_padded, log_softmax, softmax_backward_row
from fastnet.kernels.formulas import activations, arithmetic, losses
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.memory import keep_first, lanes_of, load, pointer, splat, store
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


@jit_inline
def output_rows(
    loss, activation, parameter, buffer, z, a, delta, y, rows, first_row, weight, n_rows, n_units, stride, sums
):
    """Write the flushed, weighted derivatives by z to ``delta``; leave the sums over the rows in ``sums``.

    ``z``, ``a`` and ``delta`` are positions in ``buffer``. Row r belongs to sample
    s = ``rows[first_row + r]``: its targets are the s-th row of y, its weight is ``weight[s]``.
    ``sums`` receives, for each unit, the weighted sum of the losses and, ``stride`` further, the sum
    of the absolute errors.
    """
    case = case_of(loss, activation)
    derivative = contract.IDENTITY if case >= MATCHED or activation == SOFTMAX else activation
    lanes = lanes_of(buffer)
    parameters = splat(buffer, parameter)
    for unit in range(0, stride, lanes):
        total_loss, total_distance = splat(buffer, 0.0), splat(buffer, 0.0)
        for row in range(n_rows):
            offset = row * stride + unit
            sample = rows[first_row + row]
            inputs, outputs = load(buffer, z + offset), load(buffer, a + offset)
            targets, factor = load(y, sample * stride + unit), splat(buffer, weight[sample])
            total_loss = _weighted(_loss(case, parameters, inputs, outputs, targets), factor, total_loss)
            total_distance = plus(total_distance, _distance(outputs, targets))
            error = _error(case, parameters, outputs, targets)
            if activation == SOFTMAX and case < MATCHED:
                store(buffer, delta + offset, error)
            else:
                result = _weighted_delta(_backward(derivative, error, inputs, outputs), factor)
                store(buffer, delta + offset, keep_first(result, n_units - unit))
        store(sums, unit, total_loss)
        store(sums, stride + unit, total_distance)
    if activation == SOFTMAX and case < MATCHED:
        for row in range(n_rows):
            softmax_backward_row(buffer, delta + row * stride, a + row * stride, n_units)
            factor = splat(buffer, weight[rows[first_row + row]])
            for unit in range(0, stride, lanes):
                offset = delta + row * stride + unit
                result = _weighted_delta(load(buffer, offset), factor)
                store(buffer, offset, keep_first(result, n_units - unit))


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
    if loss < 0 or loss > contract.QUANTILE:
        raise ValueError("loss must be a code from 0 to 6")
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
    if loss < 0 or loss > contract.QUANTILE:
        raise ValueError("loss must be a code from 0 to 6")
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
