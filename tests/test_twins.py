"""Every public function of the reference and of the kernels has a twin: one name, one signature, the same bits.

The walk follows the modules' ``__all__``; a function that only one side lists, or that neither lists nor `HELPERS`
explains, fails.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastnet import contract, kernels, reference
from fastnet.kernels import arithmetic, linear
from fastnet.reference import blas, exact
from fastnet.testing.calls import CALLS, DTYPES, Arguments, Source, arrays_of, copied, twins
from tests.support import assert_same_bits


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
BUILDING_BLOCKS = {
    "cache",
    "checks",
    "compiler",
    "elementwise",
    "formulas",
    "jit",
    "lending",
    "memory",
    "narrow",
    "packing",
    "plans",
    "prediction",
    "products",
    "regions",
    "relay",
    "simd",
}
BUILDING_BLOCKS |= {"signatures", "small", "spans", "stages", "starting", "team", "tiles", "tracing", "workspace"}
BUILDING_BLOCKS |= {"scope", "training", "wrapping"}
#: `orders` has its twin in NumPy: `test_orders` compares them.
BUILDING_BLOCKS |= {"orders"}

#: On both sides: what refuses, of which the tests of the same refusals call all.
CHECKS = {"records"}

#: Public functions and classes that have no twin, and why.
HELPERS = {
    "fastnet.reference.exact": {
        "check_dtype": "Numba knows the dtypes when it compiles",
        "check_shapes": "NumPy stretches arrays; shapes that differ are refused in the kernels where planes are made",
    },
    "fastnet.reference.network": {
        "layers": "views into a buffer, where the kernels read the layout as they go",
    },
    "fastnet.kernels.activations": {
        "needs_inputs": "whether a layer's inputs may be replaced by its outputs",
        "softmax_columns": "on pointers: softmax with a row in each lane",
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
        "rows_of": "makes SampleRows",
        "output_rows": "on pointers: losses and deltas, for the training loop",
        "sum_rows": "on pointers: the sums of the losses of each unit, for the training loop",
        "sum_units": "on pointers: the sum of these",
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
        "train_together": "train, by several threads",
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
    assert names == set(PAIRS) | CHECKS
    names = {info.name for info in pkgutil.iter_modules(kernels.__path__)}
    twins = {one.__name__.rpartition(".")[2] for _, modules in PAIRS.values() for one in modules}
    assert names == twins | BUILDING_BLOCKS | CHECKS


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


#: Positions of the arguments that a function changes.
CHANGES = {"network.forward": (3,), "network.gradient": (4,), "network.train": (1, 4, 5), "optimizers.step": (1, 5)}


def calls_of(name: str, dtype: str = "float64") -> Iterator[Arguments]:
    return CALLS[name](Source(dtype, size=1000))


def test_every_function_is_called() -> None:
    exact_pairs = {name: pair for name, pair in PAIRS.items() if name != "blas"}
    assert sorted(CALLS) == sorted(
        f"{name}.{function}" for name, (one, _) in exact_pairs.items() for function in one.__all__
    )


def assert_same(actual: Any, desired: Any, what: str) -> None:
    for one, other in zip(arrays_of(actual), arrays_of(desired), strict=True):
        assert_same_bits(one, other, what)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits(dtype: str, name: str) -> None:
    """Results, dtypes, and what is changed in place; everything else stays as it was."""
    kernel, twin = twins(name)
    for number, arguments in enumerate(calls_of(name, dtype)):
        what = f"call {number}"
        mine, yours = copied(arguments), copied(arguments)
        with np.errstate(all="ignore"):
            assert_same(kernel(*mine), twin(*yours), what)
        for position, original in enumerate(arguments):
            assert_same(mine[position], yours[position], f"{what}, argument {position}")
            if position not in CHANGES.get(name, ()):
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
    for arguments in calls_of(name):
        n_numbers = sum(not isinstance(value, np.ndarray) for value in arguments)
        views = [laid_out(position - n_numbers, value) for position, value in enumerate(arguments)]
        with np.errstate(all="ignore"):
            desired = twin(*arguments)
            assert_same(kernel(*views), desired, name)
            assert_same(twin(*views), desired, name)


# --- the same refusals ---

#: Shapes that do not fit; sizes of 1 are what NumPy would stretch.
MISFITS: dict[str, list[tuple[Any, ...]]] = {
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


def assert_both_refuse(name: str, arguments: Sequence[Any]) -> None:
    """In the same words, and before anything is written: kernels have no bounds but these."""
    before, messages = copied(tuple(arguments)), set()
    for function in twins(name):
        with pytest.raises(ValueError, match=r" must .*; got ") as raised:
            function(*arguments)
        messages.add(str(raised.value))
    assert len(messages) == 1
    assert_same(tuple(arguments), before, "refused")


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    for misfit in MISFITS[name]:
        assert_both_refuse(name, [np.ones(part) if isinstance(part, tuple) else part for part in misfit])


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("activations.forward", (-1, len(contract.ACTIVATIONS))),
        ("activations.backward", (-1, len(contract.ACTIVATIONS))),
        ("losses.loss", (-1, len(contract.LOSSES))),
        ("losses.delta", (-1, len(contract.LOSSES))),
    ],
)
def test_unknown_codes_are_refused(name: str, codes: tuple[int, int]) -> None:
    _, *rest = next(calls_of(name))
    for code in codes:
        assert_both_refuse(name, [code, *rest])


def test_step_refuses_buffers_of_other_sizes() -> None:
    layout, parameters, gradient, *rest = next(calls_of("optimizers.step"))
    for wrong in (
        (parameters[:-8], gradient[:-8]),
        (parameters, gradient[:-8]),
        (parameters, np.append(gradient, 0.0)),
    ):
        assert_both_refuse("optimizers.step", [layout, *wrong, *rest])


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (2, {"x": np.ones((9, 99))}),
        (2, {"y": np.ones((1, 8))}),
        (2, {"weight": np.ones(1)}),
        (2, {"order": np.zeros((1, 1), np.int64)}),
        (3, {"batch_size": 0}),
        (4, {"kind": -1}),
        (4, {"settings": np.zeros(0)}),
        (4, {"slots": np.zeros((0, 8))}),
        (4, {"powers": np.zeros(0)}),
        (4, {"learning_rates": np.zeros(0)}),
        (5, {"cursor": np.zeros(0, np.int64)}),
        (5, {"sums": np.zeros(0)}),
        (5, {"gradient": np.zeros(8)}),
        (5, {"loss_curve": np.zeros(0)}),
    ],
)
def test_train_refuses_records_that_do_not_fit(record: int, changes: dict[str, Any]) -> None:
    arguments = list(next(calls_of("network.train")))
    arguments[record] = arguments[record]._replace(**changes)
    assert_both_refuse("network.train", arguments)


def test_orders_out_of_range_are_refused() -> None:
    layout, parameters, samples, *rest = next(calls_of("network.train"))
    n_samples = len(samples.x)
    for order in (np.full((2, n_samples), n_samples), np.full((2, n_samples), -1), np.zeros((1, n_samples), np.int64)):
        assert_both_refuse("network.train", [layout, parameters, samples._replace(order=order), *rest])


def test_forward_and_gradient_refuse_shapes_that_do_not_fit() -> None:
    layout, parameters, samples, objective, *_ = next(calls_of("network.train"))
    n_outputs = int(layout[-1, contract.N_OUTPUTS])
    for x, out in ((samples.x[:, :-1].copy(), (len(samples.x), n_outputs)), (samples.x, (1, n_outputs))):
        assert_both_refuse("network.forward", [layout, parameters, x, np.ones(out)])
    assert_both_refuse("network.forward", [layout, parameters[:8], samples.x, np.ones((len(samples.x), n_outputs))])
    assert_both_refuse("network.gradient", [layout, parameters, samples, objective, np.ones(8)])


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
    arguments = list(next(calls_of(name)))
    wrong = arguments[position] if field is None else getattr(arguments[position], field)
    narrow = wrong.astype("float32")
    arguments[position] = narrow if field is None else arguments[position]._replace(**{field: narrow})
    before = copied(tuple(arguments))
    for function in twins(name):
        with pytest.raises(TypeError, match=r"^[a-z.]+ must be .* of float64; got .* of float32"):
            function(*arguments)
    assert_same(tuple(arguments), before, "refused")
