"""What kernels on arrays refuse: by the argument's name, what is allowed, and what was given."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from fastnet import Network, contract, kernels
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.kernels import activations, linear, losses
from fastnet.kernels.checks import ArgumentError
from fastnet.reference import activations as reference_activations
from fastnet.reference import exact
from fastnet.reference import losses as reference_losses
from fastnet.reference import network as reference
from fastnet.reference import optimizers as reference_optimizers

NETWORK = Network([3, 2]).initialize(seed=0)
SIZE = NETWORK.parameter_buffer.size


def of(*shape: int) -> np.ndarray:
    return np.zeros(shape)


def refused(function: Callable[..., Any], arguments: tuple[Any, ...], error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        function(*arguments)
    return str(raised.value)


# --- sizes: the reference says the same ---

#: The reference's fma stretches arrays, as NumPy does.
SIZES = [
    (kernels.fma, None, (of(2), of(3), of(2)), "a, b and c must be of one shape; got (2,), (3,) and (2,)"),
    (kernels.matmul, exact.matmul, (of(2, 3), of(2, 3)), "b must have 3 rows, one for each column of a; got 2"),
    (
        kernels.affine,
        exact.affine,
        (of(2, 3), of(2, 3), None),
        "weights must have 3 rows, one for each column of x; got 2",
    ),
    (
        kernels.affine,
        exact.affine,
        (of(2, 3), of(3, 4), of(3)),
        "bias must have 4 elements, one for each column of weights; got 3",
    ),
    (
        kernels.back_projection,
        exact.back_projection,
        (of(2, 3), of(3, 4)),
        "weights must have 3 columns, one for each column of delta; got 4",
    ),
    (
        kernels.weight_gradient,
        exact.weight_gradient,
        (of(2, 3), of(4, 3)),
        "delta must have 2 rows, one for each row of x; got 4",
    ),
    (
        kernels.weighted_row_sum,
        exact.weighted_row_sum,
        (of(2, 3), of(3)),
        "weights must have 2 elements, one for each row of values; got 3",
    ),
    (kernels.multiply, exact.multiply, (of(2, 3), of(3, 2)), "a and b must be of one shape; got (2, 3) and (3, 2)"),
    (
        activations.forward,
        reference_activations.forward,
        (11, of(2, 3)),
        "activation must be a code from 0 to 10; got 11",
    ),
    (
        activations.backward,
        reference_activations.backward,
        (-1, of(2, 3), of(2, 3), of(2, 3)),
        "activation must be a code from 0 to 10; got -1",
    ),
    (
        activations.backward,
        reference_activations.backward,
        (0, of(2, 3), of(3, 2), of(2, 3)),
        "matrices must be of one shape; got (2, 3), (3, 2) and (2, 3)",
    ),
    (
        losses.loss,
        reference_losses.loss,
        (7, 0, 0.0, of(2, 3), of(2, 3), of(2, 3)),
        "loss must be a code from 0 to 6; got 7",
    ),
    (
        losses.delta,
        reference_losses.delta,
        (0, 0, 0.0, of(2, 3), of(2, 3), of(1, 3)),
        "matrices must be of one shape; got (2, 3), (2, 3) and (1, 3)",
    ),
]


@pytest.mark.parametrize(("kernel", "twin", "arguments", "message"), SIZES, ids=[case[3] for case in SIZES])
def test_sizes_that_do_not_fit(kernel: Any, twin: Any, arguments: tuple[Any, ...], message: str) -> None:
    assert refused(kernel, arguments, ValueError) == message
    if twin is not None:
        assert refused(twin, arguments, ValueError) == message


def records(**changes: Any) -> tuple[Any, ...]:
    """The arguments of `train` but the last, for 4 samples and 2 epochs, with other fields of its records."""
    cursor = np.zeros(contract.N_POSITIONS, np.int64)
    cursor[contract.STOP_EPOCH] = 2
    parameters = changes.pop("parameters", of(SIZE))
    given = (
        Samples(x=of(4, 3), y=of(4, 2), weight=np.ones(4), order=np.zeros((2, 4), np.int64)),
        Objective(contract.SQUARED_ERROR, 0.0, mean=True, l2=0.0, batch_size=4),
        Update(contract.SGD, settings=of(2), slots=of(0, SIZE), powers=np.ones(2), learning_rates=of(2)),
        Progress(cursor, of(contract.N_SUMS), gradient=of(SIZE), loss_curve=of(2), mean_absolute_error=of(2)),
    )
    changed = [
        record._replace(**{name: changes[name] for name in record._fields if name in changes}) for record in given
    ]
    return NETWORK.layout, parameters, *changed


def call_train(module: Any, **changes: Any) -> Any:
    return module.train(*records(**changes), 1)


def call_gradient(module: Any, out: Any = None, **changes: Any) -> Any:
    layout, parameters, samples, objective, *_ = records(**changes)
    return module.gradient(layout, parameters, samples, objective, of(SIZE) if out is None else out)


def call_forward(module: Any, out: Any = None, **changes: Any) -> Any:
    layout, parameters, samples, *_ = records(**changes)
    return module.forward(layout, parameters, samples.x, of(4, 2) if out is None else out)


def call_step(module: Any, **changes: Any) -> Any:
    layout, parameters, _, objective, update, progress = records(**changes)
    return module.step(layout, parameters, progress.gradient, 4.0, objective, update, 0.1)


RECORDS = [
    (call_forward, {"parameters": of(7)}, f"parameters must have {SIZE} elements, as layout says; got 7"),
    (call_forward, {"x": of(4, 2)}, "x must have 3 columns, one for each input of the network; got shape (4, 2)"),
    (
        call_forward,
        {"out": of(3, 2)},
        "out must have shape (4, 2), a row for each row of x and a column for each output; got (3, 2)",
    ),
    (call_gradient, {"out": of(7)}, f"out must have {SIZE} elements, as parameters; got 7"),
    (call_step, {"parameters": of(7)}, f"parameters must have {SIZE} elements, as layout says; got 7"),
    (call_step, {"gradient": of(7)}, f"gradient must have {SIZE} elements, as layout says; got 7"),
    (call_step, {"kind": 4}, "update.kind must be a code from 0 to 3; got 4"),
    (
        call_step,
        {"kind": contract.RMSPROP},
        "update.settings must have 3 elements, those of the optimizer; got 2",
    ),
    (
        call_step,
        {"kind": contract.ADAM, "settings": of(4), "slots": of(1, SIZE)},
        (
            f"update.slots must have at least 2 rows, those of the optimizer, and {SIZE} columns, as layout says; "
            f"got shape (1, {SIZE})"
        ),
    ),
    (call_step, {"powers": of(1)}, "update.powers must have 2 elements; got 1"),
    (
        call_train,
        {"x": of(4, 2)},
        "samples.x must have 3 columns, one for each input of the network; got shape (4, 2)",
    ),
    (
        call_train,
        {"y": of(4, 8)},
        "samples.y must have shape (4, 2), a row for each row of samples.x and a column for each output; got (4, 8)",
    ),
    (call_gradient, {"weight": of(3)}, "samples.weight must have 4 elements, one for each row of samples.x; got 3"),
    (
        call_train,
        {"order": np.zeros((2, 3), np.int64)},
        "samples.order must have 4 columns, one for each row of samples.x; got shape (2, 3)",
    ),
    (
        call_train,
        {"order": np.array([[0, 1, 2, 3], [3, 4, 1, 0]])},
        "samples.order must hold numbers of rows of samples.x, from 0 to 3; got 4",
    ),
    (
        call_train,
        {"order": np.zeros((1, 4), np.int64)},
        (
            "samples.order must have a row for each epoch from the cursor's first ordered one, 0, to the stop epoch, "
            "2; got shape (1, 4)"
        ),
    ),
    (
        call_train,
        {"slots": of(0, 7)},
        (
            f"update.slots must have at least 0 rows, those of the optimizer, and {SIZE} columns, as layout says; "
            "got shape (0, 7)"
        ),
    ),
    (call_train, {"cursor": np.zeros(3, np.int64)}, "progress.cursor must have 5 elements; got 3"),
    (call_train, {"sums": of(3)}, "progress.sums must have 4 elements; got 3"),
    (call_train, {"gradient": of(7)}, f"progress.gradient must have {SIZE} elements, as layout says; got 7"),
    (
        call_train,
        {"learning_rates": of(1)},
        (
            "progress.loss_curve, progress.mean_absolute_error and update.learning_rates must have 2 elements, one for "
            "each epoch up to the stop epoch; got 2, 2 and 1"
        ),
    ),
    (call_train, {"batch_size": 0}, "objective.batch_size must be at least 1; got 0"),
]


@pytest.mark.parametrize(("call", "changes", "message"), RECORDS, ids=[case[2] for case in RECORDS])
def test_records_that_do_not_fit(call: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    assert refused(lambda: call(kernels, **changes), (), ValueError) == message
    twin = reference_optimizers if call is call_step else reference
    assert refused(lambda: call(twin, **changes), (), ValueError) == message


def test_what_fits_is_not_refused() -> None:
    for call in (call_forward, call_gradient, call_step, call_train):
        call(kernels)


# --- types: when a kernel, or what calls it, is compiled ---

SMALL = np.zeros((2, 2), np.float16)
READ_ONLY = of(SIZE)
READ_ONLY.flags.writeable = False
TYPES = [
    (linear.matmul, ([[1.0]], of(1, 1)), "a must be a matrix of float32 or float64; got a list"),
    (
        linear.matmul,
        (SMALL, SMALL),
        "a must be a matrix of float32 or float64; got a C-contiguous array of float16 with 2 axes",
    ),
    (
        linear.matmul,
        (of(2), of(2, 2)),
        "a must be a matrix of float32 or float64; got a C-contiguous array of float64 with 1 axis",
    ),
    (
        linear.matmul,
        (of(2, 2), of(2, 2).astype(np.float32)),
        "b must be a matrix of float64; got a C-contiguous array of float32 with 2 axes",
    ),
    (linear.affine, (of(2, 2), of(2, 2), 3.0), "bias must be a vector of float64; got float64"),
    (linear.transpose, (None,), "a must be a matrix of float32 or float64; got none"),
    (
        kernels.fma,
        (of(2), of(2, 2), of(2)),
        "b must be a vector of float64; got a C-contiguous array of float64 with 2 axes",
    ),
    (kernels.fma, (of(1, 1, 1), 1.0, 1.0), "b must be an array of 3 axes of float64; got float64"),
]


@pytest.mark.parametrize(("kernel", "arguments", "message"), TYPES, ids=[case[2] for case in TYPES])
def test_types_that_do_not_fit(kernel: Any, arguments: tuple[Any, ...], message: str) -> None:
    assert refused(kernel, arguments, TypeError) == message


RECORDS_OF_TYPES = [
    (
        call_forward,
        {"x": np.asfortranarray(of(4, 3))},
        "x must be a C-contiguous matrix of float64; got an array of float64 with 2 axes",
    ),
    (
        call_gradient,
        {"out": READ_ONLY},
        (
            "out must be a writable C-contiguous vector of float64; got a read-only C-contiguous array of "
            "float64 with 1 axis"
        ),
    ),
    (
        call_gradient,
        {"y": of(4)},
        "samples.y must be a C-contiguous matrix of float64; got a C-contiguous array of float64 with 1 axis",
    ),
    (
        call_train,
        {"order": of(2, 4)},
        "samples.order must be a C-contiguous matrix of int64; got a C-contiguous array of float64 with 2 axes",
    ),
]


@pytest.mark.parametrize(("call", "changes", "message"), RECORDS_OF_TYPES, ids=[case[2] for case in RECORDS_OF_TYPES])
def test_records_of_types_that_do_not_fit(call: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    assert refused(lambda: call(kernels, **changes), (), TypeError) == message


# --- in jitted code ---


def test_callers_raise_what_kernels_do() -> None:
    """Also where the caller has already called it with what fits, and where it goes on."""

    @numba.njit
    def product(a, b):
        return kernels.matmul(a, b)

    assert product(of(2, 3), of(3, 2)).shape == (2, 2)
    for rows in (2, 10**12):
        b = np.broadcast_to(of(1, 1), (rows, 1))
        message = f"b must have 3 rows, one for each column of a; got {rows}"
        for _ in range(3):
            assert refused(product, (of(2, 3), b), ValueError) == message
    assert product(of(2, 3), of(3, 2)).shape == (2, 2)
    assert refused(product, (of(2, 3), of(3)), TypeError).startswith("b must be a matrix of float64; got ")


def test_errors_can_be_handed_on() -> None:
    error = ArgumentError("b must have {} rows; got {}", 3, 2)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "b must have 3 rows; got 2"
