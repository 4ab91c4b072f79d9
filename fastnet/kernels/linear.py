"""Products of matrices, and what goes with them, on arrays: `fastnet.kernels.products` where rows are whole vectors."""

from __future__ import annotations

import numpy as np

from fastnet.contract import BLOCK_ROWS
from fastnet.kernels.checks import check_array, require
from fastnet.kernels.jit import jit, jit_inline, jit_part, jit_shared
from fastnet.kernels.memory import (
    is_nowhere,
    keep,
    lanes_of,
    least,
    most,
    moved,
    pointer,
    release,
    reserve,
    splat,
    store,
)
from fastnet.kernels.products import STRIP_TERMS, copy_row, large_product, padded, scratch_size, target, view

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


@jit_inline
def _whole_vectors(matrix):
    """The matrix, or where its rows are not whole vectors a copy of it, padded with zeros."""
    values = np.ascontiguousarray(matrix)
    data = pointer(values)
    n_rows, n_columns = values.shape
    stride = padded(data, n_columns)
    if stride == n_columns:
        return values
    copy = np.empty((n_rows, stride), values.dtype)
    to = pointer(copy)
    for row in range(n_rows):
        store(to, row * stride + stride - lanes_of(to), splat(to, 0.0))
        copy_row(moved(to, row * stride), moved(data, row * n_columns), n_columns)
    keep(values)
    return copy


@jit_inline
def _room(like, n_rows, n_columns, n_terms):
    """A matrix of anything for a product, with room after it for a vector; rows are padded if they have to be.

    To copy rows out of padded ones took a twelfth of a product of 200 x 64 x 100.
    """
    data = pointer(like)
    stride = n_columns if n_terms <= STRIP_TERMS else padded(data, n_columns)
    return np.empty((n_rows + lanes_of(data) // most(stride, 1) + 1, stride), like.dtype)[:n_rows]


@jit_inline
def _trimmed(result, n_columns):
    """The matrix without its columns from ``n_columns`` on."""
    n_rows, stride = result.shape
    if stride == n_columns:
        return result
    copy = np.empty((n_rows, n_columns), result.dtype)
    data, to = pointer(result), pointer(copy)
    for row in range(n_rows):
        copy_row(moved(to, row * n_columns), moved(data, row * stride), n_columns)
    keep(result)
    return copy


@jit_shared
def _large_product(c, a, b, bias, n_rows, n_terms, n_columns):
    """`large_product` in memory of its own."""
    scratch = reserve(b.data, scratch_size(b.data, n_terms, n_rows))
    if is_nowhere(scratch):
        raise MemoryError
    large_product(c, a, b, bias, n_rows, n_terms, n_columns, scratch)
    release(scratch)


@jit_inline
def _multiply_arrays(result, add, a, a_row, a_column, b, b_row, b_column, bias, n_rows, n_terms, n_columns):
    """`product` on arrays."""
    _large_product(
        target(pointer(result), 0, result.shape[1], add),
        view(pointer(a), 0, a_row, a_column),
        view(pointer(b), 0, b_row, b_column),
        view(pointer(bias), 0 if bias.size > 0 else -1, 0, 1),
        n_rows,
        n_terms,
        n_columns,
    )


@jit_part
def _product_of_arrays(a, b, bias):
    (n_rows, n_terms), n_columns = a.shape, b.shape[1]
    left, right = np.ascontiguousarray(a), _whole_vectors(b)
    result = _room(right, n_rows, n_columns, n_terms)
    _multiply_arrays(result, False, left, n_terms, 1, right, right.shape[1], 1, bias, n_rows, n_terms, n_columns)
    keep(left)
    keep(right)
    return _trimmed(result, n_columns)


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
    TypeError
        When it is compiled for what is no matrix of such a dtype. So do the other functions here.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([[4.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
    >>> matmul(a, transpose(a))
    array([[29., 11.],
           [11.,  5.]])
    """
    check_array("a", a, 2, None)
    check_array("b", b, 2, a)
    require(b.shape[0] == a.shape[1], "b must have {} rows, one for each column of a; got {}", (a.shape[1], b.shape[0]))
    return _product_of_arrays(a, b, np.empty(0, b.dtype))


@jit
def affine(x, weights, bias):
    """x @ weights + bias, every sum from the bias (or +0 where ``bias`` is None) over the inputs in order."""
    check_array("x", x, 2, None)
    check_array("weights", weights, 2, x)
    require(
        weights.shape[0] == x.shape[1],
        "weights must have {} rows, one for each column of x; got {}",
        (x.shape[1], weights.shape[0]),
    )
    if bias is None:
        return _product_of_arrays(x, weights, np.empty(0, weights.dtype))
    n_columns = weights.shape[1]
    check_array("bias", bias, 1, x)
    require(
        bias.size == n_columns,
        "bias must have {} elements, one for each column of weights; got {}",
        (n_columns, bias.size),
    )
    start = np.zeros(padded(pointer(np.empty(0, bias.dtype)), n_columns), bias.dtype)
    for column in range(n_columns):
        start[column] = bias[column]
    return _product_of_arrays(x, weights, start)


@jit
def back_projection(delta, weights):
    """delta @ weights.T, every sum from +0 over the outputs in order."""
    check_array("delta", delta, 2, None)
    check_array("weights", weights, 2, delta)
    n_rows, n_terms = delta.shape
    require(
        weights.shape[1] == n_terms,
        "weights must have {} columns, one for each column of delta; got {}",
        (n_terms, weights.shape[1]),
    )
    left, right, n_columns = np.ascontiguousarray(delta), _whole_vectors(weights), weights.shape[0]
    result = _room(right, n_rows, n_columns, n_terms)
    nothing = np.empty(0, delta.dtype)
    _multiply_arrays(result, False, left, n_terms, 1, right, 1, right.shape[1], nothing, n_rows, n_terms, n_columns)
    keep(left)
    keep(right)
    return _trimmed(result, n_columns)


@jit_part
def _weight_gradient(x, delta):
    (n_samples, n_inputs), n_columns = x.shape, delta.shape[1]
    left, right = np.ascontiguousarray(x), _whole_vectors(delta)
    stride = right.shape[1]
    result = np.zeros((n_inputs, stride), delta.dtype)
    nothing = np.empty(0, delta.dtype)
    for low in range(0, n_samples, BLOCK_ROWS):
        n_terms = least(BLOCK_ROWS, n_samples - low)
        inputs, errors = left[low : low + n_terms], right[low : low + n_terms]
        _multiply_arrays(result, low > 0, inputs, 1, n_inputs, errors, stride, 1, nothing, n_inputs, n_terms, n_columns)
    keep(left)
    keep(right)
    return _trimmed(result, n_columns)


@jit
def weight_gradient(x, delta):
    """x.T @ delta over the rows in order: a sum from +0 for each block of 256, then the blocks in order."""
    check_array("x", x, 2, None)
    check_array("delta", delta, 2, x)
    require(
        delta.shape[0] == x.shape[0],
        "delta must have {} rows, one for each row of x; got {}",
        (x.shape[0], delta.shape[0]),
    )
    return _weight_gradient(x, delta)


@jit
def bias_gradient(delta):
    """The sum of delta's rows, in the blocks of `weight_gradient`."""
    check_array("delta", delta, 2, None)
    return _weight_gradient(np.ones((delta.shape[0], 1), delta.dtype), delta)[0]


@jit
def weighted_row_sum(values, weights):
    """The rows of ``values`` times their weights, summed in the blocks of `weight_gradient`."""
    check_array("values", values, 2, None)
    check_array("weights", weights, 1, values)
    require(
        weights.size == values.shape[0],
        "weights must have {} elements, one for each row of values; got {}",
        (values.shape[0], weights.size),
    )
    return _weight_gradient(np.ascontiguousarray(weights).reshape(weights.size, 1), values)[0]


@jit
def sum_in_order(values):
    """The sum over the last axis of a matrix, from +0, in order; that axis is kept with length 1."""
    check_array("values", values, 2, None)
    total = np.zeros((values.shape[0], 1), values.dtype)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            total[row, 0] += values[row, column]
    return total


@jit
def transpose(a):
    """The transposed matrix, C-contiguous."""
    check_array("a", a, 2, None)
    result = np.empty((a.shape[1], a.shape[0]), a.dtype)
    for row in range(a.shape[0]):
        for column in range(a.shape[1]):
            result[column, row] = a[row, column]
    return result


@jit
def multiply(a, b):
    """a * b, element by element, for matrices of one shape."""
    check_array("a", a, 2, None)
    check_array("b", b, 2, a)
    require(a.shape == b.shape, "a and b must be of one shape; got {} and {}", (a.shape, b.shape))
    return a * b
