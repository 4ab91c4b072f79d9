"""The kernels and NumPy differ by no more than the rounding errors of both.

A sum of n products that is evaluated in any order, fused or not, is within gamma_n Σ|a||b| of the exact one, gamma_n =
n u / (1 - n u), since no product goes through more than n roundings of at most u = eps / 2 each (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, section 3.1). Two evaluations are on either side of it at worst: they differ
by c n eps Σ|a||b| with c = 1, and the denominator. What comes of it in a whole step of training is worked out by
`tests.running_error`; no tolerance is chosen anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastnet
from fastnet import contract, kernels
from fastnet.losses import get_loss
from fastnet.reference import blas
from tests import bounded_formulas
from tests.bounded_formulas import Layer
from tests.running_error import EITHER, Arithmetic, Bounded

Array = NDArray[np.floating]

DTYPES = ["float32", "float64"]
HIDDEN = [name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY]
# Rows, terms and columns: one of each, less than a vector, several vectors and a rest.
SHAPES = [(1, 1, 1), (3, 4, 2), (5, 1, 9), (4, 37, 33), (2, 700, 3)]


def gamma(n: int, dtype: str) -> float:
    return Arithmetic(np.dtype(dtype), EITHER).gamma(n)


# --- sums ---


def well_conditioned(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers that do not cancel."""
    return rng.uniform(0.5, 1.0, shape)


def scattered(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers of all signs and of magnitudes from 2^-20 to 2^20."""
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 21, shape)


def factors(kind: str, shape: tuple[int, int, int], dtype: str, seed: int) -> tuple[Array, Array]:
    """Matrices (n, k) and (k, m); those that cancel come in pairs of terms whose sum is 10^6 times smaller."""
    n, k, m = shape
    rng = np.random.default_rng(seed)
    if kind == "well conditioned":
        return well_conditioned(rng, n, k).astype(dtype), well_conditioned(rng, k, m).astype(dtype)
    a, b = scattered(rng, n, k).astype(dtype), scattered(rng, k, m).astype(dtype)
    half = k // 2
    order = rng.permutation(half)
    a[:, half : 2 * half] = a[:, order]
    b[half : 2 * half] = -b[order] * (1 + 1e-6 * rng.standard_normal((half, m)))
    return a, b


#: Functions that sum, called with the two factors of a product.
FUNCTIONS: dict[str, Callable[[Any, Array, Array], Array]] = {
    "matmul": lambda module, a, b: module.matmul(a, b),
    "affine": lambda module, a, b: module.affine(a, b, b[0].copy()),
    "affine without bias": lambda module, a, b: module.affine(a, b, None),
    "back_projection": lambda module, a, b: module.back_projection(a, b.T.copy()),
    "weight_gradient": lambda module, a, b: module.weight_gradient(a.T.copy(), b),
    "bias_gradient": lambda module, a, b: module.bias_gradient(a.T.copy())[None, :],
    "weighted_row_sum": lambda module, a, b: module.weighted_row_sum(b, a[0].copy())[None, :],
}


def product(name: str, a: Array, b: Array) -> tuple[Array, Array, Array | None]:
    """The matrix product, and its start, that a function of that name is."""
    if name == "bias_gradient":
        return np.ones((1, a.shape[1]), a.dtype), a.T, None
    if name == "weighted_row_sum":
        return a[:1], b, None
    return a, b, b[0] if name == "affine" else None


def bound(name: str, a: Array, b: Array) -> Array:
    """The largest distance of an evaluation from the exact result."""
    left, right, start = product(name, a, b)
    magnitudes = np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64)
    if start is not None:
        magnitudes += np.abs(start)
    return gamma(left.shape[1] + (start is not None), str(a.dtype)) * magnitudes


def true_value(name: str, a: Array, b: Array) -> Array:
    """The exact result, by rational numbers."""
    left, right, start = product(name, a, b)
    result = np.empty((left.shape[0], right.shape[1]))
    for index in np.ndindex(result.shape):
        pairs = zip(left[index[0]].tolist(), right[:, index[1]].tolist(), strict=True)
        first = Fraction(0) if start is None else Fraction(float(start[index[1]]))
        result[index] = float(sum((Fraction(x) * Fraction(y) for x, y in pairs), first))
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["well conditioned", "cancelling"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums(dtype: str, kind: str, name: str) -> None:
    for seed, shape in enumerate(SHAPES):
        a, b = factors(kind, shape, dtype, seed)
        fast, slow = (FUNCTIONS[name](module, a, b) for module in (kernels, blas))
        assert fast.dtype == slow.dtype == a.dtype
        limit = bound(name, a, b)
        # Halves of the difference; each is also held to the exact result, which float64 rounds once more.
        exact = true_value(name, a, b)
        rounding = np.finfo(float).eps * np.abs(exact)
        assert (np.abs(fast.astype(float) - exact) <= limit + rounding).all(), shape
        assert (np.abs(slow.astype(float) - exact) <= limit + rounding).all(), shape
        assert (np.abs(fast.astype(float) - slow) <= 2 * limit).all(), shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_cancelling_sums_are_ill_conditioned(dtype: str) -> None:
    """No relative tolerance near n eps would do: the bound lets the median result be wrong by 10^4 times that."""
    a, b = factors("cancelling", (4, 36, 33), dtype, seed=0)
    relative = 2 * bound("matmul", a, b) / np.abs(true_value("matmul", a, b))
    assert np.median(relative) > 1e4 * 36 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_of_a_sum_can_be_exceeded(dtype: str, name: str) -> None:
    """Where nothing cancels, one element that is off by 8 eps is found: 2 gamma_5 Σ|a||b| is 5 eps of it."""
    a, b = factors("well conditioned", (3, 4, 2), dtype, seed=0)
    fast, slow = (FUNCTIONS[name](module, a, b) for module in (kernels, blas))
    wrong = fast.astype(float)
    wrong[0, -1] *= 1 + 8 * np.finfo(dtype).eps
    exceeded = np.abs(wrong - slow) > 2 * bound(name, a, b)
    assert exceeded[0, -1]
    assert exceeded.sum() == 1


# --- one step of training ---

STEPS: dict[str, fastnet.optimizers.Optimizer] = {
    "sgd": fastnet.SGD(learning_rate=0.25),
    "nesterov": fastnet.SGD(learning_rate=0.25, momentum=0.75, nesterov=True),
    "adam": fastnet.Adam(learning_rate=0.25),
    "adamw": fastnet.AdamW(learning_rate=0.25, weight_decay=0.1),
    "rmsprop": fastnet.RMSprop(learning_rate=0.25),
    "rmsprop_momentum": fastnet.RMSprop(learning_rate=0.25, momentum=0.5),
    "rprop": fastnet.Rprop(learning_rate=0.25),
}


@dataclass(frozen=True)
class Case:
    """One step of a small network; its numbers come from ``seed``."""

    activation: str = "tanh"
    output_activation: str = "identity"
    loss: str = "squared_error"
    optimizer: str = "sgd"
    dtype: str = "float64"
    bias: bool = True
    n_samples: int = 13
    reduction: str = "sum"
    l2: float = 0.0
    cancelling: bool = False
    seed: int = 0

    def network(self) -> fastnet.Network:
        network = fastnet.Network((5, 7, 4, 3), self.activation, self.output_activation, self.bias, self.dtype)
        network.initialize(self.seed)
        if self.cancelling:
            # Inputs of the first layer's activations are differences of numbers near 1000.
            network.weights[0][:2] *= 1000
            network.weights[0][1] = -network.weights[0][0] * (1 + 2.0**-20)
        return network

    def data(self) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal((self.n_samples, 5)).astype(self.dtype)
        if self.cancelling:
            x[:, 1] = x[:, 0]
        y = rng.random((self.n_samples, 3))
        if self.loss == "cross_entropy":
            y /= y.sum(axis=1, keepdims=True)
        return x, y.astype(self.dtype), rng.uniform(0.5, 2.0, self.n_samples).astype(self.dtype)

    def train(self, backend: str) -> tuple[Array, float]:
        """The parameters after the step, and the loss before it."""
        network, (x, y, weight) = self.network(), self.data()
        history = network.fit(
            x,
            y,
            loss=self.loss,
            optimizer=STEPS[self.optimizer],
            epochs=1,
            reduction=self.reduction,
            l2=self.l2,
            sample_weight=weight,
            backend=backend,
        )
        return network.parameters, history.loss_curve[0]

    def bounds(self) -> tuple[Array, float]:
        """How far two evaluations of these may be apart."""
        arithmetic = Arithmetic(np.dtype(self.dtype), EITHER)
        network, optimizer = self.network(), STEPS[self.optimizer]
        x, y, weight = (arithmetic.exact(part) for part in self.data())
        loss, parameter = get_loss(self.loss)
        objective = contract.Objective(loss, parameter, self.reduction == "mean", self.l2, self.n_samples)
        biases = network.biases if self.bias else [None] * network.n_layers
        layers = [
            Layer(
                arithmetic.exact(weights),
                None if bias is None else arithmetic.exact(bias),
                contract.ACTIVATIONS.index(activation),
            )
            for weights, bias, activation in zip(network.weights, biases, network.activations, strict=True)
        ]
        scale = bounded_formulas.reciprocal_weight(weight) if objective.mean else arithmetic.exact(1.0)
        total, gradient = bounded_formulas.backpropagate(layers, objective, x, y, weight)
        total = (total + bounded_formulas.penalty(layers, self.l2)) * scale

        rate = arithmetic.rounded(0.25)
        if optimizer.kind == contract.ADAM:
            rate = bounded_formulas.adam_rate(arithmetic, 0.25, optimizer.settings, 1)

        def stepped(w: Bounded, g: Bounded, l2: float) -> Array:
            slots = optimizer.initial_slots(1, np.dtype(self.dtype))[:, 0].tolist()
            state = [w.constant(value) for value in slots]
            g = bounded_formulas.penalised(w, g, l2, scale)
            new, *_ = bounded_formulas.step(optimizer.kind, w, g, state, optimizer.settings, 0.25, rate)
            return new.difference.ravel()

        parts = []
        for layer, derivative in zip(layers, gradient, strict=True):
            parts.append(stepped(layer.weights, derivative.weights, self.l2))
            if layer.bias is not None and derivative.bias is not None:
                parts.append(stepped(layer.bias, derivative.bias, 0.0))
        return np.concatenate(parts), float(total.difference)


def assert_within_bounds(case: Case) -> None:
    """Parameters after the step, and the loss before it, differ by no more than the bounds, which are finite."""
    parameters, losses = zip(*(case.train(backend) for backend in ("numba", "numpy")), strict=True)
    of_parameters, of_loss = case.bounds()
    assert np.isfinite(of_parameters).all()
    assert np.isfinite(of_loss)
    difference = np.abs(parameters[0].astype(float) - parameters[1])
    worst = int(np.argmax(difference - of_parameters))
    assert difference[worst] <= of_parameters[worst], f"parameter {worst} of {case}"
    assert abs(losses[0] - losses[1]) <= of_loss, case


@pytest.mark.parametrize("cancelling", [False, True])
@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_step_of_hidden_activations(dtype: str, activation: str, cancelling: bool) -> None:
    for seed, bias in enumerate([True, False]):
        case = Case(
            activation, "sigmoid", "binary_cross_entropy", dtype=dtype, bias=bias, cancelling=cancelling, seed=seed
        )
        assert_within_bounds(case)


@pytest.mark.parametrize("loss", contract.LOSSES)
@pytest.mark.parametrize("output_activation", contract.ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_step_of_outputs(dtype: str, output_activation: str, loss: str) -> None:
    assert_within_bounds(Case("tanh", output_activation, loss, dtype=dtype, reduction="mean", l2=0.01))


@pytest.mark.parametrize("cancelling", [False, True])
@pytest.mark.parametrize("optimizer", STEPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_step_of_optimizers(dtype: str, optimizer: str, cancelling: bool) -> None:
    for seed, (reduction, l2) in enumerate([("sum", 0.0), ("mean", 0.01)]):
        case = Case(
            "gelu", optimizer=optimizer, dtype=dtype, reduction=reduction, l2=l2, cancelling=cancelling, seed=seed
        )
        assert_within_bounds(case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_of_several_blocks(dtype: str) -> None:
    assert_within_bounds(
        Case("sigmoid", "softmax", "cross_entropy", dtype=dtype, n_samples=2 * contract.BLOCK_ROWS + 5)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_of_a_step_can_be_exceeded(dtype: str) -> None:
    """A weight is found out that is off by 8 eps.

    One layer, one sample, one output: seven roundings lie on the way to a weight (two in the sum, then the error, its
    weight, the product with the input, with the rate, the update), none of a number much larger than the new
    weight. For both backends that is 7 eps.
    """
    network = fastnet.Network.from_arrays([np.array([[0.5], [0.25]], dtype)])
    x, y = np.array([[1.5, 2.5]], dtype), np.array([[9.0]], dtype)
    arithmetic = Arithmetic(np.dtype(dtype), EITHER)
    layers = [Layer(arithmetic.exact(network.weights[0]), None, contract.IDENTITY)]
    objective = contract.Objective(contract.SQUARED_ERROR, 0.0, False, 0.0, 1)
    _, (gradient,) = bounded_formulas.backpropagate(
        layers, objective, arithmetic.exact(x), arithmetic.exact(y), arithmetic.exact(np.ones(1))
    )
    limit = (layers[0].weights - gradient.weights * 1.0).difference.ravel()

    fast, slow = network.copy(), network.copy()
    fast.fit(x, y, optimizer=fastnet.SGD(learning_rate=1.0), epochs=1, reduction="sum", backend="numba")
    slow.fit(x, y, optimizer=fastnet.SGD(learning_rate=1.0), epochs=1, reduction="sum", backend="numpy")
    correct, wrong = fast.parameters.astype(float), fast.parameters * (1 + 8 * float(np.finfo(dtype).eps))
    assert (np.abs(correct - slow.parameters) <= limit).all()
    assert (np.abs(wrong - slow.parameters) > limit).all()


#: The elementary function that each activation's forward and backward pass calls.
CALLS = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "elu": "expm1",
    "silu": "sigmoid",
    "gelu": "normal_cdf",
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", HIDDEN)
def test_planted_error_is_found(activation: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of NumPy's functions gets a relative error of 2^10 eps: 10^-13 in float64, and 10^-4 in float32.

    That is some 100 times what the functions and sums of such a network may err by themselves.
    """
    case = Case(activation, dtype=dtype)
    desired, _ = case.train("numba")
    limit, _ = case.bounds()
    names = ["affine", "back_projection", "weight_gradient", *[CALLS[name] for name in CALLS if name == activation]]
    for name in names:
        function = getattr(blas, name)
        factor = np.dtype(dtype).type(1 + 2.0**10 * np.finfo(dtype).eps)
        with monkeypatch.context() as patch:
            patch.setattr(blas, name, lambda *arguments, of=function, times=factor: of(*arguments) * times)
            actual, _ = case.train("numpy")
        assert (np.abs(actual.astype(float) - desired) > limit).any(), name
