"""The formulas of networks on the numbers of `tests.running_error`, which bound the rounding errors of any evaluation.

They are written here once more, from the definitions, and use nothing of fastnet but its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from fastnet import contract
from tests.running_error import EXACT, Arithmetic, Array, Bounded, select


def sigmoid(z: Bounded) -> Bounded:
    return z.apply(expit, 0.25, z.arithmetic.accuracy.sigmoid)


def _normal_cdf(z: Bounded) -> Bounded:
    accuracy = z.arithmetic.accuracy
    # The slope is the density, at most 0.4.
    return z.apply(ndtr, 0.4, accuracy.normal_cdf, accuracy.normal_cdf_absolute)


def _normal_density(z: Bounded) -> Bounded:
    accuracy = z.arithmetic.accuracy
    # The slope is at most e^(-1/2) / sqrt(2 pi) < 0.25, at x = 1.
    relative = accuracy.normal_density + accuracy.normal_density_per_square * z.size**2
    return z.apply(lambda x: np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), 0.25, relative)


def _softmax_terms(z: Bounded) -> tuple[Bounded, Bounded]:
    shifted = z - z.largest()
    return shifted, shifted.exp()


def log_softmax(z: Bounded) -> Bounded:
    shifted, terms = _softmax_terms(z)
    return shifted - terms.sum(-1).log()


def activate(activation: int, z: Bounded) -> Bounded:
    """a = activation(z)."""
    accuracy = z.arithmetic.accuracy
    match activation:
        case contract.IDENTITY:
            return z
        case contract.SIGMOID:
            return sigmoid(z)
        case contract.TANH:
            return z.apply(np.tanh, 1.0, accuracy.tanh)
        case contract.RELU:
            return z.clipped(0.0)
        case contract.LEAKY_RELU:
            return select(z, z, z * contract.NEGATIVE_SLOPE)
        case contract.SOFTPLUS:
            return z.apply(lambda x: np.logaddexp(0.0, x), 1.0, accuracy.softplus)
        case contract.ELU:
            return select(z, z, z.clipped(-np.inf, 0.0).apply(np.expm1, 1.0, accuracy.expm1))
        case contract.SILU:
            return z * sigmoid(z)
        case contract.GELU:
            return z * _normal_cdf(z)
        case contract.EXPONENTIAL:
            return z.exp()
        case contract.SOFTMAX:
            _, terms = _softmax_terms(z)
            return terms / terms.sum(-1)
    raise AssertionError(activation)


def derive(activation: int, error: Bounded, z: Bounded, a: Bounded) -> Bounded:
    """The derivative by z, from the one by a."""
    match activation:
        case contract.IDENTITY:
            return error
        case contract.SIGMOID:
            return error * (a * (1.0 - a))
        case contract.TANH:
            return error * (1.0 - a * a)
        case contract.RELU:
            return select(a, error, error.constant(0.0))
        case contract.LEAKY_RELU:
            return select(a, error, error * contract.NEGATIVE_SLOPE)
        case contract.SOFTPLUS:
            return error * sigmoid(z)
        case contract.ELU:
            return select(a, error, error * (a + 1.0))
        case contract.SILU:
            s = sigmoid(z)
            return error * (s + a * (1.0 - s))
        case contract.GELU:
            return error * (_normal_cdf(z) + z * _normal_density(z))
        case contract.EXPONENTIAL:
            return error * a
        case contract.SOFTMAX:
            return a * (error - (error * a).sum(-1))
    raise AssertionError(activation)


def _clipped(a: Bounded) -> Bounded:
    eps = 2 * a.arithmetic.u
    return a.clipped(eps)


def _clipped_both(a: Bounded) -> Bounded:
    eps = 2 * a.arithmetic.u
    return a.clipped(eps, 1 - eps)


def loss(loss: int, activation: int, parameter: float, z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """The loss of every output; ``parameter`` and 1 - ``parameter`` have to be numbers of the dtype."""
    matched = contract.MATCHED_ACTIVATION.get(loss) == activation
    d = a - y
    match loss:
        case contract.SQUARED_ERROR:
            return d * d * 0.5
        case contract.BINARY_CROSS_ENTROPY if matched:
            return activate(contract.SOFTPLUS, z) - y * z
        case contract.BINARY_CROSS_ENTROPY:
            p = _clipped_both(a)
            return -(y * p.log() + (1.0 - y) * (1.0 - p).log())
        case contract.CROSS_ENTROPY:
            return -y * (log_softmax(z) if matched else _clipped(a).log())
        case contract.POISSON:
            return a - y * (z if matched else _clipped(a).log())
        case contract.ABSOLUTE_ERROR:
            return abs(d)
        case contract.HUBER:
            size = abs(d)
            return select(size - parameter, (size - 0.5 * parameter) * parameter, d * d * 0.5)
        case contract.QUANTILE:
            return select(-d, -d * parameter, d * (1.0 - parameter))
    raise AssertionError(loss)


def delta(loss: int, activation: int, parameter: float, z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """The derivative of the loss by z."""
    if contract.MATCHED_ACTIVATION.get(loss) == activation:
        return a - y
    return derive(activation, _error(loss, parameter, a, y), z, a)


def _error(loss: int, parameter: float, a: Bounded, y: Bounded) -> Bounded:
    d = a - y
    one = d.constant(1.0)
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
            return select(d, one, select(-d, -one, d))
        case contract.HUBER:
            return d.clipped(-parameter, parameter)
        case contract.QUANTILE:
            return select(d, d.constant(1.0 - parameter), select(-d, d.constant(-parameter), d))
    raise AssertionError(loss)


@dataclass(frozen=True)
class Layer:
    """Weights, bias and activation; also, in a gradient, their derivatives."""

    weights: Bounded
    bias: Bounded | None
    activation: int


def forward(layers: Sequence[Layer], x: Bounded) -> tuple[list[Bounded], list[Bounded]]:
    """The inputs of every layer's activation, and before and after it the outputs."""
    inputs, outputs = [], [x]
    for layer in layers:
        inputs.append(outputs[-1].dot(layer.weights, layer.bias))
        outputs.append(activate(layer.activation, inputs[-1]))
    return inputs, outputs


def backpropagate(
    layers: Sequence[Layer], objective: contract.Objective, x: Bounded, y: Bounded, weight: Bounded
) -> tuple[Bounded, list[Layer]]:
    """The weighted sum of the losses, and its gradient; no penalty, no mean."""
    inputs, outputs = forward(layers, x)
    of_output = (objective.loss, layers[-1].activation, objective.parameter, inputs[-1], outputs[-1], y)
    total = weight[None, :].dot(loss(*of_output)).sum(-1)[0, 0]
    deltas = (delta(*of_output) * weight[:, None]).flushed()
    gradient: list[Layer] = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        bias = None if layer.bias is None else deltas.sum(0)[0]
        gradient.append(Layer(outputs[index].T.dot(deltas), bias, layer.activation))
        if index > 0:
            back = deltas.dot(layer.weights.T)
            below = layers[index - 1].activation
            deltas = derive(below, back, inputs[index - 1], outputs[index]).flushed()
    return total, gradient[::-1]


def penalty(layers: Sequence[Layer], l2: float) -> Bounded:
    """l2 / 2 times the squared weights."""
    squares = [layer.weights * layer.weights for layer in layers]
    sums = [square.sum(0).sum(1)[0, 0] for square in squares]
    total = sums[0]
    for one in sums[1:]:
        total = total + one
    return total * (0.5 * l2)


def reciprocal_weight(weight: Bounded) -> Bounded:
    """The factor of a mean: sums in float64 or in the dtype, a division, a rounding to the dtype."""
    arithmetic, total = weight.arithmetic, weight.value.sum()
    return Bounded(1 / total, arithmetic.gamma(weight.value.size + 2) / total, arithmetic)


def penalised(w: Bounded, g: Bounded, l2: float, scale: Bounded) -> Bounded:
    """The gradient that reaches the optimizer."""
    return (w * l2 + g) * scale


def adam_rate(arithmetic: Arithmetic, rate: float, settings: Array, n_steps: int) -> Bounded:
    """The rate of Adam's n-th step, computed in float64 from running powers, then rounded to the dtype."""
    wide = Arithmetic(np.dtype(np.float64), EXACT)
    powers = [wide.exact(1.0), wide.exact(1.0)]
    for _ in range(n_steps):
        powers = [power * float(beta) for power, beta in zip(powers, settings[:2], strict=True)]
    result = rate * (1.0 - powers[1]).sqrt() / (1.0 - powers[0])
    return Bounded(result.value, result.error + arithmetic.u * result.size, arithmetic)


def step(
    optimizer: int,
    w: Bounded,
    g: Bounded,
    slots: Sequence[Bounded],
    settings: Array,
    learning_rate: float,
    rate: Bounded,
) -> tuple[Bounded, ...]:
    """The new parameter and the new state; ``rate`` is Adam's, with its correction, and else the learning rate."""
    arithmetic = w.arithmetic

    def twice_rounded(value: float) -> Bounded:
        """What float64 computes with one rounding before it is rounded to the dtype."""
        return Bounded(np.float64(value), arithmetic.gamma(2) * abs(value), arithmetic)

    numbers = [float(value) for value in settings]
    match optimizer:
        case contract.SGD if not slots:
            return (w - g * rate,)
        case contract.SGD:
            momentum, nesterov = numbers
            push = -(g * rate)
            velocity = (slots[0] * momentum + push).flushed()
            return w + (velocity * momentum + push if nesterov else velocity), velocity
        case contract.ADAM:
            beta_1, beta_2, epsilon, decay = numbers
            m = (slots[0] * beta_1 + g * twice_rounded(1.0 - beta_1)).flushed()
            v = (slots[1] * beta_2 + g * twice_rounded(1.0 - beta_2) * g).flushed()
            w = w - w * twice_rounded(learning_rate * decay)
            # |m| / sqrt(v) by Cauchy and Schwarz, and 1 % for rounding; without it, gradients near 0 have no bound.
            limit = 1.01 * (1 - beta_1) / np.sqrt((1 - beta_2) * (1 - beta_1**2 / beta_2))
            return w - (m / (v.sqrt() + epsilon)).limited(limit) * rate, m, v
        case contract.RMSPROP:
            rho, momentum, epsilon = numbers
            v = (slots[0] * rho + g * twice_rounded(1.0 - rho) * g).flushed()
            push = -((g / (v.sqrt() + epsilon)).limited(1.01 / np.sqrt(1 - rho)) * rate)
            if len(slots) == 1:
                return w + push, v
            velocity = (slots[1] * momentum + push).flushed()
            return w + velocity, v, velocity
        case contract.RPROP:
            eta_minus, eta_plus, step_min, step_max = numbers
            g, (previous, size) = g.flushed(), slots
            same = g * previous
            longer = (size * eta_plus).clipped(-np.inf, step_max)
            shorter = (size * eta_minus).clipped(step_min)
            size = select(same, longer, select(-same, shorter, size))
            g = select(-same, g.constant(0.0), g)
            return select(g, w - size, select(-g, w + size, w + g)), g, size
    raise AssertionError(optimizer)
