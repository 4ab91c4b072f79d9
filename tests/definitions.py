"""Activations and losses from their definitions, for numbers of mpmath (real or complex) and arrays of NumPy.

Of fastnet they use the names only.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import mpmath as mp
import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from fastnet import contract
from tests.running_error import EXACT, Arithmetic

Array = NDArray[np.floating]

DTYPES = ["float32", "float64"]
FLOAT64 = Arithmetic(np.dtype(np.float64), EXACT)
ELEMENTWISE = [name for name in contract.ACTIVATIONS if name != "softmax"]
HIDDEN = [name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY]
#: Losses and the outputs whose derivative they simplify.
MATCHED = [("binary_cross_entropy", "sigmoid"), ("cross_entropy", "softmax"), ("poisson", "exponential")]
#: The complex step, of which 120 digits leave an error of 10^-80 of the derivative.
STEP = mp.mpf(10) ** -40
PARAMETER = {"huber": 0.5, "quantile": 0.75}


def code(name: str) -> int:
    """The number of an activation or a loss."""
    return (*contract.ACTIVATIONS, *contract.LOSSES).index(name) % len(contract.ACTIVATIONS)


MPMATH = SimpleNamespace(
    exp=mp.exp,
    expm1=mp.expm1,
    log=mp.log,
    log1p=mp.log1p,
    tanh=mp.tanh,
    erfc=mp.erfc,
    where=lambda condition, yes, no: yes if condition else no,
    real=mp.re,
)
NUMPY = SimpleNamespace(
    exp=np.exp,
    expm1=np.expm1,
    log=np.log,
    log1p=np.log1p,
    tanh=np.tanh,
    erfc=erfc,
    where=np.where,
    real=np.real,
)


def activate(name: str, z: Any, m: SimpleNamespace) -> Any:
    """a = activation(z), but for softmax."""
    match name:
        case "identity":
            return z
        case "sigmoid":
            return 1 / (1 + m.exp(-z))
        case "tanh":
            return m.tanh(z)
        case "relu":
            return m.where(m.real(z) > 0, z, 0 * z)
        case "leaky_relu":
            return m.where(m.real(z) > 0, z, 0.01 * z)
        case "softplus":
            return m.log1p(m.exp(z))
        case "elu":
            return m.where(m.real(z) > 0, z, m.expm1(z))
        case "silu":
            return z / (1 + m.exp(-z))
        case "gelu":
            # Half of erfc(-z / sqrt(2)) is the normal distribution function.
            return z * m.erfc(-z * mp.sqrt(0.5) if m is MPMATH else -z * np.sqrt(0.5)) / 2
        case "exponential":
            return m.exp(z)
    raise AssertionError(name)


def loss_of(name: str, a: Any, y: Any, m: SimpleNamespace) -> Any:
    """The loss of one output."""
    match name:
        case "squared_error":
            return (a - y) ** 2 / 2
        case "binary_cross_entropy":
            return -(y * m.log(a) + (1 - y) * m.log(1 - a))
        case "cross_entropy":
            return -y * m.log(a)
        case "poisson":
            return a - y * m.log(a)
        case "absolute_error":
            return m.where(m.real(a) > m.real(y), a - y, y - a)
        case "huber":
            d, size = PARAMETER[name], m.where(m.real(a) > m.real(y), a - y, y - a)
            return m.where(m.real(size) > d, d * (size - d / 2), size**2 / 2)
        case "quantile":
            q = PARAMETER[name]
            return m.where(m.real(a) > m.real(y), (1 - q) * (a - y), q * (y - a))
    raise AssertionError(name)


def derivative(function: Any, x: float) -> mp.mpf:
    """The derivative of a formula, by a complex step."""
    return mp.im(function(mp.mpc(x, STEP))) / STEP


def softmax(z: Sequence[Any]) -> list[Any]:
    terms = [mp.exp(x) for x in z]
    return [term / mp.fsum(terms) for term in terms]
