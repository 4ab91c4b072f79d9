"""Exceptions of kernels."""

from __future__ import annotations

import pickle
from typing import NoReturn


def raise_pickled(data: bytes) -> NoReturn:
    """Raise an exception that a kernel holds as Numba has pickled it: a class, arguments, and where it is raised.

    Examples
    --------
    >>> raise_pickled(pickle.dumps((ValueError, ("x must be finite",), None)))
    Traceback (most recent call last):
    ValueError: x must be finite
    """
    kind, arguments, *_ = pickle.loads(data)  # noqa: S301
    raise kind(*(arguments or ()))
