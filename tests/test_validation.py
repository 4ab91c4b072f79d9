import copy
import pickle
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from fastnet.validation import (
    all_finite,
    check_array,
    check_boolean,
    check_choice,
    check_dtype,
    check_integer,
    check_number,
    check_random_source,
)

NAMES = ("identity", "sigmoid", "relu")
DTYPES = (np.float32, np.float64)


def exactly(message):
    return f"^{re.escape(message)}$"


class TestChoice:
    def test_known(self):
        assert check_choice("activation", "relu", NAMES) == "relu"

    @pytest.mark.parametrize(
        ("value", "suggestion"), [("sigmod", "sigmoid"), ("ReLU", "relu"), ("Identity", "identity")]
    )
    def test_near_miss(self, value, suggestion):
        with pytest.raises(
            ValueError, match=f"activation must be one of 'identity', 'sigmoid', 'relu'; got '{value}'"
        ) as e:
            check_choice("activation", value, NAMES)
        assert str(e.value).endswith(f"Did you mean '{suggestion}'?")

    def test_no_near_miss(self):
        with pytest.raises(ValueError, match=r"got 'xyz'$"):
            check_choice("activation", "xyz", NAMES)

    @pytest.mark.parametrize("value", [None, 3, b"relu", ["relu"], np.array("relu")])
    def test_not_a_name(self, value):
        with pytest.raises(
            TypeError, match=r"^activation must be one of 'identity', 'sigmoid', 'relu', or a thing; got "
        ):
            check_choice("activation", value, NAMES, "a thing")


class TestScalars:
    @pytest.mark.parametrize("value", [True, np.True_, False, np.False_])
    def test_boolean(self, value):
        assert check_boolean("bias", value) is bool(value)

    @pytest.mark.parametrize("value", [0, 1, 1.0, None, "yes", np.array(True)])
    def test_not_a_boolean(self, value):
        with pytest.raises(TypeError, match=r"^bias must be True or False; got"):
            check_boolean("bias", value)

    @pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
    def test_integer(self, value):
        result = check_integer("epochs", value, 3, 3)
        assert type(result) is int
        assert result == 3

    @pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float64(3), "3", None, Fraction(3), [3]])
    def test_not_an_integer(self, value):
        with pytest.raises(TypeError, match=r"^epochs must be an integer of at least 1; got .* of type "):
            check_integer("epochs", value, 1)

    @pytest.mark.parametrize("value", [0, 6, -(10**30), np.int64(-1)])
    def test_integer_out_of_range(self, value):
        with pytest.raises(ValueError, match=f"^epochs must be an integer of at least 1 and at most 5; got {value}$"):
            check_integer("epochs", value, 1, 5)

    @pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int16(1), Fraction(1)])
    def test_number(self, value):
        result = check_number("rate", value)
        assert type(result) is float
        assert result == 1.0

    @pytest.mark.parametrize(
        "value", [True, np.True_, "1", None, 1j, Decimal(1), [1.0], np.array(1.0), np.array([1.0])]
    )
    def test_not_a_number(self, value):
        with pytest.raises(TypeError, match=r"^rate must be a finite number; got .* of type "):
            check_number("rate", value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), np.float32("nan"), 10**400])
    def test_not_finite(self, value):
        with pytest.raises(ValueError, match=r"^rate must be a finite number; got "):
            check_number("rate", value)
        with pytest.raises(ValueError, match=r"^rate must be a number in \(0, inf\); got "):
            check_number("rate", value, low=0.0, low_open=True)

    @pytest.mark.parametrize("low_open", [False, True])
    @pytest.mark.parametrize("high_open", [False, True])
    def test_interval(self, low_open, high_open):
        interval = {"low": 0.0, "high": 1.0, "low_open": low_open, "high_open": high_open}
        wanted = r"\(" if low_open else r"\["
        wanted += r"0, 1" + (r"\)" if high_open else r"\]")
        for value, refused in (
            (-1e-300, True),
            (0.0, low_open),
            (5e-324, False),
            (1.0, high_open),
            (1.0 + 2**-52, True),
        ):
            if refused:
                with pytest.raises(ValueError, match=f"^rate must be a number in {wanted}; got {value}$"):
                    check_number("rate", value, **interval)
            else:
                assert check_number("rate", value, **interval) == value

    @pytest.mark.parametrize("value", ["float32", "f4", np.float32, np.dtype("f4"), "<f4", "=f4"])
    def test_dtype(self, value):
        assert check_dtype("dtype", value) == np.float32

    @pytest.mark.parametrize("value", ["float16", "int64", np.complex64, ">f8", object, np.longdouble, [("a", "f4")]])
    def test_other_dtype(self, value):
        with pytest.raises(ValueError, match=r"^dtype must be 'float32' or 'float64'; got "):
            check_dtype("dtype", value)

    @pytest.mark.parametrize("value", [None, 3, "number", [1, 2], 1.5])
    def test_not_a_dtype(self, value):
        with pytest.raises(TypeError, match=r"^dtype must be 'float32' or 'float64'; got "):
            check_dtype("dtype", value)


class TestAllFinite:
    @pytest.mark.parametrize("size", [0, 1, 64, 65, 1000])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_one_is_found_anywhere(self, dtype, size):
        # Their sum is infinite.
        array = np.full(size, np.finfo(dtype).max, dtype)
        assert all_finite(array)
        for index in {0, size // 2, size - 1} & set(range(size)):
            for wrong in (np.nan, np.inf, -np.inf):
                changed = array.copy()
                changed[index] = wrong
                assert not all_finite(changed)
                assert not all_finite(changed[::-1].reshape(-1, 1))

    def test_infinities_that_cancel(self):
        assert not all_finite(np.array([np.inf, -np.inf]))


class TestRandomSource:
    @pytest.mark.parametrize("seed", [0, 4, 2**32 - 1])
    def test_integers_seed_numpys_stream(self, seed):
        source, numpys = check_random_source("seed", seed), np.random.RandomState(seed)
        for _ in range(2):
            np.testing.assert_equal(source.get_state(legacy=False), numpys.get_state(legacy=False))
            # One of a pair is kept.
            assert source.standard_normal() == numpys.standard_normal()
        copies = copy.deepcopy(source), pickle.loads(pickle.dumps(source))
        assert [one.permutation(99).tolist() for one in copies] == [numpys.permutation(99).tolist()] * 2

    def test_integer_is_a_random_state(self):
        source = check_random_source("seed", np.uint32(4))
        np.testing.assert_array_equal(source.random_sample(3), np.random.RandomState(4).random_sample(3))

    def test_source_is_kept(self):
        for source in (np.random.RandomState(0), np.random.default_rng(0)):
            assert check_random_source("seed", source) is source

    def test_none_is_fresh(self):
        assert check_random_source("seed", None).random() != check_random_source("seed", None).random()

    @pytest.mark.parametrize("value", [True, 1.0, "4", [4], np.random])
    def test_wrong_type(self, value):
        with pytest.raises(TypeError, match=r"^seed must be None, an integer, a numpy.random.RandomState or "):
            check_random_source("seed", value)

    @pytest.mark.parametrize("value", [-1, 2**32])
    def test_out_of_range(self, value):
        with pytest.raises(
            ValueError, match=f"^seed must be an integer of at least 0 and at most 4294967295; got {value}$"
        ):
            check_random_source("seed", value)


VALUES = np.random.RandomState(0).uniform(-3.0, 3.0, (6, 5)).astype(np.float32)
READ_ONLY = VALUES.copy()
READ_ONLY.flags.writeable = False
UNALIGNED = np.frombuffer(b"\0" + VALUES.tobytes(), np.uint8)[1:].view(np.float32).reshape(VALUES.shape)


class TestArray:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        "value",
        [
            VALUES,
            VALUES.astype(np.float64),
            VALUES.astype(np.longdouble),
            VALUES.tolist(),
            np.asfortranarray(VALUES),
            np.repeat(VALUES, 2, axis=1)[:, ::2],
            VALUES[::-1, ::-1].copy()[::-1, ::-1],
            VALUES.astype(">f4"),
            VALUES.astype(">f8"),
            READ_ONLY,
            UNALIGNED,
            memoryview(VALUES),
            np.ma.MaskedArray(VALUES),
        ],
        ids=[
            *("float32", "float64", "longdouble", "list", "fortran", "strided", "reversed", "swapped32", "swapped64"),
            *("read-only", "unaligned", "memoryview", "unmasked"),
        ],
    )
    def test_conversion(self, value, dtype):
        before = np.array(value, copy=True)
        flags = value.flags.writeable if isinstance(value, np.ndarray) else None
        array = check_array("X", value, dtype, 2)
        assert type(array) is np.ndarray
        assert array.dtype == dtype
        assert array.dtype.isnative
        assert array.flags.c_contiguous
        assert array.flags.aligned
        # float32 values are float64 values: nothing is rounded.
        np.testing.assert_array_equal(array, VALUES.astype(dtype))
        np.testing.assert_array_equal(np.array(value), before)
        assert flags is None or value.flags.writeable == flags

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("kind", ["?", "i1", "u2", ">i4", "i8", "u8", "f2"])
    def test_other_numbers(self, kind, dtype):
        value = np.array([[0, 1], [1, 0]], dtype=kind)
        np.testing.assert_array_equal(check_array("X", value, dtype, 2), [[0.0, 1.0], [1.0, 0.0]], strict=False)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_nothing_to_convert_nothing_copied(self, dtype):
        value = VALUES.astype(dtype)
        assert np.shares_memory(check_array("X", value, dtype, 2), value)
        value.flags.writeable = False
        assert not check_array("X", value, dtype, 2).flags.writeable

    def test_rounding(self):
        assert check_array("X", [1.0 + 2.0**-24 + 2.0**-40], np.float32, 1)[0] == np.float32(1.0 + 2.0**-23)

    def test_zero_size_steps(self):
        value = np.broadcast_to(np.float64(2.0), (3, 4))
        np.testing.assert_array_equal(check_array("X", value, np.float64, 2), np.full((3, 4), 2.0))

    def test_column(self):
        assert check_array("y", [0, 1, 1], np.float32, 2, column=True).shape == (3, 1)
        assert check_array("y", [[0, 1, 1]], np.float32, 2, column=True).shape == (1, 3)
        assert check_array("y", [0, 1, 1], np.float32, 1, column=True).shape == (3,)
        with pytest.raises(ValueError, match=r"^y must be 2-dimensional; got an array of shape \(3,\)$"):
            check_array("y", [0, 1, 1], np.float32, 2)
        with pytest.raises(ValueError, match=r"shape \(1, 1, 1\)"):
            check_array("y", [[[0]]], np.float32, 2, column=True)

    @pytest.mark.parametrize(("value", "shape"), [(5.0, ()), ([1.0], (1,)), ([[[1.0]]], (1, 1, 1))])
    def test_dimensions(self, value, shape):
        with pytest.raises(ValueError, match=exactly(f"X must be 2-dimensional; got an array of shape {shape}")):
            check_array("X", value, np.float64, 2)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
    def test_empty(self, shape):
        with pytest.raises(ValueError, match=exactly(f"X must not be empty; got an array of shape {shape}")):
            check_array("X", np.zeros(shape), np.float64, 2)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ([[None]], "objects"),
            ([[10**30]], "objects"),
            ([[1j]], "complex numbers"),
            ([["1"]], "strings"),
            ([[b"1"]], "bytes"),
            (np.zeros((1, 1), "M8[s]"), "dates"),
            (np.zeros((1, 1), "m8[s]"), "time differences"),
            (np.zeros((1, 1), "f4,f4"), "other things than numbers"),
            (None, "objects"),
            ({1.0}, "objects"),
        ],
    )
    def test_not_numbers(self, value, kind):
        with pytest.raises(TypeError, match=f"^X must hold real numbers; got {kind} "):
            check_array("X", value, np.float64, 2)

    def test_ragged(self):
        with pytest.raises(ValueError, match=r"^X must be an array or nested lists of equal lengths: "):
            check_array("X", [[1.0, 2.0], [3.0]], np.float64, 2)

    def test_masked(self):
        value = np.ma.MaskedArray([[1.0, 2.0]], mask=[[False, True]])
        with pytest.raises(ValueError, match=r"^X must not have masked elements; got 1 of them$"):
            check_array("X", value, np.float64, 2)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("source", ["f2", "f4", ">f8", "longdouble"])
    def test_not_finite(self, source, dtype):
        value = np.zeros((3, 4), source)
        value[1, 2], value[2, 0], value[2, 3] = np.nan, np.inf, -np.inf
        message = "X must be finite: 3 of 12 numbers are NaN or infinite, the first at index (1, 2): nan"
        with pytest.raises(ValueError, match=exactly(message)):
            check_array("X", value, dtype, 2)
        with pytest.raises(
            ValueError, match=r"^y must be finite: 1 of 2 numbers are NaN or infinite, the first at index 1: inf"
        ):
            check_array("y", [0.0, np.inf], dtype, 1)

    def test_too_large_for_float32(self):
        largest = float(np.finfo(np.float32).max)
        assert check_array("X", [largest, -largest], np.float32, 1).tolist() == [largest, -largest]
        message = "X must be finite: 2 of 3 numbers are too large for float32, the first at index 1: -1e+39"
        with pytest.raises(ValueError, match=exactly(message)):
            check_array("X", [0.0, -1e39, 1e300], np.float32, 1)

    def test_silent_under_strict_error_state(self):
        with np.errstate(all="raise"):
            assert check_array("X", [1e-60], np.float32, 1).tolist() == [0.0]
            with pytest.raises(ValueError, match=r"too large for float32"):
                check_array("X", [1e60], np.float32, 1)
