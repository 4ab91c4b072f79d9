"""Activations and their derivatives, over either arithmetic.

An activation is named by its code (`fastnet.contract.ACTIVATIONS`). Derivatives are taken from the
output a where that is exact and cheap, as the notebooks do, and from z otherwise.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from fastnet import contract
from fastnet.reference import exact
from fastnet.reference.exact import Array

__all__ = ["backward", "forward", "log_softmax"]


def forward(activation: int, z: Array, arithmetic: ModuleType = exact) -> Array:
    """a = activation(z); softmax runs over the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> forward(contract.RELU, np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """
    match activation:
        case contract.IDENTITY:
            return z
        case contract.SIGMOID:
            return arithmetic.sigmoid(z)
        case contract.TANH:
            return arithmetic.tanh(z)
        case contract.RELU:
            return np.where(z < 0, z.dtype.type(0), z)
        case contract.LEAKY_RELU:
            return np.where(z < 0, z * contract.NEGATIVE_SLOPE, z)
        case contract.SOFTPLUS:
            return arithmetic.softplus(z)
        case contract.ELU:
            return np.where(z < 0, arithmetic.expm1(z), z)
        case contract.SILU:
            return z * arithmetic.sigmoid(z)
        case contract.GELU:
            return z * arithmetic.normal_cdf(z)
        case contract.EXPONENTIAL:
            return arithmetic.exp(z)
        case contract.SOFTMAX:
            terms = arithmetic.exp(z - z.max(axis=-1, keepdims=True))
            return terms / arithmetic.sum_in_order(terms)
    raise ValueError(f"activation must be a code from 0 to {contract.SOFTMAX}; got {activation}")


def log_softmax(z: Array, arithmetic: ModuleType = exact) -> Array:
    """Logarithm of the softmax over the last axis, without the softmax's underflow."""
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - arithmetic.log(arithmetic.sum_in_order(arithmetic.exp(shifted)))


def backward(activation: int, error: Array, z: Array, a: Array, arithmetic: ModuleType = exact) -> Array:
    """The loss's derivative by z, from ``error``, its derivative by a = activation(z)."""
    exact.check_shapes(error, z, a)
    match activation:
        case contract.IDENTITY:
            return error
        case contract.SIGMOID:
            return error * (a * (1.0 - a))
        case contract.TANH:
            return error * arithmetic.fma(-a, a, 1.0)
        case contract.RELU:
            return np.where(a > 0, error, error.dtype.type(0))
        case contract.LEAKY_RELU:
            return np.where(a > 0, error, error * contract.NEGATIVE_SLOPE)
        case contract.SOFTPLUS:
            return error * arithmetic.sigmoid(z)
        case contract.ELU:
            return np.where(a > 0, error, error * (a + 1.0))
        case contract.SILU:
            s = arithmetic.sigmoid(z)
            return error * arithmetic.fma(a, 1.0 - s, s)
        case contract.GELU:
            return error * arithmetic.fma(z, arithmetic.normal_density(z), arithmetic.normal_cdf(z))
        case contract.EXPONENTIAL:
            return error * a
        case contract.SOFTMAX:
            return a * (error - arithmetic.sum_in_order(error * a))
    raise ValueError(f"activation must be a code from 0 to {contract.SOFTMAX}; got {activation}")
