"""Optimizer steps in one lane: each returns the new parameter, then the new state."""

from __future__ import annotations

from fastnet.kernels.formulas.arithmetic import flush
from fastnet.kernels.simd import Lanes, fma, results, select, sqrt


def penalised(w: Lanes, g: Lanes, l2: Lanes | None, scale: Lanes) -> Lanes:
    """The gradient that reaches the optimizer; without l2 that for l2 = 0, but for the sign of a zero.

    No step shows that sign, as long as w is finite: states are flushed, and a parameter plus either zero is itself.
    """
    return (g if l2 is None else fma(w, l2, g)) * scale


def sgd(w: Lanes, g: Lanes, minus_rate: Lanes) -> Lanes:
    return fma(g, minus_rate, w)


@results(2)
def momentum(w: Lanes, g: Lanes, velocity: Lanes, minus_rate: Lanes, momentum: Lanes) -> tuple[Lanes, Lanes]:
    velocity = flush(fma(velocity, momentum, g * minus_rate))
    return w + velocity, velocity


@results(2)
def nesterov(w: Lanes, g: Lanes, velocity: Lanes, minus_rate: Lanes, momentum: Lanes) -> tuple[Lanes, Lanes]:
    push = g * minus_rate
    velocity = flush(fma(velocity, momentum, push))
    return w + fma(velocity, momentum, push), velocity


@results(3)
def adam(
    w: Lanes,
    g: Lanes,
    m: Lanes,
    v: Lanes,
    minus_rate: Lanes,
    minus_decay: Lanes,
    beta_1: Lanes,
    one_minus_beta_1: Lanes,
    beta_2: Lanes,
    one_minus_beta_2: Lanes,
    epsilon: Lanes,
) -> tuple[Lanes, Lanes, Lanes]:
    m = flush(fma(m, beta_1, g * one_minus_beta_1))
    v = flush(fma(v, beta_2, (g * one_minus_beta_2) * g))
    w = fma(w, minus_decay, w)
    return fma(m / (sqrt(v) + epsilon), minus_rate, w), m, v


@results(2)
def rmsprop(
    w: Lanes, g: Lanes, v: Lanes, minus_rate: Lanes, rho: Lanes, one_minus_rho: Lanes, epsilon: Lanes
) -> tuple[Lanes, Lanes]:
    v = flush(fma(v, rho, (g * one_minus_rho) * g))
    return fma(g / (sqrt(v) + epsilon), minus_rate, w), v


@results(3)
def rmsprop_momentum(
    w: Lanes,
    g: Lanes,
    v: Lanes,
    velocity: Lanes,
    minus_rate: Lanes,
    rho: Lanes,
    one_minus_rho: Lanes,
    epsilon: Lanes,
    momentum: Lanes,
) -> tuple[Lanes, Lanes, Lanes]:
    v = flush(fma(v, rho, (g * one_minus_rho) * g))
    velocity = flush(fma(velocity, momentum, (g / (sqrt(v) + epsilon)) * minus_rate))
    return w + velocity, v, velocity


@results(3)
def rprop(
    w: Lanes,
    g: Lanes,
    previous: Lanes,
    size: Lanes,
    minus: Lanes,
    plus: Lanes,
    smallest: Lanes,
    largest: Lanes,
) -> tuple[Lanes, Lanes, Lanes]:
    g = flush(g)
    same = ((g > 0.0) & (previous > 0.0)) | ((g < 0.0) & (previous < 0.0))
    opposite = ((g > 0.0) & (previous < 0.0)) | ((g < 0.0) & (previous > 0.0))
    longer, shorter = size * plus, size * minus
    longer = select(longer > largest, largest, longer)
    shorter = select(shorter < smallest, smallest, shorter)
    size = select(same, longer, select(opposite, shorter, size))
    g = select(opposite, 0.0, g)
    return select(g > 0.0, w - size, select(g < 0.0, w + size, w + g)), g, size
