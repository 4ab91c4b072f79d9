"""Optimizer steps, element by element, over either arithmetic.

The gradient that reaches an optimizer is ``scale * (sum + l2 * parameter)``; biases are not
penalised. Products with a rate are fused into the update.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnet import contract
from fastnet.contract import Objective, Update
from fastnet.reference import exact
from fastnet.reference.exact import Array
from fastnet.reference.records import check_update, layout_size

__all__ = ["step"]


class _Operands(NamedTuple):
    """What the step of some parameters is computed from; a step returns new parameters, then new slots."""

    w: Array
    g: Array
    slots: list[Array]
    settings: np.ndarray
    learning_rate: float
    #: The learning rate with Adam's bias corrections.
    rate: float
    arithmetic: ModuleType


def step(
    layout: np.ndarray,
    parameters: Array,
    gradient: Array,
    batch_weight: float,
    objective: Objective,
    update: Update,
    learning_rate: float,
    arithmetic: ModuleType = exact,
) -> None:
    """Change ``parameters`` and the optimizer's state in place, from the summed gradient of a batch.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters, gradient : (..., size) array
        Padded buffers of one dtype.
    batch_weight : float
        The sum of the batch's sample weights, by which a mean is taken.
    objective, update : Objective, Update
        What is minimised, and the optimizer.
    learning_rate : float
        The rate of this epoch.
    """
    exact.check_dtype("gradient", gradient, parameters.dtype)
    size = layout_size(layout)
    if parameters.shape[-1] != size:
        raise ValueError(f"parameters must have {size} elements, as layout says; got {parameters.shape[-1]}")
    if gradient.shape[-1] != size:
        raise ValueError(f"gradient must have {size} elements, as layout says; got {gradient.shape[-1]}")
    check_update(update, parameters, size)
    dtype = parameters.dtype.type
    scale = dtype(1.0)
    if objective.mean:
        # A batch of samples without weight pulls nowhere.
        scale = dtype(1.0 / batch_weight if batch_weight > 0.0 else 0.0)
    settings = update.settings
    rate = learning_rate
    if update.kind == contract.ADAM:
        update.powers[0] *= settings[contract.ADAM_BETA_1]
        update.powers[1] *= settings[contract.ADAM_BETA_2]
        rate = learning_rate * np.sqrt(1.0 - update.powers[1]) / (1.0 - update.powers[0])
    for row in layout:
        first, end = row[contract.WEIGHTS], row[contract.WEIGHTS] + row[contract.N_INPUTS] * row[contract.STRIDE]
        spans = [(slice(first, end), objective.l2)]
        if row[contract.BIAS] >= 0:
            spans.append((slice(row[contract.BIAS], row[contract.BIAS] + row[contract.STRIDE]), 0.0))
        for span, l2 in spans:
            w = parameters[..., span]
            g = arithmetic.fma(w, dtype(l2), gradient[..., span]) * scale
            slots = [slot[..., span] for slot in update.slots]
            changed = _STEPS[update.kind](_Operands(w, g, slots, settings, learning_rate, rate, arithmetic))
            for old, new in zip((w, *slots), changed, strict=True):
                old[...] = new


def _sgd(operands: _Operands) -> tuple[Array, ...]:
    """Gradient descent; with momentum in the form of Sutskever et al. (2013), as scikit-learn has it."""
    w, g, slots, settings, _, rate, arithmetic = operands
    dtype = w.dtype.type
    if not slots:
        return (arithmetic.fma(g, dtype(-rate), w),)
    momentum = dtype(settings[contract.SGD_MOMENTUM])
    push = g * dtype(-rate)
    velocity = arithmetic.flush(arithmetic.fma(slots[0], momentum, push))
    move = arithmetic.fma(velocity, momentum, push) if settings[contract.SGD_NESTEROV] else velocity
    return w + move, velocity


def _adam(operands: _Operands) -> tuple[Array, ...]:
    """Kingma and Ba (2015), the efficient form at the end of section 2; decay as in AdamW (2019)."""
    w, g, slots, settings, learning_rate, rate, arithmetic = operands
    dtype = w.dtype.type
    beta_1, beta_2 = settings[contract.ADAM_BETA_1], settings[contract.ADAM_BETA_2]
    m = arithmetic.flush(arithmetic.fma(slots[0], dtype(beta_1), g * dtype(1.0 - beta_1)))
    v = arithmetic.flush(arithmetic.fma(slots[1], dtype(beta_2), (g * dtype(1.0 - beta_2)) * g))
    w = arithmetic.fma(w, dtype(-learning_rate * settings[contract.ADAM_WEIGHT_DECAY]), w)
    direction = m / (np.sqrt(v) + dtype(settings[contract.ADAM_EPSILON]))
    return arithmetic.fma(direction, dtype(-rate), w), m, v


def _rmsprop(operands: _Operands) -> tuple[Array, ...]:
    """Tieleman and Hinton (2012), with momentum as Keras has it."""
    w, g, slots, settings, _, rate, arithmetic = operands
    dtype = w.dtype.type
    rho = settings[contract.RMSPROP_RHO]
    v = arithmetic.flush(arithmetic.fma(slots[0], dtype(rho), (g * dtype(1.0 - rho)) * g))
    direction = g / (np.sqrt(v) + dtype(settings[contract.RMSPROP_EPSILON]))
    if len(slots) == 1:
        return arithmetic.fma(direction, dtype(-rate), w), v
    momentum = dtype(settings[contract.RMSPROP_MOMENTUM])
    velocity = arithmetic.flush(arithmetic.fma(slots[1], momentum, direction * dtype(-rate)))
    return w + velocity, v, velocity


def _rprop(operands: _Operands) -> tuple[Array, ...]:
    """Riedmiller and Braun (1993) without weight backtracking, as PyTorch has it."""
    w, g, slots, settings, _, _, arithmetic = operands
    dtype = w.dtype.type
    minus, plus, smallest, largest = (dtype(value) for value in settings)
    g = arithmetic.flush(g)
    previous, size = slots
    same = ((g > 0) & (previous > 0)) | ((g < 0) & (previous < 0))
    opposite = ((g > 0) & (previous < 0)) | ((g < 0) & (previous > 0))
    longer, shorter = size * plus, size * minus
    longer = np.where(longer > largest, largest, longer)
    shorter = np.where(shorter < smallest, smallest, shorter)
    size = np.where(same, longer, np.where(opposite, shorter, size))
    g = np.where(opposite, dtype(0), g)
    w = np.where(g > 0, w - size, np.where(g < 0, w + size, w + g))
    return w, g, size


_STEPS = {contract.SGD: _sgd, contract.ADAM: _adam, contract.RMSPROP: _rmsprop, contract.RPROP: _rprop}
