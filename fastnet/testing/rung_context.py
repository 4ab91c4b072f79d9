"""What the rungs of `fastnet.testing.verify` share: what they are given and return, and how trainings are compared."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnet.backends import Backend
from fastnet.testing.cases import Case, covering_cases, small_cases
from fastnet.testing.comparison import compare
from fastnet.testing.difference import first_difference

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Figures: TypeAlias = dict[str, int | float | str]


@dataclass
class Findings:
    """What a check found.

    Attributes
    ----------
    failures : list of str
        What went wrong; the first one says what parted first.
    figures : dict
        What was measured, by name.
    digests : dict
        SHA-256 of results by name, to compare machines by.
    skipped : str
        Why the check was not made, if it was not.
    """

    failures: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    skipped: str = ""


class Context:
    """What the checks share: the backend, how thorough they are, and trainings that several of them look at.

    Parameters
    ----------
    backend : str or Backend
        What is judged.
    exhaustive : bool
        Whether to take hours.

    Attributes
    ----------
    progress : callable
        Is told what is being done; it can be set.
    """

    def __init__(self, backend: str | Backend, exhaustive: bool = False) -> None:
        #: Any: the notebooks are annotated to take names only.
        self.backend: Any = backend
        self.exhaustive = exhaustive
        self.progress: Callable[[str], Any] = lambda _: None
        self.cases = covering_cases()
        #: Processes for other CPUs by name, which `fastnet.testing.other_cpus` starts and ends.
        self.children: dict[str, subprocess.Popen[str]] = {}

    @cached_property
    def actual(self) -> dict[str, Arrays]:
        """What the backend's trainings leave behind."""
        return {name: case.train(self.backend) for name, case in self.cases.items()}

    @cached_property
    def desired(self) -> dict[str, Arrays]:
        """The same of the exact reference."""
        return {name: case.train("exact") for name, case in self.cases.items()}

    @cached_property
    def desired_of_small(self) -> dict[str, Arrays]:
        """The exact reference's trainings of small networks."""
        return {name: case.train("exact") for name, case in small_cases().items()}


def digest(arrays: Arrays) -> str:
    """SHA-256 of names, dtypes, shapes and bits; all NaNs are alike, and so are both byte orders.

    Examples
    --------
    >>> digest({"x": np.array([np.nan])}) == digest({"x": -np.array([np.nan])})
    True
    """
    joined = hashlib.sha256()
    for name, array in arrays.items():
        bits = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if array.dtype.kind == "f" and np.isnan(bits).any():
            bits = np.where(np.isnan(bits), np.array(np.nan, bits.dtype), bits)
        joined.update(f"{name} {array.dtype.name} {array.shape} ".encode())
        joined.update(bits.tobytes())
    return joined.hexdigest()


def first_parting(case: Case, backend: str | Backend, actual: Arrays, desired: Arrays) -> str:
    """Where a training parts from the exact reference, in lockstep; else what its results tell."""
    x, y, weight = case.data()
    comparison = compare(backend, "exact", case.network(), x, y, sample_weight=weight, **case.settings)
    if not comparison.equal:
        return str(comparison)
    if actual.keys() != desired.keys():
        return f"it leaves {', '.join(actual)} behind, not {', '.join(desired)}"
    return f"in lockstep it does not part, but at the end {first_difference(actual, desired)}"
