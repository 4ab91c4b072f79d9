"""Polynomial coefficients of the elementary functions, lowest power first.

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


FLOAT32 = Coefficients(
    exp=(
        float.fromhex("0x1.0000000000000p-1"),
        float.fromhex("0x1.5555560000000p-3"),
        float.fromhex("0x1.5554e80000000p-5"),
        float.fromhex("0x1.1110e00000000p-7"),
        float.fromhex("0x1.6d43ac0000000p-10"),
        float.fromhex("0x1.a1256a0000000p-13"),
    ),
    log=(
        float.fromhex("0x1.55555c0000000p-1"),
        float.fromhex("0x1.997c300000000p-2"),
        float.fromhex("0x1.2ee6100000000p-2"),
    ),
    log1p=(
        float.fromhex("0x1.5555560000000p-1"),
        float.fromhex("0x1.9998d40000000p-2"),
        float.fromhex("0x1.24c9260000000p-2"),
        float.fromhex("0x1.bc8cf80000000p-3"),
        float.fromhex("0x1.dba2600000000p-3"),
    ),
    normal_tail=(
        float.fromhex("0x1.82b4bc0000000p-1"),
        float.fromhex("-0x1.373e320000000p-1"),
        float.fromhex("0x1.8c6dc00000000p-2"),
        float.fromhex("-0x1.7e01c40000000p-3"),
        float.fromhex("0x1.eec4dc0000000p-5"),
        float.fromhex("-0x1.ec4ca20000000p-8"),
        float.fromhex("-0x1.c81bc00000000p-9"),
        float.fromhex("0x1.99d1c60000000p-10"),
        float.fromhex("0x1.17fdc40000000p-13"),
        float.fromhex("-0x1.4981fe0000000p-13"),
        float.fromhex("-0x1.c12d5c0000000p-20"),
    ),
    normal_fold=float.fromhex("0x1.0000000000000p+2"),
    log2_e=float.fromhex("0x1.7154760000000p+0"),
    ln2_high=float.fromhex("0x1.62e4000000000p-1"),
    ln2_low=float.fromhex("0x1.7f7d1c0000000p-20"),
    inverse_sqrt_2_pi=float.fromhex("0x1.9884540000000p-2"),
)

FLOAT64 = Coefficients(
    exp=(
        float.fromhex("0x1.0000000000000p-1"),
        float.fromhex("0x1.5555555555557p-3"),
        float.fromhex("0x1.5555555555556p-5"),
        float.fromhex("0x1.11111111100bep-7"),
        float.fromhex("0x1.6c16c16c162c3p-10"),
        float.fromhex("0x1.a01a01abf7ed6p-13"),
        float.fromhex("0x1.a01a01a6e1a43p-16"),
        float.fromhex("0x1.71de01ff19a6bp-19"),
        float.fromhex("0x1.27e4db47938d1p-22"),
        float.fromhex("0x1.af4e5274a366cp-26"),
        float.fromhex("0x1.1f733f411b727p-29"),
    ),
    log=(
        float.fromhex("0x1.5555555555558p-1"),
        float.fromhex("0x1.99999999952e2p-2"),
        float.fromhex("0x1.2492492df148dp-2"),
        float.fromhex("0x1.c71c62e5800a1p-3"),
        float.fromhex("0x1.7462b4ab2ef6bp-3"),
        float.fromhex("0x1.39fe606542ddep-3"),
        float.fromhex("0x1.2b584aae78a57p-3"),
    ),
    log1p=(
        float.fromhex("0x1.5555555555555p-1"),
        float.fromhex("0x1.9999999999944p-2"),
        float.fromhex("0x1.2492492499d46p-2"),
        float.fromhex("0x1.c71c71bedea97p-3"),
        float.fromhex("0x1.745d19937b1fcp-3"),
        float.fromhex("0x1.3b13515f6f9efp-3"),
        float.fromhex("0x1.111abdc8abe16p-3"),
        float.fromhex("0x1.e0a2d581ab68fp-4"),
        float.fromhex("0x1.bc37f0140c19ep-4"),
        float.fromhex("0x1.32e0d25c9c761p-4"),
        float.fromhex("0x1.401d3e65cdc48p-3"),
    ),
    normal_tail=(
        float.fromhex("0x1.82b4bb8c94dcdp-1"),
        float.fromhex("-0x1.373e3a893c28ap-1"),
        float.fromhex("0x1.8c6dbf2cfc38ep-2"),
        float.fromhex("-0x1.7dff2bff682a2p-3"),
        float.fromhex("0x1.eec4cc3e3903cp-5"),
        float.fromhex("-0x1.ee276104d751ep-8"),
        float.fromhex("-0x1.c81719be0075fp-9"),
        float.fromhex("0x1.ab825fda78128p-10"),
        float.fromhex("0x1.17a4a056623bcp-13"),
        float.fromhex("-0x1.e4a42d219fe7cp-13"),
        float.fromhex("-0x1.000afdb2de1fdp-19"),
        float.fromhex("0x1.26d1498deb702p-15"),
        float.fromhex("0x1.7fa329ba4af49p-21"),
        float.fromhex("-0x1.8d5efa48bf5ddp-18"),
        float.fromhex("-0x1.4f7f8c9d1911cp-21"),
        float.fromhex("0x1.12f1061407889p-20"),
        float.fromhex("0x1.1c33f02dee052p-22"),
        float.fromhex("-0x1.55cd8d091dc04p-23"),
        float.fromhex("-0x1.52372e506f9cfp-24"),
        float.fromhex("0x1.2b421f6ab5905p-26"),
        float.fromhex("0x1.13c53094db775p-26"),
        float.fromhex("-0x1.cb51b78dca5bfp-32"),
        float.fromhex("-0x1.cf67053034b6bp-30"),
        float.fromhex("-0x1.4874e789a5817p-33"),
    ),
    normal_fold=float.fromhex("0x1.0000000000000p+2"),
    log2_e=float.fromhex("0x1.71547652b82fep+0"),
    ln2_high=float.fromhex("0x1.62e42fefa3800p-1"),
    ln2_low=float.fromhex("0x1.ef35793c76730p-45"),
    inverse_sqrt_2_pi=float.fromhex("0x1.9884533d43651p-2"),
)
