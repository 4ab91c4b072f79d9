"""Gradients of small networks by backpropagation, against central differences of the loss, with their error bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import contract
from fastnet.network import Network
from fastnet.optimizers import SGD
from fastnet.testing.cases import HIDDEN, Case

#: Distance of central differences: near the cube root of float64's unit, where their error is least.
_H = 2.0**-17


def gradient_cases(exhaustive: bool) -> list[Case]:
    """Small networks with every hidden activation, every loss and every output."""
    outputs = {
        loss: contract.ACTIVATIONS[contract.MATCHED_ACTIVATION.get(code, contract.IDENTITY)]
        for code, loss in enumerate(contract.LOSSES)
    }
    pairs = [(activation, list(outputs.items())[i % len(outputs)]) for i, activation in enumerate(HIDDEN)]
    if exhaustive:
        pairs = [(activation, pair) for activation in HIDDEN for pair in outputs.items()]
    triples = [(activation, output, loss) for activation, (loss, output) in pairs]
    triples += [("silu", output, "squared_error") for output in contract.ACTIVATIONS]
    return [
        Case((3, 4, 3, 2), *triple, n_samples=7, batch_size=None, epochs=1, reduction="sum", seed=seed)
        for triple in triples
        for seed in range(10 if exhaustive else 1)
    ]


def derivatives(case: Case, backend: Any) -> Iterator[tuple[str, float, float, float, float]]:
    """Of each array: its name, its derivative by backpropagation, by differences, their bound, the gradient's size."""
    x, y, _ = case.data()
    start = case.network()
    # Numbers of few bits, to which h is added without rounding.
    start.parameters = start.parameters.astype(np.float32)

    def train(net: Network) -> float:
        """The loss before a step of rate 1, which takes the gradient off."""
        history = net.fit(x, y, backend=backend, **{**case.settings, "optimizer": SGD(learning_rate=1.0)})
        return float(history.loss_curve[0])

    def loss_at(name: str, step: NDArray[np.floating]) -> float:
        moved = start.copy()
        _parameters(moved)[name][...] += step
        return train(moved)

    stepped = start.copy()
    train(stepped)
    after, error = _parameters(stepped), _loss_error(case, start, x, y)
    size = float(np.abs(start.parameters - stepped.parameters).sum())
    signs = np.random.RandomState(case.seed)
    for name, before in _parameters(start).items():
        gradient, direction = before - after[name], signs.choice([-1.0, 1.0], before.shape)
        near, far = ((loss_at(name, h * direction) - loss_at(name, -h * direction)) / (2 * h) for h in (_H, 2 * _H))
        limit = abs(far - near) + 2 * error / _H
        yield name, float((gradient * direction).sum()), near, limit, size


def _parameters(net: Network) -> dict[str, NDArray[np.floating]]:
    """Views of the weights and biases."""
    views = {f"weights.{index}": weights for index, weights in enumerate(net.weights)}
    return views | {f"biases.{index}": biases for index, biases in enumerate(net.biases)}


def _loss_error(case: Case, net: Network, x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """A bound of the rounding error of the summed loss of all samples, to first order.

    A sum of n terms errs by n units of the sum of their magnitudes. An activation multiplies an error by at most
    1.13 (gelu's steepest slope), and adds at most 25 units: 17 for the elementary function, 8 for as many operations.
    A loss multiplies it by at most max(1, |a - y|), the derivative by a, or by z where it is computed from that.
    """
    unit = 2.0**-53
    a, error = x, np.zeros_like(x)
    for layer in range(net.n_layers):
        weights, bias = np.abs(net.weights[layer]), np.abs(net.biases[layer])
        first = Network.from_arrays(
            net.weights[: layer + 1],
            net.biases[: layer + 1],
            activation=case.activation,
            output_activation=case.output_activation if layer + 1 == net.n_layers else case.activation,
        )
        z_size = np.abs(a) @ weights + bias
        error = error @ weights + (len(weights) + 1) * unit * z_size
        a = first.predict(x, backend="exact")
        is_output = layer + 1 == net.n_layers
        slope = np.maximum(np.abs(a), 1.13) if is_output else 1.13
        # Softmax mixes the errors of a row.
        spread = error.sum(axis=1, keepdims=True) if is_output else error
        error = slope * spread + 25 * unit * np.maximum(np.abs(a), 1 + z_size)
    loss_size = (1 + np.abs(y)) * (1 + z_size) + np.abs(a) + (a - y) ** 2
    return float((np.maximum(1, np.abs(a - y)) * error + (25 + a.size) * unit * loss_size).sum())
