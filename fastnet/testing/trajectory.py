"""Trainings that stop at chosen epochs, to look at all that they have changed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.backends import Backend
from fastnet.history import DivergenceError
from fastnet.layout import parameter_views
from fastnet.losses import get_loss
from fastnet.network import Network
from fastnet.optimizers import get_optimizer
from fastnet.samples import check_samples
from fastnet.testing.difference import network_arrays
from fastnet.testing.golden_records import SETTINGS, ArrayEntry, Entry, Index, digest
from fastnet.training import REDUCTIONS
from fastnet.validation import check_boolean, check_choice, check_integer, check_number

Array = NDArray[np.floating]

#: The arrays of an optimizer's state, in their order.
_SLOTS = {
    contract.SGD: ("velocity",),
    contract.ADAM: ("first moment", "second moment"),
    contract.RMSPROP: ("mean square", "velocity"),
    contract.RPROP: ("previous gradient", "step size"),
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training after an epoch: its loss, and parameters and optimizer state by name."""

    epoch: int
    loss: float
    parameters: dict[str, Array]
    slots: dict[str, Array]

    def entry(self, shown: Mapping[str, Sequence[Index]]) -> Entry:
        """What a golden keeps of it."""
        arrays = {
            name: ArrayEntry(digest([array])[:8], {index: float(array[index]) for index in shown.get(name, ())})
            for name, array in (self.parameters | self.slots).items()
        }
        slots = digest(self.slots.values()) if self.slots else ""
        return Entry(self.epoch, self.loss, digest(self.parameters.values()), slots, arrays)


@dataclass(frozen=True, eq=False)
class Training:
    """A training that can be run on any backend: a network, its data in the network's dtype, and settings."""

    network: Network
    X: Array
    y: Array
    sample_weight: Array | None
    settings: dict[str, Any]

    @classmethod
    def of(
        cls, network: Network, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, settings: Mapping[str, Any]
    ) -> Training:
        """Check the arguments, and fill in the defaults of `fastnet.Network.fit`."""
        for name in settings:
            check_choice("a setting", name, SETTINGS)
        defaults = inspect.signature(Network.fit).parameters
        settings = {name: settings.get(name, defaults[name].default) for name in SETTINGS}
        settings["optimizer"] = get_optimizer(settings["optimizer"])
        settings["epochs"] = check_integer("epochs", settings["epochs"], 1)
        settings["reduction"] = check_choice("reduction", settings["reduction"], REDUCTIONS)
        settings["shuffle"] = check_boolean("shuffle", settings["shuffle"])
        settings["l2"] = check_number("l2", settings["l2"], low=0.0)
        if settings["batch_size"] is not None:
            settings["batch_size"] = check_integer("batch_size", settings["batch_size"], 1)
        if settings["seed"] is not None or settings["shuffle"]:
            settings["seed"] = check_integer("seed of a training that is to be repeated", settings["seed"], 0)
        check_samples(network, X, y, get_loss(settings["loss"])[0], sample_weight)
        start = Network(**network.architecture)
        start.parameters = network.parameters
        x, targets = np.asarray(X, network.dtype), np.asarray(y, network.dtype)
        weight = None if sample_weight is None else np.asarray(sample_weight, network.dtype)
        return cls(start, x, targets, weight, settings)

    @property
    def data(self) -> dict[str, Array]:
        """All that training starts from, by name."""
        data = {**network_arrays(self.network), "X": self.X, "y": self.y}
        return data if self.sample_weight is None else {**data, "sample_weight": self.sample_weight}

    def snapshots(
        self, epochs: Sequence[int], backend: str | Backend, threads: int | None = None
    ) -> Iterator[Snapshot]:
        """Train, and stop after these epochs.

        Raises
        ------
        DivergenceError
            If training diverges; its epoch counts from the start.
        """
        network, done = self.network.copy(), 0
        for epoch in epochs:
            settings = self.settings | {"epochs": epoch + 1 - done}
            try:
                history = network.fit(
                    self.X, self.y, sample_weight=self.sample_weight, backend=backend, threads=threads, **settings
                )
            except DivergenceError as error:
                error.epoch += done
                raise
            done = epoch + 1
            yield Snapshot(epoch, float(history.loss_curve[-1]), network_arrays(network), _slots(network))


def _slots(network: Network) -> dict[str, Array]:
    """Copies of the optimizer's state, by names like "velocity of weights.0"."""
    state, named = network._training, {}
    for kind, slot in zip(_SLOTS[state.optimizer.kind], state.slots, strict=False):
        weights, biases = parameter_views(slot, network.layout)
        for index, view in enumerate(weights):
            named[f"{kind} of weights.{index}"] = view.copy()
            if biases:
                named[f"{kind} of biases.{index}"] = biases[index].copy()
    return named
