"""Derive the polynomial coefficients of fastnet's elementary functions.

Writes ``fastnet/coefficients.py``. Each polynomial is the Chebyshev interpolant of its
function, computed with 60 digits and rounded to the dtype coefficient by coefficient::

    python tools/coefficients.py > fastnet/coefficients.py
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 60

#: Half the width of the reduced argument of exp, a little widened: the nearest integer is
#: chosen from a rounded product.
HALF_LN2 = mp.log(2) / 2 * (1 + mp.mpf(2) ** -10)
#: Where the argument of the normal tail is folded: t = (a - FOLD) / (a + FOLD).
FOLD = mp.mpf(4)
SQRT_HALF = mp.sqrt(mp.mpf(1) / 2)


def exp_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r^2."""
    if abs(r) < mp.mpf(10) ** -8:
        return sum(r**k / mp.factorial(k + 2) for k in range(8))
    return (mp.expm1(r) - r) / r**2


def log_tail(z: mp.mpf) -> mp.mpf:
    """(2 atanh(s) - 2 s) / s with z = s^2, the R of fdlibm's log."""
    if z < mp.mpf(10) ** -8:
        return z * sum(2 * z**k / (2 * k + 3) for k in range(8))
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / s


def log_ratio(z: mp.mpf) -> mp.mpf:
    return log_tail(z) / z if z else mp.mpf(2) / 3


def normal_tail(t: mp.mpf) -> mp.mpf:
    """(a + FOLD) * Q(a) * exp(a^2 / 2), a the point that folds to t."""
    if t >= 1:
        return 1 / mp.sqrt(2 * mp.pi)
    a = FOLD * (1 + t) / (1 - t)
    if a > 200:
        mills = sum((-1) ** k * mp.fac2(2 * k - 1) / a ** (2 * k) for k in range(6))
        return (a + FOLD) / a * mills / mp.sqrt(2 * mp.pi)
    return (a + FOLD) * mp.erfc(a * SQRT_HALF) / 2 * mp.exp(a * a / 2)


def chebyshev(f: Callable[[mp.mpf], mp.mpf], low: mp.mpf, high: mp.mpf, n_terms: int) -> list[mp.mpf]:
    """Monomial coefficients, lowest first, of the interpolant in ``n_terms`` Chebyshev nodes."""
    return list(reversed(mp.chebyfit(f, [low, high], n_terms)))


#: name: (function, interval, terms for float32, terms for float64)
POLYNOMIALS = {
    "exp": (exp_tail, (-HALF_LN2, HALF_LN2), 6, 11),
    "log": (log_ratio, (mp.mpf(0), ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2), 3, 7),
    "log1p": (log_ratio, (mp.mpf(0), mp.mpf(1) / 9), 5, 11),
    "normal_tail": (normal_tail, (mp.mpf(-1), mp.mpf(1)), 11, 24),
}


def literal(value: mp.mpf, dtype: type[np.floating]) -> str:
    """The hexadecimal literal of ``value`` rounded once to ``dtype``."""
    bits = 24 if dtype is np.float32 else 53
    with mp.workprec(bits):
        rounded = float(+value)
    return f'float.fromhex("{rounded.hex()}")'


def table(name: str, values: list[mp.mpf], dtype: type[np.floating]) -> str:
    lines = "".join(f"        {literal(value, dtype)},\n" for value in values)
    return f"    {name}=(\n{lines}    ),"


def split_ln2(bits: int) -> tuple[mp.mpf, mp.mpf]:
    """ln 2 as a leading part of ``bits`` bits, so that its products with exponents are exact, and the rest."""
    scale = mp.mpf(2) ** bits
    high = mp.nint(mp.log(2) * scale) / scale
    return high, mp.log(2) - high


HEADER = '''"""Polynomial coefficients of the elementary functions, lowest power first.

Written by tools/coefficients.py, which says what each one approximates; do not edit.
"""

from __future__ import annotations

from typing import NamedTuple


class Coefficients(NamedTuple):
    """What the elementary functions of one dtype are made of."""

    exp: tuple[float, ...]
    log: tuple[float, ...]
    log1p: tuple[float, ...]
    normal_tail: tuple[float, ...]
    normal_fold: float
    log2_e: float
    ln2_high: float
    ln2_low: float
    inverse_sqrt_2_pi: float

'''


def main() -> None:
    print(HEADER)
    for name, dtype, column, ln2_bits in (("FLOAT32", np.float32, 2, 16), ("FLOAT64", np.float64, 3, 42)):
        print(f"{name} = Coefficients(")
        for polynomial, entry in POLYNOMIALS.items():
            function, (low, high) = entry[0], entry[1]
            print(table(polynomial, chebyshev(function, low, high, entry[column]), dtype))
        ln2_high, ln2_low = split_ln2(ln2_bits)
        scalars = {
            "normal_fold": FOLD,
            "log2_e": 1 / mp.log(2),
            "ln2_high": ln2_high,
            "ln2_low": ln2_low,
            "inverse_sqrt_2_pi": 1 / mp.sqrt(2 * mp.pi),
        }
        for scalar, value in scalars.items():
            print(f"    {scalar}={literal(value, dtype)},")
        print(")" if dtype is np.float64 else ")\n")


if __name__ == "__main__":
    main()
