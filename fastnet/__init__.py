"""Small dense neural networks on CPUs, fast and exactly equal.

Kernels compiled by Numba give the same bits as the NumPy reference, on any CPU. The subpackages
`fastnet.kernels` and `fastnet.reference` are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastnet.history import DivergenceError, History, Report
from fastnet.losses import Huber, Quantile
from fastnet.network import Network
from fastnet.optimizers import SGD, Adam, AdamW, RMSprop, Rprop
from fastnet.schedules import CosineDecay, InverseScaling, StepDecay
from fastnet.threads import get_threads, set_threads
from fastnet.warming import warmup

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "DivergenceError",
    "History",
    "Huber",
    "InverseScaling",
    "Network",
    "Quantile",
    "RMSprop",
    "Report",
    "Rprop",
    "StepDecay",
    "get_threads",
    "set_threads",
    "warmup",
]

_SUBPACKAGES = ("kernels", "reference")


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"fastnet.{name}")
    raise AttributeError(f"module 'fastnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBPACKAGES])
