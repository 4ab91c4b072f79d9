"""Activations over blocks of rows: the loops around `fastnet.kernels.formulas.activations`, and softmax.

Lanes run across the units of a row. Softmax's maximum and sum run over a row's units one after
another, in order, on scalars.
"""

from __future__ import annotations

import numpy as np

from fastnet.contract import SOFTMAX
from fastnet.kernels.checks import check_array, require
from fastnet.kernels.formulas import activations, arithmetic
from fastnet.kernels.jit import jit, jit_inline, jit_part, jit_shared
from fastnet.kernels.memory import join_rows, lanes_of, load, moved, pointer, splat, split_rows, stack_memory, store
from fastnet.kernels.packing import transpose_square
from fastnet.kernels.products import padded
from fastnet.kernels.simd import Lanes, plus, select, staged
from fastnet.kernels.spans import spanned

__all__ = ["backward", "forward", "log_softmax"]


#: Vectors in the widest rows of which softmax is computed with a row in each lane.
SQUARES = 4
#: Elements of two rows of so many squares of 16 x 16.
_SQUARE_ELEMENTS = 2 * SQUARES * 256

_DERIVED_FROM_INPUTS = activations.DERIVED_FROM_INPUTS
_backward = staged(activations.backward)
forward_span = spanned(activations.forward, range(SOFTMAX))
_backward_span = spanned(activations.flushed_backward, range(SOFTMAX))
_exp = staged(arithmetic.exp)
_log = staged(arithmetic.log)


@staged
def _minus(a: Lanes, b: Lanes) -> Lanes:
    return a - b


@staged
def _times(a: Lanes, b: Lanes) -> Lanes:
    return a * b


@staged
def _over(a: Lanes, b: Lanes) -> Lanes:
    return a / b


@staged
def _larger(a: Lanes, b: Lanes) -> Lanes:
    """b where it is larger, else a."""
    return select(b > a, b, a)


@staged
def _from_zero(x: Lanes) -> Lanes:
    """The first term of a sum from +0, which makes +0 of -0."""
    return x + 0.0


@jit_inline
def needs_inputs(activation):
    """Whether `backward_rows` looks at the inputs of an activation, and not only at its outputs."""
    return activation in _DERIVED_FROM_INPUTS


@jit_inline
def forward_rows(activation, buffer, z, a, n_rows, n_units, stride):
    """Write activation(z) to a, positions in ``buffer`` of rows ``stride`` apart; but for softmax they may be one."""
    if activation == SOFTMAX:
        _softmax_rows(buffer, z, a, n_rows, n_units, stride)
        return
    lanes = lanes_of(buffer)
    if 2 * n_units > lanes:
        forward_span(activation, buffer, n_rows * stride, a, z)
        return
    # Rows of a narrow layer share a vector while the activation is computed: a division of 8 lanes
    # takes as long for one that counts as for eight (an epoch of the 3-4-1 network: 149 ns, 161 ns before).
    part, step = 1, lanes * lanes
    while part < n_units:
        part, step = 2 * part, step // 2
    clear_rest(buffer, z, n_rows * stride, step)
    # The shared vectors lie one after another, where the last of them are replaced first.
    offset, size = 0, 0
    while offset < n_rows * stride:
        store(buffer, a + size, join_rows(buffer, z + offset, lanes, part))
        offset, size = offset + step, size + lanes
    forward_span(activation, buffer, size, a, a)
    while size > 0:
        offset, size = offset - step, size - lanes
        split_rows(buffer, a + offset, lanes, part, load(buffer, a + size))


@jit_inline
def clear_rest(buffer, first, size, step):
    """Write +0 from ``size`` to the next multiple of ``step``, a power of two.

    What lies there takes part in the calculation, and could be subnormal, and slow.
    """
    nothing = splat(buffer, 0.0)
    while size & (step - 1):
        store(buffer, first + size, nothing)
        size += lanes_of(buffer)


@jit_inline
def _softmax_rows(buffer, z, a, n_rows, n_units, stride):
    """Write softmax(z) to a, and its logarithm over z: as many rows at a time as a vector has lanes, then the rest."""
    lanes, row = lanes_of(buffer), 0
    if stride <= SQUARES * lanes:
        while row + lanes <= n_rows:
            _softmax_square(buffer, z + row * stride, a + row * stride, n_units, stride)
            row += lanes
    for rest in range(row, n_rows):
        _softmax_row(buffer, z + rest * stride, a + rest * stride, n_units)


@jit_part
def _softmax_square(buffer, z, a, n_units, stride):
    """Softmax of as many rows as a vector has lanes, with a row in each lane.

    The sums keep their order, and 16 rows of ten units take 10 exponentials and one logarithm instead of 16
    of each (200 rows: 1.3 us, 9.5 us row by row).
    """
    lanes = lanes_of(buffer)
    inputs = stack_memory(buffer, _SQUARE_ELEMENTS)
    outputs = moved(inputs, SQUARES * lanes * lanes)
    for square in range(0, stride, lanes):
        transpose_square(moved(inputs, square * lanes), lanes, moved(buffer, z + square), stride, lanes)
    softmax_columns(inputs, 0, SQUARES * lanes * lanes, n_units, lanes)
    zeros = splat(buffer, 0.0)
    for unit in range(n_units, stride):
        store(outputs, unit * lanes, zeros)
        store(inputs, unit * lanes, zeros)
    for square in range(0, stride, lanes):
        transpose_square(moved(buffer, z + square), stride, moved(inputs, square * lanes), lanes, lanes)
        transpose_square(moved(buffer, a + square), stride, moved(outputs, square * lanes), lanes, lanes)


@jit_part
def softmax_columns(buffer, z, a, n_units, row):
    """Write softmax(z) to a, and its logarithm over z, for a vector of columns of which rows are ``row`` apart."""
    largest = load(buffer, z)
    for unit in range(1, n_units):
        largest = _larger(largest, load(buffer, z + unit * row))
    shifted = _minus(load(buffer, z), largest)
    total = _exp(shifted)
    store(buffer, z, shifted)
    store(buffer, a, total)
    for unit in range(1, n_units):
        shifted = _minus(load(buffer, z + unit * row), largest)
        power = _exp(shifted)
        store(buffer, z + unit * row, shifted)
        store(buffer, a + unit * row, power)
        total = plus(total, power)
    log_total = _log(total)
    for unit in range(n_units):
        store(buffer, a + unit * row, _over(load(buffer, a + unit * row), total))
        store(buffer, z + unit * row, _minus(load(buffer, z + unit * row), log_total))


@jit_inline
def _softmax_row(buffer, z, a, n_units):
    """Write softmax(z) to a, and its logarithm over z."""
    lanes = lanes_of(buffer)
    largest = buffer[z]
    for unit in range(1, n_units):
        largest = _larger(largest, buffer[z + unit])
    shift = splat(buffer, largest)
    for offset in range(0, n_units, lanes):
        shifted = _minus(load(buffer, z + offset), shift)
        store(buffer, z + offset, shifted)
        store(buffer, a + offset, _exp(shifted))
    total = buffer[a]
    for unit in range(1, n_units):
        total += buffer[a + unit]
    divisor, log_total = splat(buffer, total), splat(buffer, _log(total))
    for offset in range(0, n_units, lanes):
        store(buffer, a + offset, _over(load(buffer, a + offset), divisor))
        store(buffer, z + offset, _minus(load(buffer, z + offset), log_total))


@jit_inline
def softmax_backward_row(buffer, error, a, n_units):
    """Turn the derivative by softmax's output a, at ``error``, into the one by its input, in place."""
    lanes = lanes_of(buffer)
    total = _from_zero(buffer[error] * buffer[a])
    for unit in range(1, n_units):
        total += buffer[error + unit] * buffer[a + unit]
    mean = splat(buffer, total)
    for offset in range(0, n_units, lanes):
        centred = _minus(load(buffer, error + offset), mean)
        store(buffer, error + offset, _times(load(buffer, a + offset), centred))


@jit_inline
def backward_rows(activation, buffer, delta, z, a, n_rows, stride):
    """Turn the derivatives by a, at ``delta``, into flushed derivatives by z, in place; not for softmax."""
    _backward_span(activation, buffer, n_rows * stride, delta, delta, z, a)


@jit_part
def join_padded(first, second, third):
    """Three matrices of one shape, one after another in planes of padded rows, as many as whole groups need."""
    fits = first.shape == second.shape and first.shape == third.shape
    require(fits, "matrices must be of one shape; got {}, {} and {}", (first.shape, second.shape, third.shape))
    n_rows, n_units = first.shape
    data = pointer(np.empty(0, first.dtype))
    planes = np.zeros((3, padded(data, n_rows), padded(data, n_units)), first.dtype)
    # Element by element: to assign to a slice takes Numba seconds to compile.
    for row in range(n_rows):
        for unit in range(n_units):
            planes[0, row, unit] = first[row, unit]
            planes[1, row, unit] = second[row, unit]
            planes[2, row, unit] = third[row, unit]
    return planes


@jit_shared
def _forward(activation, buffer, z, a, n_rows, n_units, stride):
    """`forward_rows`, which is a lot of code."""
    forward_rows(activation, buffer, z, a, n_rows, n_units, stride)


@jit_inline
def _check_activation(activation):
    require(
        activation >= 0 and activation <= SOFTMAX,
        "activation must be a code from 0 to {}; got {}",
        (SOFTMAX, activation),
    )


@jit
def forward(activation, z):
    """a = activation(z) for a matrix; softmax runs over its rows.

    Parameters
    ----------
    activation : int
        A code of `fastnet.contract`.
    z : (n_samples, n_units) array of float32 or float64

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import contract
    >>> forward(contract.RELU, np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """
    _check_activation(activation)
    check_array("z", z, 2, None)
    planes = join_padded(z, z, z)
    stride = planes.shape[2]
    _forward(activation, pointer(planes), 0, planes[0].size, z.shape[0], z.shape[1], stride)
    return planes[1, : z.shape[0], : z.shape[1]].copy()


@jit
def log_softmax(z):
    """Logarithm of the softmax over the rows of a matrix, without the softmax's underflow."""
    check_array("z", z, 2, None)
    planes = join_padded(z, z, z)
    stride = planes.shape[2]
    _forward(SOFTMAX, pointer(planes), 0, planes[0].size, z.shape[0], z.shape[1], stride)
    return planes[0, : z.shape[0], : z.shape[1]].copy()


@jit
def backward(activation, error, z, a):
    """The loss's derivative by z, from ``error``, its derivative by a = activation(z); all matrices."""
    _check_activation(activation)
    check_array("error", error, 2, None)
    check_array("z", z, 2, error)
    check_array("a", a, 2, error)
    planes = join_padded(error, z, a)
    buffer, size, stride = pointer(planes), planes[0].size, planes.shape[2]
    if activation == SOFTMAX:
        for row in range(z.shape[0]):
            softmax_backward_row(buffer, row * stride, 2 * size + row * stride, z.shape[1])
    else:
        for offset in range(0, size, lanes_of(buffer)):
            delta = _backward(
                activation, load(buffer, offset), load(buffer, size + offset), load(buffer, 2 * size + offset)
            )
            store(buffer, offset, delta)
    return planes[0, : z.shape[0], : z.shape[1]].copy()
