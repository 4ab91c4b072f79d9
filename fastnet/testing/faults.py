"""Planted faults: exact backends in which one thing is wrong, to show that tests find it.

Each is the reference over private copies of its modules, one function of which is replaced; no file
and no module that others use is changed. A check that passes with one of these in place of the
kernels checks less than it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

import numpy as np

from fastnet import contract
from fastnet.backends import Backend
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.reference import activations, exact, network, optimizers
from fastnet.reference.exact import Array
from fastnet.testing.cases import Case


@dataclass(frozen=True)
class Fault:
    """A backend with one fault, and where it shows first.

    Attributes
    ----------
    name, description : str
        What is wrong.
    function : str
        The function of `fastnet.reference` in which it is.
    case : Case
        A training that shows it in epoch 0.
    batch : int
        The batch of that epoch, counted from 0, in which the training parts from a sound one.
    array : str
        The first array to part in that batch, as `fastnet.testing.comparison` names them; it is also what the
        fault is to be blamed on.
    backend : callable
        Returns the backend.

    Examples
    --------
    >>> fault = FAULTS["dropped_row"]
    >>> sound, faulty = fault.case.train("exact"), fault.case.train(fault.backend())
    >>> bool((sound["weights.0"] == faulty["weights.0"]).all())
    False
    """

    name: str
    description: str
    function: str
    case: Case
    batch: int
    array: str
    backend: Callable[[], Backend]


def variant(module: ModuleType, **replaced: Any) -> ModuleType:
    """A private copy of a module in which some names stand for something else.

    Examples
    --------
    >>> variant(exact, exp=np.exp).exp is np.exp, exact.exp is np.exp
    (True, False)
    """
    spec = find_spec(module.__name__)
    if spec is None or spec.loader is None:
        raise ValueError(f"module must be one that can be imported anew; got {module!r}")
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    vars(copy).update(replaced)
    return copy


def reference_backend(network: ModuleType = network, arithmetic: ModuleType = exact) -> Backend:
    """The backend of a variant of `fastnet.reference.network`, or over a variant of the exact arithmetic."""
    forward = partial(network.forward, arithmetic=arithmetic)
    return Backend(forward, partial(network.train, arithmetic=arithmetic), is_compiled=False)


def _flipped_sum() -> Backend:
    def back_projection(delta: Array, weights: Array) -> Array:
        return exact.back_projection(delta[..., ::-1], weights[..., ::-1])

    return reference_backend(arithmetic=variant(exact, back_projection=back_projection))


def _fused_multiply_add() -> Backend:
    def backward(activation: int, error: Array, z: Array, a: Array, arithmetic: ModuleType) -> Array:
        if activation == contract.SIGMOID:
            return error * exact.fma(-a, a, a)
        return activations.backward(activation, error, z, a, arithmetic)

    return reference_backend(variant(network, activations=variant(activations, backward=backward)))


def _libm_exp() -> Backend:
    def exp(x: Array) -> Array:
        # Not `np.exp`: where that is the C library's, its bits are nearly always those of the reference.
        return np.exp2(x * x.dtype.type(np.log2(np.e)))

    return reference_backend(arithmetic=variant(exact, exp=exp))


def _dropped_row() -> Backend:
    def add_shorter_block(
        layout: np.ndarray, parameters: Array, samples: Samples, objective: Objective, rows: np.ndarray, *others: Any
    ) -> tuple[float, float]:
        return network._add_block(layout, parameters, samples, objective, rows[:-1], *others)

    dropping = variant(network, _add_block=add_shorter_block)

    def train(
        layout: np.ndarray,
        parameters: Array,
        samples: Samples,
        objective: Objective,
        update: Update,
        progress: Progress,
        n_blocks: int,
    ) -> int:
        n_samples = len(samples.x)
        status = network.train(layout, parameters, samples, objective, update, progress, 0)
        for _ in range(n_blocks):
            first, row = progress.cursor[[contract.BATCH_START, contract.NEXT_ROW]].tolist()
            ends_ragged = first + objective.batch_size > n_samples and row + contract.BLOCK_ROWS >= n_samples
            block = dropping if ends_ragged else network
            status = block.train(layout, parameters, samples, objective, update, progress, 1)
            if status != contract.PAUSED:
                break
        return status

    return Backend(network.forward, train, is_compiled=False)


def _adam_step_count() -> Backend:
    def step(
        layout: np.ndarray,
        parameters: Array,
        gradient: Array,
        batch_weight: float,
        objective: Objective,
        update: Update,
        *others: Any,
    ) -> None:
        ahead = update
        if update.kind == contract.ADAM:
            # The powers that are kept stay right; those that the rate is computed from are one step ahead.
            update.powers[...] *= update.settings[[contract.ADAM_BETA_1, contract.ADAM_BETA_2]]
            ahead = update._replace(powers=update.powers.copy())
        optimizers.step(layout, parameters, gradient, batch_weight, objective, ahead, *others)

    return reference_backend(variant(network, optimizers=variant(optimizers, step=step)))


_CASE = Case((5, 8, 3), "sigmoid", "softmax", "cross_entropy", "adam", n_samples=23, batch_size=8)

#: The faults by name.
FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "flipped_sum",
            "the back-projection adds its terms from the last output to the first",
            "exact.back_projection",
            _CASE,
            0,
            "weight_gradient.0",
            _flipped_sum,
        ),
        Fault(
            "fused_multiply_add",
            "the slope a (1 - a) of hidden sigmoid units is computed as fma(-a, a, a), with one rounding for two",
            "activations.backward",
            _CASE,
            0,
            "weight_gradient.0",
            _fused_multiply_add,
        ),
        Fault(
            "libm_exp",
            "the exponential function, and so softmax, is a library's power of two",
            "exact.exp",
            _CASE,
            0,
            "outputs.1",
            _libm_exp,
        ),
        Fault(
            "dropped_row",
            "the last row of a ragged batch has no part in its loss and its gradient",
            "network.train",
            _CASE,
            2,
            "loss",
            _dropped_row,
        ),
        Fault(
            "adam_step_count",
            "the bias correction of Adam counts one step too many",
            "optimizers.step",
            _CASE,
            0,
            "weights.0",
            _adam_step_count,
        ),
    )
}
