"""Two trainings side by side, batch by batch, until they part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import contract
from fastnet.backends import Backend, load_backend
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.layout import parameter_views
from fastnet.network import Network
from fastnet.testing.difference import Difference, first_difference
from fastnet.testing.ulp import NAN, ulp_distance
from fastnet.testing.ulp import max_ulp as largest_distance
from fastnet.validation import check_integer

Array: TypeAlias = NDArray[np.floating]
#: The updated weights and biases of a batch: ``step(weights, biases, X_batch, y_batch)``.
Step: TypeAlias = Callable[[list[Array], list[Array], Array, Array], tuple[Sequence[ArrayLike], Sequence[ArrayLike]]]
Trainer: TypeAlias = str | Backend | Step

#: Where a fault is to be looked for if this is the first kind of array to part.
_SUSPECTS = {
    "outputs": "the affine map or the activation of that layer",
    "loss": "the loss, its sum over the batch, or which rows that takes",
    "absolute_error": "the sum of the absolute errors",
    "weight_gradient": "the deltas of that layer (the derivative of the loss in the last layer, else the "
    "back-projection from the layer above or the slope of the activation), or their sum over the batch",
    "bias_gradient": "the sum of the deltas over the batch",
    "powers": "the optimizer's step count",
    "weights_slots": "the optimizer's state, or what reaches it: scale, penalty",
    "biases_slots": "the optimizer's state, or what reaches it: scale",
    "weights": "the optimizer's update: its learning rate, its step",
    "biases": "the optimizer's update: its learning rate, its step",
    "not_finite": "the test whether numbers are finite",
}


@dataclass(frozen=True)
class Comparison:
    """What `compare` has found.

    Attributes
    ----------
    a, b : str
        What was compared.
    n_steps : int
        How many updates were run on both sides.
    max_ulp : int
        The distance that was allowed.
    epoch, batch : int or None
        Where they parted, counted from 0 since the comparison began.
    difference : Difference or None
        The first element of the first array that parted there.
    equal_arrays, parted_arrays : tuple of str
        The arrays compared in that step, in the order in which they are computed.
    ulp : tuple of int
        The largest distance of two parameters after that step, and after each of the steps that followed.
    jump_ulp : int
        From here on a distance is called a jump.
    """

    a: str
    b: str
    n_steps: int
    max_ulp: int
    epoch: int | None = None
    batch: int | None = None
    difference: Difference | None = None
    equal_arrays: tuple[str, ...] = ()
    parted_arrays: tuple[str, ...] = ()
    ulp: tuple[int, ...] = ()
    jump_ulp: int = 1 << 26

    @property
    def equal(self) -> bool:
        """Whether they never parted."""
        return self.difference is None

    @property
    def course(self) -> str:
        """How the parameters part: "jump", "growth", or "none" if they stay as near as they were at first.

        A jump is a first distance that takes half of the significand's bits: a rounding moves a
        parameter by a few units, a wrong term by a share of the update.
        """
        if not self.ulp or self.ulp[-1] <= self.ulp[0] < self.jump_ulp:
            return "none"
        return "jump" if self.ulp[0] >= self.jump_ulp else "growth"

    def raise_for_difference(self) -> None:
        """Raise an `AssertionError` that says where they parted, if they did."""
        __tracebackhide__ = True
        if not self.equal:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        allowed = f" within {self.max_ulp} ULP" if self.max_ulp else ""
        if self.difference is None:
            return f"{self.a} and {self.b} are equal{allowed} in all of {self.n_steps} steps"
        kind = self.difference.name.partition(".")[0]
        lines = [
            f"{self.a} parts from {self.b} in epoch {self.epoch}, batch {self.batch} (both counted from 0)",
            f"first in: {self.difference}",
            f"parted in that step: {', '.join(self.parted_arrays)}",
            f"still equal{allowed}: {', '.join(self.equal_arrays) or 'nothing'}",
        ]
        if "loss" in (*self.equal_arrays, *self.parted_arrays):
            lines.append(f"look at: {_SUSPECTS[kind]}")
        distances = ", ".join("NaN" if distance == NAN else str(distance) for distance in self.ulp)
        lines.append(f"ULP between the parameters, step by step from there: {distances} ({self.course})")
        return "\n".join(lines)


def compare(
    a: Trainer,
    b: Trainer,
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    *,
    max_ulp: int = 0,
    steps_after: int = 10,
    **settings: Any,
) -> Comparison:
    """Train a network in two ways, batch by batch, and say where they first part.

    Parameters
    ----------
    a, b : str, Backend or callable
        What is judged, and what by. A name or a `fastnet.backends.Backend` as in `fastnet.Network.fit`; or a
        step of your own, called as ``step(weights, biases, X_batch, y_batch)`` for every update. It gets lists
        of arrays, which it may change, and returns the new weights and biases, of the same dtypes and shapes. The
        learning rate and the like it has from elsewhere, and it may keep a state.
    network : Network
        Where both begin; it stays as it is.
    X, y : array-like
        As for `fastnet.Network.fit`.
    max_ulp : int
        The distance allowed. With 0, everything that is known of a step has to have the same bits. With
        more, parameters and losses are judged only: gradients near zero are far apart in ULP for good reasons.
    steps_after : int
        How many steps to go on after they parted, to see whether the distance grows.
    **settings
        The other keyword arguments of `fastnet.Network.fit`, but for ``backend``, ``callback``, ``progress``
        and ``report_every``.

    Returns
    -------
    Comparison
        It can be printed, and `Comparison.raise_for_difference` makes it a test.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above, or a step returns something else.

    Notes
    -----
    Of a backend, these are compared for every batch, in the order in which they are computed: the outputs of each layer
    (looked at once something has parted), the sum of the losses so far in the epoch, of the absolute errors, the
    gradients from the last layer to the first, the optimizer's state, the parameters.

    Examples
    --------
    >>> import fastnet
    >>> network = fastnet.Network([2, 1]).initialize(seed=0)
    >>> X, y = [[0.0, 1.0], [1.0, 1.0]], [1.0, 2.0]
    >>> print(compare("numba", "exact", network, X, y, epochs=3, batch_size=1))
    numba and exact are equal in all of 6 steps
    """
    allowed = check_integer("max_ulp", max_ulp, 0)
    check_integer("steps_after", steps_after, 0)
    refused = settings.keys() & {"backend", "callback", "progress", "report_every"}
    if refused:
        raise TypeError(f"settings must be those of one training; got {', '.join(sorted(refused))}")
    if settings.get("sample_weight") is not None and not all(isinstance(side, str | Backend) for side in (a, b)):
        raise ValueError("sample_weight must be None where a step function is compared; it could not know of them")
    # A generator would go on from where this comparison leaves it.
    settings = {"epochs": 1, **settings, "seed": deepcopy(settings.get("seed"))}
    lockstep = _Lockstep((a, b), allowed, steps_after)
    with suppress(_OverError):
        network.copy().fit(X, y, **settings, backend=Backend(lockstep.forward, lockstep.train, is_compiled=False))
    return lockstep.result()


class _OverError(Exception):
    """Nothing is left to compare."""


class _Lockstep:
    """Takes the place of a backend in a fit, whose records it hands to both sides."""

    def __init__(self, trainers: tuple[Trainer, Trainer], allowed: int, steps_after: int) -> None:
        self.trainers = [side if callable(side) else load_backend(side) for side in trainers]
        self.labels = [_label(side, name) for side, name in zip(trainers, "ab", strict=True)]
        self.allowed, self.steps_after = allowed, steps_after
        self.sides: list[_BackendSide | _StepSide] = []
        self.epoch = self.n_steps = 0
        self.parting: dict[str, Any] = {}
        self.ulp: list[int] = []
        self.jump_ulp = 0

    def forward(self, *arguments: Any) -> Any:
        """Unused: a fit calls it where training diverges, which is seen here first."""
        raise NotImplementedError

    def train(
        self,
        layout: NDArray[np.int64],
        parameters: Array,
        samples: Samples,
        objective: Objective,
        update: Update,
        progress: Progress,
        n_blocks: int,
    ) -> int:
        """Train both sides up to the stop epoch; the fit's own parameters stay as they are."""
        if n_blocks == 0:
            return contract.PAUSED
        if not self.sides:
            self.jump_ulp = 1 << np.finfo(parameters.dtype).nmant // 2
            self.sides = [_side(trainer, layout, parameters, update) for trainer in self.trainers]
        cursor, n_samples = progress.cursor, len(samples.x)
        while cursor[contract.EPOCH] < cursor[contract.STOP_EPOCH]:
            epoch, ordered = int(cursor[contract.EPOCH]), int(cursor[contract.FIRST_ORDERED_EPOCH])
            of_epoch = samples._replace(order=samples.order[epoch - ordered : epoch - ordered + 1])
            for side in self.sides:
                side.begin_epoch(of_epoch, objective, update.learning_rates[epoch : epoch + 1])
            for batch, low in enumerate(range(0, n_samples, objective.batch_size)):
                self._step(batch, low, min(low + objective.batch_size, n_samples))
            cursor[contract.EPOCH] += 1
            self.epoch += 1
        return contract.FINISHED

    def _step(self, batch: int, low: int, high: int) -> None:
        before = [side.parameters.copy() for side in self.sides]
        not_finite = [side.step(low, high) for side in self.sides]
        self.n_steps += 1
        if not self.parting:
            left, right = self._judged([side.arrays() for side in self.sides])
            if first_difference(left, right) is not None:
                outputs = [side.outputs(start, low, high) for side, start in zip(self.sides, before, strict=True)]
                first, second = self._judged(outputs)
                left, right = first | left, second | right
                apart = [name for name in right if first_difference({name: left[name]}, {name: right[name]})]
                self.parting = {
                    "epoch": self.epoch,
                    "batch": batch,
                    "difference": first_difference(left, right),
                    "equal_arrays": tuple(name for name in right if name not in apart),
                    "parted_arrays": tuple(apart),
                }
        if self.parting:
            self.ulp.append(max(map(largest_distance, *(side.flat() for side in self.sides))))
        if any(not_finite) or len(self.ulp) > self.steps_after:
            raise _OverError

    def _judged(self, arrays: list[dict[str, Array]]) -> tuple[dict[str, Array], dict[str, Array]]:
        """What is known of both sides; elements that are as near as allowed are made equal."""
        left, right = arrays
        names = [name for name in right if name in left]
        if self.allowed == 0:
            return {name: left[name] for name in names}, {name: right[name] for name in names}
        names = [name for name in names if name.startswith(("loss", "weights.", "biases.", "not_finite"))]
        near = {name: ulp_distance(left[name], right[name]) <= self.allowed for name in names}
        return (
            {name: np.where(near[name], right[name], left[name]) for name in names},
            {name: right[name] for name in names},
        )

    def result(self) -> Comparison:
        a, b = self.labels
        return Comparison(a, b, self.n_steps, self.allowed, **self.parting, ulp=tuple(self.ulp), jump_ulp=self.jump_ulp)


def _label(side: Trainer, name: str) -> str:
    if isinstance(side, str):
        return side
    return f"backend {name}" if isinstance(side, Backend) else getattr(side, "__name__", f"step {name}")


def _side(
    trainer: Backend | Step, layout: NDArray[np.int64], parameters: Array, update: Update
) -> _BackendSide | _StepSide:
    if isinstance(trainer, Backend):
        return _BackendSide(trainer, layout, parameters.copy(), update)
    return _StepSide(trainer, layout, parameters.copy())


class _BackendSide:
    """A backend, and the records that it trains."""

    def __init__(self, functions: Backend, layout: NDArray[np.int64], parameters: Array, update: Update) -> None:
        self.functions, self.layout, self.parameters = functions, layout, parameters
        self.slots, self.powers, self.update = update.slots.copy(), update.powers.copy(), update

    def begin_epoch(self, samples: Samples, objective: Objective, learning_rate: NDArray[np.float64]) -> None:
        self.samples, self.objective = samples, objective
        self.update = self.update._replace(slots=self.slots, powers=self.powers, learning_rates=learning_rate)
        cursor = np.zeros(5, np.int64)
        cursor[contract.STOP_EPOCH] = 1
        gradient = np.zeros_like(self.parameters)
        self.progress = Progress(cursor, np.zeros(contract.N_SUMS), gradient, np.zeros(1), np.zeros(1))

    def step(self, low: int, high: int) -> bool:
        """Train on a batch; whether some number is not finite then."""
        n_blocks = -(-(high - low) // contract.BLOCK_ROWS)
        self.status = self.functions.train(
            self.layout, self.parameters, self.samples, self.objective, self.update, self.progress, n_blocks
        )
        return self.status == contract.NOT_FINITE

    def arrays(self) -> dict[str, Array]:
        """What is known after a batch, in the order in which it is computed."""
        progress = self.progress
        # At the end of an epoch the sums have become entries of the curves.
        loss, error = progress.sums[[contract.LOSS_SUM, contract.ERROR_SUM], None]
        if self.status != contract.PAUSED:
            loss, error = progress.loss_curve, progress.mean_absolute_error
        gradient = _named(progress.gradient, self.layout, "weight_gradient", "bias_gradient")
        return {
            "loss": loss.copy(),
            "absolute_error": error.copy(),
            **dict(sorted(gradient.items(), key=lambda item: -int(item[0].rpartition(".")[2]))),
            "powers": self.powers,
            **_named(self.slots, self.layout, "weights_slots", "biases_slots"),
            **_parameters(self.parameters, self.layout),
            "not_finite": np.array([float(self.status == contract.NOT_FINITE)]),
        }

    def outputs(self, parameters: Array, low: int, high: int) -> dict[str, Array]:
        """The outputs of each layer for a batch."""
        x = _rows(self.samples, low, high)[0]
        outputs = {}
        for layer, row in enumerate(self.layout):
            out = np.empty((len(x), row[contract.N_OUTPUTS]), x.dtype)
            outputs[f"outputs.{layer}"] = self.functions.forward(self.layout[: layer + 1], parameters, x, out)
        return outputs

    def flat(self) -> Iterable[Array]:
        return _parameters(self.parameters, self.layout).values()


class _StepSide:
    """A step function, and the parameters that it trains."""

    def __init__(self, function: Step, layout: NDArray[np.int64], parameters: Array) -> None:
        self.function, self.layout, self.parameters = function, layout, parameters
        self.weights, self.biases = parameter_views(parameters, layout)

    def begin_epoch(self, samples: Samples, objective: Objective, learning_rate: NDArray[np.float64]) -> None:
        self.samples = samples

    def step(self, low: int, high: int) -> bool:
        """Train on a batch; whether some parameter is not finite then."""
        x, y = _rows(self.samples, low, high)
        n_outputs = self.layout[-1, contract.N_OUTPUTS]
        changed: Any = self.function(
            [array.copy() for array in self.weights], [array.copy() for array in self.biases], x, y[:, :n_outputs]
        )
        if not (isinstance(changed, tuple) and len(changed) == 2):
            raise TypeError(f"a step must return (weights, biases); got {changed!r}")
        for name, targets, values in zip(("weights", "biases"), (self.weights, self.biases), changed, strict=True):
            arrays = [np.asarray(value) for value in values]
            wanted = [(target.dtype, target.shape) for target in targets]
            got = [(array.dtype, array.shape) for array in arrays]
            if got != wanted:
                raise ValueError(f"a step must return {name} of dtypes and shapes {wanted}; got {got}")
            for target, array in zip(targets, arrays, strict=True):
                target[...] = array
        return not all(np.isfinite(array).all() for array in chain(self.weights, self.biases))

    def arrays(self) -> dict[str, Array]:
        return _parameters(self.parameters, self.layout)

    def outputs(self, parameters: Array, low: int, high: int) -> dict[str, Array]:
        return {}

    def flat(self) -> Iterable[Array]:
        return self.arrays().values()


def _rows(samples: Samples, low: int, high: int) -> tuple[Array, Array]:
    rows = samples.order[0, low:high] if len(samples.order) else np.arange(low, high)
    return samples.x[rows], samples.y[rows]


def _named(buffer: Array, layout: NDArray[np.int64], weights: str, biases: str) -> dict[str, Array]:
    """The arrays in a buffer, for each layer the weights', then the biases'."""
    names: dict[str, Array] = {}
    views = parameter_views(buffer, layout)
    for layer in range(len(layout)):
        for name, arrays in zip((weights, biases), views, strict=True):
            if arrays:
                names[f"{name}.{layer}"] = arrays[layer]
    return names


def _parameters(buffer: Array, layout: NDArray[np.int64]) -> dict[str, Array]:
    return _named(buffer, layout, "weights", "biases")
