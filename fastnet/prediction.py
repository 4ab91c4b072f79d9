"""Prediction on a backend: a few rows in one call, many in pieces; and a last layer that is solved for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.backends import Backend, load_backend
from fastnet.network import Network
from fastnet.samples import check_inputs, check_samples
from fastnet.threads import check_threads, cores, most_threads
from fastnet.validation import check_output

#: Multiplications of a call that predicts, where an activation counts as 64: some 10 ms. Threads take 4 times as many.
_PREDICTED_AT_ONCE = 1 << 26
#: Multiplications of a prediction that each thread is worth, some 0.14 ms, and that a piece has at least. With two
#: thirds of the former two threads took from 0.8 to 1.1 of the time of one, with all 0.7 to 0.9.
_PREDICTED_BY_THREAD, _PREDICTED_IN_A_PIECE = 3 << 22, 1 << 22
#: Rows of a piece at least, if there are so many (a row takes 1.03 of what it takes among more); and what divides them.
_ROWS_IN_A_PIECE, _ROWS_TOGETHER = 64, 16
#: Inputs up to which a prediction is a few rows.
_FEW_INPUTS = 4096


def predict(
    network: Network,
    X: ArrayLike,
    backend: str | Backend,
    out: NDArray[np.floating] | None = None,
    threads: int | None = None,
) -> NDArray[np.floating]:
    """The network's outputs; `fastnet.Network.predict` describes the arguments."""
    functions = load_backend(backend)
    dtype = network.dtype
    if (
        type(X) is np.ndarray
        and X.dtype is dtype
        and functions.forward_finite is not None
        and X.size > 0
        and X.ndim == 2
        and X.shape[1] == network.n_inputs
        and (X.flags.carray or (X.flags.c_contiguous and X.flags.aligned))
    ):
        # What kernels take as it is, but for numbers that are not finite, which they find on their way. For a few rows
        # all the care below would take longer than they do, and for many a third as long.
        shape = (len(X), network.n_outputs)
        if X.size <= _FEW_INPUTS and threads is None:
            if out is None or not np.may_share_memory(X, check_output("out", out, shape, dtype)):
                outputs = np.empty(shape, dtype) if out is None else out
                if functions.forward_finite(network.layout, network.parameter_buffer, X, outputs):
                    return outputs
        elif out is None:
            outputs, n_threads = np.empty(shape, dtype), most_threads(check_threads(threads))
            if _write_outputs(network, network.n_layers, X, outputs, functions, n_threads):
                return outputs
    n_threads = most_threads(check_threads(threads))
    x = check_inputs(network, X, functions.all_finite)
    if out is None:
        out = np.empty((len(x), network.n_outputs), dtype)
    else:
        check_output("out", out, (len(x), network.n_outputs), dtype)
        if np.may_share_memory(x, out):
            x = x.copy()
    _write_outputs(network, network.n_layers, x, out, functions, n_threads)
    return out


def _write_outputs(
    network: Network,
    n_layers: int,
    x: NDArray[np.floating],
    out: NDArray[np.floating],
    functions: Backend,
    n_threads: int = 1,
) -> bool:
    """Write the outputs of the network's first layers, in calls that are short enough for Ctrl-C.

    Returns False where the backend has found that x is not finite.
    """
    cost = network.n_parameters + 64 * sum(network.layer_sizes[1:])
    n_rows = max(contract.BLOCK_ROWS, _PREDICTED_AT_ONCE // cost)
    n_threads = min(n_threads, len(x) * cost // _PREDICTED_BY_THREAD)
    if functions.forward_finite is None or n_threads < 2:
        return _write_by_calls(network.layout[:n_layers], network, x, out, functions, n_rows)
    with cores(n_threads) as n_threads:
        pieces = _rows_of_a_piece(len(x), n_threads, cost, n_rows), n_threads
        return _write_by_calls(network.layout[:n_layers], network, x, out, functions, 4 * n_threads * n_rows, *pieces)


def _write_by_calls(
    layout: NDArray[np.int64],
    network: Network,
    x: NDArray[np.floating],
    out: NDArray[np.floating],
    functions: Backend,
    n_rows: int,
    *pieces: int,
) -> bool:
    """Call the backend for so many rows at a time; ``pieces`` are the last arguments of its `forward_finite`."""
    for low in range(0, len(x), n_rows):
        arguments = layout, network.parameter_buffer, x[low : low + n_rows], out[low : low + n_rows]
        if functions.forward_finite is None:
            functions.forward(*arguments)
        elif not functions.forward_finite(*arguments, *pieces):
            return False
    return True


def _rows_of_a_piece(n_rows: int, n_threads: int, cost: int, most_rows: int) -> int:
    """How many rows a thread is to take at a time; a row costs so many multiplications.

    There are some pieces for each thread, so that one that is held up takes fewer (16 instead of 4: 0.96 of the time).
    """
    rows = min(most_rows, n_rows // (16 * n_threads))
    rows = max(rows, _ROWS_IN_A_PIECE, -(-_PREDICTED_IN_A_PIECE // cost))
    rows = min(rows, -(-n_rows // n_threads))
    return -(-rows // _ROWS_TOGETHER) * _ROWS_TOGETHER


def hidden_outputs(
    network: Network, n_layers: int, x: NDArray[np.floating], functions: Backend
) -> NDArray[np.floating]:
    """The outputs of the network's first layers."""
    out = np.empty((len(x), network.layer_sizes[n_layers]), network.dtype)
    _write_outputs(network, n_layers, x, out, functions)
    return out


def fit_output_layer(network: Network, X: ArrayLike, y: ArrayLike, backend: str | Backend) -> None:
    """Solve for the last layer; `fastnet.Network.fit_output_layer` describes the arguments."""
    if network.activations[-1] != "identity":
        raise ValueError(
            f"fit_output_layer needs a network whose output_activation is 'identity'; got {network.activations[-1]!r}"
        )
    functions = load_backend(backend)
    samples = check_samples(network, X, y, contract.SQUARED_ERROR, None, functions.all_finite)
    below = samples.x if network.n_layers == 1 else hidden_outputs(network, network.n_layers - 1, samples.x, functions)
    terms = below.astype(np.float64)
    if not np.isfinite(terms).all():
        raise ValueError("X must give finite outputs of the layers below the last; some are NaN or infinite")
    if network.bias:
        terms = np.column_stack([terms, np.ones(len(terms))])
    targets = samples.y.astype(np.float64)
    solution = np.linalg.lstsq(terms, targets, rcond=None)[0]
    with np.errstate(over="ignore"):
        solution = solution.astype(network.dtype)
    if not np.isfinite(solution).all():
        raise ValueError(f"y must have a least-squares solution within the range of {network.dtype}; this one has not")
    network.weights[-1][...] = solution[: network.weights[-1].shape[0]]
    if network.bias:
        network.biases[-1][...] = solution[-1]
