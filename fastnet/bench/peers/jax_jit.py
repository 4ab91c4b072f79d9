"""JAX: an epoch, or with full batches all epochs, in one `jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError, flat
from fastnet.optimizers import Adam


class Jax(Peer):
    """Gradients by `jax.grad`, batches by `lax.scan`."""

    name: ClassVar[str] = "jax"
    label: ClassVar[str] = "JAX"
    distribution: ClassVar[str] = "jax"
    modules: ClassVar[tuple[str, ...]] = ("jax",)

    def training(self, problem: Problem) -> Training:
        return _Scan(problem)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        jax = import_jax()
        forward = make_forward(problem)
        softmax = problem.network.activations[-1] == "softmax"
        function = jax.jit(lambda p, x: jax.nn.softmax(forward(p, x)) if softmax else forward(p, x))
        parameters = first_parameters(problem)
        x = jax.numpy.asarray(problem.x[:n_rows])
        return lambda: np.asarray(function(parameters, x))

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        jax = import_jax()
        functions = {
            "matmul": jax.numpy.matmul,
            "exp": jax.numpy.exp,
            "tanh": jax.numpy.tanh,
            "sigmoid": jax.nn.sigmoid,
        }
        if name not in functions:
            raise UnsupportedError("has no such operation of its own")
        function = jax.jit(functions[name])
        own = [jax.numpy.asarray(array) for array in arrays]
        return lambda: np.asarray(function(*own))


def import_jax() -> Any:
    """JAX, which keeps float64 as it is given."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def first_parameters(problem: Problem) -> Any:
    """The first weights and biases, as JAX's arrays."""
    jax = import_jax()
    return [[jax.numpy.asarray(array) for array in (w, b) if array is not None] for w, b, _ in problem.layers()]


def make_forward(problem: Problem) -> Callable[[Any, Any], Any]:
    """The network; a softmax is left to the loss."""
    jax = import_jax()
    functions = {
        "identity": lambda z: z,
        "softmax": lambda z: z,
        "sigmoid": jax.nn.sigmoid,
        "tanh": jax.numpy.tanh,
        "relu": jax.nn.relu,
    }
    activations = problem.network.activations
    if not set(activations) <= functions.keys():
        raise UnsupportedError(f"is not written for {', '.join(sorted(set(activations) - functions.keys()))}")

    def forward(parameters: Any, x: Any) -> Any:
        for layer, activation in zip(parameters, activations, strict=True):
            z = x @ layer[0]
            x = functions[activation](z + layer[1] if len(layer) > 1 else z)
        return x

    return forward


def make_loss(problem: Problem) -> Callable[[Any, Any, Any], Any]:
    """The loss of a batch, reduced as the case wants it."""
    jax = import_jax()
    case, forward = problem.case, make_forward(problem)

    def squared_error(outputs: Any, y: Any) -> Any:
        return 0.5 * jax.numpy.sum((outputs - y) ** 2)

    def cross_entropy(outputs: Any, labels: Any) -> Any:
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1)
        return -jax.numpy.sum(chosen)

    summed: Callable[[Any, Any], Any]
    if case.loss == "squared_error":
        summed = squared_error
    elif (case.output_activation, case.loss) == ("softmax", "cross_entropy") and problem.labels is not None:
        summed = cross_entropy
    else:
        raise UnsupportedError(f"is not written for {case.loss} after {case.output_activation}")
    if case.reduction == "sum":
        return lambda parameters, x, y: summed(forward(parameters, x), y)
    return lambda parameters, x, y: summed(forward(parameters, x), y) / len(x)


def make_step(problem: Problem) -> Callable[[Any, Any, Any], Any]:
    """(parameters, moments, number of the step), x, y -> the same after a step."""
    jax = import_jax()
    gradient, optimizer, rate = jax.grad(make_loss(problem)), problem.optimizer, problem.learning_rate
    tree = jax.tree_util.tree_map

    def sgd(state: Any, x: Any, y: Any) -> Any:
        parameters = tree(lambda p, g: p - rate * g, state[0], gradient(state[0], x, y))
        return parameters, *state[1:]

    def adam(state: Any, x: Any, y: Any) -> Any:
        assert isinstance(optimizer, Adam)
        parameters, first, second, n_steps = state
        b1, b2, epsilon = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        g = gradient(parameters, x, y)
        n_steps = n_steps + 1
        first = tree(lambda m, g: b1 * m + (1 - b1) * g, first, g)
        second = tree(lambda v, g: b2 * v + (1 - b2) * g * g, second, g)
        powers = n_steps.astype(problem.case.dtype)
        step = rate * jax.numpy.sqrt(1 - b2**powers) / (1 - b1**powers)
        parameters = tree(lambda p, m, v: p - step * m / (jax.numpy.sqrt(v) + epsilon), parameters, first, second)
        return parameters, first, second, n_steps

    return adam if isinstance(optimizer, Adam) else sgd


class _Scan(Training):
    def __init__(self, problem: Problem) -> None:
        jax = import_jax()
        self.problem = problem
        self.x = jax.numpy.asarray(problem.x)
        uses_labels = problem.labels is not None and problem.case.loss == "cross_entropy"
        self.y = jax.numpy.asarray(problem.labels if uses_labels else problem.y)
        step, lax = make_step(problem), jax.lax
        n_whole = problem.case.n_samples // problem.batch_size
        whole = n_whole * problem.batch_size

        def batch(state: Any, rows: Any) -> Any:
            return step(state, self.x[rows], self.y[rows]), None

        def epoch(state: Any, order: Any) -> Any:
            state, _ = lax.scan(batch, state, order[:whole].reshape(n_whole, -1))
            return state if whole == len(order) else batch(state, order[whole:])[0]

        def all_epochs(state: Any, epochs: Any) -> Any:
            return lax.fori_loop(0, epochs, lambda _, state: step(state, self.x, self.y), state)

        self.one_batch = problem.steps_per_epoch == 1 and not problem.case.shuffle
        self.call = jax.jit(all_epochs if self.one_batch else epoch)
        self.natural = np.arange(problem.case.n_samples)
        self.reset()

    def reset(self) -> None:
        jax = import_jax()
        parameters = first_parameters(self.problem)
        zeros = jax.tree_util.tree_map(jax.numpy.zeros_like, parameters)
        self.state = (parameters, zeros, zeros, jax.numpy.asarray(0))
        self.orders = self.problem.orders()

    def run(self, epochs: int) -> None:
        state = self.state
        if self.one_batch:
            state = self.call(state, epochs)
        else:
            for _ in range(epochs):
                order = next(self.orders)
                state = self.call(state, self.natural if order is None else order)
        self.state = import_jax().block_until_ready(state)

    def parameters(self) -> Array:
        layers = self.state[0]
        return flat([layer[0] for layer in layers], [layer[1] for layer in layers if len(layer) > 1])
