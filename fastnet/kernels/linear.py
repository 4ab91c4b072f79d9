"""Products of matrices: the micro-kernel, the training loop's products, and public functions on arrays.

Lanes run across the columns of the result, which are output units (or, in the back-projection,
input units). Every element is one accumulator that takes its terms in order, one fma for each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet.contract import BIAS, BLOCK_ROWS, LAYOUT_COLUMNS, N_INPUTS, STRIDE, WEIGHTS
from fastnet.kernels.jit import jit, jit_inline
from fastnet.kernels.memory import (
    keep,
    lanes_of,
    load,
    pointer,
    splat,
    store,
    tile_broadcast,
    tile_fma,
    tile_store,
    tile_zero,
)
from fastnet.kernels.simd import plus

__all__ = [
    "affine",
    "back_projection",
    "bias_gradient",
    "matmul",
    "multiply",
    "sum_in_order",
    "transpose",
    "weight_gradient",
    "weighted_row_sum",
]

#: Rows and vectors of the register tile.
TILE_ROWS = 4
TILE_VECTORS = 2


class Rows(NamedTuple):
    """Rows in memory: element c of row r is at ``data[first + r * row + c]``."""

    data: Any
    first: int
    row: int


class Target(NamedTuple):
    """Rows that results are stored to, or added to."""

    data: Any
    first: int
    row: int
    add: bool


class View(NamedTuple):
    """A matrix in memory: element (r, c) is at ``data[first + r * row + c * column]``."""

    data: Any
    first: int
    row: int
    column: int


@jit_inline
def view(data, first, row, column):
    """A `View` of integers that are no literals, so that all views are of one type."""
    return View(data, first, row, column)


@jit_inline
def rows(data, first, row):
    """`Rows` of integers that are no literals."""
    return Rows(data, first, row)


@jit_inline
def target(data, first, row, add):
    """A `Target`."""
    return Target(data, first, row, add)


@jit_inline
def entry(layout, layer, column):
    """An entry of a layout, by its pointer."""
    return layout[layer * LAYOUT_COLUMNS + column]


@jit_inline
def layout_size(layout):
    """The size of the buffers that a layout, an array, describes."""
    last = layout.shape[0] - 1
    end = layout[last, WEIGHTS] + layout[last, N_INPUTS] * layout[last, STRIDE]
    return max(end, layout[last, BIAS] + layout[last, STRIDE])


@jit_inline
def padded(data, width):
    """``width`` rounded up to whole vectors of the pointer's dtype."""
    lanes = lanes_of(data)
    return (width + lanes - 1) // lanes * lanes


@jit_inline
def _tile_product(c, a, b, bias, row, column, n_terms, n_rows, n_vectors):
    """One tile of `product`; ``n_rows`` and ``n_vectors`` are literals."""
    if bias.first >= 0:
        tile = tile_broadcast(bias.data, bias.first + column, n_rows, n_vectors)
    else:
        tile = tile_zero(c.data, n_rows, n_vectors)
    a_index = a.first + row * a.row
    b_index = b.first + column
    for _ in range(n_terms):
        tile = tile_fma(tile, a.data, a_index, a.row, b.data, b_index)
        a_index += a.column
        b_index += b.row
    tile_store(tile, c.data, c.first + row * c.row + column, c.row, c.add)


@jit_inline
def product(c, a, b, bias, n_rows, n_terms, n_columns):
    """c = a @ b, or c += a @ b; every sum from the bias row, or from +0 where ``bias.first`` is negative.

    c is a `Target`, a a `View`; b and the bias are `Rows` of whole vectors, as c is.
    """
    lanes = lanes_of(c.data)
    column = 0
    while column < n_columns:
        wide = n_columns - column > lanes
        row = 0
        while row + TILE_ROWS <= n_rows:
            if wide:
                _tile_product(c, a, b, bias, row, column, n_terms, TILE_ROWS, TILE_VECTORS)
            else:
                _tile_product(c, a, b, bias, row, column, n_terms, TILE_ROWS, 1)
            row += TILE_ROWS
        while row < n_rows:
            if wide:
                _tile_product(c, a, b, bias, row, column, n_terms, 1, TILE_VECTORS)
            else:
                _tile_product(c, a, b, bias, row, column, n_terms, 1, 1)
            row += 1
        column += TILE_VECTORS * lanes if wide else lanes


@jit_inline
def row_sum(total, total_first, values, first, n_rows, stride, add):
    """The sum of rows of whole vectors, in order; with ``add`` it is added to ``total``."""
    for column in range(0, stride, lanes_of(values)):
        accumulator = splat(values, 0.0)
        index = first + column
        for _ in range(n_rows):
            accumulator = plus(accumulator, load(values, index))
            index += stride
        if add:
            accumulator = plus(load(total, total_first + column), accumulator)
        store(total, total_first + column, accumulator)


@jit_inline
def copy_transposed(target, target_first, target_row, source, source_first, source_row, n_rows, n_columns):
    """Write the transpose of an (n_rows, n_columns) matrix, rows of both some steps apart."""
    for row in range(n_rows):
        for column in range(n_columns):
            target[target_first + column * target_row + row] = source[source_first + row * source_row + column]


@jit_inline
def part_of_vector(data, width):
    """Elements of a vector that a row of this width needs: a power of two, or all."""
    part = 1
    while part < width:
        part *= 2
    return min(part, lanes_of(data))


@jit
def pad_columns(matrix):
    """A copy of a matrix whose rows are padded with zeros to whole vectors."""
    n_rows, n_columns = matrix.shape
    copy = np.zeros((n_rows, padded(pointer(np.empty(0, matrix.dtype)), n_columns)), matrix.dtype)
    copy[:, :n_columns] = matrix
    return copy


@jit
def _product_of_arrays(a, b, bias, has_bias):
    n_rows, n_terms = a.shape
    if b.shape[0] != n_terms:
        raise ValueError("the matrices' inner sizes differ")
    n_columns = b.shape[1]
    right = pad_columns(b)
    start = np.zeros(right.shape[1], b.dtype)
    if has_bias:
        start[:n_columns] = bias
    left = np.ascontiguousarray(a)
    result = np.empty((n_rows, right.shape[1]), b.dtype)
    stride = right.shape[1]
    product(
        target(pointer(result), 0, stride, False),
        view(pointer(left), 0, n_terms, 1),
        rows(pointer(right), 0, stride),
        rows(pointer(start), 0 if has_bias else -1, 0),
        n_rows,
        n_terms,
        stride,
    )
    keep(left)
    keep(right)
    keep(start)
    return np.ascontiguousarray(result[:, :n_columns])


@jit
def matmul(a, b):
    """a @ b, every sum from +0 over the inner index in order.

    Parameters
    ----------
    a : (n, k) array of float32 or float64
    b : (k, m) array of the same dtype

    Returns
    -------
    (n, m) array

    Raises
    ------
    ValueError
        If the inner sizes differ.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([[4.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
    >>> matmul(a, transpose(a))
    array([[29., 11.],
           [11.,  5.]])
    """
    return _product_of_arrays(a, b, np.empty(0, b.dtype), False)


@jit
def affine(x, weights, bias):
    """x @ weights + bias, every sum from the bias (or +0 where ``bias`` is None) over the inputs in order."""
    if bias is None:
        return _product_of_arrays(x, weights, np.empty(0, x.dtype), False)
    if bias.size != weights.shape[1]:
        raise ValueError("bias must have one element for each column of weights")
    return _product_of_arrays(x, weights, bias, True)


@jit
def back_projection(delta, weights):
    """delta @ weights.T, every sum from +0 over the outputs in order."""
    return matmul(delta, transpose(weights))


@jit
def weight_gradient(x, delta):
    """x.T @ delta over the rows in order: a sum from +0 for each block of 256, then the blocks in order."""
    n_rows = x.shape[0]
    if delta.shape[0] != n_rows:
        raise ValueError("x and delta must have the same number of rows")
    total = matmul(transpose(x[:BLOCK_ROWS]), delta[:BLOCK_ROWS])
    for low in range(BLOCK_ROWS, n_rows, BLOCK_ROWS):
        total += matmul(transpose(x[low : low + BLOCK_ROWS]), delta[low : low + BLOCK_ROWS])
    return total


@jit
def bias_gradient(delta):
    """The sum of delta's rows, in the blocks of `weight_gradient`."""
    return weighted_row_sum(delta, np.ones(delta.shape[0], delta.dtype))


@jit
def weighted_row_sum(values, weights):
    """The rows of ``values`` times their weights, summed in the blocks of `weight_gradient`."""
    return weight_gradient(np.ascontiguousarray(weights).reshape(weights.size, 1), values)[0]


@jit
def sum_in_order(values):
    """The sum over the last axis of a matrix, from +0, in order; that axis is kept with length 1."""
    total = np.zeros((values.shape[0], 1), values.dtype)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            total[row, 0] += values[row, column]
    return total


@jit
def transpose(a):
    """The transposed matrix, C-contiguous."""
    result = np.empty((a.shape[1], a.shape[0]), a.dtype)
    for row in range(a.shape[0]):
        for column in range(a.shape[1]):
            result[column, row] = a[row, column]
    return result


@jit
def multiply(a, b):
    """a * b, element by element, for matrices of one shape."""
    if a.shape != b.shape:
        raise ValueError("the matrices' shapes differ")
    return a * b
