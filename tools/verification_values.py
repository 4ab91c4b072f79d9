"""Write fastnet/testing/true_values.txt, by which `python -m fastnet verify` judges the float64 functions.

::

    python -m tools.verification_values

It takes mpmath, which users of fastnet need not have. The inputs are edge values, the inputs with the largest
errors known (docs/accuracy.md), and a sample of the whole domain.
"""

from __future__ import annotations

from pathlib import Path

import mpmath as mp
import numpy as np

from fastnet.testing.cases import edge_values
from tools import accuracy, true_values

PATH = Path(__file__).parents[1] / "fastnet" / "testing" / "true_values.txt"
SAMPLE = 120
HEADER = """\
# True values of the elementary functions, written by tools/verification_values.py with mpmath.
# Columns: function; x; f(x) rounded correctly to float64; how far the true value is above the rounded one, in units in
# the last place (the spacing of the numbers in the binade of the true value).
"""


def row(name: str, x: float) -> str:
    """The line of one input."""
    with mp.workprec(true_values.PRECISION):
        true = true_values.true_value(name, x)
        rounded = float(true)
        rest = mp.mpf(0)
        if np.isfinite(rounded):
            binade = mp.frexp(true)[1] - 1 if true else -1022
            rest = mp.ldexp(true - mp.mpf(rounded), 52 - max(int(binade), -1022))
        # The sign tells on which side of a power of two the true value is; one that is equal has no side.
        return f"{name} {x.hex()} {rounded.hex()} {float(rest) or np.copysign(0.0, rounded):+.6f}"


def inputs(name: str) -> list[float]:
    """Those that the function is judged on."""
    edges = edge_values(np.float64)
    edges = edges[np.isfinite(edges) & ((edges > 0) | (name != "log"))]
    worst = [known.x for known in accuracy.read_table() if known.function == name]
    return [*edges.tolist(), *worst, *accuracy.float64_inputs(name, SAMPLE, seed=0).tolist()]


def table() -> str:
    """The whole file."""
    rows = [row(name, x) for name in accuracy.DOMAINS for x in inputs(name)]
    return HEADER + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PATH.write_text(table(), encoding="utf-8")
