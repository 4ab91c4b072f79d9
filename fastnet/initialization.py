"""Initial parameters: the schemes of `Network.initialize`."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.validation import RandomSource, check_choice, check_number, check_random_source

#: Names of the schemes.
SCHEMES = ("uniform", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "scikit-learn")


def draw_parameters(
    layer_sizes: Sequence[int],
    activations: Sequence[str],
    bias: bool,
    dtype: np.dtype[Any],
    seed: int | RandomSource | None,
    scheme: str,
    low: float,
    high: float,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Draw weights and biases for a network.

    Parameters
    ----------
    layer_sizes : sequence of int
        Inputs of the network, then units of each layer.
    activations : sequence of str
        Name of each layer's activation.
    bias : bool
        Whether layers have biases.
    dtype : numpy.dtype
        The dtype that the numbers have to fit into.
    seed, scheme, low, high
        As in `Network.initialize`.

    Returns
    -------
    weights : list of numpy.ndarray of float64, shapes (in, out)
        Weights of each layer.
    biases : list of numpy.ndarray of float64, shapes (out,)
        Biases of each layer; empty without biases.

    Raises
    ------
    TypeError, ValueError
        If one of the last four arguments is not what `Network.initialize` allows.

    Examples
    --------
    >>> weights, _ = draw_parameters([2, 1], ["identity"], False, np.dtype("f8"), 4, "uniform", -1.0, 1.0)
    >>> weights[0].round(8).tolist()
    [[0.93405968], [0.0944645]]
    """
    check_choice("scheme", scheme, SCHEMES)
    largest = float(np.finfo(dtype).max)
    low = check_number("low", low, low=-largest, high=largest)
    high = check_number("high", high, low=low, high=largest)
    check_number("high - low", high - low, high=largest)
    if scheme != "uniform" and (low, high) != (-1.0, 1.0):
        raise ValueError(f"low and high must be left out with scheme {scheme!r}; got {low} and {high}")
    random = check_random_source("seed", seed)
    hidden = tuple(activations[:-1])
    # scikit-learn has one activation for all hidden layers, and takes its rule for the output too.
    activations = (*hidden, hidden[-1] if hidden else "identity")
    weights, biases = [], []
    for n, m, activation in zip(layer_sizes[:-1], layer_sizes[1:], activations, strict=True):
        if scheme != "uniform":
            high = _spread(scheme, n, m, activation)
            low = -high
        if scheme in ("glorot_normal", "he_normal"):
            weights.append(high * random.standard_normal((n, m)))
        else:
            weights.append(low + (high - low) * random.random((n, m)))
        if bias:
            drawn = scheme in ("uniform", "scikit-learn")
            biases.append(low + (high - low) * random.random(m) if drawn else np.zeros(m))
    return weights, biases


def _spread(scheme: str, n: int, m: int, activation: str) -> float:
    """The bound of a uniform scheme, or the standard deviation of a normal one."""
    if scheme == "glorot_uniform":
        return sqrt(6 / (n + m))
    if scheme == "glorot_normal":
        return sqrt(2 / (n + m))
    if scheme == "he_uniform":
        return sqrt(6 / n)
    if scheme == "he_normal":
        return sqrt(2 / n)
    return sqrt((2 if activation == "sigmoid" else 6) / (n + m))
