"""What a golden holds of a training, as values; `fastnet.testing.golden_file` writes and reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The arguments of `fastnet.Network.fit` on which a training's bits depend.
SETTINGS = ("loss", "optimizer", "epochs", "batch_size", "reduction", "shuffle", "seed", "l2")
#: Arrays of up to so many numbers are kept whole.
LARGEST_STORED = 1024
_KINDS = ("relative", "ulp")

Index = tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """When, by whom and why a golden was written."""

    date: str
    author: str
    reason: str


@dataclass(frozen=True)
class Bound:
    """How far a replay may be off.

    Attributes
    ----------
    size : float
        The largest distance.
    kind : {"relative", "ulp"}
        Whether it is a multiple of the array's largest magnitude among the elements shown, or
        units in the last place.
    because : str
        Where the size comes from.
    """

    size: float
    kind: str
    because: str

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "size", float(self.size))
        if self.kind not in _KINDS:
            raise ValueError(f"the kind of a bound must be one of {', '.join(_KINDS)}; got {self.kind!r}")
        if not (isfinite(self.size) and self.size >= 0):
            raise ValueError(f"a bound must be finite and not negative; got {self.size}")
        if not self.because.strip():
            raise ValueError("a bound must say where it comes from")


@dataclass(frozen=True)
class ArrayEntry:
    """An array at an epoch: the first digits of its SHA-256, and the elements that are shown."""

    digest: str
    shown: Mapping[Index, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """An epoch that is recorded: `fastnet.testing.golden_file`. ``slots`` is empty for an optimizer without state."""

    epoch: int
    loss: float
    parameters: str
    slots: str
    arrays: Mapping[str, ArrayEntry]


@dataclass(frozen=True)
class Stored:
    """An array of the data: shape and SHA-256, and its numbers in order if the file has them."""

    shape: Index
    digest: str
    numbers: tuple[float, ...] | None

    @classmethod
    def of(cls, array: NDArray[np.floating]) -> Stored:
        """What is stored of an array."""
        numbers = tuple(array.ravel().tolist()) if array.size <= LARGEST_STORED else None
        return cls(array.shape, digest([array]), numbers)


@dataclass(frozen=True)
class Golden:
    """A recorded training: what a golden's file holds.

    Attributes
    ----------
    recordings : tuple of Recording
        The oldest first.
    environment : dict of str
        Versions and CPU of the last recording.
    architecture, settings : dict
        Arguments of `fastnet.Network`, and those of `fastnet.Network.fit` named in `SETTINGS`.
    backend : str
        What trained.
    bound : Bound or None
        How far a replay may be off; None stands for equal bits.
    data : dict of Stored
        The initial parameters by name, ``X``, ``y``, and ``sample_weight`` if there is one.
    entries : tuple of Entry
        The recorded epochs.
    """

    recordings: tuple[Recording, ...]
    environment: Mapping[str, str]
    architecture: Mapping[str, Any]
    settings: Mapping[str, Any]
    backend: str
    bound: Bound | None
    data: Mapping[str, Stored]
    entries: tuple[Entry, ...]


def digest(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 of the little-endian bytes of arrays.

    Examples
    --------
    >>> digest([np.zeros(2), np.ones(1)]) == digest([np.array([0.0, 0.0, 1.0])])
    True
    """
    joined = hashlib.sha256()
    for array in arrays:
        joined.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return joined.hexdigest()
