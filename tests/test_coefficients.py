"""The coefficients are what their script derives, and approximate well enough for the limits on the errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

import fastnet.coefficients
from fastnet.coefficients import FLOAT32, FLOAT64, Coefficients
from fastnet.contract import FLOAT32_FORMAT, FLOAT64_FORMAT, Format
from tools.coefficients import FOLD, POLYNOMIALS

SCRIPT = Path(__file__).parents[1] / "tools" / "coefficients.py"
DTYPES = [(FLOAT32, FLOAT32_FORMAT), (FLOAT64, FLOAT64_FORMAT)]
both = pytest.mark.parametrize(("coefficients", "number_format"), DTYPES, ids=["float32", "float64"])
with mp.workdps(60):
    LN2 = mp.log(2)

# What a polynomial may add to the error of its function, in ULP: less than the 0.1 that docs/accuracy.md shows
# between the largest errors of exp and log and their limit. Nothing is promised for the normal distribution, whose
# polynomial is held to what it has: the rounding of its coefficients, which cancel toward infinity.
ALLOWED = {"exp": 1 / 16, "log": 1 / 16, "log1p": 1 / 16, "normal_tail": 2.5}


def relative_error(name: str, argument: mp.mpf, coefficients: Coefficients) -> mp.mpf:
    """The error of a polynomial with exact arithmetic, relative to the function that it is a part of."""
    function = POLYNOMIALS[name][0]
    value = sum(term * argument**power for power, term in enumerate(getattr(coefficients, name)))
    error = value - function(argument)
    if name == "exp":
        return argument**2 * error / mp.exp(argument)
    if name == "normal_tail":
        return error / function(argument)
    s = mp.sqrt(argument)
    return s * argument * error / (2 * mp.atanh(s))


def test_file_is_what_the_script_writes() -> None:
    written = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True).stdout
    assert Path(fastnet.coefficients.__file__).read_text(encoding="utf-8") == written


@both
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str, coefficients: Coefficients, number_format: Format) -> None:
    """At 200 Chebyshev points of the interval, several in each half-wave of the error."""
    low, high = POLYNOMIALS[name][1]
    with mp.workdps(60):
        nodes = [mp.cos(mp.pi * (i + 0.5) / 200) for i in range(200)]
        worst = max(abs(relative_error(name, low + (high - low) * (1 - node) / 2, coefficients)) for node in nodes)
        # A ULP is at least 2^-(bits + 1) of the number.
        assert mp.ldexp(worst, number_format.significand_bits + 1) <= ALLOWED[name]


@both
def test_intervals_hold_the_reduced_arguments(coefficients: Coefficients, number_format: Format) -> None:
    """The nearest integer is taken of a rounded product: the remainder may pass ln(2) / 2 by the product's error."""
    largest_exponent = number_format.bias + number_format.significand_bits
    with mp.workdps(60):
        product_error = (largest_exponent + 1) * mp.ldexp(1, -number_format.significand_bits)
        low, high = POLYNOMIALS["exp"][1]
        assert high == -low >= LN2 * (0.5 + product_error)
        # s = u / (2 + u) for 1 + u in [sqrt(1/2), sqrt(2)], and for u in [0, 1].
        assert POLYNOMIALS["log"][1][1] >= ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
        assert POLYNOMIALS["log1p"][1][1] >= (mp.mpf(1) / 3) ** 2
    assert coefficients.normal_fold == FOLD


@both
def test_ln2_is_in_two_parts(coefficients: Coefficients, number_format: Format) -> None:
    """Products of exponents with the high part are exact; the low part brings the sum to 2^-10 ULP of any log."""
    significand = number_format.significand_bits + 1
    largest_exponent = number_format.bias + number_format.significand_bits
    high = mp.mpf(coefficients.ln2_high)
    assert largest_exponent.bit_length() + int(high.man).bit_length() <= significand
    with mp.workdps(60):
        error = abs(high + mp.mpf(coefficients.ln2_low) - LN2)
        assert error / LN2 <= mp.ldexp(1, -significand - 10)


@both
def test_constants_are_nearest(coefficients: Coefficients, number_format: Format) -> None:
    dtype = np.float32 if number_format is FLOAT32_FORMAT else np.float64
    with mp.workdps(60):
        assert coefficients.log2_e == dtype(float(1 / LN2))
        assert coefficients.inverse_sqrt_2_pi == dtype(float(1 / mp.sqrt(2 * mp.pi)))
    for value in coefficients:
        for number in value if isinstance(value, tuple) else (value,):
            assert number == float(dtype(number))
