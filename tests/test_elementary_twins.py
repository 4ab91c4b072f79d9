"""The kernels' elementary functions have the bits of `fastnet.reference.exact`, as vectors and as scalars."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from fastnet.contract import FLOAT32_FORMAT, FLOAT64_FORMAT, VECTOR_BYTES
from fastnet.kernels import arithmetic, formulas
from fastnet.kernels.simd import staged
from fastnet.reference import exact
from fastnet.testing.cases import edge_values
from tests.support import assert_same_bits, bit_patterns, neighbours

Array = NDArray[np.floating]

FUNCTIONS = ["flush", "exp", "expm1", "log", "sigmoid", "tanh", "softplus", "normal_cdf", "normal_density"]
DTYPES: list[type[np.floating]] = [np.float32, np.float64]


def borders(dtype: type[np.floating]) -> Array:
    """Where a reduction goes to the next power of two, and where a function's constant parts begin."""
    f = FLOAT32_FORMAT if dtype is np.float32 else FLOAT64_FORMAT
    steps = 0.5 * np.log(2) * np.arange(-2 * f.bias - 150, 2 * f.bias + 2)
    constants = np.array([f.exp_low, f.exp_high, f.saturation, f.flush_below, f.smallest_normal, 4.0, 64.0])
    return np.concatenate([neighbours(steps, dtype, 1), neighbours(np.concatenate([constants, -constants]), dtype, 2)])


@cache
def inputs(dtype: type[np.floating]) -> dict[str, Array]:
    """What the functions are compared on, by name."""
    edges = edge_values(dtype)
    return {
        "random bits": bit_patterns(dtype, 10_000, seed=1),
        "edges": np.concatenate([edges, neighbours(edges[np.isfinite(edges)], dtype, 2)]),
        "borders": borders(dtype),
        "-800 to 800": np.linspace(-800, 800, 10_000).astype(dtype),
        "-20 to 20": np.linspace(-20, 20, 10_000).astype(dtype),
        "-1 to 1": np.linspace(-1, 1, 10_000).astype(dtype),
        "half to double": np.linspace(0.5, 2, 10_000).astype(dtype),
    }


@cache
def scalar_loop(name: str) -> Callable[[Array], Array]:
    """A formula staged for scalars, in a loop over an array."""
    formula = staged(getattr(formulas.arithmetic, name))

    @numba.njit
    def loop(x: Array) -> Array:
        out = np.empty_like(x)
        for index in range(x.size):
            out[index] = formula(x[index])
        return out

    return loop  # type: ignore[no-any-return]


@cache
def outputs(name: str, dtype: type[np.floating]) -> dict[str, Array]:
    """The reference's results."""
    return {what: getattr(exact, name)(x) for what, x in inputs(dtype).items()}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors(dtype: type[np.floating], name: str) -> None:
    for what, x in inputs(dtype).items():
        assert_same_bits(getattr(arithmetic, name)(x), outputs(name, dtype)[what], what)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars(dtype: type[np.floating], name: str) -> None:
    loop = scalar_loop(name)
    for what, x in inputs(dtype).items():
        assert_same_bits(loop(x), outputs(name, dtype)[what], what)


@pytest.mark.parametrize("dtype", DTYPES)
def test_position_does_not_matter(dtype: type[np.floating]) -> None:
    """In four vectors, in one, in the remainder, in any shape and memory order: an element has one result."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.random.default_rng(2).standard_normal(9 * lanes).astype(dtype)
    desired = exact.sigmoid(x)
    for n in range(9 * lanes + 1):
        assert_same_bits(arithmetic.sigmoid(x[:n]), desired[:n])
        assert_same_bits(arithmetic.sigmoid(x[n:]), desired[n:])
    cube = (9, 2, lanes // 2)
    assert_same_bits(arithmetic.sigmoid(x.reshape(cube)), desired.reshape(cube))
    assert_same_bits(arithmetic.sigmoid(x.reshape(cube).T), desired.reshape(cube).T)
    assert_same_bits(arithmetic.sigmoid(x[::-2]), desired[::-2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_fma(dtype: type[np.floating]) -> None:
    """`test_fma.py` holds the reference to the C library; here the kernel is held to the reference."""
    a, b, c = (bit_patterns(dtype, 5_000, seed) for seed in (3, 4, 5))
    assert_same_bits(arithmetic.fma(a, b, c), exact.fma(a, b, c))
    edges = edge_values(dtype)
    a, b, c = (grid.ravel() for grid in np.meshgrid(edges, edges, edges))
    assert_same_bits(arithmetic.fma(a, b, c), exact.fma(a, b, c))
    with np.errstate(all="ignore"):
        c = neighbours(-(a * b), dtype, 1)
    assert_same_bits(arithmetic.fma(np.tile(a, 3), np.tile(b, 3), c), exact.fma(np.tile(a, 3), np.tile(b, 3), c))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operands_stay_as_they_are(name: str) -> None:
    x = bit_patterns(np.float32, 100, seed=6)
    copy = x.copy()
    getattr(arithmetic, name)(x)
    getattr(exact, name)(x)
    assert_same_bits(x, copy)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operands_may_be_read_only(name: str) -> None:
    x = bit_patterns(np.float32, 100, seed=6)
    desired = getattr(exact, name)(x)
    x.flags.writeable = False
    assert_same_bits(getattr(arithmetic, name)(x), desired)
