"""What the records of a training have to be, as the kernels have it."""

from __future__ import annotations

import numpy as np

from fastnet import contract
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.reference import exact
from fastnet.reference.exact import Array


def layout_size(layout: np.ndarray) -> int:
    """The size of the buffers that a layout describes."""
    last = layout[-1]
    end = last[contract.WEIGHTS] + last[contract.N_INPUTS] * last[contract.STRIDE]
    return int(max(end, last[contract.BIAS] + last[contract.STRIDE]))


def check_parameters(layout: np.ndarray, parameters: Array) -> None:
    """Refuse a buffer that is smaller than the layout, which is trusted, has it."""
    size, n_elements = layout_size(layout), parameters.shape[-1]
    if n_elements < size:
        raise ValueError(f"parameters must have {size} elements, as layout says; got {n_elements}")


def check_samples(layout: np.ndarray, parameters: Array, samples: Samples) -> None:
    """Refuse samples of other sizes than the network has, and orders of other rows than there are."""
    check_parameters(layout, parameters)
    x, y, weight, order = samples
    for name in ("x", "y", "weight"):
        exact.check_dtype(f"samples.{name}", getattr(samples, name), parameters.dtype)
    n_samples, n_inputs = len(x), layout[0, contract.N_INPUTS]
    desired = n_samples, int(layout[-1, contract.N_OUTPUTS])
    if x.shape[1] != n_inputs:
        raise ValueError(
            f"samples.x must have {n_inputs} columns, one for each input of the network; got shape {x.shape}"
        )
    if y.shape != desired:
        raise ValueError(
            f"samples.y must have shape {desired}, a row for each row of samples.x and a column for each output; "
            f"got {y.shape}"
        )
    if weight.size != n_samples:
        raise ValueError(
            f"samples.weight must have {n_samples} elements, one for each row of samples.x; got {weight.size}"
        )
    if order.shape[1] != n_samples:
        raise ValueError(
            f"samples.order must have {n_samples} columns, one for each row of samples.x; got shape {order.shape}"
        )
    outside = order[(order < 0) | (order >= n_samples)]
    if outside.size:
        raise ValueError(
            f"samples.order must hold numbers of rows of samples.x, from 0 to {n_samples - 1}; got {outside[0]}"
        )


def check_update(update: Update, parameters: Array, size: int) -> None:
    """Refuse an optimizer whose arrays are not of the sizes that it needs."""
    kind, settings, slots, powers, _ = update
    exact.check_dtype("update.slots", slots, parameters.dtype)
    if not contract.SGD <= kind <= contract.RPROP:
        raise ValueError(f"update.kind must be a code from 0 to {contract.RPROP}; got {kind}")
    n_settings, least_slots, shape = contract.N_SETTINGS[kind], contract.LEAST_SLOTS[kind], slots.shape[-2:]
    if settings.size != n_settings:
        raise ValueError(
            f"update.settings must have {n_settings} elements, those of the optimizer; got {settings.size}"
        )
    if shape[0] < least_slots or shape[1] != size:
        raise ValueError(
            f"update.slots must have at least {least_slots} rows, those of the optimizer, and {size} columns, as "
            f"layout says; got shape {shape}"
        )
    if powers.size != 2:
        raise ValueError(f"update.powers must have 2 elements; got {powers.size}")


def check_records(
    layout: np.ndarray, parameters: Array, order: np.ndarray, objective: Objective, update: Update, progress: Progress
) -> None:
    """Refuse records of other sizes than the layout and the epochs have."""
    cursor, sums, gradient, *_ = progress
    size = layout_size(layout)
    check_update(update, parameters, size)
    if cursor.size != contract.N_POSITIONS:
        raise ValueError(f"progress.cursor must have {contract.N_POSITIONS} elements; got {cursor.size}")
    if len(sums) != contract.N_SUMS:
        raise ValueError(f"progress.sums must have {contract.N_SUMS} elements; got {len(sums)}")
    if gradient.shape[-1] != size:
        raise ValueError(f"progress.gradient must have {size} elements, as layout says; got {gradient.shape[-1]}")
    n_epochs, first = cursor[contract.STOP_EPOCH], cursor[contract.FIRST_ORDERED_EPOCH]
    if len(order) and (first > cursor[contract.EPOCH] or n_epochs - first > len(order)):
        raise ValueError(
            f"samples.order must have a row for each epoch from the cursor's first ordered one, {first}, to the stop "
            f"epoch, {n_epochs}; got shape {order.shape}"
        )
    curves = (progress.loss_curve, progress.mean_absolute_error, update.learning_rates)
    if min(map(len, curves)) < n_epochs:
        raise ValueError(
            f"progress.loss_curve, progress.mean_absolute_error and update.learning_rates must have {n_epochs} "
            "elements, one for each epoch up to the stop epoch; got {}, {} and {}".format(*map(len, curves))
        )
    if objective.batch_size < 1:
        raise ValueError(f"objective.batch_size must be at least 1; got {objective.batch_size}")
