"""Golden trajectories: trainings that are recorded as text, and replayed.

`record` trains and writes, `check` replays: on any machine the kernels and the exact reference have to give
the recorded bits. `golden_from_arrays` writes what another program has trained, to be met within a
bound. `fastnet.testing.golden_file` describes the files.

A recorded training starts without optimizer state. Epochs count from 0; an epoch's loss is that of
`History.loss_curve`, its parameters are those after its steps.
"""

from __future__ import annotations

import getpass
import inspect
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
from fastnet.testing import golden_file
from fastnet.testing.compare import Comparison, compare
from fastnet.testing.difference import Difference, first_difference, network_arrays
from fastnet.testing.golden_file import ArrayEntry, Bound, Entry, Golden, Index, Recording, Stored, digest, index_text
from fastnet.testing.ulp import max_ulp
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
#: Instructions on which floating-point code may depend.
_FEATURES = ("sse", "avx", "fma", "f16c", "neon", "sve", "fp")


class GoldenError(AssertionError):
    """A training that is not the recorded one, or went otherwise."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training after an epoch: its loss, and parameters and optimizer state by name."""

    epoch: int
    loss: float
    parameters: dict[str, Array]
    slots: dict[str, Array]

    @property
    def arrays(self) -> dict[str, Array]:
        """All arrays: the loss as one of them, then parameters and state."""
        return {"loss": np.array([self.loss]), **self.parameters, **self.slots}

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
            check_choice("a setting", name, golden_file.SETTINGS)
        defaults = inspect.signature(Network.fit).parameters
        settings = {name: settings.get(name, defaults[name].default) for name in golden_file.SETTINGS}
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


def environment() -> dict[str, str]:
    """Versions, and the CPU for which Numba compiles: what a golden's header tells of the machine."""
    described = {}
    for package in ("fastnet", "numba", "llvmlite", "numpy"):
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = "not installed"
    described["python"], described["system"] = platform.python_version(), f"{platform.system()} {platform.machine()}"
    import llvmlite.binding as llvm

    # As Numba has it: an empty list of features is a choice, too.
    described["cpu"] = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    present = sorted(name[1:] for name in features.split(",") if name.startswith("+"))
    described["cpu features"] = " ".join(name for name in present if name.startswith(_FEATURES)) or "those of the name"
    return described


def record(
    path: str | os.PathLike[str],
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    every: int | Sequence[int] = 1,
    weights_shown: int | str | Sequence[str] = 2,
    reason: str | None = None,
    author: str | None = None,
    backend: str | Backend = "exact",
    **settings: Any,
) -> Golden:
    """Train a copy of a network, and write its trajectory to a file.

    Parameters
    ----------
    path : str or path-like
        Name of the file. Over an existing golden is written only with a `reason`.
    network : Network
        What to train, from its present parameters and without optimizer state. It is not changed.
    X, y, sample_weight : array-like
        As for `fastnet.Network.fit`.
    every : int or sequence of int
        Every how many epochs one is recorded, the first and the last always; or which ones are.
    weights_shown : int, "all" or sequence of str
        The elements that the file shows: so many of each array, all, or those named, as "weights.0[2, 1]".
    reason : str, optional
        Why the golden is written; it stays in the file with those before it.
    author : str, optional
        Who writes; by default the user's name.
    backend : str or Backend
        What trains.
    **settings
        The arguments of `fastnet.Network.fit` on which results depend: loss, optimizer, epochs,
        batch_size, reduction, shuffle, seed and l2.

    Returns
    -------
    Golden
        What was written.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above, or the file exists and there is no reason.
    DivergenceError
        If training diverges; nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> network = Network([1, 1]).initialize(seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     golden = record(f"{folder}/line.golden", network, [[0.0], [1.0]], [1.0, 2.0], optimizer="sgd", epochs=3)
    ...     report = check(f"{folder}/line.golden")
    >>> [entry.epoch for entry in golden.entries], report.passed
    ([0, 1, 2], True)
    """
    training = Training.of(network, X, y, sample_weight, settings)
    recordings = _recordings(path, reason, author)
    shown = _shown(training.network, weights_shown)
    epochs = _epochs(every, training.settings["epochs"])
    entries = tuple(snapshot.entry(shown) for snapshot in training.snapshots(epochs, backend))
    golden = _golden(training, recordings, environment(), _backend_name(backend), None, entries)
    golden_file.write(path, golden)
    return golden


def golden_from_arrays(
    path: str | os.PathLike[str],
    start: Sequence[ArrayLike],
    trajectory: Mapping[int, tuple[float, Sequence[ArrayLike]]],
    X: ArrayLike,
    y: ArrayLike,
    *,
    bound: Bound,
    source: Mapping[str, str],
    activation: str | Sequence[str] = "relu",
    output_activation: str = "identity",
    bias: bool = True,
    transposed: bool = False,
    sample_weight: ArrayLike | None = None,
    weights_shown: int | str | Sequence[str] = "all",
    reason: str | None = None,
    author: str | None = None,
    **settings: Any,
) -> Golden:
    """Write a training that another program has run, as a golden that is to be met within a bound.

    Parameters
    ----------
    path : str or path-like
        Name of the file, as for `record`.
    start : sequence of array-like
        The initial parameters: weights and bias of the first layer, of the second, …, the order of
        PyTorch's ``model.parameters()``. Their dtype is the network's.
    trajectory : mapping of int to (float, sequence of array-like)
        For each epoch that is recorded the loss, as fastnet's reduction has it, and the parameters
        after its steps, in the same order.
    X, y, sample_weight : array-like
        The data.
    bound : Bound
        How far a replay may be off, and why.
    source : mapping of str to str
        What trained: names and versions.
    activation, output_activation : str
        As for `fastnet.Network`.
    bias : bool
        Whether there are biases in `start` and `trajectory`.
    transposed : bool
        Whether weights are (out, in), as PyTorch has them.
    weights_shown, reason, author, **settings
        As for `record`. Only what is shown is checked.

    Returns
    -------
    Golden
        What was written.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit together, or the file exists and there is no reason.

    Examples
    --------
    One step of y = w x by hand: w = 0.5 becomes 0.5 - 0.01 (0.5 - 1) = 0.505.

    >>> import tempfile
    >>> bound = Bound(2, "ulp", "a product and a sum are rounded, here and there")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/by_hand.golden"
    ...     golden = golden_from_arrays(
    ...         path, [[[0.5]]], {0: (0.125, [[[0.505]]])}, [[1.0]], [1.0], bound=bound, source={"by": "hand"},
    ...         bias=False, optimizer="sgd", epochs=1,
    ...     )
    ...     check(path).passed
    True
    """

    def layers(arrays: Sequence[ArrayLike]) -> Network:
        weights = [np.asarray(array) for array in (arrays[::2] if bias else arrays)]
        weights = [array.T for array in weights] if transposed else weights
        return Network.from_arrays(weights, arrays[1::2] if bias else None, activation, output_activation)

    training = Training.of(layers(start), X, y, sample_weight, settings)
    recordings = _recordings(path, reason, author)
    shown = _shown(training.network, weights_shown)
    entries = []
    for epoch in _epochs(sorted(trajectory), training.settings["epochs"]):
        loss, arrays = trajectory[epoch]
        network = layers(arrays)
        if network.architecture != training.network.architecture:
            raise ValueError(
                f"the parameters of epoch {epoch} must have the shapes and the dtype of those at the start"
            )
        entries.append(Snapshot(epoch, float(loss), network_arrays(network), {}).entry(shown))
    golden = _golden(training, recordings, source, "none of fastnet", bound, tuple(entries))
    golden_file.write(path, golden)
    return golden


def _golden(
    training: Training,
    recordings: tuple[Recording, ...],
    described: Mapping[str, str],
    backend: str,
    bound: Bound | None,
    entries: tuple[Entry, ...],
) -> Golden:
    data = {name: Stored.of(array) for name, array in training.data.items()}
    architecture = training.network.architecture
    return Golden(recordings, dict(described), architecture, training.settings, backend, bound, data, entries)


def _recordings(path: str | os.PathLike[str], reason: str | None, author: str | None) -> tuple[Recording, ...]:
    """Those in the file, and this one."""
    if reason is not None and not reason.strip():
        raise ValueError("reason must not be empty")
    before: tuple[Recording, ...] = ()
    if Path(path).exists():
        if reason is None:
            raise ValueError(f"{os.fspath(path)} exists: a reason is needed to record it again")
        before = golden_file.read(path).recordings
    if author is None:
        try:
            author = getpass.getuser()
        except (OSError, KeyError):
            author = "unknown"
    return (*before, Recording(date.today().isoformat(), author, reason or "first recording"))


def _epochs(every: int | Sequence[int], n_epochs: int) -> list[int]:
    if isinstance(every, int):
        check_integer("every", every, 1)
        return [*range(0, n_epochs - 1, every), n_epochs - 1]
    epochs = sorted({check_integer("every", epoch, 0, n_epochs - 1) for epoch in every})
    if not epochs:
        raise ValueError("every must name an epoch")
    return epochs


def _shown(network: Network, weights_shown: int | str | Sequence[str]) -> dict[str, list[Index]]:
    """Indices to show, by the names of arrays."""
    arrays = network_arrays(network)
    if isinstance(weights_shown, str):
        check_choice("weights_shown", weights_shown, ("all",), "a number or a list of elements")
        return {name: list(np.ndindex(array.shape)) for name, array in arrays.items()}
    if isinstance(weights_shown, int):
        number = check_integer("weights_shown", weights_shown, 0)
        return {
            # Spread over the array, its first and its last element among them.
            name: [_index(array, i) for i in np.unique(np.linspace(0, array.size - 1, number).astype(int))]
            for name, array in arrays.items()
        }
    shown: dict[str, list[Index]] = {}
    elements = {
        f"{name}{index_text(index)}": (name, index) for name in arrays for index in np.ndindex(arrays[name].shape)
    }
    for element in weights_shown:
        if element not in elements:
            raise ValueError(f"weights_shown must name elements like {next(iter(elements))!r}; got {element!r}")
        name, index = elements[element]
        shown.setdefault(name, []).append(index)
    return shown


def _index(array: Array, flat: int) -> Index:
    return tuple(int(i) for i in np.unravel_index(flat, array.shape))


def _backend_name(backend: str | Backend) -> str:
    return "a backend of one's own" if isinstance(backend, Backend) else backend


def training_of(
    golden: Golden,
    *,
    network: Network | None = None,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> Training:
    """The training that a golden has recorded; what its file does not hold has to be given.

    Raises
    ------
    ValueError
        If something is missing.
    GoldenError
        If what is given is not what was recorded.
    """
    dtype = np.dtype(golden.architecture["dtype"])

    def stored(name: str, given: ArrayLike | None) -> ArrayLike:
        kept = golden.data[name]
        if given is not None:
            return given
        if kept.numbers is None:
            raise ValueError(f"{name} is too large to be in the golden: pass what was trained")
        return np.array(kept.numbers, dtype).reshape(kept.shape)

    if network is None:
        network = Network(**golden.architecture)
        arrays = {name: stored(name, None) for name in network_arrays(network)}
        network._fill(
            [np.asarray(array) for name, array in arrays.items() if name.startswith("weights")],
            [np.asarray(array) for name, array in arrays.items() if name.startswith("biases")],
        )
    weight = stored("sample_weight", sample_weight) if "sample_weight" in golden.data else sample_weight
    training = Training.of(network, stored("X", X), stored("y", y), weight, golden.settings)
    require_same_training(golden, training)
    return training


def require_same_training(golden: Golden, training: Training) -> None:
    """Require that a training is the one that was recorded.

    Raises
    ------
    GoldenError
        If architecture, settings, initial parameters or data differ; the message lists them.
    """
    architecture = training.network.architecture
    differing = [
        f"{name} is {now!r}, and was {then!r}"
        for recorded, present in ((golden.architecture, architecture), (golden.settings, training.settings))
        for name, then, now in ((key, recorded[key], present[key]) for key in present)
        if now != then
    ]
    if not differing:
        data = training.data
        differing += [f"there is {name} on one side only" for name in data.keys() ^ golden.data.keys()]
        for name in data.keys() & golden.data.keys():
            kept = golden.data[name]
            if (data[name].shape, digest([data[name]])) != (kept.shape, kept.digest):
                differing.append(f"{name} does not have the bits that were recorded")
    if differing:
        raise GoldenError("this is another training than the golden's: " + "; ".join(sorted(differing)))


@dataclass(frozen=True)
class Parting:
    """Where a replay left its golden, as far as the file tells.

    Attributes
    ----------
    epoch : int
        The first recorded epoch that differs.
    differences : tuple of Difference
        For the loss and each array, the first shown element that differs, or is off by more than the bound.
    names : tuple of str
        All arrays that differ.
    diverged : str
        What a replay said that diverged.
    """

    epoch: int
    differences: tuple[Difference, ...]
    names: tuple[str, ...]
    diverged: str = ""

    def __str__(self) -> str:
        if self.diverged:
            return self.diverged
        lines = [str(difference) for difference in self.differences]
        if self.names and not any(difference.layer for difference in self.differences):
            lines.append(f"digests differ, first that of {self.names[0]}, but no parameter that the file shows")
        return "\n".join([*lines, f"arrays that differ: {', '.join(self.names) or 'none'}"])


@dataclass(frozen=True)
class GoldenReport:
    """What came of a replay; its text explains a failure.

    Attributes
    ----------
    name : str
        Name of the file.
    golden : Golden
        What was recorded.
    backend : str
        What replayed.
    n_checked : int
        How many recorded epochs agree.
    parting : Parting or None
        Where the replay left the golden; None if it agrees.
    agreeing : dict of str to bool
        Which backends agree with the golden up to that epoch.
    comparison : Comparison or None
        With a backend that agrees, step by step: the exact epoch, batch, array and index.
    distances : tuple of (int, int)
        Recorded epochs from that one on, and the largest distance to the golden in ULP, of the loss and
        of shown elements.
    changes : tuple of str
        What differs between the environment of the recording and this one.
    """

    name: str
    golden: Golden
    backend: str
    n_checked: int
    parting: Parting | None = None
    agreeing: Mapping[str, bool] = field(default_factory=dict)
    comparison: Comparison | None = None
    distances: tuple[tuple[int, int], ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the replay agrees with the golden."""
        return self.parting is None

    @property
    def epoch(self) -> int | None:
        """The first epoch that differs: of all, if a backend reproduces the golden, or of the recorded ones."""
        if self.comparison is not None and self.comparison.epoch is not None:
            return self.comparison.epoch
        return None if self.parting is None else self.parting.epoch

    def require(self) -> GoldenReport:
        """Return this report, or raise a `GoldenError` with its text if the replay failed."""
        __tracebackhide__ = True
        if not self.passed:
            raise GoldenError(str(self))
        return self

    def __str__(self) -> str:
        golden, parting = self.golden, self.parting
        agreement = "bit for bit" if golden.bound is None else f"within {golden.bound.size:g} {golden.bound.kind}"
        if parting is None:
            return f"{self.name}: {self.backend} agrees {agreement} in {self.n_checked} recorded epochs"
        lines = [
            f"the first recorded epoch that differs is {parting.epoch}, after {self.n_checked} that agree",
            str(parting),
        ]
        if self.comparison is not None and self.comparison.equal:
            lines.append("step by step there is no difference: it depends on how training is divided into calls")
        elif self.comparison is not None:
            lines = [str(self.comparison), *lines]
        lines += self._curve()
        lines += [
            f"{name} {'agrees' if yes else 'does not agree'} with the golden" for name, yes in self.agreeing.items()
        ]
        lines += [self._verdict(), *(self.changes or ["the environment is the one in the golden's header"])]
        last = golden.recordings[-1]
        lines.append(f"recorded on {last.date} by {last.author}: {last.reason}")
        title = f"{self.name}: {self.backend} does not agree {agreement}, from epoch {self.epoch} on"
        return "\n".join([title, *("  " + line for line in "\n".join(lines).splitlines())])

    def _verdict(self) -> str:
        if self.agreeing.get("exact"):
            return f"the reference still gives the golden: the fault is in {self.backend}, or in what compiled it"
        if self.agreeing.get("numba"):
            return f"the kernels still give the golden, {self.backend} does not: look at the reference"
        return "no backend gives the golden: the arithmetic or the file has changed; if it is meant to, record it again"

    def _curve(self) -> list[str]:
        """The distances as bars, and whether they grow."""
        if not self.distances:
            return []
        # As in `Comparison`: a rounding moves a number by a few units, a wrong term by half of its bits or more.
        jump = 1 << np.finfo(self.golden.architecture["dtype"]).nmant // 2
        first, last = self.distances[0][1], self.distances[-1][1]
        course = "it jumps" if first >= jump else "it grows" if last > first else "it stays small"
        lines = [f"distance to the golden by epoch, in ULP of the loss and of what is shown (# is four bits): {course}"]
        return lines + [f"{epoch:>8} {ulp:>20} {'#' * -(-ulp.bit_length() // 4)}" for epoch, ulp in self.distances]


def check(
    path: str | os.PathLike[str],
    backend: str | Backend = "numba",
    *,
    network: Network | None = None,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    threads: int | None = None,
) -> GoldenReport:
    """Replay a golden.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    backend : str or Backend
        What trains.
    network, X, y, sample_weight : optional
        What was trained, where it is too large to be in the file; their digests are compared.
    threads : int, optional
        As for `fastnet.Network.fit`.

    Returns
    -------
    GoldenReport
        Whether the replay agrees, and if not, where it left the golden; ``check(path).require()``
        raises a `GoldenError` instead.

    Raises
    ------
    GoldenFileError
        If the file holds no golden.
    GoldenError
        If what is given is not what was recorded.
    ValueError
        If something that the file does not hold is not given.
    """
    golden = golden_file.read(path)
    training = training_of(golden, network=network, X=X, y=y, sample_weight=sample_weight)
    return replay(golden, training, backend, os.fspath(path), threads)


def assert_trajectory(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    golden: Golden | str | os.PathLike[str],
    *,
    sample_weight: ArrayLike | None = None,
    backend: str | Backend = "numba",
    threads: int | None = None,
    **settings: Any,
) -> GoldenReport:
    """Require that a training is the one that a golden has recorded, and goes as it did.

    Parameters
    ----------
    network, X, y, sample_weight, **settings
        The training, as for `record`. The network is not changed.
    golden : Golden, str or path-like
        The golden or the name of its file.
    backend, threads
        As for `check`.

    Returns
    -------
    GoldenReport
        Of a replay that agrees.

    Raises
    ------
    GoldenError
        If it is another training, or goes otherwise.
    GoldenFileError
        If the file holds no golden.
    """
    name = "the golden" if isinstance(golden, Golden) else os.fspath(golden)
    golden = golden if isinstance(golden, Golden) else golden_file.read(golden)
    training = Training.of(network, X, y, sample_weight, settings)
    require_same_training(golden, training)
    return replay(golden, training, backend, name, threads).require()


def replay(
    golden: Golden, training: Training, backend: str | Backend, name: str, threads: int | None = None
) -> GoldenReport:
    """Train, and compare with a golden of the same training; see `check`."""
    backend_name = _backend_name(backend)
    failed = _first_failing(golden, training, backend, golden.entries, threads)
    if failed is None:
        return GoldenReport(name, golden, backend_name, len(golden.entries))
    up_to_here = golden.entries[: failed + 1]
    agreeing = {backend_name: False}
    for other in ("exact", "numba"):
        if other != backend:
            agreeing[other] = _first_failing(golden, training, other, up_to_here) is None
    sound = next((other for other, agrees in agreeing.items() if agrees), None)
    comparison = None
    if sound is not None and golden.bound is None:
        settings = training.settings | {"epochs": up_to_here[-1].epoch + 1, "sample_weight": training.sample_weight}
        comparison = compare(backend, sound, training.network, training.X, training.y, **settings)
    parting, distances = _recorded_parting(golden, training, backend, failed)
    here = environment()
    changes = tuple(
        f"{key}: {golden.environment.get(key, 'not stated')} in the golden, {here.get(key, 'not stated')} here"
        for key in sorted(golden.environment.keys() | (here.keys() if golden.bound is None else set()))
        if golden.environment.get(key) != here.get(key)
    )
    return GoldenReport(name, golden, backend_name, failed, parting, agreeing, comparison, distances, changes)


def _first_failing(
    golden: Golden, training: Training, backend: str | Backend, entries: Sequence[Entry], threads: int | None = None
) -> int | None:
    """Number of the first entry with which a backend does not agree."""
    try:
        for number, snapshot in enumerate(training.snapshots([entry.epoch for entry in entries], backend, threads)):
            if not _agrees(entries[number], snapshot, golden.bound):
                return number
    except DivergenceError as error:
        # On the way to this one.
        return next(number for number, entry in enumerate(entries) if entry.epoch >= error.epoch)
    return None


def _agrees(entry: Entry, snapshot: Snapshot, bound: Bound | None) -> bool:
    if bound is None:
        actual = snapshot.entry({})
        of_bits = (actual.loss.hex(), actual.parameters, actual.slots)
        return of_bits == (entry.loss.hex(), entry.parameters, entry.slots)
    return not any(True for _ in _beyond(entry, snapshot, bound))


def _pairs(entry: Entry, snapshot: Snapshot) -> Iterator[tuple[str, list[Index], Array, Array]]:
    """What an entry shows: the name, indices, and both sides' numbers."""
    yield "loss", [(0,)], np.array([snapshot.loss]), np.array([entry.loss])
    for name, array in snapshot.parameters.items():
        shown = entry.arrays[name].shown
        if shown:
            indices = list(shown)
            actual = np.array([array[index] for index in indices])
            yield name, indices, actual, np.array(list(shown.values()), array.dtype)


def _beyond(entry: Entry, snapshot: Snapshot, bound: Bound | None) -> Iterator[Difference]:
    """For each array the first shown element that is off by more than the bound allows."""
    for name, indices, actual, desired in _pairs(entry, snapshot):
        for position, index in enumerate(indices):
            one, other = actual[position : position + 1], desired[position : position + 1]
            difference = first_difference({name: one}, {name: other})
            if difference is None or (bound is not None and _is_within(one, other, desired, bound)):
                continue
            yield Difference(
                name,
                index,
                difference.actual,
                difference.desired,
                difference.ulp,
                max_ulp(actual, desired),
                int(np.count_nonzero(actual != desired)),
                len(indices),
            )
            break


def _is_within(one: Array, other: Array, desired: Array, bound: Bound) -> bool:
    if bound.kind == "ulp":
        return max_ulp(one, other) <= bound.size
    largest = float(np.abs(desired).max())
    return bool(abs(float(one[0]) - float(other[0])) <= bound.size * largest)


def _recorded_parting(
    golden: Golden, training: Training, backend: str | Backend, failed: int
) -> tuple[Parting, tuple[tuple[int, int], ...]]:
    """The parting as the file tells it, and the distances of what it shows from there on."""
    parting, distances = None, []
    snapshots = training.snapshots([entry.epoch for entry in golden.entries], backend)
    try:
        for number, (entry, snapshot) in enumerate(zip(golden.entries, snapshots, strict=True)):
            if number == failed:
                differences = tuple(_beyond(entry, snapshot, golden.bound))
                now = snapshot.entry({}).arrays
                names = [name for name, array in entry.arrays.items() if now[name].digest != array.digest]
                if golden.bound is not None:
                    names = [difference.name for difference in differences if difference.layer]
                parting = Parting(entry.epoch, differences, tuple(names))
            if number >= failed:
                distances.append(
                    (entry.epoch, max(max_ulp(one, other) for _, _, one, other in _pairs(entry, snapshot)))
                )
    except DivergenceError as error:
        parting = parting or Parting(golden.entries[failed].epoch, (), (), str(error))
    if parting is None:
        raise AssertionError("the replay agreed when it was repeated: the backend is not deterministic")
    return parting, tuple(distances)
