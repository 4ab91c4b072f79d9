"""Long trainings by the exact reference: segments of one training side by side.

The reference takes as long for a stack of small networks as for one. So a fast backend says first where each segment of
the epochs would begin. All segments are then trained at once, and those count that begin where the one before has
ended: what is left behind has the bits of training epoch by epoch, whatever the guesses were.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.backends import BACKENDS
from fastnet.contract import Objective, Progress, Update
from fastnet.history import DivergenceError, History
from fastnet.losses import Huber, Quantile, get_loss
from fastnet.network import Network
from fastnet.optimizers import SGD
from fastnet.reference import exact
from fastnet.reference import network as reference
from fastnet.samples import check_samples
from fastnet.training import REDUCTIONS
from fastnet.validation import check_choice, check_integer

#: Epochs of a segment: 5000 epochs of the smallest networks take as long as 100, and with 25 or 100 no less.
_SEGMENT = 50


def train_stack(
    networks: Sequence[Network],
    X: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int,
    learning_rate: float = 0.01,
    loss: str | Huber | Quantile = "squared_error",
    reduction: str = "mean",
    arithmetic: ModuleType = exact,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train networks of one architecture in place, side by side in the reference.

    Parameters
    ----------
    networks : sequence of Network
        At least one.
    X, y, epochs, loss, reduction
        As for `fastnet.Network.fit`. Batches are full ones.
    learning_rate : float
        Of gradient descent.
    arithmetic : module
        `fastnet.reference.exact` or `fastnet.reference.blas`.

    Returns
    -------
    losses, mean_absolute_errors : (epochs, n_networks) arrays of float64

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    FloatingPointError
        If a loss or a parameter of one of them is not finite. The networks are left as they were.

    Examples
    --------
    >>> networks = [Network([2, 1]).initialize(seed=seed) for seed in range(3)]
    >>> losses, _ = train_stack(networks, [[0.0, 1.0], [1.0, 1.0]], [1.0, 2.0], epochs=5)
    >>> losses.shape
    (5, 3)
    """
    epochs = check_integer("epochs", epochs, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    if not networks or any(network.architecture != networks[0].architecture for network in networks):
        raise ValueError(f"networks must be at least one, all of one architecture; got {list(networks)}")
    first = networks[0]
    code, parameter = get_loss(loss)
    samples = check_samples(first, X, y, code, None)
    optimizer = SGD(learning_rate)
    buffers = np.stack([network.parameter_buffer for network in networks])
    slots = np.empty((0, *buffers.shape), buffers.dtype)
    progress = Progress(
        cursor=np.array([0, 0, 0, epochs, 0]),
        sums=np.zeros((contract.N_SUMS, len(buffers))),
        gradient=np.zeros_like(buffers),
        loss_curve=np.empty((epochs, len(buffers))),
        mean_absolute_error=np.empty((epochs, len(buffers))),
    )
    status = reference.train(
        first.layout,
        buffers,
        samples,
        Objective(code, parameter, reduction == "mean", 0.0, len(samples.x)),
        Update(optimizer.kind, optimizer.settings, slots, np.ones(2), optimizer.rates(0, epochs)),
        progress,
        epochs * -(-len(samples.x) // contract.BLOCK_ROWS),
        arithmetic,
    )
    if status != contract.FINISHED:
        raise FloatingPointError(f"a loss or a parameter is not finite in epoch {progress.cursor[contract.EPOCH]}")
    for network, buffer in zip(networks, buffers, strict=True):
        network.parameter_buffer[:] = buffer
    return progress.loss_curve, progress.mean_absolute_error


def fit_exactly(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int,
    learning_rate: float = 0.01,
    loss: str | Huber | Quantile = "squared_error",
    reduction: str = "mean",
    report_every: int | None = None,
    guess: str = "numba",
    segment: int = _SEGMENT,
) -> History:
    """What ``network.fit`` does with ``backend="exact"`` by gradient descent on full batches, in segments.

    Parameters
    ----------
    network : Network
        Trained in place.
    X, y, epochs, loss, reduction, report_every
        As for `fastnet.Network.fit`.
    learning_rate : float
        Of gradient descent.
    guess : str
        The backend that says where segments begin. One that has other bits changes nothing, and costs time.
    segment : int
        Epochs of a segment.

    Returns
    -------
    History
        That of the fit.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    DivergenceError
        If training by the exact reference diverges. Its epochs count from the beginning of the segment.

    Examples
    --------
    >>> network = Network([2, 1], dtype="float64").initialize(seed=0)
    >>> one, other = network.copy(), network.copy()
    >>> X, y = [[0.0, 1.0], [1.0, 1.0]], [1.0, 2.0]
    >>> history = fit_exactly(one, X, y, epochs=50, learning_rate=0.1, segment=10)
    >>> desired = other.fit(X, y, epochs=50, optimizer=SGD(0.1), backend="exact")
    >>> one == other, (history.loss_curve == desired.loss_curve).all()
    (True, np.True_)
    """
    how: dict[str, Any] = {"loss": loss, "reduction": reduction}
    left, segment = check_integer("epochs", epochs, 1), check_integer("segment", segment, 1)
    if report_every is not None:
        report_every = check_integer("report_every", report_every, 1)
    check_choice("guess", guess, BACKENDS)
    curves = []
    while left > 0:
        length = min(left, segment)
        starts = [network.copy()]
        with suppress(DivergenceError):
            for _ in range(left // length - 1):
                following = starts[-1].copy()
                following.fit(X, y, **how, optimizer=SGD(learning_rate), epochs=length, backend=guess)
                starts.append(following)
        stack = [start.copy() for start in starts]
        try:
            segments = np.array(train_stack(stack, X, y, **how, learning_rate=learning_rate, epochs=length))
        except FloatingPointError:
            # Of which one is to be seen.
            history = network.fit(X, y, **how, optimizer=SGD(learning_rate), epochs=length, backend="exact")
            curves.append(np.array([history.loss_curve, history.mean_absolute_error]))
            left -= length
            continue
        n_right = _n_right(starts, stack)
        network.parameter_buffer[:] = stack[n_right - 1].parameter_buffer
        curves.append(segments[..., :n_right].swapaxes(1, 2).reshape(2, -1))
        left -= n_right * length
    losses, errors = np.concatenate(curves, axis=1)
    return History(losses, errors, report_every)


def _n_right(starts: Sequence[Network], ends: Sequence[Network]) -> int:
    """How many segments begin, to the bit, where the one before has ended; the first one does."""
    for n, (end, start) in enumerate(zip(ends, starts[1:], strict=False), start=1):
        if end != start:
            return n
    return len(starts)
