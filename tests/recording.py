"""Goldens for tests: those of the project, and one that is recorded, with what it is recorded from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastnet
from fastnet.testing.golden import record

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.golden"))
X, Y = np.array([[0.5, 1.0], [1.0, -1.0], [2.0, 0.25]]), np.array([1.0, 0.0, 1.0])
SETTINGS = {"optimizer": fastnet.Adam(learning_rate=0.125), "epochs": 9}


def network(**changes):
    arguments = {"layer_sizes": [2, 3, 1], "activation": "sigmoid", "dtype": "float64"}
    return fastnet.Network(**arguments | changes).initialize(seed=1)


def recorded(path, **changes):
    """The text of a golden that was recorded."""
    record(path, network(), X, Y, author="a tester", **SETTINGS | changes)
    return path.read_text()
