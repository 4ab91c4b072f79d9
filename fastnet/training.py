"""Training and prediction on a backend: batches, reports, interruption."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.history import DivergenceError, History, Report
from fastnet.losses import Huber, Quantile, get_loss
from fastnet.network import Network
from fastnet.optimizers import Optimizer, get_optimizer
from fastnet.samples import check_inputs, check_samples
from fastnet.validation import (
    RandomSource,
    check_boolean,
    check_choice,
    check_integer,
    check_number,
    check_random_source,
)

BACKENDS = ("numba", "exact", "numpy")
REDUCTIONS = ("sum", "mean")

#: Seconds that a call of compiled code should take: Ctrl-C is looked for between calls.
_CALL_SECONDS = 0.04
#: Row indices of shuffled epochs that are drawn at a time.
_INDICES_AT_ONCE = 1 << 20

Callback = Callable[[int, History], Any]


class Backend(Protocol):
    """The functions that a backend has; `fastnet.reference.network` and `fastnet.kernels.network` describe them."""

    def forward(self, layout: Any, parameters: Any, x: Any, out: Any) -> Any: ...
    def train(
        self,
        layout: Any,
        parameters: Any,
        samples: Samples,
        objective: Objective,
        update: Update,
        progress: Progress,
        n_blocks: int,
    ) -> int: ...


@dataclass
class _Functions:
    forward: Callable[..., Any]
    train: Callable[..., int]


def load_backend(name: str) -> Backend:
    """The functions of a backend, imported only when they are asked for.

    Raises
    ------
    TypeError, ValueError
        If there is no backend of that name.
    """
    check_choice("backend", name, BACKENDS)
    if name == "numba":
        from fastnet.kernels import network as kernels

        return _Functions(kernels.forward, kernels.train)
    from fastnet.reference import blas, exact
    from fastnet.reference import network as reference

    arithmetic = exact if name == "exact" else blas
    return _Functions(
        partial(reference.forward, arithmetic=arithmetic), partial(reference.train, arithmetic=arithmetic)
    )


@dataclass
class TrainingState:
    """What a network remembers between fits: it goes on when the next one has the same settings."""

    optimizer: Optimizer
    slots: NDArray[np.floating]
    powers: NDArray[np.float64]
    n_epochs: int
    seed: int | RandomSource | None
    source: RandomSource

    @classmethod
    def start(cls, network: Network, optimizer: Optimizer, seed: Any, source: RandomSource) -> TrainingState:
        """The state before a first step."""
        slots = optimizer.initial_slots(network.parameter_buffer.size, network.dtype)
        return cls(optimizer, slots, np.ones(2), 0, seed, source)


def fit(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Huber | Quantile,
    optimizer: str | Optimizer,
    epochs: int,
    batch_size: int | None,
    reduction: str,
    shuffle: bool,
    seed: int | RandomSource | None,
    sample_weight: ArrayLike | None,
    l2: float,
    report_every: int | None,
    callback: Callback | None,
    progress: bool,
    threads: int | None,
    backend: str,
) -> History:
    """Train a network in place; `fastnet.Network.fit` describes the arguments."""
    loss_code, parameter = get_loss(loss)
    optimizer = get_optimizer(optimizer)
    epochs = check_integer("epochs", epochs, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    shuffle = check_boolean("shuffle", shuffle)
    progress = check_boolean("progress", progress)
    l2 = check_number("l2", l2, low=0.0)
    if report_every is not None:
        report_every = check_integer("report_every", report_every, 1)
    if threads is not None:
        check_integer("threads", threads, 1)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r} of type {type(callback).__name__}")
    if progress:
        _import_tqdm()
    source = check_random_source("seed", seed)
    functions = load_backend(backend)
    samples = check_samples(network, X, y, loss_code, sample_weight)
    n_samples = len(samples.x)
    batch_size = n_samples if batch_size is None else min(check_integer("batch_size", batch_size, 1), n_samples)
    objective = Objective(loss_code, parameter, reduction == "mean", l2, batch_size)

    state = network._training
    if state is None or state.optimizer != optimizer:
        state = TrainingState.start(network, optimizer, seed, source)
    elif state.seed is not seed and state.seed != seed:
        state.seed, state.source = seed, source
    network._training = state
    run = _Run(network, samples, objective, state, functions, epochs, report_every, shuffle)
    return run.to_the_end(callback, progress)


class _Run:
    """One fit: the records that `train` changes, and the epochs at which it is called anew."""

    def __init__(
        self,
        network: Network,
        samples: Samples,
        objective: Objective,
        state: TrainingState,
        functions: Backend,
        epochs: int,
        report_every: int | None,
        shuffle: bool,
    ) -> None:
        self.network, self.samples, self.objective, self.state = network, samples, objective, state
        self.functions, self.epochs, self.report_every, self.shuffle = functions, epochs, report_every, shuffle
        self.update = Update(
            state.optimizer.kind,
            state.optimizer.settings,
            state.slots,
            state.powers,
            state.optimizer.rates(state.n_epochs, epochs),
        )
        self.progress = Progress(
            np.zeros(5, np.int64),
            np.zeros(contract.N_SUMS),
            np.zeros_like(network.parameter_buffer),
            np.zeros(epochs),
            np.zeros(epochs),
        )
        self.first_epoch = state.n_epochs
        self.reports: list[Report] = []
        self.parameters_at_report = network.parameters
        n_parameters, rows = network.n_parameters, min(objective.batch_size, contract.BLOCK_ROWS)
        # A guess to start with: blocks of a call at a slow 10^8 operations a second.
        self.n_blocks = max(1, int(_CALL_SECONDS * 1e8 / (6.0 * n_parameters * rows)))

    @property
    def epoch(self) -> int:
        """The number of whole epochs run."""
        return int(self.progress.cursor[contract.EPOCH])

    def history(self, stopped_by: str | None = None) -> History:
        """The history up to now."""
        done = slice(self.epoch)
        progress = self.progress
        return History(
            progress.loss_curve[done].copy(), progress.mean_absolute_error[done].copy(), self.reports, stopped_by
        )

    def to_the_end(self, callback: Callback | None, show_progress: bool) -> History:
        """Train until the epochs are run, or something stops it."""
        # Compilation, which Ctrl-C ends as it ends anything, is over before signals are held back.
        self._train(0)
        stopped_by = None
        with _held_interrupt() as interrupted, _progress_bar(self.epochs, show_progress) as advance:
            try:
                while self.epoch < self.epochs and stopped_by is None:
                    self._set_next_stop(every_epoch=callback is not None)
                    status = self._advance_to_stop(interrupted, advance)
                    if status == contract.NOT_FINITE:
                        raise self._diverged()
                    if status == contract.FINISHED:
                        self._report()
                        if callback is not None and callback(self.epoch - 1, self.history()):
                            stopped_by = "callback"
                    if interrupted.is_set():
                        stopped_by = "interrupt"
            finally:
                self._settle()
        if stopped_by == "interrupt":
            warnings.warn(
                f"training was interrupted after {self.epoch} of {self.epochs} epochs", RuntimeWarning, stacklevel=4
            )
        return self.history(stopped_by)

    def _train(self, n_blocks: int) -> int:
        return self.functions.train(
            self.network.layout,
            self.network.parameter_buffer,
            self.samples,
            self.objective,
            self.update,
            self.progress,
            n_blocks,
        )

    def _set_next_stop(self, every_epoch: bool) -> None:
        """Stop before an epoch that is reported, to keep its parameters, and after it."""
        epoch, stop = self.epoch, self.epochs
        if self.report_every is not None:
            since = epoch % self.report_every
            if since == 0:
                self.parameters_at_report = self.network.parameters
                stop = min(stop, epoch + 1)
            stop = min(stop, epoch - since + self.report_every)
        if every_epoch:
            stop = epoch + 1
        if self.shuffle:
            stop = min(stop, self._draw_order(stop))
        self.progress.cursor[contract.STOP_EPOCH] = stop

    def _draw_order(self, stop: int) -> int:
        """Draw the orders of the next epochs, and return the epoch up to which they reach."""
        n_samples = len(self.samples.x)
        stop = min(stop, self.epoch + max(1, _INDICES_AT_ONCE // n_samples))
        self.source_state = _get_state(self.state.source)
        order = np.empty((stop - self.epoch, n_samples), np.int64)
        for row in order:
            row[:] = self.state.source.permutation(n_samples)
        self.samples = self.samples._replace(order=order)
        self.progress.cursor[contract.FIRST_ORDERED_EPOCH] = self.epoch
        return stop

    def _advance_to_stop(self, interrupted: threading.Event, advance: Callable[[int], None]) -> int:
        """Call compiled code until the stop epoch; ``PAUSED`` after an interrupt."""
        while True:
            before, start = self.epoch, time.perf_counter()
            status = self._train(self.n_blocks)
            seconds = max(time.perf_counter() - start, 1e-6)
            advance(self.epoch - before)
            if status == contract.PAUSED:
                self.n_blocks = max(1, int(self.n_blocks * min(4.0, _CALL_SECONDS / seconds)))
            if status != contract.PAUSED or interrupted.is_set():
                return status

    def _report(self) -> None:
        epoch = self.epoch - 1
        if self.report_every is not None and epoch % self.report_every == 0:
            loss, error = self.progress.loss_curve[epoch], self.progress.mean_absolute_error[epoch]
            self.reports.append(Report(epoch, float(loss), float(error)))

    def _settle(self) -> None:
        """Leave the state as if the epochs that were run had been asked for."""
        self.state.n_epochs = self.first_epoch + self.epoch
        if self.shuffle:
            drawn_from = int(self.progress.cursor[contract.FIRST_ORDERED_EPOCH])
            used = self.epoch - drawn_from
            if used < len(self.samples.order):
                _set_state(self.state.source, self.source_state)
                for _ in range(used):
                    self.state.source.permutation(len(self.samples.x))

    def _diverged(self) -> DivergenceError:
        epoch = self.epoch
        self.progress.cursor[contract.EPOCH] = epoch + 1
        history = self.history("divergence")
        layer, in_parameters = self._first_layer_not_finite()
        what = "a parameter" if in_parameters and np.isfinite(history.loss_curve[epoch]) else "the loss"
        self.network.parameters = self.parameters_at_report
        self.network._training = None
        return DivergenceError(what, epoch, layer, history, self.parameters_at_report)

    def _first_layer_not_finite(self) -> tuple[int, bool]:
        """The layer, counted from 1, and whether it is a parameter's."""
        from fastnet.reference import activations, blas
        from fastnet.reference.network import layers

        network = layers(self.network.layout, self.network.parameter_buffer)
        for number, (weights, bias, _) in enumerate(network, 1):
            if not (np.isfinite(weights).all() and (bias is None or np.isfinite(bias).all())):
                return number, True
        a = self.samples.x
        with np.errstate(all="ignore"):
            for number, (weights, bias, activation) in enumerate(network, 1):
                a = activations.forward(activation, blas.affine(a, weights, bias), blas)
                if not np.isfinite(a).all():
                    return number, False
        return len(network), False


def _get_state(source: RandomSource) -> Any:
    return source.get_state() if isinstance(source, np.random.RandomState) else source.bit_generator.state


def _set_state(source: RandomSource, state: Any) -> None:
    if isinstance(source, np.random.RandomState):
        source.set_state(state)
    else:
        source.bit_generator.state = state


@contextmanager
def _held_interrupt() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of raising it, so that training stops between two calls; a second one raises."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Somebody else handles or ignores Ctrl-C.
        yield interrupted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress_bar(epochs: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A function that is told how many epochs have passed."""
    if not shown:
        yield lambda n_epochs: None
        return
    with _import_tqdm()(total=epochs, unit="epoch") as bar:
        yield bar.update


def _import_tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install fastnet[progress]") from error
    return tqdm


def predict(network: Network, X: ArrayLike, backend: str) -> NDArray[np.floating]:
    """The network's outputs; `fastnet.Network.predict` describes the arguments."""
    functions = load_backend(backend)
    x = check_inputs(network, X)
    out = np.empty((len(x), network.n_outputs), network.dtype)
    functions.forward(network.layout, network.parameter_buffer, x, out)
    return out


def fit_output_layer(network: Network, X: ArrayLike, y: ArrayLike, backend: str) -> None:
    """Solve for the last layer; `fastnet.Network.fit_output_layer` describes the arguments."""
    if network.activations[-1] != "identity":
        raise ValueError(
            f"fit_output_layer needs a network whose output_activation is 'identity'; got {network.activations[-1]!r}"
        )
    samples = check_samples(network, X, y, contract.SQUARED_ERROR, None)
    hidden = samples.x
    if network.n_layers > 1:
        below = network.layout[:-1]
        hidden = np.empty((len(samples.x), below[-1, contract.N_OUTPUTS]), network.dtype)
        load_backend(backend).forward(np.ascontiguousarray(below), network.parameter_buffer, samples.x, hidden)
    terms = hidden.astype(np.float64)
    if network.bias:
        terms = np.column_stack([terms, np.ones(len(terms))])
    targets = samples.y[:, : network.n_outputs].astype(np.float64)
    solution = np.linalg.lstsq(terms, targets, rcond=None)[0]
    network.weights[-1][...] = solution[: network.weights[-1].shape[0]]
    if network.bias:
        network.biases[-1][...] = solution[-1]
