"""Optimizers of the exact reference against what the papers say, in mpmath.

None of the formulas here uses code of fastnet. What a rounding error may amount to is worked out by
`tests.running_error`.
"""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest

import fastnet
from fastnet import contract
from fastnet.contract import Objective, Update
from fastnet.layout import buffer_size, make_layout, parameter_views
from fastnet.reference import optimizers
from tests import bounded_formulas
from tests.running_error import EXACT, Arithmetic
from tests.support import assert_within, positions_of

DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def _digits() -> Any:
    """120 digits: mpmath's rounding is nothing beside the bounds."""
    with mp.workdps(120):
        yield


def sgd(rate: mp.mpf, theta: mp.mpf, gradients: list[mp.mpf]) -> list[mp.mpf]:
    path = []
    for g in gradients:
        theta -= rate * g
        path.append(theta)
    return path


def momentum(rate: mp.mpf, theta: mp.mpf, gradients: list[mp.mpf], mu: mp.mpf) -> list[mp.mpf]:
    """Sutskever, Martens, Dahl and Hinton (2013), equations 1 and 2."""
    path, v = [], mp.mpf(0)
    for g in gradients:
        v = mu * v - rate * g
        theta += v
        path.append(theta)
    return path


def nesterov(rate: mp.mpf, theta: mp.mpf, gradients: list[mp.mpf], mu: mp.mpf) -> list[mp.mpf]:
    """Equations 3 and 4, where the gradient is taken at theta + mu v: that point is what is kept and reported."""
    path, v = [], mp.mpf(0)
    for g in gradients:
        v = mu * v - rate * g
        theta += v
        path.append(theta + mu * v)
    return path


def adam(
    rate: mp.mpf,
    theta: mp.mpf,
    gradients: list[mp.mpf],
    beta_1: mp.mpf,
    beta_2: mp.mpf,
    epsilon: mp.mpf,
    decay: mp.mpf,
) -> list[mp.mpf]:
    """Kingma and Ba (2015), as at the end of section 2; the decay is Loshchilov and Hutter's (2019)."""
    path, m, v = [], mp.mpf(0), mp.mpf(0)
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        rate_t = rate * mp.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        theta = theta - rate_t * m / (mp.sqrt(v) + epsilon) - rate * decay * theta
        path.append(theta)
    return path


def rmsprop(
    rate: mp.mpf, theta: mp.mpf, gradients: list[mp.mpf], rho: mp.mpf, mu: mp.mpf, epsilon: mp.mpf
) -> list[mp.mpf]:
    """Tieleman and Hinton (2012), lecture 6.5; Keras adds the momentum."""
    path, v, velocity = [], mp.mpf(0), mp.mpf(0)
    for g in gradients:
        v = rho * v + (1 - rho) * g**2
        velocity = mu * velocity + rate * g / (mp.sqrt(v) + epsilon)
        theta -= velocity
        path.append(theta)
    return path


def rprop(
    rate: mp.mpf, theta: mp.mpf, gradients: list[mp.mpf], minus: mp.mpf, plus: mp.mpf, low: mp.mpf, high: mp.mpf
) -> list[mp.mpf]:
    """Riedmiller and Braun (1993); after a change of sign there is no step, and none is taken back."""
    path, previous, size = [], mp.mpf(0), rate
    for g in gradients:
        if g * previous > 0:
            size = min(size * plus, high)
        if g * previous < 0:
            size = max(size * minus, low)
            previous = mp.mpf(0)
        else:
            theta -= mp.sign(g) * size
            previous = g
        path.append(theta)
    return path


OPTIMIZERS: dict[str, tuple[fastnet.optimizers.Optimizer, Any]] = {
    "sgd": (fastnet.SGD(0.1), lambda rate, theta, g, *_: sgd(rate, theta, g)),
    "momentum": (fastnet.SGD(0.1, momentum=0.9), lambda rate, theta, g, mu, _: momentum(rate, theta, g, mu)),
    "nesterov": (
        fastnet.SGD(0.1, momentum=0.9, nesterov=True),
        lambda rate, theta, g, mu, _: nesterov(rate, theta, g, mu),
    ),
    "adam": (fastnet.Adam(0.01), adam),
    "adamw": (fastnet.AdamW(0.01, weight_decay=0.1), adam),
    "adam, other settings": (fastnet.Adam(0.3, beta_1=0.7, beta_2=0.95, epsilon=0.5), adam),
    "rmsprop": (fastnet.RMSprop(0.01), rmsprop),
    "rmsprop with momentum": (fastnet.RMSprop(0.01, momentum=0.5), rmsprop),
    "rprop": (fastnet.Rprop(0.01), rprop),
    "rprop within limits": (fastnet.Rprop(0.01, step_min=0.009, step_max=0.013), rprop),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_optimizer_follows_its_paper(dtype: str, name: str) -> None:
    """Five steps, within the rounding errors of all so far; among the gradients are a 0 and tiny ones."""
    optimizer, paper = OPTIMIZERS[name]
    rate = float(optimizer.rates(0, 1)[0])
    layout = make_layout((3, 2), ["identity"], True, np.dtype(dtype))
    rng = np.random.default_rng(2)
    buffer = np.zeros(buffer_size(layout), dtype)
    weights, biases = parameter_views(buffer, layout)
    weights[0][...], biases[0][...] = rng.standard_normal((3, 2)), rng.standard_normal(2)
    gradients = np.zeros((5, buffer.size), dtype)
    for parts in parameter_views(gradients, layout):
        for part in parts:
            part[...] = rng.standard_normal(part.shape)
    gradients[2, 0] = 0.0
    gradients[:, 1] *= 1e-12
    used = np.flatnonzero(gradients[0])
    start = buffer.copy()

    update = Update(
        optimizer.kind, optimizer.settings, optimizer.initial_slots(buffer.size, buffer.dtype), np.ones(2), np.ones(1)
    )
    objective = Objective(contract.SQUARED_ERROR, 0.0, False, 0.0, 1)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    w = arithmetic.exact(start[used])
    state = [w.constant(float(value)) for value in optimizer.initial_slots(1, np.dtype(np.float64))[:, 0]]
    if optimizer.kind == contract.RPROP:
        state[1] = w.constant(0.0) + arithmetic.rounded(rate)
    numbers = [mp.mpf(value) for value in optimizer.settings.tolist()]
    paths = [
        paper(mp.mpf(rate), mp.mpf(value), [mp.mpf(g) for g in column], *numbers)
        for value, column in zip(start[used].tolist(), gradients[:, used].T.tolist(), strict=True)
    ]
    for t in range(5):
        optimizers.step(layout, buffer, gradients[t], 1.0, objective, update, rate)
        step_rate = arithmetic.rounded(rate)
        if optimizer.kind == contract.ADAM:
            step_rate = bounded_formulas.adam_rate(arithmetic, rate, optimizer.settings, t + 1)
        g = arithmetic.exact(gradients[t, used])
        w, *state = bounded_formulas.step(optimizer.kind, w, g, state, optimizer.settings, rate, step_rate)
        assert_within(buffer[used], [path[t] for path in paths], w.error, used)
        # The bound is worth something: the parameters are of the order of 1.
        assert w.error.max() <= 50 * arithmetic.u
    assert np.count_nonzero(buffer) == used.size


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty_and_mean(dtype: str, mean: bool) -> None:
    """A step follows scale (sum + l2 w), and for biases scale sum; the scale of a mean is 1 / batch weight."""
    layout = make_layout((3, 2), ["identity"], True, np.dtype(dtype))
    rng = np.random.default_rng(3)
    start, gradient = (rng.standard_normal(buffer_size(layout)).astype(dtype) for _ in range(2))
    rate, l2, batch_weight = 0.1, 0.3, 7.3
    buffer = start.copy()
    update = Update(contract.SGD, np.zeros(2), np.zeros((0, buffer.size), dtype), np.ones(2), np.ones(1))
    objective = Objective(contract.SQUARED_ERROR, 0.0, mean, l2, 1)
    optimizers.step(layout, buffer, gradient, batch_weight, objective, update, rate)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    scale = arithmetic.exact(1.0) / arithmetic.rounded(batch_weight) if mean else arithmetic.exact(1.0)
    exact_scale = 1 / mp.mpf(batch_weight) if mean else mp.mpf(1)
    places, bias_places = positions_of(layout)
    for part, penalty in ((places[0].ravel(), l2), (bias_places[0], 0.0)):
        w, g = arithmetic.exact(start[part]), arithmetic.exact(gradient[part])
        bound = (w - bounded_formulas.penalised(w, g, penalty, scale) * arithmetic.rounded(rate)).error
        desired = [
            mp.mpf(w) - rate * exact_scale * (mp.mpf(g) + penalty * mp.mpf(w))
            for w, g in zip(start[part].tolist(), gradient[part].tolist(), strict=True)
        ]
        assert_within(buffer[part], desired, bound, part)
