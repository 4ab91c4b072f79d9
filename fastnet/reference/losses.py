"""Losses and their derivatives, element by element, over either arithmetic.

A loss is named by its code (`fastnet.contract.LOSSES`). Where the output activation is the loss's
natural one (sigmoid for binary cross-entropy, softmax for cross-entropy, exponential for Poisson),
the loss is computed from z, without the activation's overflow, and its derivative by z is a - y.
With other activations the probabilities or rates are kept away from 0 (and 1) by the dtype's epsilon.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from fastnet import contract
from fastnet.reference import activations, exact
from fastnet.reference.exact import FORMATS, Array

__all__ = ["delta", "loss"]


def _clipped(a: Array) -> Array:
    epsilon = FORMATS[a.dtype].epsilon
    return np.where(a < epsilon, a.dtype.type(epsilon), a)


def _clipped_both(a: Array) -> Array:
    above = 1.0 - FORMATS[a.dtype].epsilon
    return np.where(a > above, a.dtype.type(above), _clipped(a))


def loss(
    loss: int, activation: int, parameter: float, z: Array, a: Array, y: Array, arithmetic: ModuleType = exact
) -> Array:
    """The loss of every output, before any sum; ``a`` is ``activation`` of ``z``."""
    exact.check_shapes(z, a, y)
    setting = a.dtype.type(parameter)
    matched = contract.MATCHED_ACTIVATION.get(loss) == activation
    match loss:
        case contract.SQUARED_ERROR:
            d = a - y
            return (d * 0.5) * d
        case contract.BINARY_CROSS_ENTROPY if matched:
            return arithmetic.fma(-y, z, arithmetic.softplus(z))
        case contract.BINARY_CROSS_ENTROPY:
            p = _clipped_both(a)
            return -arithmetic.fma(y, arithmetic.log(p), (1.0 - y) * arithmetic.log(1.0 - p))
        case contract.CROSS_ENTROPY:
            log_p = activations.log_softmax(z, arithmetic) if matched else arithmetic.log(_clipped(a))
            return y * -log_p
        case contract.POISSON if matched:
            return arithmetic.fma(-y, z, a)
        case contract.POISSON:
            return arithmetic.fma(-y, arithmetic.log(_clipped(a)), a)
        case contract.ABSOLUTE_ERROR:
            return np.abs(a - y)
        case contract.HUBER:
            d = a - y
            size = np.abs(d)
            return np.where(size > setting, setting * (size - setting * 0.5), (d * 0.5) * d)
        case contract.QUANTILE:
            d = y - a
            return np.where(d > 0, setting * d, (setting - 1.0) * d)
    raise ValueError(f"loss must be a code from 0 to {contract.QUANTILE}; got {loss}")


def delta(
    loss: int, activation: int, parameter: float, z: Array, a: Array, y: Array, arithmetic: ModuleType = exact
) -> Array:
    """The derivative of `loss` by z."""
    exact.check_shapes(z, a, y)
    if contract.MATCHED_ACTIVATION.get(loss) == activation:
        return a - y
    return activations.backward(activation, _error(loss, parameter, a, y), z, a, arithmetic)


def _error(loss: int, parameter: float, a: Array, y: Array) -> Array:
    """The derivative of the loss by a."""
    setting = a.dtype.type(parameter)
    d = a - y
    match loss:
        case contract.SQUARED_ERROR:
            return d
        case contract.BINARY_CROSS_ENTROPY:
            p = _clipped_both(a)
            return (p - y) / (p * (1.0 - p))
        case contract.CROSS_ENTROPY:
            return -y / _clipped(a)
        case contract.POISSON:
            return 1.0 - y / _clipped(a)
        case contract.ABSOLUTE_ERROR:
            one = a.dtype.type(1)
            return np.where(d > 0, one, np.where(d < 0, -one, d))
        case contract.HUBER:
            return np.where(d > setting, setting, np.where(d < -setting, -setting, d))
        case contract.QUANTILE:
            return np.where(d > 0, 1.0 - setting, np.where(d < 0, -setting, d))
    raise ValueError(f"loss must be a code from 0 to {contract.QUANTILE}; got {loss}")
