"""Losses and their derivatives in one lane.

A case is a loss's code, or ``MATCHED`` more where the output activation is the loss's natural one;
then z is used (for softmax, z holds the logarithm of the softmax) and the derivative by z is a - y.
"""

from __future__ import annotations

from llvmlite import ir

from fastnet import contract
from fastnet.contract import MATCHED
from fastnet.kernels.formulas.arithmetic import at_least, at_most, format_of, log, softplus
from fastnet.kernels.simd import Lanes, absolute, fma, select, switch


def _clipped(a: Lanes) -> Lanes:
    return at_least(format_of(a).epsilon, a)


def _clipped_both(a: Lanes) -> Lanes:
    return at_most(1.0 - format_of(a).epsilon, _clipped(a))


def loss(case: ir.Value, parameter: Lanes, z: Lanes, a: Lanes, y: Lanes) -> Lanes:
    """The loss of one output."""

    def binary_cross_entropy() -> Lanes:
        p = _clipped_both(a)
        return -fma(y, log(p), (1.0 - y) * log(1.0 - p))

    def huber() -> Lanes:
        d = a - y
        size = absolute(d)
        return select(size > parameter, parameter * (size - parameter * 0.5), (d * 0.5) * d)

    def quantile() -> Lanes:
        d = y - a
        return select(d > 0.0, parameter * d, (parameter - 1.0) * d)

    cases = {
        MATCHED + contract.BINARY_CROSS_ENTROPY: lambda: fma(-y, z, softplus(z)),
        MATCHED + contract.CROSS_ENTROPY: lambda: y * -z,
        MATCHED + contract.POISSON: lambda: fma(-y, z, a),
        contract.BINARY_CROSS_ENTROPY: binary_cross_entropy,
        contract.CROSS_ENTROPY: lambda: y * -log(_clipped(a)),
        contract.POISSON: lambda: fma(-y, log(_clipped(a)), a),
        contract.ABSOLUTE_ERROR: lambda: absolute(a - y),
        contract.HUBER: huber,
        contract.QUANTILE: quantile,
        contract.SQUARED_ERROR: lambda: ((a - y) * 0.5) * (a - y),
    }
    return switch(a.builder, case, cases)


def error(case: ir.Value, parameter: Lanes, a: Lanes, y: Lanes) -> Lanes:
    """The derivative of the loss by a; in a matched case the derivative by z, which is a - y."""
    d = a - y

    def binary_cross_entropy() -> Lanes:
        p = _clipped_both(a)
        return (p - y) / (p * (1.0 - p))

    cases = {
        contract.BINARY_CROSS_ENTROPY: binary_cross_entropy,
        contract.CROSS_ENTROPY: lambda: -y / _clipped(a),
        contract.POISSON: lambda: 1.0 - y / _clipped(a),
        contract.ABSOLUTE_ERROR: lambda: select(d > 0.0, 1.0, select(d < 0.0, -1.0, d)),
        contract.HUBER: lambda: select(d > parameter, parameter, select(d < -parameter, -parameter, d)),
        contract.QUANTILE: lambda: select(d > 0.0, 1.0 - parameter, select(d < 0.0, -parameter, d)),
        contract.SQUARED_ERROR: lambda: d,
    }
    return switch(a.builder, case, cases)
