"""What the records of a training have to be: sizes that fit together, for pointers would lead past the ends."""

from __future__ import annotations

from fastnet.contract import (
    EPOCH,
    FIRST_ORDERED_EPOCH,
    LEAST_SLOTS,
    N_INPUTS,
    N_OUTPUTS,
    N_POSITIONS,
    N_SETTINGS,
    N_SUMS,
    RPROP,
    STOP_EPOCH,
)
from fastnet.kernels.checks import (
    check_float64,
    check_int64,
    check_plain,
    check_plain_writable,
    check_writable_float64,
    check_writable_int64,
    require,
)
from fastnet.kernels.jit import jit_inline
from fastnet.kernels.memory import least
from fastnet.kernels.products import layout_size


@jit_inline
def check_parameters(layout, parameters):
    """Refuse a buffer that is smaller than the layout, which is trusted, has it."""
    check_int64("layout", layout, 2, None)
    check_plain("parameters", parameters, 1, None)
    size = layout_size(layout)
    require(
        parameters.size >= size, "parameters must have {} elements, as layout says; got {}", (size, parameters.size)
    )


@jit_inline
def check_samples(layout, parameters, samples):
    """Refuse samples of other sizes than the network has, and orders of other rows than there are."""
    check_parameters(layout, parameters)
    x, y, weight, order = samples.x, samples.y, samples.weight, samples.order
    check_plain("samples.x", x, 2, parameters)
    check_plain("samples.y", y, 2, parameters)
    check_plain("samples.weight", weight, 1, parameters)
    check_int64("samples.order", order, 2, None)
    n_samples, n_inputs, n_outputs = x.shape[0], layout[0, N_INPUTS], layout[layout.shape[0] - 1, N_OUTPUTS]
    require(
        x.shape[1] == n_inputs,
        "samples.x must have {} columns, one for each input of the network; got shape {}",
        (n_inputs, x.shape),
    )
    require(
        y.shape == (n_samples, n_outputs),
        "samples.y must have shape {}, a row for each row of samples.x and a column for each output; got {}",
        ((n_samples, n_outputs), y.shape),
    )
    require(
        weight.size == n_samples,
        "samples.weight must have {} elements, one for each row of samples.x; got {}",
        (n_samples, weight.size),
    )
    require(
        order.shape[1] == n_samples,
        "samples.order must have {} columns, one for each row of samples.x; got shape {}",
        (n_samples, order.shape),
    )
    for epoch in range(order.shape[0]):
        for column in range(n_samples):
            row = order[epoch, column]
            require(
                row >= 0 and row < n_samples,
                "samples.order must hold numbers of rows of samples.x, from 0 to {}; got {}",
                (n_samples - 1, row),
            )


@jit_inline
def check_update(update, parameters, size):
    """Refuse an optimizer whose arrays are not of the sizes that it needs."""
    kind, settings, slots, powers = update.kind, update.settings, update.slots, update.powers
    check_float64("update.settings", settings, 1, None)
    check_plain_writable("update.slots", slots, 2, parameters)
    check_writable_float64("update.powers", powers, 1, None)
    require(kind >= 0 and kind <= RPROP, "update.kind must be a code from 0 to {}; got {}", (RPROP, kind))
    n_settings, least_slots = N_SETTINGS[kind], LEAST_SLOTS[kind]
    require(
        settings.size == n_settings,
        "update.settings must have {} elements, those of the optimizer; got {}",
        (n_settings, settings.size),
    )
    require(
        slots.shape[0] >= least_slots and slots.shape[1] == size,
        "update.slots must have at least {} rows, those of the optimizer, and {} columns, as layout says; got shape {}",
        (least_slots, size, slots.shape),
    )
    require(powers.size == 2, "update.powers must have 2 elements; got {}", (powers.size,))


@jit_inline
def check_records(layout, parameters, order, objective, update, progress):
    """Refuse records of other sizes than the layout and the epochs have."""
    cursor, sums, gradient = progress.cursor, progress.sums, progress.gradient
    losses, errors, rates = progress.loss_curve, progress.mean_absolute_error, update.learning_rates
    check_plain_writable("parameters", parameters, 1, None)
    check_writable_int64("progress.cursor", cursor, 1, None)
    check_writable_float64("progress.sums", sums, 1, None)
    check_plain_writable("progress.gradient", gradient, 1, parameters)
    check_writable_float64("progress.loss_curve", losses, 1, None)
    check_writable_float64("progress.mean_absolute_error", errors, 1, None)
    check_float64("update.learning_rates", rates, 1, None)
    size, batch_size = layout_size(layout), objective.batch_size
    check_update(update, parameters, size)
    require(cursor.size == N_POSITIONS, "progress.cursor must have {} elements; got {}", (N_POSITIONS, cursor.size))
    require(sums.size == N_SUMS, "progress.sums must have {} elements; got {}", (N_SUMS, sums.size))
    require(
        gradient.size == size, "progress.gradient must have {} elements, as layout says; got {}", (size, gradient.size)
    )
    n_epochs, first = cursor[STOP_EPOCH], cursor[FIRST_ORDERED_EPOCH]
    require(
        order.shape[0] == 0 or (first <= cursor[EPOCH] and n_epochs - first <= order.shape[0]),
        "samples.order must have a row for each epoch from the cursor's first ordered one, {}, to the stop epoch, {}; "
        "got shape {}",
        (first, n_epochs, order.shape),
    )
    require(
        least(least(losses.size, errors.size), rates.size) >= n_epochs,
        "progress.loss_curve, progress.mean_absolute_error and update.learning_rates must have {} elements, one for "
        "each epoch up to the stop epoch; got {}, {} and {}",
        (n_epochs, losses.size, errors.size, rates.size),
    )
    require(batch_size >= 1, "objective.batch_size must be at least 1; got {}", (batch_size,))
