"""The functions of `fastnet.reference.exact` as one would write them by hand in NumPy.

Sums are left to BLAS and to NumPy's pairwise summation, so the last bits depend on the machine.
This is the baseline that the kernels are timed against.
"""

from __future__ import annotations

import math

import numpy as np

from fastnet.reference.exact import Array

__all__ = [
    "affine",
    "back_projection",
    "bias_gradient",
    "exp",
    "expm1",
    "flush",
    "fma",
    "log",
    "matmul",
    "multiply",
    "normal_cdf",
    "normal_density",
    "sigmoid",
    "softplus",
    "sum_in_order",
    "tanh",
    "transpose",
    "weight_gradient",
    "weighted_row_sum",
]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def fma(a: Array, b: Array | float, c: Array | float) -> Array:
    """a * b + c, rounded twice."""
    return a * b + c


def flush(x: Array) -> Array:
    """x as it is: nobody flushes by hand."""
    return x


def matmul(a: Array, b: Array) -> Array:
    """a @ b."""
    return a @ b


def affine(x: Array, weights: Array, bias: Array | None) -> Array:
    """x @ weights + bias."""
    product = x @ weights
    return product if bias is None else product + bias[..., None, :]


def back_projection(delta: Array, weights: Array) -> Array:
    """delta @ weights.T."""
    return delta @ np.swapaxes(weights, -1, -2)


def weight_gradient(x: Array, delta: Array) -> Array:
    """x.T @ delta."""
    return np.swapaxes(x, -1, -2) @ delta


def bias_gradient(delta: Array) -> Array:
    """The sum of delta's rows."""
    return delta.sum(axis=-2)


def weighted_row_sum(values: Array, weights: Array) -> Array:
    """The rows of ``values`` times their weights, summed."""
    return weights @ values


def sum_in_order(values: Array) -> Array:
    """The sum over the last axis, which is kept with length 1."""
    return values.sum(axis=-1, keepdims=True)


def transpose(a: Array) -> Array:
    """The transposed matrix, C-contiguous."""
    return np.ascontiguousarray(np.swapaxes(a, -1, -2))


def multiply(a: Array, b: Array) -> Array:
    """a * b, element by element."""
    return a * b


def exp(x: Array) -> Array:
    """e^x."""
    return np.exp(x)


def expm1(x: Array) -> Array:
    """e^x - 1."""
    return np.expm1(x)


def log(x: Array) -> Array:
    """Natural logarithm."""
    return np.log(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), the notebooks' formula."""
    return 1.0 / (1.0 + np.exp(-x))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


def softplus(x: Array) -> Array:
    """log(1 + e^x)."""
    return np.logaddexp(x.dtype.type(0), x)


def normal_density(x: Array) -> Array:
    """e^(-x^2 / 2) / sqrt(2 pi)."""
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def normal_cdf(x: Array) -> Array:
    """The normal distribution function, through the C library's erf (NumPy has none)."""
    return (0.5 * (1.0 + _erf(x / math.sqrt(2)))).astype(x.dtype)
