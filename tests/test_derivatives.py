"""Derivatives and losses of the exact reference against what calculus says.

The authority uses no code of fastnet: formulas written from their definitions (`tests.definitions`) and evaluated by
mpmath, whose derivatives are complex steps (f(x + ih) = f(x) + ih f'(x) + O(h^2), without cancellation, at 120 digits).
What a rounding error may amount to is worked out by `tests.running_error`.
"""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest

from fastnet import contract
from fastnet.reference import activations, losses
from tests import bounded_formulas
from tests.definitions import (
    DTYPES,
    ELEMENTWISE,
    FLOAT64,
    MATCHED,
    MPMATH,
    PARAMETER,
    STEP,
    Array,
    activate,
    code,
    derivative,
    loss_of,
    softmax,
)
from tests.running_error import EXACT, Arithmetic
from tests.support import assert_within


@pytest.fixture(autouse=True)
def _digits() -> Any:
    """120 digits; a complex step of 10^-40 leaves an error of 10^-80 of the derivative."""
    with mp.workdps(120):
        yield


# --- activations, element by element ---


def points(dtype: str) -> Array:
    """Numbers of both signs, none of them 0: ordinary ones, and tails in which functions saturate."""
    tails = [8, 9.5, 15, 17.5, 20, 25, 30, 36, 37, 38, 40, 50, 80, 87, 88, 103, 200, 700, 709, 745, 1000]
    positive = np.concatenate([np.linspace(0.1, 6, 30), 2.0 ** -np.arange(4, 60, 5), np.array(tails)])
    return np.concatenate([positive, -positive]).astype(dtype)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation(dtype: str, name: str) -> None:
    """Values and derivatives, within rounding errors that are relative where the formula's are."""
    z = points(dtype)
    if name == "exponential":
        z = z[z < np.log(np.finfo(dtype).max)]
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    a = activations.forward(code(name), z)
    slopes = activations.backward(code(name), np.ones_like(z), z, a)
    assert a.dtype == slopes.dtype == z.dtype

    bounded_z = arithmetic.exact(z)
    bounded_a = bounded_formulas.activate(code(name), bounded_z)
    bounded_slopes = bounded_formulas.derive(code(name), arithmetic.exact(np.ones_like(z)), bounded_z, bounded_a)
    assert_within(a, [activate(name, mp.mpf(x), MPMATH) for x in z.tolist()], bounded_a.error, z)
    desired = [derivative(lambda x: activate(name, x, MPMATH), x) for x in z.tolist()]
    assert_within(slopes, desired, bounded_slopes.error, z)


def test_bounds_of_activations_are_sharp() -> None:
    """The bounds above are at most this many eps of the largest value on the way, which is max(1, |z|)."""
    for name in ELEMENTWISE:
        z = FLOAT64.exact(np.linspace(-30, 30, 101) if name != "exponential" else np.linspace(-30, 0, 101))
        a = bounded_formulas.activate(code(name), z)
        slopes = bounded_formulas.derive(code(name), FLOAT64.exact(np.ones(101)), z, a)
        for result in (a, slopes):
            assert (result.error <= 40 * FLOAT64.u * np.maximum(1, np.abs(z.value))).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype: str) -> None:
    """Values, logarithms, and derivatives of a weighted sum of the outputs; also far apart, and far from 0."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal((3, 5)), 30 * rng.standard_normal((3, 5)), 1000 + rng.random((2, 5))])
    z = np.concatenate([z, [[1000, -1000, 0, 999, 1000]]]).astype(dtype)
    error = rng.standard_normal(z.shape).astype(dtype)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    a = activations.forward(contract.SOFTMAX, z)
    bounded_z = arithmetic.exact(z)
    bounded_a = bounded_formulas.activate(contract.SOFTMAX, bounded_z)
    delta = activations.backward(contract.SOFTMAX, error, z, a)
    bounded_delta = bounded_formulas.derive(contract.SOFTMAX, arithmetic.exact(error), bounded_z, bounded_a)
    logarithms = activations.log_softmax(z)
    bounded_logarithms = bounded_formulas.log_softmax(bounded_z)
    for row in range(len(z)):
        inputs, weights = ([mp.mpf(x) for x in matrix[row].tolist()] for matrix in (z, error))
        desired = softmax(inputs)
        assert_within(a[row], desired, bounded_a.error[row], z[row])
        total = mp.log(mp.fsum(mp.exp(x) for x in inputs))
        assert_within(logarithms[row], [x - total for x in inputs], bounded_logarithms.error[row], z[row])
        slopes = []
        for unit in range(len(inputs)):
            shifted = [x + (mp.mpc(0, STEP) if k == unit else 0) for k, x in enumerate(inputs)]
            output = mp.fsum(w * p for w, p in zip(weights, softmax(shifted), strict=True))
            slopes.append(mp.im(output) / STEP)
        assert_within(delta[row], slopes, bounded_delta.error[row], z[row])


# --- losses, element by element ---


def targets(name: str) -> list[float]:
    return {"poisson": [0.0, 1.0, 7.5], "binary_cross_entropy": [0.0, 0.25, 1.0]}.get(name, [0.0, 0.3125, 1.0])


def outputs(name: str, dtype: str) -> Array:
    """Where the loss is smooth, up to the ends of its domain."""
    eps = float(np.finfo(dtype).eps)
    inside = [eps, 2 * eps, 1e-5, 0.01, 0.2, 0.4, 0.55, 0.75, 0.9, 0.99, 1 - 4 * eps, 1 - eps]
    if name == "binary_cross_entropy":
        return np.array(inside, dtype)
    if name in {"cross_entropy", "poisson"}:
        return np.array([*inside, 1.0, 3.5, 1e4, 1e30], dtype)
    return np.array([*inside, -0.1, -7.0, 40.0, -1e4, 1e10], dtype)


@pytest.mark.parametrize("name", contract.LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss(dtype: str, name: str) -> None:
    """Values and derivatives by the output, probabilities next to 0 and 1 among them."""
    a, y = (grid.ravel() for grid in np.meshgrid(outputs(name, dtype), np.array(targets(name), dtype)))
    of_output = (code(name), contract.IDENTITY, PARAMETER.get(name, 0.0))
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    bounded = [arithmetic.exact(part) for part in (a, a, y)]
    values, slopes = losses.loss(*of_output, a, a, y), losses.delta(*of_output, a, a, y)
    assert values.dtype == slopes.dtype == a.dtype
    pairs = list(zip(map(mp.mpf, a.tolist()), map(mp.mpf, y.tolist()), strict=True))
    desired = [loss_of(name, *pair, MPMATH) for pair in pairs]
    assert_within(values, desired, bounded_formulas.loss(*of_output, *bounded).error, pairs)
    desired = [derivative(lambda x, y=y: loss_of(name, x, y, MPMATH), x) for x, y in pairs]
    assert_within(slopes, desired, bounded_formulas.delta(*of_output, *bounded).error, pairs)
    # A few roundings each; only the logarithm of 1 - a, next to a = 0, and the difference a - y lose more.
    sizes = np.maximum(np.abs(np.array([float(x) for x in desired])), 1.0)
    assert (bounded_formulas.delta(*of_output, *bounded).error <= 10 * arithmetic.u * sizes).all()


@pytest.mark.parametrize(("loss", "activation"), MATCHED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matched_pair_is_the_unmatched_formula(dtype: str, activation: str, loss: str) -> None:
    """For moderate z both ways of computing a loss and its derivative are right, so they agree within both bounds."""
    rng = np.random.default_rng(1)
    z = (2 * rng.standard_normal((40, 3))).astype(dtype)
    y = rng.dirichlet(np.ones(3), 40).astype(dtype)
    # a - y is the derivative of cross-entropy for targets whose sum is 1: to the last bit here.
    y[:, 0] = 1 - y[:, 1] - y[:, 2]
    a = activations.forward(code(activation), z)
    arithmetic = Arithmetic(np.dtype(dtype), EXACT)
    bounded_z, bounded_y = arithmetic.exact(z), arithmetic.exact(y)
    bounded_a = bounded_formulas.activate(code(activation), bounded_z)
    # Targets have the sum 1 but for three roundings, which the unmatched formula multiplies by a.
    excess = 3 * arithmetic.u * bounded_a.size

    matched = losses.loss(code(loss), code(activation), 0.0, z, a, y)
    unmatched = losses.loss(code(loss), contract.IDENTITY, 0.0, z, a, y)
    limit = bounded_formulas.loss(code(loss), code(activation), 0.0, bounded_z, bounded_a, bounded_y).error
    limit = limit + bounded_formulas.loss(code(loss), contract.IDENTITY, 0.0, bounded_z, bounded_a, bounded_y).error
    assert (np.abs(matched.astype(float) - unmatched) <= limit).all()

    matched = losses.delta(code(loss), code(activation), 0.0, z, a, y)
    error = losses.delta(code(loss), contract.IDENTITY, 0.0, a, a, y)
    unmatched = activations.backward(code(activation), error, z, a)
    bounded_error = bounded_formulas.delta(code(loss), contract.IDENTITY, 0.0, bounded_a, bounded_a, bounded_y)
    limit = bounded_formulas.derive(code(activation), bounded_error, bounded_z, bounded_a).error + excess
    limit = limit + bounded_formulas.delta(code(loss), code(activation), 0.0, bounded_z, bounded_a, bounded_y).error
    assert (np.abs(matched.astype(float) - unmatched) <= limit).all()


@pytest.mark.parametrize(
    ("loss", "activation", "y", "values", "deltas"),
    [
        ("binary_cross_entropy", "sigmoid", [1, 0], [0, 0], [0, 0]),
        ("binary_cross_entropy", "sigmoid", [0, 1], [1000, 1000], [1, -1]),
        ("cross_entropy", "softmax", [1, 0], [0, 0], [0, 0]),
        ("cross_entropy", "softmax", [0, 1], [0, 2000], [1, -1]),
        # e^1000 - 3000 is beyond the format; 0 + 3000 is not.
        ("poisson", "exponential", [3, 3], [np.inf, 3000], [np.inf, -3]),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matched_pairs_do_not_overflow(
    dtype: str, loss: str, activation: str, y: list[float], values: list[float], deltas: list[float]
) -> None:
    """At z = 1000 and -1000 probabilities are 1 and 0; losses and derivatives are exact all the same."""
    z, target = np.array([[1000.0, -1000.0]], dtype), np.array([y], dtype)
    a = activations.forward(code(activation), z)
    of_output = (code(loss), code(activation), 0.0, z, a, target)
    np.testing.assert_array_equal(losses.loss(*of_output), [values])
    np.testing.assert_array_equal(losses.delta(*of_output), [deltas])


# --- conventions at kinks and at the ends of domains ---


@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("leaky_relu", contract.NEGATIVE_SLOPE), ("elu", 1.0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_slope_at_zero(dtype: str, name: str, slope: float) -> None:
    """The left derivative, at zeros of either sign (ELU has only one)."""
    z = np.array([0.0, -0.0], dtype)
    a = activations.forward(code(name), z)
    assert a.tolist() == [0, 0]
    assert activations.backward(code(name), np.ones_like(z), z, a).tolist() == [np.dtype(dtype).type(slope)] * 2


@pytest.mark.parametrize(
    ("name", "error", "value", "slope"),
    [
        ("absolute_error", 0.0, 0.0, 0.0),
        ("quantile", 0.0, 0.0, 0.0),
        # Huber's loss is smooth where the square meets the line.
        ("huber", 0.5, 0.125, 0.5),
        ("huber", -0.5, 0.125, -0.5),
        # Just beside the kink; a quantile of 3/4 makes it three times as bad to be below as above.
        ("absolute_error", 2.0**-20, 2.0**-20, 1.0),
        ("absolute_error", -(2.0**-20), 2.0**-20, -1.0),
        ("quantile", 2.0**-20, 2.0**-22, 0.25),
        ("quantile", -(2.0**-20), 3 * 2.0**-22, -0.75),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_at_kinks(dtype: str, name: str, error: float, value: float, slope: float) -> None:
    y = np.array([0.25], dtype)
    a = (y + error).astype(dtype)
    of_output = (code(name), contract.IDENTITY, PARAMETER.get(name, 0.0), a, a, y)
    assert losses.loss(*of_output).tolist() == [value]
    assert losses.delta(*of_output).tolist() == [slope]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy", "poisson"])
def test_losses_beyond_their_domain(name: str, dtype: str) -> None:
    """Without the matched activation, probabilities and rates below eps count as eps, in logarithms and quotients."""
    eps = np.finfo(dtype).eps
    a, y = np.array([0.0, -3.0, eps / 2, eps], dtype), np.full(4, 0.25, dtype)
    of_output = (code(name), contract.IDENTITY, 0.0)
    slopes, values = losses.delta(*of_output, a, a, y), losses.loss(*of_output, a, a, y)
    assert (slopes == slopes[-1]).all()
    if name == "poisson":
        # Its first term is the rate itself; two roundings.
        assert (np.abs((values - a) - (values[-1] - eps)) <= 2 * eps * np.abs(values)).all()
    else:
        assert (values == values[-1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_above_one(dtype: str) -> None:
    eps = np.finfo(dtype).eps
    a, y = np.array([1.0, 7.0, 1 - eps / 2, 1 - eps], dtype), np.full(4, 0.25, dtype)
    of_output = (contract.BINARY_CROSS_ENTROPY, contract.IDENTITY, 0.0, a, a, y)
    assert len(set(losses.loss(*of_output).tolist())) == len(set(losses.delta(*of_output).tolist())) == 1
