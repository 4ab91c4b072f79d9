"""Products of fewer columns than a vector has lanes, as the gradient of a layer of few units is, by their transposes.

Lanes run across the rows of the result; every element is still one accumulator that takes its terms in order.
"""

from __future__ import annotations

from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import lanes_of, least, load, most, moved, store
from fastnet.kernels.packing import transpose_square
from fastnet.kernels.products import large_product, padded, rounded_up, target, view
from fastnet.kernels.simd import plus
from fastnet.kernels.tiles import few_rows, tile_rows

#: Terms from which it is worth to transpose the result.
FEWEST_TERMS = 32
#: What a row of a tile takes at least, for its factor has to be loaded, in quarters of what half a vector's fma takes.
_LOADED = 7


@jit_inline
def _halves(data, n):
    """How many halves of vectors ``n`` elements are."""
    half = lanes_of(data) // 2
    return (n + half - 1) // half


@jit_inline
def takes_transpose(data, n_rows, n_terms, n_columns):
    """Whether the transpose of a product takes fewer operations: its rows are the columns, and often fewer than 8."""
    if n_columns > lanes_of(data) or n_terms < FEWEST_TERMS:
        return False
    low = n_columns % tile_rows(data)
    rows = n_columns - low + rounded_up(low, few_rows(data))
    as_it_is = rounded_up(n_rows, tile_rows(data)) * most(4 * _halves(data, n_columns), _LOADED)
    return 4 * rows * _halves(data, n_rows) < as_it_is


@jit_part
def narrow_product(c, a, b, sums, n_rows, n_terms, n_columns, scratch):
    """`fastnet.kernels.products.product` of at most a vector's columns, where `takes_transpose` says so.

    The rows of a, a transposed view, and of b are whole vectors, with room for a vector after the last one. Sums go on
    from ``sums``, a `View` of rows of a vector, or begin with +0 where ``sums.first`` is negative. ``scratch`` has room
    for `scratch_size` of so many rows and terms: for a vector of each row, and for a square.
    """
    lanes, width = lanes_of(c.data), padded(c.data, n_rows)
    square = moved(scratch, lanes * width)
    begin = view(scratch, -1, 0, 1)
    if sums.first >= 0:
        begin = view(scratch, 0, width, 1)
        for row in range(0, n_rows, lanes):
            source = moved(sums.data, sums.first + row * sums.row)
            transpose_square(moved(scratch, row), width, source, sums.row, n_rows - row)
    rows, columns = view(b.data, b.first, 1, b.row), view(a.data, a.first, a.column, 1)
    large_product(target(scratch, 0, width, False), rows, columns, begin, n_columns, n_terms, n_rows, square)
    for row in range(0, n_rows, lanes):
        transpose_square(square, lanes, moved(scratch, row), width, n_columns)
        for lane in range(least(lanes, n_rows - row)):
            place, result = c.first + (row + lane) * c.row, load(square, lane * lanes)
            store(c.data, place, plus(load(c.data, place), result) if c.add else result)
