"""Optimizer steps over a parameter buffer: the loops around `fastnet.kernels.formulas.optimizers`.

Lanes run across parameters; nothing is summed.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

from fastnet import contract
from fastnet.contract import ADAM, RMSPROP, RPROP
from fastnet.kernels.checks import check_int64, check_plain, check_plain_writable, require
from fastnet.kernels.formulas import optimizers as formulas
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.memory import destination, lanes_of, load, pointer, splat, store
from fastnet.kernels.products import entry, layout_size
from fastnet.kernels.records import check_update
from fastnet.kernels.simd import staged

__all__ = ["step"]

_penalised = staged(formulas.penalised)
_sgd = staged(formulas.sgd)
_momentum = staged(formulas.momentum)
_nesterov = staged(formulas.nesterov)
_adam = staged(formulas.adam)
_rmsprop = staged(formulas.rmsprop)
_rmsprop_momentum = staged(formulas.rmsprop_momentum)
_rprop = staged(formulas.rprop)


class State(NamedTuple):
    """An `Update` as pointers, and the size of the parameter buffer."""

    kind: int
    settings: Any
    slots: Any
    n_slots: int
    powers: Any
    size: int


@jit_inline
def state_of(update, size):
    """The pointers of an `Update`."""
    return State(
        update.kind,
        pointer(update.settings),
        destination(update.slots),
        update.slots.shape[0],
        destination(update.powers),
        size,
    )


@jit_inline
def step_span(first, end, l2, scale, parameters, gradient, state, learning_rate, rate):
    """One step for the whole vectors from ``first`` to ``end``."""
    lanes = lanes_of(parameters)
    penalty, factor = splat(parameters, l2), splat(parameters, scale)
    settings, slots, n_slots = state.settings, state.slots, state.n_slots
    minus_rate = splat(parameters, -rate)
    # Slot k of an element is k buffers further on.
    one = state.size
    if state.kind == ADAM:
        beta_1 = splat(parameters, settings[contract.ADAM_BETA_1])
        beta_2 = splat(parameters, settings[contract.ADAM_BETA_2])
        complement_1 = splat(parameters, 1.0 - settings[contract.ADAM_BETA_1])
        complement_2 = splat(parameters, 1.0 - settings[contract.ADAM_BETA_2])
        minus_decay = splat(parameters, -learning_rate * settings[contract.ADAM_WEIGHT_DECAY])
        epsilon = splat(parameters, settings[contract.ADAM_EPSILON])
        for i in range(first, end, lanes):
            w = load(parameters, i)
            g = _penalised(w, load(gradient, i), penalty, factor)
            w, m, v = _adam(
                w,
                g,
                load(slots, i),
                load(slots, one + i),
                minus_rate,
                minus_decay,
                beta_1,
                complement_1,
                beta_2,
                complement_2,
                epsilon,
            )
            store(parameters, i, w)
            store(slots, i, m)
            store(slots, one + i, v)
    elif state.kind == RMSPROP:
        rho = splat(parameters, settings[contract.RMSPROP_RHO])
        complement = splat(parameters, 1.0 - settings[contract.RMSPROP_RHO])
        epsilon = splat(parameters, settings[contract.RMSPROP_EPSILON])
        momentum = splat(parameters, settings[contract.RMSPROP_MOMENTUM])
        for i in range(first, end, lanes):
            w = load(parameters, i)
            g = _penalised(w, load(gradient, i), penalty, factor)
            v = load(slots, i)
            if n_slots == 1:
                w, v = _rmsprop(w, g, v, minus_rate, rho, complement, epsilon)
            else:
                velocity = load(slots, one + i)
                w, v, velocity = _rmsprop_momentum(w, g, v, velocity, minus_rate, rho, complement, epsilon, momentum)
                store(slots, one + i, velocity)
            store(parameters, i, w)
            store(slots, i, v)
    elif state.kind == RPROP:
        minus = splat(parameters, settings[contract.RPROP_ETA_MINUS])
        plus = splat(parameters, settings[contract.RPROP_ETA_PLUS])
        smallest = splat(parameters, settings[contract.RPROP_STEP_MIN])
        largest = splat(parameters, settings[contract.RPROP_STEP_MAX])
        for i in range(first, end, lanes):
            w = load(parameters, i)
            g = _penalised(w, load(gradient, i), penalty, factor)
            w, g, size = _rprop(w, g, load(slots, i), load(slots, one + i), minus, plus, smallest, largest)
            store(parameters, i, w)
            store(slots, i, g)
            store(slots, one + i, size)
    elif n_slots == 0:
        for i in range(first, end, lanes):
            w = load(parameters, i)
            g = _penalised(w, load(gradient, i), penalty, factor)
            store(parameters, i, _sgd(w, g, minus_rate))
    else:
        momentum = splat(parameters, settings[contract.SGD_MOMENTUM])
        is_nesterov = settings[contract.SGD_NESTEROV] != 0.0
        for i in range(first, end, lanes):
            w = load(parameters, i)
            g = _penalised(w, load(gradient, i), penalty, factor)
            velocity = load(slots, i)
            if is_nesterov:
                w, velocity = _nesterov(w, g, velocity, minus_rate, momentum)
            else:
                w, velocity = _momentum(w, g, velocity, minus_rate, momentum)
            store(parameters, i, w)
            store(slots, i, velocity)


@jit_inline
def scale_of(objective, batch_weight):
    """The factor of a batch's summed gradient: a batch of samples without weight pulls nowhere."""
    if not objective.mean:
        return 1.0
    return 1.0 / batch_weight if batch_weight > 0.0 else 0.0


@jit_inline
def rate_of(state, learning_rate):
    """The rate of the next step: Adam's has the bias corrections folded in."""
    if state.kind != ADAM:
        return learning_rate
    power_1 = state.powers[0] * state.settings[contract.ADAM_BETA_1]
    power_2 = state.powers[1] * state.settings[contract.ADAM_BETA_2]
    return learning_rate * sqrt(1.0 - power_2) / (1.0 - power_1)


@jit_inline
def count_step(state):
    """Note that a step was taken."""
    if state.kind == ADAM:
        state.powers[0] *= state.settings[contract.ADAM_BETA_1]
        state.powers[1] *= state.settings[contract.ADAM_BETA_2]


@jit
def step(layout, parameters, gradient, batch_weight, objective, update, learning_rate):
    """Change ``parameters`` and the optimizer's state in place, from the summed gradient of a batch.

    Parameters
    ----------
    layout : (n_layers, 6) int64 array
        The columns are named in `fastnet.contract`.
    parameters, gradient : (size,) array of float32 or float64
        Padded buffers of one dtype.
    batch_weight : float
        The sum of the batch's sample weights, by which a mean is taken.
    objective, update : Objective, Update
        What is minimised, and the optimizer.
    learning_rate : float
        The rate of this epoch.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    TypeError
        When it is compiled for arrays of other dtypes or memory layouts, or that are read-only.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import SGD, Network, contract
    >>> from fastnet.contract import Objective, Update
    >>> network = Network.from_arrays([[[2.0], [3.0]]])
    >>> parameters, sgd = network.parameter_buffer, SGD()
    >>> slots = sgd.initial_slots(parameters.size, network.dtype)
    >>> update = Update(sgd.kind, sgd.settings, slots, np.ones(2), np.ones(1))
    >>> objective = Objective(contract.SQUARED_ERROR, 0.0, True, 0.0, 1)
    >>> step(network.layout, parameters, np.ones_like(parameters), 1.0, objective, update, 0.5)
    >>> network.weights[0]
    array([[1.5],
           [2.5]])
    """
    check_int64("layout", layout, 2, None)
    check_plain_writable("parameters", parameters, 1, None)
    check_plain("gradient", gradient, 1, parameters)
    size, n_parameters, n_gradient = layout_size(layout), parameters.size, gradient.size
    require(n_parameters == size, "parameters must have {} elements, as layout says; got {}", (size, n_parameters))
    require(n_gradient == size, "gradient must have {} elements, as layout says; got {}", (size, n_gradient))
    check_update(update, parameters, size)
    table, weights, state = pointer(layout), destination(parameters), state_of(update, parameters.size)
    scale, rate = scale_of(objective, batch_weight), rate_of(state, learning_rate)
    # Weights, then biases, of each layer: one place where a step is taken, because it is a lot of code.
    for part in range(2 * layout.shape[0]):
        layer, l2 = part // 2, objective.l2
        stride = entry(table, layer, contract.STRIDE)
        first, n = entry(table, layer, contract.WEIGHTS), entry(table, layer, contract.N_INPUTS) * stride
        if part % 2 == 1:
            first, n, l2 = entry(table, layer, contract.BIAS), stride, 0.0
        if first >= 0:
            end = first + n
            step_span(first, end, l2, scale, weights, pointer(gradient), state, learning_rate, rate)
    count_step(state)
