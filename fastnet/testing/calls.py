"""Calls of every function on arrays that the kernels and the reference share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import contract
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.layout import buffer_size, make_layout, parameter_views
from fastnet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, Rprop
from fastnet.testing.cases import edge_values

Array = NDArray[np.floating]
#: The arguments of a call.
Arguments = tuple[Any, ...]

DTYPES = ("float32", "float64")
#: The elementary functions of one argument.
UNARY = ("exp", "expm1", "flush", "log", "normal_cdf", "normal_density", "sigmoid", "softplus", "tanh")
#: A layer of each kind: less than a vector, more than one, and softmax at the end.
_SIZES, _ACTIVATIONS = (3, 5, 17, 2), ("tanh", "gelu", "softmax")
#: Rows, terms and columns of products: no rows, nothing to sum, less than a vector, whole vectors, more than a block of
#: rows, and as many as are packed before they are multiplied.
_SHAPES = ((0, 3, 2), (2, 0, 3), (1, 1, 1), (3, 5, 4), (7, 16, 32), (5, 300, 17), (70, 33, 65), (199, 300, 40))
_OBJECTIVE = Objective(contract.CROSS_ENTROPY, 0.0, True, 0.01, 100)
_OPTIMIZERS: tuple[Optimizer, ...] = (
    SGD(0.1),
    SGD(0.1, momentum=0.9, nesterov=True),
    AdamW(0.1),
    RMSprop(0.1),
    RMSprop(0.1, momentum=0.5),
    Rprop(0.1),
)


class Source:
    """Random numbers of a dtype; the same ones with every version of NumPy.

    Parameters
    ----------
    dtype : str
        float32 or float64.
    size : int
        How many numbers functions of one argument are called with.
    seed : int
        Of the generator.
    """

    def __init__(self, dtype: str, size: int, seed: int = 0) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.random = np.random.RandomState(seed)

    def matrix(self, *shape: int) -> Array:
        """Numbers of ordinary size."""
        return self.random.standard_normal(shape).astype(self.dtype)

    def bit_patterns(self, size: int) -> Array:
        """Random bits: every exponent is as likely, NaN and infinity among them."""
        return np.frombuffer(self.random.bytes(size * self.dtype.itemsize), self.dtype).copy()

    def edges(self) -> Array:
        """The edge values in a random order, as a matrix."""
        return self.random.permutation(edge_values(self.dtype)).reshape(4, -1)


def _unary(source: Source) -> Iterator[Arguments]:
    ordinary = 10 * source.matrix(source.size)
    yield (np.concatenate([edge_values(source.dtype), source.bit_patterns(source.size), ordinary]),)
    yield (source.matrix(3, 5, 7),)
    yield (source.matrix(0, 3),)


def _fma(source: Source) -> Iterator[Arguments]:
    yield tuple(source.bit_patterns(source.size) for _ in range(3))
    yield tuple(source.matrix(3, 7) for _ in range(3))
    # Products that an addend all but cancels.
    a, b = source.matrix(source.size), source.matrix(source.size)
    yield a, b, -(a * b)


def _products(source: Source) -> Iterator[tuple[Array, Array]]:
    """Matrices to multiply; edge values, which overflow, are no numbers, or have results below the normal numbers."""
    for n, k, m in _SHAPES:
        yield source.matrix(n, k), source.matrix(k, m)
    yield source.edges(), source.edges().T.copy()


def _affine(source: Source) -> Iterator[Arguments]:
    for a, b in _products(source):
        yield a, b, None
        yield a, b, source.matrix(b.shape[1])


def _back_projection(source: Source) -> Iterator[Arguments]:
    return ((a, b.T.copy()) for a, b in _products(source))


def _weight_gradient(source: Source) -> Iterator[Arguments]:
    return ((a.T.copy(), b) for a, b in _products(source))


def _rows(source: Source) -> Iterator[Arguments]:
    for shape in ((0, 2), (1, 1), (5, 17), (2 * contract.BLOCK_ROWS + 3, 3)):
        yield (source.matrix(*shape),)
    yield (source.edges(),)


def _weighted_rows(source: Source) -> Iterator[Arguments]:
    return ((values, source.matrix(len(values))) for (values,) in _rows(source))


def _multiply(source: Source) -> Iterator[Arguments]:
    yield source.matrix(3, 17), source.matrix(3, 17)
    yield source.edges(), source.edges()


def _activations(source: Source, n_matrices: int) -> Iterator[Arguments]:
    """Every activation on one unit, on some, on more than a vector, on edge values and on signed zeros."""
    for activation in range(len(contract.ACTIVATIONS)):
        for shape in ((1, 1), (4, 3), (20, 21)):
            yield activation, *(5 * source.matrix(*shape) for _ in range(n_matrices))
        yield activation, *(source.edges() for _ in range(n_matrices))
        zeros = np.array([[0.0, -0.0], [-0.0, -0.0]], source.dtype)
        yield activation, zeros, *[np.full_like(zeros, 0.5)] * (n_matrices - 1)


def _softmax(source: Source) -> Iterator[Arguments]:
    return (arguments[1:] for arguments in _activations(source, 1))


def _losses(source: Source) -> Iterator[Arguments]:
    """Every loss with every activation that it may treat in a way of its own."""
    for activation in (contract.IDENTITY, *contract.MATCHED_ACTIVATION.values()):
        for code, z, a, y in _activations(source, 3):
            if code == activation:
                for loss in range(len(contract.LOSSES)):
                    yield loss, activation, 0.3, z, a, y


def _network(source: Source) -> tuple[NDArray[np.int64], Array, Samples]:
    """A layout, parameters, and samples, more than a block of them."""
    layout = make_layout(_SIZES, _ACTIVATIONS, True, source.dtype)
    n_samples = contract.BLOCK_ROWS + 4
    y = np.zeros((n_samples, _SIZES[-1]), source.dtype)
    y[np.arange(n_samples), source.random.randint(0, 2, n_samples)] = 1
    weight = source.random.uniform(0.5, 2, n_samples).astype(source.dtype)
    order = np.stack([source.random.permutation(n_samples) for _ in range(2)]).astype(np.int64)
    return layout, _buffer(layout, source), Samples(source.matrix(n_samples, _SIZES[0]), y, weight, order)


def _buffer(layout: NDArray[np.int64], source: Source) -> Array:
    """Random numbers where a network has some, and zeros between."""
    buffer = np.zeros(buffer_size(layout), source.dtype)
    for views in parameter_views(buffer, layout):
        for view in views:
            view[...] = source.matrix(*view.shape)
    return buffer


def _update(optimizer: Optimizer, size: int, dtype: np.dtype[Any]) -> Update:
    slots = optimizer.initial_slots(size, dtype)
    return Update(optimizer.kind, optimizer.settings, slots, np.ones(2), optimizer.rates(0, 2))


def _forward(source: Source) -> Iterator[Arguments]:
    layout, parameters, samples = _network(source)
    yield layout, parameters, samples.x, np.empty((len(samples.x), _SIZES[-1]), source.dtype)


def _gradient(source: Source) -> Iterator[Arguments]:
    layout, parameters, samples = _network(source)
    yield layout, parameters, samples, _OBJECTIVE, np.zeros_like(parameters)


def _step(source: Source) -> Iterator[Arguments]:
    layout, parameters, _ = _network(source)
    for optimizer in _OPTIMIZERS:
        update = _update(optimizer, parameters.size, source.dtype)
        yield layout, parameters.copy(), _buffer(layout, source), 3.5, _OBJECTIVE, update, 0.1


def _train(source: Source) -> Iterator[Arguments]:
    layout, parameters, samples = _network(source)
    update = _update(Adam(0.01), parameters.size, source.dtype)
    # Both epochs, and a part of the first one.
    for n_blocks in (100, 2):
        progress = Progress(
            np.array([0, 0, 0, 2, 0]), np.zeros(contract.N_SUMS), np.zeros_like(parameters), np.zeros(2), np.zeros(2)
        )
        yield layout, parameters, samples, _OBJECTIVE, update, progress, n_blocks


#: What every function is called with, by the reference's module and name.
CALLS: dict[str, Callable[[Source], Iterator[Arguments]]] = {
    **{f"exact.{name}": _unary for name in UNARY},
    "exact.fma": _fma,
    "exact.affine": _affine,
    "exact.back_projection": _back_projection,
    "exact.bias_gradient": _rows,
    "exact.matmul": _products,
    "exact.multiply": _multiply,
    "exact.sum_in_order": _rows,
    "exact.transpose": _rows,
    "exact.weight_gradient": _weight_gradient,
    "exact.weighted_row_sum": _weighted_rows,
    "activations.forward": lambda source: _activations(source, 1),
    "activations.backward": lambda source: _activations(source, 3),
    "activations.log_softmax": _softmax,
    "losses.loss": _losses,
    "losses.delta": _losses,
    "optimizers.step": _step,
    "network.forward": _forward,
    "network.gradient": _gradient,
    "network.train": _train,
}


def twins(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The kernel and the reference's function of a name in `CALLS`."""
    module, _, function = name.partition(".")
    reference = importlib.import_module(f"fastnet.reference.{module}")
    kernels = [f"fastnet.kernels.{module}"]
    if module == "exact":
        kernels = ["fastnet.kernels.arithmetic", "fastnet.kernels.linear"]
    found = [module for module in map(importlib.import_module, kernels) if function in module.__all__]
    return getattr(found[0], function), getattr(reference, function)


def arrays_of(value: Any) -> Iterator[NDArray[Any]]:
    """All arrays in arguments or in a result, which may be records; numbers count as arrays."""
    if isinstance(value, tuple):
        for part in value:
            yield from arrays_of(part)
    elif value is not None:
        yield np.asarray(value)


def copied(value: Any) -> Any:
    """Arguments, or a record among them, with arrays of their own; read-only ones stay so, for they are other types."""
    if isinstance(value, tuple):
        copies = [copied(part) for part in value]
        return type(value)(*copies) if hasattr(value, "_fields") else tuple(copies)
    if not isinstance(value, np.ndarray):
        return value
    array = value.copy()
    array.flags.writeable = value.flags.writeable
    return array
