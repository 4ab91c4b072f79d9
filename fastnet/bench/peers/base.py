"""What an adapter offers, and what it is given: the same data, first parameters, batches and orders for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnet.network import Network
from fastnet.optimizers import SGD, Adam, Optimizer
from fastnet.testing.cases import Case

Array = NDArray[np.floating]


class UnsupportedError(Exception):
    """A peer cannot do a case; the message says what is missing."""


@cache
def _arrays(case: Case) -> tuple[Array, Array, NDArray[np.int64] | None]:
    """Inputs, targets and labels of a case: the same memory for all peers, which write to none of it."""
    x, y, _ = case.data()
    labels = None
    if y.ndim == 1:
        labels = y.astype(np.int64)
        # One logistic output stands for two classes.
        y = np.eye(max(2, case.layer_sizes[-1]))[labels][:, -case.layer_sizes[-1] :]
    return np.ascontiguousarray(x, case.dtype), np.ascontiguousarray(y, case.dtype), labels


class Problem:
    """A case as arrays of its dtype, which every adapter starts from.

    Attributes
    ----------
    case : Case
        The case.
    network : fastnet.Network
        The network with its first parameters.
    x : array, shape (n_samples, n_inputs)
        Inputs.
    y : array, shape (n_samples, n_outputs)
        Targets; one-hot rows where the data set has labels.
    labels : array of int64, shape (n_samples,), or None
        The labels, where the data set has them.
    threads : int or None
        At most how many threads fastnet may use.
    """

    def __init__(self, case: Case, threads: int | None = None) -> None:
        self.case = case
        self.threads = threads
        self.network: Network = case.network()
        self.x, self.y, self.labels = _arrays(case)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The optimizer, whose rate is a number."""
        optimizer = self.case.settings["optimizer"]
        plain = type(optimizer) is Adam or (type(optimizer) is SGD and optimizer.momentum == 0.0)
        if not plain or not isinstance(optimizer.learning_rate, float):
            raise UnsupportedError("only SGD without momentum and Adam are compared")
        assert isinstance(optimizer, Optimizer)
        return optimizer

    @property
    def learning_rate(self) -> float:
        """The rate."""
        return float(self.optimizer.learning_rate)  # type: ignore[arg-type]

    @property
    def batch_size(self) -> int:
        """Samples between two updates; the last batch of an epoch may be smaller."""
        return min(self.case.batch_size or self.case.n_samples, self.case.n_samples)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return -(-self.case.n_samples // self.batch_size)

    def orders(self) -> Iterator[NDArray[np.int64] | None]:
        """The order of the samples in each epoch, drawn as `fastnet.Network.fit` draws it; None as they stand."""
        source = np.random.RandomState(self.case.seed)
        while True:
            yield source.permutation(self.case.n_samples) if self.case.shuffle else None

    def batches(self) -> Iterator[slice]:
        """The positions of each batch in an epoch's order."""
        for low in range(0, self.case.n_samples, self.batch_size):
            yield slice(low, low + self.batch_size)

    def layers(self) -> list[tuple[Array, Array | None, str]]:
        """Copies of the first weights and biases, and the activations."""
        biases: list[Array | None] = [b.copy() for b in self.network.biases] or [None] * self.network.n_layers
        weights = [w.copy() for w in self.network.weights]
        return list(zip(weights, biases, self.network.activations, strict=True))


def flat(weights: Any, biases: Any) -> Array:
    """Weights and biases in the order of `fastnet.Network.parameters`."""
    parts = []
    for index, w in enumerate(weights):
        parts.append(np.ravel(np.asarray(w)))
        if len(biases):
            parts.append(np.ravel(np.asarray(biases[index])))
    return np.concatenate(parts)


class Training(ABC):
    """A training that is prepared: what comes before and after it is not timed."""

    @abstractmethod
    def reset(self) -> None:
        """Go back to the first parameters, a fresh optimizer and the first order."""

    @abstractmethod
    def run(self, epochs: int) -> None:
        """Train for some epochs: what is timed."""

    @abstractmethod
    def parameters(self) -> Array:
        """The parameters, in the order of `fastnet.Network.parameters`."""


class Peer(ABC):
    """An adapter: one library, or one way to use it.

    Attributes
    ----------
    name : str
        What ``--peers`` takes.
    label : str
        What tables show.
    distribution : str
        What has to be installed, and ``modules`` what is imported of it.
    is_everywhere : bool
        Whether it takes part when no peers are named, in the case `scaling` too.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    distribution: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]] = ()
    is_everywhere: ClassVar[bool] = True

    def absence(self) -> str | None:
        """Why it cannot be used here, or None."""
        if all(find_spec(module) for module in self.modules):
            return None
        return f"{self.distribution} is not installed"

    def variant(self, case: Case) -> tuple[Case, str]:
        """The case that it does in place of this one, and what is other about it; the same case and "" if nothing is.

        Raises
        ------
        UnsupportedError
            If there is no such case.
        """
        return case, ""

    def warm_up(self, dtype: str) -> None:  # noqa: B027
        """Have ready what is compiled for a dtype whatever is trained: to compile is the case `startup`'s."""

    @abstractmethod
    def training(self, problem: Problem) -> Training:
        """Prepare a training, or raise `UnsupportedError`."""

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        """A call that gives the outputs for the first rows, or raise `UnsupportedError`."""
        raise UnsupportedError("does not predict")

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        """A call that does one operation of `fastnet.bench.operations` on arrays, or raise `UnsupportedError`."""
        raise UnsupportedError("has no such operation")

    @property
    def import_statement(self) -> str | None:
        """What a script imports to train with it; None where importing says nothing."""
        return f"import {self.modules[0]}" if self.modules else None
