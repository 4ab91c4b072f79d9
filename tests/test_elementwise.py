"""How Python and jitted code call functions of one array; `test_elementary_twins` compares their bits."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from fastnet import kernels
from fastnet.kernels import arithmetic, elementwise, wrapping
from fastnet.kernels.elementwise import Elementwise
from fastnet.reference import exact
from tests.support import assert_same_bits

NAMES = [name for name in arithmetic.__all__ if name != "fma"]
#: Fewer than a vector, and so many that other Python threads may run meanwhile.
SIZES = (0, 1, 3, 100, 20_000)


class Derived(np.ndarray):
    """An array of a class of one's own."""


def values(size: int, dtype: str = "float64") -> NDArray[np.floating]:
    return np.random.default_rng(size).uniform(0.1, 3.0, size).astype(dtype)


def misaligned(x: NDArray[np.floating]) -> NDArray[np.floating]:
    memory = np.empty(x.nbytes + 1, np.uint8)
    copied = memory[1:].view(x.dtype)
    copied[:] = x
    return copied


#: Arrays that Numba's dispatcher is called with.
OTHERS: dict[str, Callable[[NDArray[np.floating]], Any]] = {
    "transposed": lambda x: x.reshape(4, 25).T,
    "every second": lambda x: x[::2],
    "misaligned": misaligned,
    "derived": lambda x: x.view(Derived),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_bits(name: str, dtype: str) -> None:
    function: Elementwise = getattr(kernels, name)
    for size in SIZES:
        x = values(size, dtype)
        assert_same_bits(function(x), function.dispatcher(x))
    assert_same_bits(function(x), getattr(exact, name)(x))


class TestPython:
    @pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3), (2, 1, 4)])
    def test_results_are_new_arrays(self, shape: tuple[int, ...]) -> None:
        x = np.full(shape, 2.0)
        x.flags.writeable = False
        result = kernels.exp(x)
        assert type(result) is np.ndarray
        assert result.shape == shape
        assert result.flags.c_contiguous
        assert result.flags.owndata
        assert result.flags.writeable
        assert np.array_equal(result, exact.exp(x))

    def test_plain_arrays_do_without_numba(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernels.exp, "dispatcher", None)
        assert_same_bits(kernels.exp(np.zeros(3)), np.ones(3))
        with pytest.raises(TypeError):
            kernels.exp(np.zeros((2, 3)).T)

    @pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
    def test_others(self, other: Callable[[Any], Any]) -> None:
        x = other(values(100))
        assert_same_bits(kernels.exp(x), exact.exp(np.array(x)))

    def test_counts_references(self) -> None:
        x = values(5)
        result = kernels.exp(x)
        before, new = sys.getrefcount(x), sys.getrefcount(result)
        for _ in range(100):
            result = kernels.exp(x)
        assert (sys.getrefcount(x), sys.getrefcount(result)) == (before, new)

    @pytest.mark.parametrize(
        ("x", "got"),
        [
            ([1.0], r"got \[1\.0\] of type list"),
            (3.0, "got 3.0 of type float"),
            (np.float64(3.0), "got .*3.0.* of type float64"),
            (None, "got None of type NoneType"),
            (np.ones(3, int), "got one of int64"),
            (np.ones(3, np.float16), "got one of float16"),
            (np.ones(3, np.dtype(float).newbyteorder()), "got one of [<>]f8"),
        ],
        ids=str,
    )
    def test_refuses(self, x: Any, got: str) -> None:
        with pytest.raises(TypeError, match=f"x must be an array of float32 or float64 in native byte order; {got}"):
            kernels.exp(x)

    def test_number_of_arguments(self) -> None:
        with pytest.raises(TypeError):
            kernels.exp()
        with pytest.raises(TypeError):
            kernels.exp(np.ones(1), np.ones(1))
        with pytest.raises(TypeError):
            kernels.exp(x=np.ones(1))

    def test_dtypes_take_turns(self) -> None:
        """Each way leaves to the other what is not its own, and both know their ends."""
        function = Elementwise(kernels.exp.dispatcher, kernels.exp._fill.py_func)
        for dtype in ("float64", "float32", "float64", "float32"):
            assert_same_bits(function(values(9, dtype)), exact.exp(values(9, dtype)))
            with pytest.raises(TypeError, match="got one of int64"):
                function(np.ones(3, int))
        assert len(function.dtypes) == 2
        assert type(function).__call__ is not type(kernels.exp).__call__

    def test_a_dtype_that_is_equal_only(self) -> None:
        dtype = np.dtype("float64", metadata={"unit": "m"})
        assert dtype == np.dtype("float64")
        assert_same_bits(kernels.exp(np.ones(3, dtype)), exact.exp(np.ones(3)))

    def test_is_found_by_its_name(self) -> None:
        assert pickle.loads(pickle.dumps(kernels.log)) is kernels.log
        assert copy.deepcopy(kernels.log) is kernels.log
        assert str(inspect.signature(kernels.log)) == "(x, /)"
        assert inspect.getdoc(kernels.log) == "Natural logarithm, at most 1 ULP from the exact value."

    @pytest.mark.parametrize(
        "other",
        [(elementwise, "SHARES_PARTS", False), (wrapping, "finds_numpy", lambda: False)],
        ids=["Numba", "NumPy"],
    )
    def test_one_that_is_built_otherwise(
        self, other: tuple[ModuleType, str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(*other)
        function = Elementwise(kernels.exp.dispatcher, kernels.exp._fill.py_func)
        assert_same_bits(function(values(9)), exact.exp(values(9)))
        assert not function.dtypes


class TestJittedCode:
    def test_calls(self) -> None:
        @numba.njit
        def logistic(x: Any) -> Any:
            return kernels.sigmoid(x)

        assert_same_bits(logistic(values(20)), exact.sigmoid(values(20)))

    def test_as_an_argument(self) -> None:
        @numba.njit
        def applied(function: Any, x: Any) -> Any:
            return function(x)

        assert_same_bits(applied(kernels.tanh, values(20)), exact.tanh(values(20)))
