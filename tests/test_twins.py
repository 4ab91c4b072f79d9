"""Every public function of the reference and of the kernels has a twin: one name, one signature, the same bits.

The walk follows the modules' ``__all__``; a function that only one side lists, or that neither lists nor `HELPERS`
explains, fails.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import fastnet
from fastnet import contract, kernels, reference
from fastnet.contract import Objective, Progress, Samples, Update
from fastnet.kernels import arithmetic, linear
from fastnet.layout import buffer_size, make_layout, parameter_views
from fastnet.reference import blas, exact
from fastnet.testing.cases import edge_values
from tests.support import assert_same_bits, bit_patterns

Array = NDArray[np.floating]

DTYPES = ["float32", "float64"]


def module(package: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{package.__name__}.{name}")


#: Modules of the reference, and the modules of the kernels that have their functions.
PAIRS: dict[str, tuple[ModuleType, list[ModuleType]]] = {
    "exact": (exact, [arithmetic, linear]),
    "blas": (blas, [arithmetic, linear]),
} | {
    name: (module(reference, name), [module(kernels, name)])
    for name in ("activations", "losses", "optimizers", "network")
}

#: Modules of the kernels that hold no functions on arrays: what the others are built of.
BUILDING_BLOCKS = {"cache", "compiler", "formulas", "jit", "memory", "packing", "plans", "products", "regions", "simd"}
BUILDING_BLOCKS |= {"pace", "small", "spans", "team", "threads", "tiles", "tracing", "trainers", "workspace"}

#: Public functions and classes that have no twin, and why.
HELPERS = {
    "fastnet.reference.exact": {
        "check_dtypes": "Numba knows the dtypes when it compiles",
        "check_shapes": "NumPy stretches arrays; shapes that differ are refused in the kernels where planes are made",
    },
    "fastnet.reference.network": {
        "layers": "views into a buffer, where the kernels read the layout as they go",
    },
    "fastnet.reference.optimizers": {
        "layout_size": "bounds the buffers that functions on arrays take",
    },
    "fastnet.kernels.activations": {
        "forward_rows": "on pointers: a layer's outputs, for the training loop",
        "backward_rows": "on pointers: a layer's deltas, for the training loop",
        "softmax_backward_row": "on pointers: for the training loop and for backward",
        "clear_rest": "on pointers: writes zeros beyond rows",
        "join_padded": "copies matrices to where rows are whole vectors",
    },
    "fastnet.kernels.losses": {
        "case_of": "tells the formulas which loss and output activation belong together",
        "Output": "on pointers: the planes of an output layer",
        "SampleRows": "on pointers: samples in an order",
        "output_rows": "on pointers: losses and deltas, for the training loop",
        "sum_rows": "on pointers: the sums of the losses, for the training loop",
    },
    "fastnet.kernels.optimizers": {
        "State": "on pointers: an optimizer",
        "state_of": "makes a State",
        "scale_of": "the factor of a batch's gradient",
        "rate_of": "the rate of a step",
        "count_step": "on pointers: the state that is not a parameter's",
        "step_span": "on pointers: the step of the training loop",
    },
    "fastnet.kernels.network": {
        "forward_finite": "forward, and whether what comes out is finite, in one call",
        "finite": "what `fastnet.validation.all_finite` is to NumPy",
        "train_member": "train, as one of several threads",
    },
}


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The Python function under a jitted one."""
    return getattr(function, "py_func", function)


def functions(modules: list[ModuleType]) -> dict[str, Callable[..., Any]]:
    """The listed functions of some modules, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for one in modules:
        for name in one.__all__:
            assert name not in found, f"{name} is listed twice"
            found[name] = getattr(one, name)
    return found


def signature(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults of the parameters, but for the reference's last one, which names the arithmetic."""
    parameters = [(p.name, p.kind, p.default) for p in inspect.signature(plain(function)).parameters.values()]
    if parameters[-1][0] == "arithmetic":
        *parameters, (_, kind, default) = parameters
        assert (kind, default) == (inspect.Parameter.POSITIONAL_OR_KEYWORD, exact)
    return parameters


# --- names and signatures ---


def test_every_module_is_walked() -> None:
    names = {info.name for info in pkgutil.iter_modules(reference.__path__)}
    assert names == set(PAIRS)
    names = {info.name for info in pkgutil.iter_modules(kernels.__path__)}
    twins = {one.__name__.rpartition(".")[2] for _, modules in PAIRS.values() for one in modules}
    assert names == twins | BUILDING_BLOCKS


@pytest.mark.parametrize("name", PAIRS)
def test_names_and_signatures(name: str) -> None:
    of_reference, of_kernels = (functions(modules) for modules in ([PAIRS[name][0]], PAIRS[name][1]))
    assert sorted(of_reference) == sorted(of_kernels)
    for function in of_reference:
        assert signature(of_reference[function]) == signature(of_kernels[function]), function


@pytest.mark.parametrize("one", {one.__name__: one for pair in PAIRS.values() for one in (pair[0], *pair[1])}.values())
def test_what_is_public_is_listed(one: ModuleType) -> None:
    """In ``__all__`` if it has a twin, else in `HELPERS`; and nothing is in `HELPERS` that is gone."""
    public = {
        name
        for name, value in vars(one).items()
        if not name.startswith("_") and callable(value) and getattr(plain(value), "__module__", None) == one.__name__
    }
    helpers = set(HELPERS.get(one.__name__, {}))
    assert not helpers & set(one.__all__)
    assert public == helpers | set(one.__all__)


def test_kernels_offer_what_they_list() -> None:
    """`fastnet.kernels` has the functions on arrays, but for two modules whose names would clash."""
    listed = functions([arithmetic, linear, kernels.network, kernels.optimizers])
    assert sorted(kernels.__all__) == sorted(listed)
    for name, function in listed.items():
        assert getattr(kernels, name) is function


# --- the same results ---


class Call(NamedTuple):
    """Arguments of a function, and the positions of those that it may change."""

    arguments: tuple[Any, ...]
    changes: tuple[int, ...] = ()


def matrix(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def unary_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    yield Call((np.concatenate([edge_values(dtype), bit_patterns(dtype, 1000, seed=0)]),))
    yield Call((matrix(rng, dtype, 3, 5, 7),))
    yield Call((np.empty((0, 3), dtype),))


def fma_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    yield Call(tuple(bit_patterns(dtype, 1000, seed) for seed in range(3)))
    yield Call(tuple(matrix(rng, dtype, 3, 7) for _ in range(3)))


#: Rows, terms and columns: nothing to sum, less than a vector, whole vectors, more than a block of rows, and as many as
#: are packed before they are multiplied.
SHAPES = [(0, 3, 2), (2, 0, 3), (1, 1, 1), (3, 5, 4), (7, 16, 32), (5, 300, 17), (33, 9, 40), (199, 300, 40)]


def matmul_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for n, k, m in SHAPES:
        yield Call((matrix(rng, dtype, n, k), matrix(rng, dtype, k, m)))
    # What overflows or is not a number, and results below the normal numbers.
    yield Call((edge_values(dtype).reshape(4, -1), edge_values(dtype).reshape(-1, 4)))


def affine_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for call in matmul_calls(dtype, rng):
        yield Call((*call.arguments, None))
        yield Call((*call.arguments, matrix(rng, dtype, call.arguments[1].shape[1])))


def back_projection_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for call in matmul_calls(dtype, rng):
        yield Call((call.arguments[0], call.arguments[1].T.copy()))


def weight_gradient_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for call in matmul_calls(dtype, rng):
        yield Call((call.arguments[0].T.copy(), call.arguments[1]))


def bias_gradient_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for n, m in ((0, 2), (1, 1), (5, 17), (2 * contract.BLOCK_ROWS + 3, 3)):
        yield Call((matrix(rng, dtype, n, m),))
    yield Call((edge_values(dtype).reshape(-1, 4),))


def weighted_row_sum_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for (values,), _ in bias_gradient_calls(dtype, rng):
        yield Call((values, matrix(rng, dtype, len(values))))


def multiply_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    yield Call((edge_values(dtype).reshape(4, -1), edge_values(dtype)[::-1].reshape(4, -1).copy()))
    yield Call((matrix(rng, dtype, 3, 17), matrix(rng, dtype, 3, 17)))


def activation_calls(dtype: str, rng: np.random.Generator, n_matrices: int = 1) -> Iterator[Call]:
    """Every activation, on numbers of ordinary size, on edge values, on signed zeros; one unit, some, many."""
    for activation in range(len(contract.ACTIVATIONS)):
        for shape in ((1, 1), (4, 3), (3, 21)):
            yield Call((activation, *(5 * matrix(rng, dtype, *shape) for _ in range(n_matrices))))
        edges = edge_values(dtype)
        yield Call((activation, *(rng.permutation(edges).reshape(4, -1) for _ in range(n_matrices))))
        zeros = np.array([[0.0, -0.0], [-0.0, -0.0], [0.0, 0.0]], dtype)
        yield Call((activation, zeros, *[np.full_like(zeros, 0.5)] * (n_matrices - 1)))


def softmax_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for arguments, _ in activation_calls(dtype, rng):
        yield Call(arguments[1:])


def loss_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    for loss in range(len(contract.LOSSES)):
        for activation in (contract.IDENTITY, contract.SIGMOID, contract.SOFTMAX, contract.EXPONENTIAL):
            for arguments, _ in activation_calls(dtype, rng, 3):
                if arguments[0] == activation:
                    yield Call((loss, activation, 0.3, *arguments[1:]))


# A layer of each width: less than a vector, more, and softmax at the end.
SIZES, ACTIVATIONS = (3, 5, 17, 2), ["tanh", "gelu", "softmax"]


def buffers(dtype: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], Array, Samples]:
    """A layout, parameters and samples, more than a block of them."""
    layout = make_layout(SIZES, ACTIVATIONS, True, np.dtype(dtype))
    n_samples = contract.BLOCK_ROWS + 4
    y = np.zeros((n_samples, layout[-1, contract.STRIDE]), dtype)
    y[np.arange(n_samples), rng.integers(0, 2, n_samples)] = 1
    weight = rng.uniform(0.5, 2, n_samples).astype(dtype)
    order = np.stack([rng.permutation(n_samples) for _ in range(2)])
    return layout, filled(layout, dtype, rng), Samples(matrix(rng, dtype, n_samples, 3), y, weight, order)


def filled(layout: NDArray[np.int64], dtype: str, rng: np.random.Generator) -> Array:
    """A buffer with random numbers where a network has some, and zeros between."""
    buffer = np.zeros(buffer_size(layout), dtype)
    for views in parameter_views(buffer, layout):
        for part in views:
            part[...] = matrix(rng, dtype, *part.shape)
    return buffer


OBJECTIVE = Objective(contract.CROSS_ENTROPY, 0.0, True, 0.01, 100)


def update_of(optimizer: fastnet.optimizers.Optimizer, size: int, dtype: str) -> Update:
    slots = optimizer.initial_slots(size, np.dtype(dtype))
    return Update(optimizer.kind, optimizer.settings, slots, np.ones(2), optimizer.rates(0, 2))


def forward_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    layout, parameters, samples = buffers(dtype, rng)
    yield Call((layout, parameters, samples.x, np.empty((len(samples.x), SIZES[-1]), dtype)), changes=(3,))


def gradient_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    layout, parameters, samples = buffers(dtype, rng)
    yield Call((layout, parameters, samples, OBJECTIVE, np.zeros_like(parameters)), changes=(4,))


def step_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    layout, parameters, _ = buffers(dtype, rng)
    for optimizer in (
        fastnet.SGD(0.1),
        fastnet.SGD(0.1, momentum=0.9, nesterov=True),
        fastnet.AdamW(0.1),
        fastnet.RMSprop(0.1),
        fastnet.RMSprop(0.1, momentum=0.5),
        fastnet.Rprop(0.1),
    ):
        update = update_of(optimizer, parameters.size, dtype)
        arguments = (layout, parameters, filled(layout, dtype, rng), 3.5, OBJECTIVE, update, 0.1)
        yield Call(arguments, changes=(1, 5))


def train_calls(dtype: str, rng: np.random.Generator) -> Iterator[Call]:
    layout, parameters, samples = buffers(dtype, rng)
    update = update_of(fastnet.Adam(0.01), parameters.size, dtype)
    for n_blocks in (2, 100):
        progress = Progress(
            np.array([0, 0, 0, 2, 0]), np.zeros(contract.N_SUMS), np.zeros_like(parameters), np.zeros(2), np.zeros(2)
        )
        yield Call((layout, parameters, samples, OBJECTIVE, update, progress, n_blocks), changes=(1, 4, 5))


UNARY = ("exp", "expm1", "flush", "log", "normal_cdf", "normal_density", "sigmoid", "softplus", "tanh")
#: What every function is called with.
CALLS: dict[str, Callable[[str, np.random.Generator], Iterator[Call]]] = {
    **{f"exact.{name}": unary_calls for name in UNARY},
    "exact.fma": fma_calls,
    "exact.affine": affine_calls,
    "exact.back_projection": back_projection_calls,
    "exact.bias_gradient": bias_gradient_calls,
    "exact.matmul": matmul_calls,
    "exact.multiply": multiply_calls,
    "exact.sum_in_order": bias_gradient_calls,
    "exact.transpose": bias_gradient_calls,
    "exact.weight_gradient": weight_gradient_calls,
    "exact.weighted_row_sum": weighted_row_sum_calls,
    "activations.forward": activation_calls,
    "activations.backward": lambda dtype, rng: activation_calls(dtype, rng, 3),
    "activations.log_softmax": softmax_calls,
    "losses.loss": loss_calls,
    "losses.delta": loss_calls,
    "network.forward": forward_calls,
    "network.gradient": gradient_calls,
    "network.train": train_calls,
    "optimizers.step": step_calls,
}


def test_every_function_is_called() -> None:
    exact_pairs = {name: pair for name, pair in PAIRS.items() if name != "blas"}
    assert sorted(CALLS) == sorted(
        f"{name}.{function}" for name, (one, _) in exact_pairs.items() for function in one.__all__
    )


def twins(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The kernel and the reference's function."""
    place, _, function = name.partition(".")
    return functions(PAIRS[place][1])[function], functions([PAIRS[place][0]])[function]


def arrays(value: Any) -> Iterator[NDArray[np.generic]]:
    """All arrays in an argument or a result, which may be a record; numbers count as arrays."""
    if isinstance(value, tuple):
        for part in value:
            yield from arrays(part)
    elif value is not None:
        yield np.asarray(value)


def assert_same(actual: Any, desired: Any, what: str) -> None:
    for one, other in zip(arrays(actual), arrays(desired), strict=True):
        assert_same_bits(one, other, what)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits(dtype: str, name: str) -> None:
    """Results, dtypes, and what is changed in place; everything else stays as it was."""
    kernel, twin = twins(name)
    for number, call in enumerate(CALLS[name](dtype, np.random.default_rng(1))):
        what = f"call {number}"
        mine, yours = copy.deepcopy(call.arguments), copy.deepcopy(call.arguments)
        with np.errstate(all="ignore"):
            assert_same(kernel(*mine), twin(*yours), what)
        for position, original in enumerate(call.arguments):
            assert_same(mine[position], yours[position], f"{what}, argument {position}")
            if position not in call.changes:
                assert_same(mine[position], original, f"{what}, argument {position}")


def laid_out(number: int, array: Any) -> Any:
    """The numbers of an array in another memory layout, in turn: Fortran's order, read-only, every second row."""
    if not isinstance(array, np.ndarray):
        return array
    match number % 3:
        case 0:
            return np.asfortranarray(array)
        case 1:
            array = array.copy()
            array.flags.writeable = False
            return array
        case _:
            return np.repeat(array, 2, axis=0)[::2]


@pytest.mark.parametrize(
    "name", [name for name in CALLS if name.partition(".")[0] in {"exact", "activations", "losses"}]
)
def test_memory_layout_does_not_matter(name: str) -> None:
    """Functions on arrays take views of any kind; networks, whose loops follow pointers, ask for contiguous arrays."""
    kernel, twin = twins(name)
    for call in CALLS[name]("float64", np.random.default_rng(2)):
        n_numbers = sum(not isinstance(value, np.ndarray) for value in call.arguments)
        arguments = [laid_out(position - n_numbers, value) for position, value in enumerate(call.arguments)]
        with np.errstate(all="ignore"):
            assert_same(kernel(*arguments), twin(*call.arguments), name)
            assert_same(twin(*arguments), twin(*call.arguments), name)


# --- the same refusals ---

#: Shapes that do not fit; sizes of 1 are what NumPy would stretch.
MISFITS: dict[str, list[tuple[Any, ...]]] = {
    "exact.fma": [((2, 3), (3, 2), (2, 3)), ((4,), (4,), (3,))],
    "exact.matmul": [((2, 3), (4, 2)), ((2, 1), (4, 2)), ((2, 4), (1, 2))],
    "exact.affine": [((2, 3), (4, 2), (2,)), ((2, 1), (4, 2), None), ((2, 4), (4, 3), (2,)), ((2, 4), (4, 3), (1,))],
    "exact.back_projection": [((2, 3), (2, 4)), ((2, 1), (2, 4))],
    "exact.weight_gradient": [((3, 2), (4, 2)), ((1, 2), (4, 2)), ((256, 2), (300, 2)), ((300, 2), (256, 2))],
    "exact.weighted_row_sum": [((3, 2), (4,)), ((3, 2), (1,)), ((1, 2), (3,))],
    "exact.multiply": [((2, 3), (3, 2)), ((2, 3), (2, 1)), ((1, 3), (2, 3))],
    "activations.backward": [(3, (2, 3), (2, 2), (2, 3)), (3, (2, 3), (2, 3), (1, 3)), (3, (1, 3), (2, 3), (2, 3))],
    "losses.loss": [(0, 0, 0.0, (2, 3), (2, 3), (2, 1)), (0, 0, 0.0, (2, 3), (1, 3), (2, 3))],
    "losses.delta": [(0, 0, 0.0, (2, 3), (2, 3), (2, 1)), (1, 1, 0.0, (2, 3), (2, 3), (1, 3))],
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    for misfit in MISFITS[name]:
        arguments = [np.ones(part) if isinstance(part, tuple) else part for part in misfit]
        for function in twins(name):
            with pytest.raises(ValueError, match=r"shape|size|rows|element"):
                function(*arguments)


@pytest.mark.parametrize(
    ("name", "position", "codes"),
    [
        ("activations.forward", 0, (-1, len(contract.ACTIVATIONS))),
        ("activations.backward", 0, (-1, len(contract.ACTIVATIONS))),
        ("losses.loss", 0, (-1, len(contract.LOSSES))),
        ("losses.delta", 0, (-1, len(contract.LOSSES))),
    ],
)
def test_unknown_codes_are_refused(name: str, position: int, codes: tuple[int, int]) -> None:
    call = next(CALLS[name]("float64", np.random.default_rng(3)))
    for code in codes:
        arguments = [*call.arguments]
        arguments[position] = code
        for function in twins(name):
            with pytest.raises(ValueError, match="must be a code from 0"):
                function(*arguments)


def test_step_refuses_buffers_of_other_sizes() -> None:
    """And changes nothing then."""
    layout, parameters, gradient, *rest = next(step_calls("float64", np.random.default_rng(4))).arguments
    for wrong in (
        (parameters[:-8], gradient[:-8]),
        (parameters, gradient[:-8]),
        (parameters, np.append(gradient, 0.0)),
    ):
        copies = [part.copy() for part in wrong]
        for function in twins("optimizers.step"):
            with pytest.raises(ValueError, match="size of the layout"):
                function(layout, *copies, *rest)
        assert_same(tuple(copies), wrong, "refused")


def training_arguments() -> tuple[Any, ...]:
    """Arguments of `train` that fit together."""
    layout, parameters, samples, objective, update, progress, n_blocks = next(
        CALLS["network.train"]("float64", np.random.default_rng(5))
    ).arguments
    return layout, parameters, samples, objective, update, progress, n_blocks


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (2, {"x": np.ones((9, 99))}),
        (2, {"y": np.ones((1, 8))}),
        (2, {"weight": np.ones(1)}),
        (2, {"order": np.zeros((1, 1), np.int64)}),
        (3, {"batch_size": 0}),
        (4, {"slots": np.zeros((0, 8))}),
        (4, {"learning_rates": np.zeros(0)}),
        (5, {"gradient": np.zeros(8)}),
        (5, {"loss_curve": np.zeros(0)}),
    ],
)
def test_train_refuses_records_that_do_not_fit(record: int, changes: dict[str, Any]) -> None:
    """Before it writes anything: kernels have no bounds but these."""
    arguments = list(training_arguments())
    before = arguments[1].copy()
    arguments[record] = arguments[record]._replace(**changes)
    for function in twins("network.train"):
        with pytest.raises(ValueError, match=r"must (have|hold|reach|be)"):
            function(*arguments)
    assert_same_bits(arguments[1], before)


def test_orders_out_of_range_are_refused() -> None:
    arguments = list(training_arguments())
    n_samples = len(arguments[2].x)
    arguments[2] = arguments[2]._replace(order=np.full((2, n_samples), n_samples, np.int64))
    for function in twins("network.train"):
        with pytest.raises(ValueError, match="order must hold"):
            function(*arguments)


def test_forward_and_gradient_refuse_shapes_that_do_not_fit() -> None:
    layout, parameters, samples, objective, *_ = training_arguments()
    n_outputs = int(layout[-1, contract.N_OUTPUTS])
    for x, out in ((samples.x[:, :-1].copy(), (len(samples.x), n_outputs)), (samples.x, (1, n_outputs))):
        for function in twins("network.forward"):
            with pytest.raises(ValueError, match="x and out must"):
                function(layout, parameters, x, np.empty(out))
    for function in twins("network.gradient"):
        with pytest.raises(ValueError, match="out must"):
            function(layout, parameters, samples, objective, np.empty(8))


@pytest.mark.parametrize(
    ("name", "position", "field"),
    [
        ("network.forward", 2, None),
        ("network.gradient", 2, "x"),
        ("network.gradient", 2, "y"),
        ("network.gradient", 2, "weight"),
        ("network.gradient", 4, None),
        ("network.train", 2, "x"),
        ("optimizers.step", 2, None),
        ("optimizers.step", 5, "slots"),
    ],
)
def test_arrays_of_other_dtypes_are_refused(name: str, position: int, field: str | None) -> None:
    """Before anything is written."""
    arguments = list(next(CALLS[name]("float64", np.random.default_rng(6))).arguments)
    wrong = arguments[position] if field is None else getattr(arguments[position], field)
    narrow = wrong.astype("float32")
    arguments[position] = narrow if field is None else arguments[position]._replace(**{field: narrow})
    before = copy.deepcopy(arguments)
    for function in twins(name):
        with pytest.raises(TypeError, match=r"^arrays must be of one dtype; got float64 and float32$"):
            function(*arguments)
    assert_same(tuple(arguments), tuple(before), "refused")
