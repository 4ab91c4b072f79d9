"""Activations and their derivatives in one lane; softmax, which couples lanes, is in `fastnet.kernels.activations`."""

from __future__ import annotations

from llvmlite import ir

from fastnet import contract
from fastnet.kernels.formulas import arithmetic
from fastnet.kernels.simd import Lanes, fma, select, switch

#: Those whose derivative is calculated from their inputs; the others' from their outputs alone.
DERIVED_FROM_INPUTS = (contract.GELU, contract.SILU, contract.SOFTPLUS)


def forward(activation: ir.Value | int, z: Lanes) -> Lanes:
    """a = activation(z); softmax is left at z."""
    cases = {
        contract.SIGMOID: lambda: arithmetic.sigmoid(z),
        contract.TANH: lambda: arithmetic.tanh(z),
        contract.RELU: lambda: select(z < 0.0, 0.0, z),
        contract.LEAKY_RELU: lambda: select(z < 0.0, z * contract.NEGATIVE_SLOPE, z),
        contract.SOFTPLUS: lambda: arithmetic.softplus(z),
        contract.ELU: lambda: select(z < 0.0, arithmetic.expm1(z), z),
        contract.SILU: lambda: z * arithmetic.sigmoid(z),
        contract.GELU: lambda: z * arithmetic.normal_cdf(z),
        contract.EXPONENTIAL: lambda: arithmetic.exp(z),
        contract.IDENTITY: lambda: z,
    }
    return switch(z.builder, activation, cases)


def backward(activation: ir.Value | int, error: Lanes, z: Lanes, a: Lanes) -> Lanes:
    """The loss's derivative by z from ``error``, its derivative by a; softmax leaves ``error``."""

    def silu() -> Lanes:
        s = arithmetic.sigmoid(z)
        return error * fma(a, 1.0 - s, s)

    cases = {
        contract.SIGMOID: lambda: error * (a * (1.0 - a)),
        contract.TANH: lambda: error * fma(-a, a, 1.0),
        contract.RELU: lambda: select(a > 0.0, error, 0.0),
        contract.LEAKY_RELU: lambda: select(a > 0.0, error, error * contract.NEGATIVE_SLOPE),
        contract.SOFTPLUS: lambda: error * arithmetic.sigmoid(z),
        contract.ELU: lambda: select(a > 0.0, error, error * (a + 1.0)),
        contract.SILU: silu,
        contract.GELU: lambda: error * fma(z, arithmetic.normal_density(z), arithmetic.normal_cdf(z)),
        contract.EXPONENTIAL: lambda: error * a,
        contract.IDENTITY: lambda: error,
    }
    return switch(z.builder, activation, cases)


def flushed_backward(activation: ir.Value | int, error: Lanes, z: Lanes, a: Lanes) -> Lanes:
    """`backward` without what would become subnormal on its way down."""
    return arithmetic.flush(backward(activation, error, z, a))
