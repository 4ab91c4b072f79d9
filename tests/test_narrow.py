"""Gradients of layers with few units: the same bits from the transposed product."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastnet.kernels.jit import jit
from fastnet.kernels.memory import pointer
from fastnet.kernels.narrow import narrow_product, takes_transpose
from fastnet.kernels.products import product, target, view
from fastnet.testing.cases import Case
from tests.support import assert_same_bits
from tests.test_threads import assert_equal, many_cores, trained

__all__ = ["many_cores"]


@jit
def _gradient(narrow: bool, result: Any, a: Any, b: Any, sums: Any, goes_on: bool, add: bool, sizes: Any, scratch: Any):
    n_rows, n_terms, n_columns = sizes
    c, begin = target(pointer(result), 0, result.shape[1], add), view(pointer(sums), -1, 0, 1)
    if goes_on:
        begin = view(pointer(sums), 0, sums.shape[1], 1)
    factors, others = view(pointer(a), 0, 1, a.shape[1]), view(pointer(b), 0, b.shape[1], 1)
    if narrow:
        narrow_product(c, factors, others, begin, n_rows, n_terms, n_columns, pointer(scratch))
    else:
        product(c, factors, others, begin, n_rows, n_terms, n_columns, pointer(scratch))


@jit
def _takes_transpose(like: Any, n_rows: int, n_terms: int, n_columns: int) -> bool:
    return takes_transpose(pointer(like), n_rows, n_terms, n_columns)


def padded(rng: np.random.Generator, n_rows: int, n_columns: int, dtype: str) -> NDArray[np.floating]:
    """Random rows of whole vectors, which are zero past the columns, with room for a vector after the last one."""
    lanes = 64 // np.dtype(dtype).itemsize
    memory = np.zeros((n_rows + 1, -(-n_columns // lanes) * lanes), dtype)
    memory[:n_rows, :n_columns] = rng.standard_normal((n_rows, n_columns))
    return memory


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_columns", [1, 2, 4, 5, 8])
@pytest.mark.parametrize(("n_rows", "n_terms"), [(1, 32), (8, 33), (16, 256), (37, 100), (64, 50)])
def test_has_the_bits_of_product(n_rows: int, n_terms: int, n_columns: int, dtype: str) -> None:
    rng = np.random.default_rng(n_rows + n_columns)
    a, b = padded(rng, n_terms, n_rows, dtype), padded(rng, n_terms, n_columns, dtype)
    sums, before = (padded(rng, n_rows, n_columns, dtype) for _ in range(2))
    sizes, scratch = (n_rows, n_terms, n_columns), np.empty(20_000, dtype)
    for goes_on, add in ((False, False), (True, False), (False, True), (True, True)):
        results = [before.copy(), before.copy()]
        for narrow, result in enumerate(results):
            _gradient(bool(narrow), result, a, b, sums, goes_on, add, sizes, scratch)
        # One more row than there are is as it was: of the product it may be anything.
        assert_same_bits(results[1][:n_rows], results[0][:n_rows])
        assert_same_bits(results[1][n_rows:], before[n_rows:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_it_takes_fewer_operations(dtype: str) -> None:
    like = np.empty(0, dtype)
    assert _takes_transpose(like, 64, 128, 1)
    assert _takes_transpose(like, 64, 128, 4)
    assert not _takes_transpose(like, 64, 128, 100)
    # So few terms that it is not worth to transpose what comes of them.
    assert not _takes_transpose(like, 64, 8, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_trainings(many_cores: None, n_outputs: int, dtype: str) -> None:
    """Blocks that are added, shares of rows, and a thread that goes on with another one's sums."""
    case = Case((7, 70, 3, 40, n_outputs), "relu", "identity", n_samples=700, batch_size=300, dtype=dtype, shuffle=True)
    for samples in (case, replace(case, n_samples=90, batch_size=45)):
        desired = samples.train("exact")
        for n_threads in (1, 2, 3):
            assert_equal(trained(samples, n_threads), desired, f"{n_threads} threads")
