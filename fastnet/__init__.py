"""Small dense neural networks on CPUs, fast and exactly equal.

Kernels compiled by Numba give the same bits as the NumPy reference, on any CPU. What only trainings need, and the
subpackages `fastnet.kernels` and `fastnet.reference`, are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastnet.network import Network
from fastnet.threads import get_threads, set_threads

if TYPE_CHECKING:
    from fastnet.history import DivergenceError, History, Report
    from fastnet.losses import Huber, Quantile
    from fastnet.optimizers import SGD, Adam, AdamW, RMSprop, Rprop
    from fastnet.schedules import CosineDecay, InverseScaling, StepDecay
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

#: Where names are that are imported when they are first used: `import fastnet` takes 10 ms longer than `import numpy`
#: instead of 40.
_HOMES = {
    "SGD": "optimizers",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "CosineDecay": "schedules",
    "DivergenceError": "history",
    "History": "history",
    "Huber": "losses",
    "InverseScaling": "schedules",
    "Quantile": "losses",
    "RMSprop": "optimizers",
    "Report": "history",
    "Rprop": "optimizers",
    "StepDecay": "schedules",
    "warmup": "warming",
}
_MODULES = {*_HOMES.values(), "kernels", "reference"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fastnet.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"fastnet.{name}")
    raise AttributeError(f"module 'fastnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
