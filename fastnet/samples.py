"""What a network is trained on, checked and brought into the form that `train` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.contract import Samples
from fastnet.layout import filled
from fastnet.network import Network
from fastnet.validation import all_finite, check_array

#: How far the probabilities of a sample may be from adding up to 1: they may have been rounded to a few digits.
_SUM_TOLERANCE = 0.01


def check_inputs(
    network: Network, X: ArrayLike, is_finite: Callable[[NDArray[Any]], bool] = all_finite
) -> NDArray[np.floating]:
    """Turn ``X`` into a (n_samples, n_inputs) array of the network's dtype; ``is_finite`` is for `check_array`.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not a matrix of finite numbers with a column for each input.
    """
    x = check_array("X", X, network.dtype, 2, is_finite=is_finite)
    if x.shape[1] != network.n_inputs:
        raise ValueError(
            f"X must have {network.n_inputs} columns, one for each input of the network; got shape {x.shape}"
        )
    return x


def check_samples(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    loss: int,
    sample_weight: ArrayLike | None,
    is_finite: Callable[[NDArray[Any]], bool] = all_finite,
) -> Samples:
    """Check inputs, targets and weights against the network and the loss.

    Parameters
    ----------
    network : Network
    X : array-like, shape (n_samples, n_inputs)
    y : array-like, shape (n_samples, n_outputs)
        Or (n_samples,) where there is one output, or labels 0 … n_outputs - 1 for cross-entropy.
    loss : int
        Code of the loss.
    sample_weight : array-like, shape (n_samples,), or None
    is_finite : callable
        For `fastnet.validation.check_array` and ``X``.

    Returns
    -------
    Samples
        In the order given.

    Raises
    ------
    TypeError, ValueError
        If something does not fit.
    """
    x = check_inputs(network, X, is_finite)
    has_labels = loss == contract.CROSS_ENTROPY and network.n_outputs > 1 and _is_flat(y)
    targets = _check_labels(network, y) if has_labels else _check_targets(network, y, loss)
    if len(targets) != len(x):
        raise ValueError(f"X and y must have as many samples; got {len(x)} and {len(targets)}")
    weight = _check_weight(network, sample_weight, len(x))
    return Samples(x, targets, weight, np.empty((0, len(x)), np.int64))


def _check_targets(network: Network, y: ArrayLike, loss: int) -> NDArray[np.floating]:
    name = contract.LOSSES[loss]
    if loss == contract.CROSS_ENTROPY and network.n_outputs < 2:
        raise ValueError("loss 'cross_entropy' needs a network of at least 2 outputs; got 1")
    targets = check_array("y", y, network.dtype, 2, column=True)
    if targets.shape[1] != network.n_outputs:
        labels = " (or be labels of shape (n_samples,))" if loss == contract.CROSS_ENTROPY else ""
        raise ValueError(
            f"y must have {network.n_outputs} columns, one for each output of the network{labels}; "
            f"got shape {np.shape(y)}"
        )
    if loss in (contract.BINARY_CROSS_ENTROPY, contract.CROSS_ENTROPY):
        low, high = targets.min(), targets.max()
        if low < 0 or high > 1:
            raise ValueError(f"y must lie in [0, 1] for loss {name!r}; got values from {low} to {high}")
    if loss == contract.POISSON and targets.min() < 0:
        raise ValueError(f"y must not be negative for loss {name!r}; got {targets.min()}")
    if loss == contract.CROSS_ENTROPY and network.activations[-1] == "softmax":
        # The derivative a - y is that of the loss for such y only.
        sums = targets.sum(axis=1, dtype=np.float64)
        wrong = int(np.argmax(np.abs(sums - 1.0)))
        if abs(sums[wrong] - 1.0) > _SUM_TOLERANCE:
            raise ValueError(
                f"y must have rows that add up to 1 for loss {name!r} and softmax; got {sums[wrong]:g} at index {wrong}"
            )
    return targets


def _is_flat(y: ArrayLike) -> bool:
    try:
        return np.ndim(y) == 1
    except ValueError:
        # Lists of unequal lengths, which are refused later.
        return False


def _check_labels(network: Network, y: ArrayLike) -> NDArray[np.floating]:
    """Targets of 1 for each sample's class and 0 for the others."""
    n_classes = network.n_outputs
    is_integer = type(y) is np.ndarray and y.dtype.kind in "iu" and y.size > 0
    labels: NDArray[Any] = np.asarray(y) if is_integer else check_array("y", y, np.float64, 1)
    if labels.min() < 0 or labels.max() >= n_classes or not (is_integer or (labels == np.floor(labels)).all()):
        wrong = (labels != np.floor(labels)) | (labels < 0) | (labels >= n_classes)
        first = int(np.argmax(wrong))
        raise ValueError(
            f"y must hold labels from 0 to {n_classes - 1}; got {labels[first]:g} at index {first} "
            f"and {np.count_nonzero(wrong)} such labels in all"
        )
    labels = labels.astype(np.intp, copy=False)
    if n_classes <= len(labels):
        # To copy rows takes a third of the time that single elements take.
        return np.eye(n_classes, dtype=network.dtype).take(labels, axis=0)
    targets = np.zeros((len(labels), n_classes), network.dtype)
    targets[np.arange(len(labels)), labels] = 1.0
    return targets


def _check_weight(network: Network, sample_weight: Any, n_samples: int) -> NDArray[np.floating]:
    if sample_weight is None:
        return filled(n_samples, 1.0, network.dtype)
    weight = check_array("sample_weight", sample_weight, network.dtype, 1)
    if len(weight) != n_samples:
        raise ValueError(f"sample_weight must have shape ({n_samples},), a weight for each sample; got {weight.shape}")
    if weight.min() < 0 or weight.max() == 0:
        raise ValueError(f"sample_weight must not be negative, nor zero everywhere; got a least one of {weight.min()}")
    return weight
