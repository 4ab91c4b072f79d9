"""Where two sets of arrays first part, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.network import Network
from fastnet.testing.ulp import ulp_distance


@dataclass(frozen=True)
class Difference:
    """The first element in which an array differs from what it should be.

    Attributes
    ----------
    name : str
        Name of the array: "weights.1" and "biases.1" belong to the second layer.
    index : tuple of int
        Index of the element.
    actual, desired : float
        The two numbers.
    ulp : int
        Their distance, and in `max_ulp` the array's largest one.
    n_different, size : int
        How many of the array's elements differ, and of how many.
    """

    name: str
    index: tuple[int, ...]
    actual: float
    desired: float
    ulp: int
    max_ulp: int
    n_different: int
    size: int

    @property
    def layer(self) -> int | None:
        """The layer, counted from 1, or None for arrays that belong to no layer."""
        number = self.name.rpartition(".")[2]
        return int(number) + 1 if number.isdigit() else None

    def __str__(self) -> str:
        layer = f"layer {self.layer}, " if self.layer else ""
        position = ", ".join(map(str, self.index))
        return (
            f"{layer}{self.name.partition('.')[0]}[{position}]: {self.actual.hex()} ({self.actual!r}) instead of "
            f"{self.desired.hex()} ({self.desired!r}), {self.ulp} ULP apart; {self.n_different} of {self.size} "
            f"elements differ, by at most {self.max_ulp} ULP"
        )


def first_difference(actual: Mapping[str, NDArray[Any]], desired: Mapping[str, NDArray[Any]]) -> Difference | None:
    """The first difference of arrays of the same names, in the order of ``desired``.

    Zeros of either sign differ here (their bits do), at 0 ULP; NaNs are equal whatever their payloads.

    Raises
    ------
    ValueError
        If the names, or the dtypes or shapes of two arrays of one name, differ.

    Examples
    --------
    >>> import numpy as np
    >>> print(first_difference({"weights.0": np.array([1.0, 2.0])}, {"weights.0": np.array([1.0, 2.5])}).index)
    (1,)
    """
    if actual.keys() != desired.keys():
        raise ValueError(f"the arrays' names differ: {sorted(actual)} and {sorted(desired)}")
    for name, expected in desired.items():
        difference = _difference(name, actual[name], expected)
        if difference is not None:
            return difference
    return None


def _difference(name: str, actual: NDArray[Any], desired: NDArray[Any]) -> Difference | None:
    if actual.dtype != desired.dtype or actual.shape != desired.shape:
        raise ValueError(
            f"{name} has dtype {actual.dtype} and shape {actual.shape}, not {desired.dtype} and {desired.shape}"
        )
    different = (actual != desired) | (np.signbit(actual) != np.signbit(desired))
    different &= ~(np.isnan(actual) & np.isnan(desired))
    if not different.any():
        return None
    distances = ulp_distance(actual, desired)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(different), different.shape))
    return Difference(
        name,
        index,
        float(actual[index]),
        float(desired[index]),
        int(distances[index]),
        int(distances.max()),
        int(np.count_nonzero(different)),
        different.size,
    )


def network_arrays(network: Network) -> dict[str, NDArray[np.floating]]:
    """Copies of a network's parameters by name: weights.0, biases.0, weights.1, …."""
    arrays = {}
    for index, weights in enumerate(network.weights):
        arrays[f"weights.{index}"] = weights.copy()
        if network.bias:
            arrays[f"biases.{index}"] = network.biases[index].copy()
    return arrays
