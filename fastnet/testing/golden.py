"""Golden trajectories: trainings that are recorded as text, and replayed.

`record` trains and writes, `check` replays: on any machine the kernels and the exact reference have to give
the recorded bits. `golden_from_arrays` writes what another program has trained, to be met within a
bound. `fastnet.testing.golden_file` describes the files.

A recorded training starts without optimizer state. Epochs count from 0; an epoch's loss is that of
`History.loss_curve`, its parameters are those after its steps.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.backends import Backend
from fastnet.network import Network
from fastnet.testing import golden_file
from fastnet.testing.difference import network_arrays
from fastnet.testing.golden_file import GoldenFileError, index_text
from fastnet.testing.golden_records import Bound, Entry, Golden, Index, Recording, Stored, digest
from fastnet.testing.golden_report import GoldenError, GoldenReport, backend_name, environment, replay
from fastnet.testing.trajectory import Snapshot, Training
from fastnet.validation import check_choice, check_integer

__all__ = [
    "Bound",
    "Golden",
    "GoldenError",
    "GoldenFileError",
    "GoldenReport",
    "assert_trajectory",
    "check",
    "golden_from_arrays",
    "record",
]

Array = NDArray[np.floating]


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
    golden = _golden(training, recordings, environment(), backend_name(backend), None, entries)
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
    if isinstance(every, int | np.integer):
        every = check_integer("every", every, 1)
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
    if isinstance(weights_shown, int | np.integer):
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
