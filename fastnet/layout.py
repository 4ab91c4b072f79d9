"""A network's architecture, and where its parameters lie in its one buffer.

Layer after layer: a row of weights for each input, then, if there are biases, a row of those. A row
has an element for each output of the layer, and zeros up to a multiple of 64 bytes, on every CPU, so
that loops over vectors have no remainder. The table of `layout` says where each part begins; the
gradient and the optimizer's state lie in buffers of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, c_char
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnet import contract
from fastnet.validation import check_array, check_boolean, check_choice, check_dtype, check_integer

#: NumPy looks a dtype up where it is given a type.
_BYTE = np.dtype(np.uint8)
_HIDDEN_ACTIVATIONS = tuple(name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY)


def aligned_zeros(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """An array of zeros that begins at a multiple of 64 bytes.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array.
    dtype : numpy.dtype
        float32 or float64.

    Returns
    -------
    numpy.ndarray of `dtype`, C-contiguous
        The array. `numpy.zeros` promises 16 bytes only, where every 64-byte load could straddle
        two cache lines.

    Examples
    --------
    >>> aligned_zeros((2, 16), np.dtype(np.float32)).ctypes.data % 64
    0
    """
    n_bytes = (shape if isinstance(shape, int) else prod(shape)) * dtype.itemsize
    if n_bytes == 0:
        # Optimizers without state have such, which begin anywhere.
        return np.zeros(shape, dtype)
    memory = np.zeros(n_bytes + contract.VECTOR_BYTES, _BYTE)
    # What NumPy itself says of the address takes twice as long as all of this.
    start = -addressof(c_char.from_buffer(memory)) % contract.VECTOR_BYTES  # type: ignore[arg-type]
    return np.ndarray(shape, dtype, memory, start)


def filled(size: int, value: float, dtype: DTypeLike) -> NDArray[Any]:
    """An array of one number: `numpy.full` in a third of the time, which a small training notices.

    Parameters
    ----------
    size : int
        How many elements.
    value : float
        What they are.
    dtype : dtype
        The dtype.

    Returns
    -------
    numpy.ndarray of `dtype`, shape (size,)
        The array.

    Examples
    --------
    >>> filled(3, 0.5, "float32")
    array([0.5, 0.5, 0.5], dtype=float32)
    """
    array: NDArray[Any] = np.empty(size, dtype)
    array.fill(value)
    return array


def check_architecture(
    layer_sizes: Any, activation: Any, output_activation: Any, bias: Any, dtype: Any
) -> tuple[tuple[int, ...], tuple[str, ...], bool, np.dtype[Any]]:
    """Check the arguments that make a `Network`.

    Parameters
    ----------
    layer_sizes, activation, output_activation, bias, dtype
        As for `Network`.

    Returns
    -------
    layer_sizes : tuple of int
        The sizes.
    activations : tuple of str
        Name of each layer's activation.
    bias : bool
        Whether layers have biases.
    dtype : numpy.dtype
        The dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what `Network` allows.

    Examples
    --------
    >>> check_architecture([3, 4, 1], "tanh", "sigmoid", True, "float32")
    ((3, 4, 1), ('tanh', 'sigmoid'), True, dtype('float32'))
    """
    if isinstance(layer_sizes, str | bytes) or not hasattr(layer_sizes, "__iter__"):
        raise TypeError(f"layer_sizes must be a sequence of integers; got {layer_sizes!r}")
    sizes = tuple(check_integer(f"layer_sizes[{i}]", size, 1) for i, size in enumerate(layer_sizes))
    if len(sizes) < 2:
        raise ValueError(f"layer_sizes must have at least the numbers of inputs and outputs; got {list(sizes)}")
    hidden = _check_activation(activation, len(sizes) - 2)
    output = check_choice("output_activation", output_activation, contract.ACTIVATIONS)
    return sizes, (*hidden, output), check_boolean("bias", bias), check_dtype("dtype", dtype)


def _check_activation(activation: Any, n_hidden: int) -> tuple[str, ...]:
    """Check the activations of the hidden layers."""
    if isinstance(activation, str):
        return (_check_hidden("activation", activation),) * n_hidden
    if not isinstance(activation, Sequence):
        raise TypeError(f"activation must be a name, or a sequence of one for each hidden layer; got {activation!r}")
    if len(activation) != n_hidden:
        raise ValueError(
            f"activation must be a name, or a sequence of one for each of the {n_hidden} hidden layers; "
            f"got {list(activation)}"
        )
    return tuple(_check_hidden(f"activation[{i}]", name) for i, name in enumerate(activation))


def _check_hidden(argument: str, name: Any) -> str:
    if isinstance(name, str) and name in contract.OUTPUT_ONLY:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, _HIDDEN_ACTIVATIONS))}; "
            f"got {name!r}, which only output_activation can be"
        )
    return check_choice(argument, name, _HIDDEN_ACTIVATIONS)


def check_parameter_arrays(
    weights: Sequence[ArrayLike], biases: Sequence[ArrayLike] | None, dtype: DTypeLike | None
) -> tuple[list[NDArray[np.floating]], list[NDArray[np.floating]], np.dtype[Any]]:
    """Check that weights and biases make a network.

    Parameters
    ----------
    weights : sequence of array-like, shapes (in, out)
        Weights of each layer.
    biases : sequence of array-like, shapes (out,), or None
        Biases of each layer; None or an empty sequence if there are none.
    dtype : dtype or None
        float32 or float64; None is float32 if all arrays are, else float64.

    Returns
    -------
    weights, biases : list of numpy.ndarray
        The arrays in that dtype.
    dtype : numpy.dtype
        The dtype.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not fit together, are empty, or hold anything but finite real numbers.

    Examples
    --------
    >>> check_parameter_arrays([[[1, 2]]], [[3, 4]], None)
    ([array([[1., 2.]])], [array([3., 4.])], dtype('float64'))
    """
    biases = () if biases is None else biases
    for argument, arrays in (("weights", weights), ("biases", biases)):
        if not hasattr(arrays, "__iter__"):
            raise TypeError(f"{argument} must be a sequence of arrays; got {arrays!r}")
    weights, biases = list(weights), list(biases)
    if not weights:
        raise ValueError("weights must hold an array for each layer; got none")
    if biases and len(biases) != len(weights):
        raise ValueError(f"biases must hold an array for each of the {len(weights)} layers; got {len(biases)}")
    if dtype is None:
        single = all(getattr(array, "dtype", None) in ("<f4", ">f4") for array in (*weights, *biases))
        dtype = "float32" if single else "float64"
    dtype = check_dtype("dtype", dtype)
    matrices = [check_array(f"weights[{i}]", array, dtype, 2) for i, array in enumerate(weights)]
    rows = [check_array(f"biases[{i}]", array, dtype, 1) for i, array in enumerate(biases)]
    for i, (before, after) in enumerate(pairwise(matrices), start=1):
        if len(after) != before.shape[1]:
            raise ValueError(
                f"weights[{i}] must have a row for each of the {before.shape[1]} outputs of the layer before; "
                f"got shape {after.shape}"
            )
    for i, (matrix, row) in enumerate(zip(matrices, rows, strict=False)):
        if len(row) != matrix.shape[1]:
            raise ValueError(f"biases[{i}] must have shape ({matrix.shape[1]},); got {row.shape}")
    return matrices, rows, dtype


def make_layout(
    layer_sizes: Sequence[int], activations: Sequence[str], bias: bool, dtype: np.dtype[Any]
) -> NDArray[np.int64]:
    """The table of a network's layers, with the columns named in `fastnet.contract`.

    Parameters
    ----------
    layer_sizes : sequence of int
        Inputs of the network, then units of each layer.
    activations : sequence of str
        Name of each layer's activation.
    bias : bool
        Whether layers have biases.
    dtype : numpy.dtype
        float32 or float64.

    Returns
    -------
    numpy.ndarray of int64, shape (n_layers, LAYOUT_COLUMNS), read-only
        The table.

    Raises
    ------
    ValueError
        If the parameters exceed the address space.

    Examples
    --------
    >>> make_layout([3, 4, 1], ["tanh", "sigmoid"], True, np.dtype(np.float64))
    array([[ 3,  4,  8,  0, 24,  2],
           [ 4,  1,  8, 32, 64,  1]])
    """
    lanes = contract.VECTOR_BYTES // dtype.itemsize
    rows = []
    end = 0
    for n_inputs, n_outputs, activation in zip(layer_sizes[:-1], layer_sizes[1:], activations, strict=True):
        stride = -(-n_outputs // lanes) * lanes
        weights = end
        end += n_inputs * stride
        rows.append((n_inputs, n_outputs, stride, weights, end if bias else -1, contract.ACTIVATIONS.index(activation)))
        end += stride if bias else 0
    if end * dtype.itemsize > np.iinfo(np.intp).max - contract.VECTOR_BYTES:
        raise ValueError(f"layer_sizes must fit in memory; got {list(layer_sizes)}, {end * dtype.itemsize} bytes")
    layout = np.array(rows, dtype=np.int64)
    layout.flags.writeable = False
    return layout


def buffer_size(layout: NDArray[np.int64]) -> int:
    """The number of elements in a buffer of parameters, padding included.

    Parameters
    ----------
    layout : numpy.ndarray of int64, shape (n_layers, LAYOUT_COLUMNS)
        The network's table.

    Returns
    -------
    int
        The number of elements.

    Examples
    --------
    >>> buffer_size(make_layout([3, 4, 1], ["tanh", "sigmoid"], True, np.dtype(np.float64)))
    72
    """
    n_inputs, _, stride, weights, bias, _ = map(int, layout[-1])
    return weights + n_inputs * stride if bias < 0 else bias + stride


def parameter_views(
    buffer: NDArray[np.floating], layout: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.floating], ...], tuple[NDArray[np.floating], ...]]:
    """The weights and biases in a buffer, without its padding.

    Parameters
    ----------
    buffer : numpy.ndarray, shape (..., buffer_size(layout)), C-contiguous
        A buffer, or a stack of them: parameters, a gradient, the optimizer's state.
    layout : numpy.ndarray of int64, shape (n_layers, LAYOUT_COLUMNS)
        The network's table.

    Returns
    -------
    weights : tuple of numpy.ndarray, shapes (..., in, out)
        Views, one for each layer.
    biases : tuple of numpy.ndarray, shapes (..., out)
        Views, one for each layer, or none if the layers have no bias.

    Examples
    --------
    >>> layout = make_layout([3, 4, 1], ["tanh", "sigmoid"], True, np.dtype(np.float64))
    >>> weights, biases = parameter_views(np.zeros(72), layout)
    >>> [w.shape for w in weights], [b.shape for b in biases]
    ([(3, 4), (4, 1)], [(4,), (1,)])
    """
    stack = buffer.shape[:-1]
    weights, biases = [], []
    for n_inputs, n_outputs, stride, start, bias, _ in layout.tolist():
        rows = buffer[..., start : start + n_inputs * stride].reshape(*stack, n_inputs, stride)
        weights.append(rows[..., :n_outputs])
        if bias >= 0:
            biases.append(buffer[..., bias : bias + n_outputs])
    return tuple(weights), tuple(biases)
