"""Numba kernels with the bits of `fastnet.reference`, callable from Python and from jitted code."""

from fastnet.kernels.arithmetic import (
    exp,
    expm1,
    flush,
    fma,
    log,
    normal_cdf,
    normal_density,
    sigmoid,
    softplus,
    tanh,
)
from fastnet.kernels.linear import (
    affine,
    back_projection,
    bias_gradient,
    matmul,
    multiply,
    sum_in_order,
    transpose,
    weight_gradient,
    weighted_row_sum,
)
from fastnet.kernels.network import forward, gradient, train
from fastnet.kernels.optimizers import step

__all__ = [
    "affine",
    "back_projection",
    "bias_gradient",
    "exp",
    "expm1",
    "flush",
    "fma",
    "forward",
    "gradient",
    "log",
    "matmul",
    "multiply",
    "normal_cdf",
    "normal_density",
    "sigmoid",
    "softplus",
    "step",
    "sum_in_order",
    "tanh",
    "train",
    "transpose",
    "weight_gradient",
    "weighted_row_sum",
]
