"""Training on a backend: batches, reports, interruption."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.backends import Backend, load_backend
from fastnet.contract import Execution, Objective, Progress, Samples, Update
from fastnet.history import DivergenceError, History
from fastnet.interruption import HeldInterrupt
from fastnet.layout import aligned_zeros, filled
from fastnet.losses import Huber, Quantile, get_loss
from fastnet.network import Network
from fastnet.optimizers import Optimizer, get_optimizer
from fastnet.orders import OrderSource
from fastnet.prediction import hidden_outputs
from fastnet.samples import check_samples
from fastnet.threads import check_threads
from fastnet.validation import (
    RandomSource,
    all_finite,
    check_boolean,
    check_choice,
    check_integer,
    check_number,
    check_random_source,
    check_seed,
)

REDUCTIONS = ("sum", "mean")

#: Seconds that a call of compiled code should take: Ctrl-C is looked for between calls.
_CALL_SECONDS = 0.04
#: Operations a second that compiled code reaches on any CPU.
_LEAST_SPEED = 1e8
#: What it reached in the last call, by layout, dtype and batch, and how many of these are remembered.
_speeds: dict[Any, float] = {}
_MOST_SPEEDS = 256
#: Row indices of shuffled epochs that are drawn at a time.
_INDICES_AT_ONCE = 1 << 20
#: Epochs for which there is room at first, and whose learning rates are computed at a time.
_EPOCHS_AT_ONCE = 1 << 16

Callback = Callable[[int, History], Any]


@dataclass
class TrainingState:
    """What a network remembers between fits: it goes on when the next one has the same settings."""

    optimizer: Optimizer
    slots: NDArray[np.floating]
    powers: NDArray[np.float64]
    n_epochs: int
    seed: int | RandomSource | None
    #: Where orders are drawn from; None before a first shuffled fit.
    source: RandomSource | None

    @classmethod
    def for_fit(
        cls, network: Network, optimizer: Optimizer, seed: int | RandomSource | None, shuffle: bool
    ) -> TrainingState:
        """The state with which a fit begins: that of the last one, as far as the settings are the same."""
        check_seed("seed", seed)
        state: TrainingState | None = network._training
        if state is None or state.optimizer != optimizer:
            slots = optimizer.initial_slots(network.parameter_buffer.size, network.dtype)
            state = cls(optimizer, slots, filled(2, 1.0, np.float64), 0, seed, None)
        elif not (state.seed is seed or state.seed == seed):
            state = replace(state, seed=seed, source=None)
        if shuffle and state.source is None:
            # Not without need: to seed a generator takes as long as 2000 epochs of a small network.
            state = replace(state, source=check_random_source("seed", seed))
        return state


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
    specialize: bool | str,
    backend: str | Backend,
) -> History:
    """Train a network in place; `fastnet.Network.fit` describes the arguments."""
    loss_code, parameter = get_loss(loss)
    optimizer = get_optimizer(optimizer)
    epochs = check_integer("epochs", epochs, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    shuffle = check_boolean("shuffle", shuffle)
    progress = check_boolean("progress", progress)
    l2 = check_number("l2", l2, low=0.0)
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, 1)
    if report_every is not None:
        report_every = check_integer("report_every", report_every, 1)
    threads = check_threads(threads)
    if isinstance(specialize, (bool, np.bool_)):
        specialize = bool(specialize)
    else:
        check_choice("specialize", specialize, ("auto",), "True or False")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r} of type {type(callback).__name__}")
    if progress:
        _import_tqdm()
    functions = load_backend(backend)
    samples = check_samples(network, X, y, loss_code, sample_weight, functions.all_finite)
    n_samples = len(samples.x)
    batch_size = n_samples if batch_size is None else min(batch_size, n_samples)
    objective = Objective(loss_code, parameter, reduction == "mean", l2, batch_size)
    _check_parameters(network)
    state = TrainingState.for_fit(network, optimizer, seed, shuffle)
    execution = Execution(threads, specialize, epochs, shuffle)
    # Compilation, which Ctrl-C ends as it ends anything, is over before signals are held back.
    run = _Run(network, samples, objective, state, functions, execution, report_every)
    network._training = state
    return run.to_the_end(callback, progress)


class _Run:
    """One fit: the records that `train` changes, and the epochs at which it is called anew.

    Training goes from stop to stop. Between two stops lie as many whole epochs as take about
    `_CALL_SECONDS`, in one call of the backend; of an epoch that takes longer, a part in each call.
    """

    def __init__(
        self,
        network: Network,
        samples: Samples,
        objective: Objective,
        state: TrainingState,
        functions: Backend,
        execution: Execution,
        report_every: int | None,
    ) -> None:
        self.network, self.samples, self.objective, self.state = network, samples, objective, state
        self.functions, self.report_every = functions, report_every
        self.epochs, self.order_source = execution.n_epochs, None
        if execution.ordered and state.source is not None:
            self.order_source = OrderSource(state.source, functions.draw_orders)
        n_samples, batch_size = len(samples.x), objective.batch_size
        layout, parameters = network.layout, network.parameter_buffer
        self.n_batches = -(-n_samples // batch_size)
        self.blocks_per_epoch = n_samples // batch_size * _n_blocks(batch_size) + _n_blocks(n_samples % batch_size)
        # The first call is sized by the speed of the last fit like this, or by a low guess; the next ones by its time.
        self.blocks_per_call = 1
        self.work_per_block = 6 * parameters.size * min(batch_size, contract.BLOCK_ROWS)
        if functions.is_compiled:
            self.key = (layout.tobytes(), parameters.dtype, batch_size)
            speed = _speeds.get(self.key, _LEAST_SPEED)
            self.blocks_per_call = max(1, int(_CALL_SECONDS * speed / self.work_per_block))
        self.epochs_before = state.n_epochs
        self.buffer_at_report, self.parameters_epoch = parameters.copy(), 0
        #: Losses and mean absolute errors of the epochs, with room for more of them.
        self.curves = np.empty((2, min(self.epochs, _EPOCHS_AT_ONCE)))
        self.sums = np.zeros(contract.N_SUMS)
        self.gradient = aligned_zeros(parameters.size, parameters.dtype)
        self._begin_span(0)
        self._train = functions.train
        if functions.trainer is None:
            self.train(0)
        else:
            records = (samples, objective, self.update, self.progress)
            self._train = functions.trainer(execution, layout, parameters, *records)

    def _begin_span(self, epoch: int) -> None:
        """Make the records for the next epochs: cursor, learning rates and curves count from this one."""
        if epoch == self.curves.shape[1]:
            room = np.empty((2, min(self.epochs - epoch, epoch)))
            self.curves = np.concatenate([self.curves, room], axis=1)
        self.span_first = epoch
        self.span_end = min(self.curves.shape[1], epoch + _EPOCHS_AT_ONCE)
        losses, errors = self.curves[0, epoch : self.span_end], self.curves[1, epoch : self.span_end]
        self.progress = Progress(np.zeros(contract.N_POSITIONS, np.int64), self.sums, self.gradient, losses, errors)
        optimizer = self.state.optimizer
        rates = optimizer.rates(self.epochs_before + epoch, self.span_end - epoch)
        self.update = Update(optimizer.kind, optimizer.settings, self.state.slots, self.state.powers, rates)

    @property
    def epoch(self) -> int:
        """The number of whole epochs run."""
        return self.span_first + int(self.progress.cursor[contract.EPOCH])

    def to_the_end(self, callback: Callback | None, show_progress: bool) -> History:
        """Train until the epochs are run, or something stops it."""
        stopped_by = None
        with HeldInterrupt() as interrupt, _progress_bar(self.epochs, show_progress) as bar:
            while (epoch := self.epoch) < self.epochs and stopped_by is None:
                is_reported = self.report_every is not None and epoch % self.report_every == 0
                parameters = self.network.parameter_buffer.copy() if is_reported else None
                status = self._train_to(self._next_stop(epoch, every_epoch=callback is not None), epoch, interrupt)
                if bar is not None:
                    bar.update(self.epoch - epoch)
                if parameters is not None and isfinite(self.curves[0, epoch]):
                    self.buffer_at_report, self.parameters_epoch = parameters, epoch
                if status == contract.NOT_FINITE:
                    raise self._diverged()
                if status == contract.FINISHED and callback is not None:
                    so_far = self._history(self.curves[:, : self.epoch])
                    # What has been is not changed any more; this saves a copy of it in every epoch.
                    so_far.loss_curve.flags.writeable = so_far.mean_absolute_error.flags.writeable = False
                    if callback(self.epoch - 1, so_far):
                        stopped_by = "callback"
                if interrupt.is_noted():
                    stopped_by = "interrupt"
        if stopped_by == "interrupt":
            warnings.warn(
                f"training was interrupted after {self.epoch} of {self.epochs} epochs", RuntimeWarning, stacklevel=4
            )
        # A callback may have kept views of them.
        is_shared = callback is not None or self.epoch < self.curves.shape[1]
        return self._history(self.curves[:, : self.epoch].copy() if is_shared else self.curves, stopped_by)

    def train(self, n_blocks: int) -> int:
        """Call the backend's `train` for at most ``n_blocks`` blocks."""
        layout, parameters = self.network.layout, self.network.parameter_buffer
        return self._train(layout, parameters, self.samples, self.objective, self.update, self.progress, n_blocks)

    def _next_stop(self, epoch: int, every_epoch: bool) -> int:
        """The epoch up to which to train; before one that is reported there is a stop, to keep its parameters."""
        n_epochs = 1 if every_epoch else max(1, self.blocks_per_call // self.blocks_per_epoch)
        if self.report_every is not None:
            since = epoch % self.report_every
            n_epochs = min(n_epochs, self.report_every - since)
        if self.order_source is not None:
            n_epochs = min(n_epochs, max(1, _INDICES_AT_ONCE // len(self.samples.x)))
        return min(self.epochs, epoch + n_epochs)

    def _train_to(self, stop: int, first: int, interrupt: HeldInterrupt) -> int:
        """Train from an epoch to a stop; epochs that an interrupt or an exception has cut off are undone."""
        start = time.perf_counter()
        if first == self.span_end:
            self._begin_span(first)
        stop = min(stop, self.span_end)
        n_left = (stop - first) * self.blocks_per_epoch
        source = self.order_source
        random_state = source.state() if source is not None else None
        # Compiled code that stops within a full batch, or only after whole epochs, has nothing to undo.
        has_parts = n_left > self.blocks_per_call and self.n_batches > 1
        changed = (self.network.parameter_buffer, self.state.slots, self.state.powers)
        before = [array.copy() for array in changed] if has_parts or not self.functions.is_compiled else None
        self.progress.cursor[contract.STOP_EPOCH] = stop - self.span_first
        status = contract.PAUSED
        try:
            if source is not None:
                self._draw_orders(source, stop)
            while status == contract.PAUSED and not interrupt.is_noted():
                n_blocks = min(self.blocks_per_call, n_left)
                status = self.train(n_blocks)
                n_left -= n_blocks
                now = time.perf_counter()
                taken = max(now - start, 1e-9)
                fitting = n_blocks * _CALL_SECONDS / taken
                if self.functions.is_compiled and (status == contract.PAUSED or n_left == 0):
                    _note_speed(self.key, n_blocks * self.work_per_block / taken)
                self.blocks_per_call, start = max(1, int(min(4 * self.blocks_per_call, fitting))), now
        finally:
            if status == contract.PAUSED and before is not None:
                self.progress.cursor[contract.EPOCH] = first - self.span_first
                for array, values in zip(changed, before, strict=True):
                    array[...] = values
            if status != contract.FINISHED and source is not None:
                # One that diverged has taken its order.
                n_taken = self.epoch - first + (status == contract.NOT_FINITE)
                source.rewind(random_state, n_taken, len(self.samples.x))
            self.state.n_epochs = self.epochs_before + self.epoch
        return status

    def _draw_orders(self, source: OrderSource, stop: int) -> None:
        """Draw the orders of the epochs up to ``stop``."""
        n_epochs, n_samples = stop - self.epoch, len(self.samples.x)
        if len(self.samples.order) != n_epochs:
            self.samples = self.samples._replace(order=np.empty((n_epochs, n_samples), np.int64))
        source.fill(self.samples.order)
        self.progress.cursor[contract.FIRST_ORDERED_EPOCH] = self.progress.cursor[contract.EPOCH]

    def _history(self, curves: NDArray[np.float64], stopped_by: str | None = None) -> History:
        return History(curves[0], curves[1], self.report_every, stopped_by)

    def _diverged(self) -> DivergenceError:
        history = self._history(self.curves[:, : self.epoch + 1].copy(), "divergence")
        layer, in_parameters = self._first_layer_not_finite()
        what = "a parameter" if in_parameters and isfinite(history.loss_curve[-1]) else "the loss"
        epoch = self.epoch
        self.network.parameter_buffer[:] = self.buffer_at_report
        self.network._training = None
        return DivergenceError(what, epoch, layer, history, self.network.parameters, self.parameters_epoch)

    def _first_layer_not_finite(self) -> tuple[int, bool]:
        """The layer, counted from 1, and whether it is a parameter's."""
        layer = _layer_with_bad_parameters(self.network)
        if layer is not None:
            return layer, True
        # A batch whose loss is not finite is the last one that was begun.
        _, first, end, _, first_ordered = self.progress.cursor.tolist()
        rows: Any = slice(first, end)
        if self.order_source is not None:
            rows = self.samples.order[self.epoch - self.span_first - first_ordered, first:end]
        x = self.samples.x[rows]
        for n_layers in range(1, self.network.n_layers + 1):
            if not all_finite(hidden_outputs(self.network, n_layers, x, self.functions)):
                return n_layers, False
        return self.network.n_layers, False


def _note_speed(key: Any, speed: float) -> None:
    if len(_speeds) >= _MOST_SPEEDS and key not in _speeds:
        _speeds.clear()
    _speeds[key] = speed


def _n_blocks(batch_size: int) -> int:
    return -(-batch_size // contract.BLOCK_ROWS)


def _check_parameters(network: Network) -> None:
    """Nothing comes of training a network that is not finite; its views can be set to anything."""
    layer = _layer_with_bad_parameters(network)
    if layer is not None:
        raise ValueError(f"the network's parameters must be finite to be trained; some of layer {layer} are not")


def _layer_with_bad_parameters(network: Network) -> int | None:
    if all_finite(network.parameter_buffer):
        return None
    for index, weights in enumerate(network.weights):
        if not (all_finite(weights) and (not network.bias or all_finite(network.biases[index]))):
            return index + 1
    return None


def _progress_bar(epochs: int, shown: bool) -> AbstractContextManager[Any]:
    """A bar of the epochs, or None if there is to be none."""
    return _import_tqdm()(total=epochs, unit="epoch") if shown else nullcontext()


def _import_tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm (or fastnet[all])") from error
    return tqdm
