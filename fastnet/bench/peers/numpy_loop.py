"""What one writes by hand in NumPy: the notebooks' own loops, and their like for deeper networks and mini-batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError, flat
from fastnet.optimizers import Adam
from fastnet.testing.cases import ADAM
from fastnet.testing.notebooks import NOTEBOOK_1, NOTEBOOK_2


def _softmax(z: Array) -> Array:
    e: Array = np.exp(z - z.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "softmax": _softmax,
}
#: Derivatives, by the activation's output.
DERIVATIVES: dict[str, Callable[[Array], Any]] = {
    "identity": lambda a: 1,
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: a > 0,
}
#: Output activations and losses whose derivatives cancel to a - y.
_CANCELLING = {("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy")}


def forward(layers: list[tuple[Array, Array | None, str]], x: Array) -> list[Array]:
    """The inputs, and the outputs of every layer."""
    outputs = [x]
    for w, b, activation in layers:
        z = outputs[-1] @ w
        if b is not None:
            z += b
        outputs.append(ACTIVATIONS[activation](z))
    return outputs


class _NotebookLoop(Training):
    """The loop of a notebook, as it stands there."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.notebook = NOTEBOOK_1 if problem.case.dataset == "notebook_1" else NOTEBOOK_2
        self.reset()

    def reset(self) -> None:
        network = self.problem.network
        self.weights = [w.copy() for w in network.weights]
        self.biases = [b.copy() for b in network.biases]

    def run(self, epochs: int) -> None:
        self.notebook.loop(self.notebook.x, self.notebook.y, self.weights, self.biases, epochs)

    def parameters(self) -> Array:
        return flat(self.weights, self.biases)


class _Loop(Training):
    """The same for any depth, with mini-batches and Adam."""

    def __init__(self, problem: Problem) -> None:
        case = problem.case
        if (case.output_activation, case.loss) not in _CANCELLING and case.loss != "squared_error":
            raise UnsupportedError(f"is not written for {case.loss} after {case.output_activation}")
        self.problem = problem
        self.cancels = case.loss != "squared_error"
        self.reset()

    def reset(self) -> None:
        self.layers = self.problem.layers()
        self.orders = self.problem.orders()
        self.variables = [array for w, b, _ in self.layers for array in (w, b) if array is not None]
        self.moments = [(np.zeros_like(v), np.zeros_like(v)) for v in self.variables]
        self.n_steps = 0

    def run(self, epochs: int) -> None:
        problem = self.problem
        for _ in range(epochs):
            order = next(self.orders)
            for batch in problem.batches():
                rows = batch if order is None else order[batch]
                self.step(problem.x[rows], problem.y[rows])

    def step(self, x: Array, y: Array) -> None:
        """One batch."""
        outputs = forward(self.layers, x)
        delta = outputs[-1] - y
        if not self.cancels:
            delta = delta * DERIVATIVES[self.layers[-1][2]](outputs[-1])
        if self.problem.case.reduction == "mean":
            delta /= len(x)
        gradients: list[Array] = []
        for i in reversed(range(len(self.layers))):
            w, b, _ = self.layers[i]
            if b is not None:
                gradients.insert(0, delta.sum(axis=0))
            gradients.insert(0, outputs[i].T @ delta)
            if i > 0:
                delta = (delta @ w.T) * DERIVATIVES[self.layers[i - 1][2]](outputs[i])
        self.update(gradients)

    def update(self, gradients: list[Array]) -> None:
        """Move the parameters."""
        optimizer = self.problem.optimizer
        rate = self.problem.learning_rate
        if not isinstance(optimizer, Adam):
            for v, g in zip(self.variables, gradients, strict=True):
                np.subtract(v, rate * g, out=v)
            return
        self.n_steps += 1
        rate = corrected_rate(optimizer, rate, self.n_steps)
        for v, g, moments in zip(self.variables, gradients, self.moments, strict=True):
            adam(v, g, *moments, rate, optimizer)

    def parameters(self) -> Array:
        return np.concatenate([v.ravel() for v in self.variables])


def adam(v: Array, g: Array, first: Array, second: Array, rate: float, optimizer: Adam) -> None:
    """Adam in place, with NumPy."""
    first *= optimizer.beta_1
    first += (1 - optimizer.beta_1) * g
    second *= optimizer.beta_2
    second += (1 - optimizer.beta_2) * g * g
    v -= rate * first / (np.sqrt(second) + optimizer.epsilon)


def corrected_rate(optimizer: Adam, rate: float, n_steps: int) -> float:
    """The rate of Adam's step number ``n_steps``, the bias corrections folded in."""
    return float(rate * (1 - optimizer.beta_2**n_steps) ** 0.5 / (1 - optimizer.beta_1**n_steps))


def _adam_step(parameters: Array, gradient: Array, first: Array, second: Array) -> Callable[[], Any]:
    numbers = count(1)

    def step() -> Array:
        adam(parameters, gradient, first, second, corrected_rate(ADAM, 0.001, next(numbers)), ADAM)
        return parameters

    return step


class NumpyLoop(Peer):
    """NumPy as in the notebooks: what ratios are taken to."""

    name: ClassVar[str] = "numpy-loop"
    label: ClassVar[str] = "NumPy loop"

    def training(self, problem: Problem) -> Training:
        is_notebook = problem.case.dataset.startswith("notebook") and problem.case.dtype == "float64"
        return _NotebookLoop(problem) if is_notebook else _Loop(problem)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        layers, x = problem.layers(), problem.x[:n_rows]
        return lambda: forward(layers, x)[-1]

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        if name == "matmul":
            a, b = arrays
            return lambda: a @ b
        if name == "adam":
            return _adam_step(*arrays)
        function = ACTIVATIONS["sigmoid"] if name == "sigmoid" else getattr(np, name)
        return lambda: function(*arrays)

    @property
    def import_statement(self) -> str:
        return "import numpy"
