"""Kernels inside users' jitted functions: the bits of the reference, no allocation, and what does not fit refused."""

from __future__ import annotations

import os
import pickle
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import fastnet
from fastnet import Network, contract, kernels
from fastnet.contract import Objective, Samples, Update
from fastnet.kernels import cache
from fastnet.kernels.lending import is_lendable
from fastnet.kernels.prediction import FEW_ROWS
from fastnet.reference import exact
from fastnet.reference import network as reference
from fastnet.reference import optimizers as reference_optimizers
from tests.support import assert_same_bits

DTYPES = ["float32", "float64"]
OBJECTIVE = Objective(contract.CROSS_ENTROPY, 0.0, True, 0.01, 7)
N_NETWORKS, N_ROWS = 6, 7


def normal(dtype: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def samples_of(network: Network, n_rows: int) -> Samples:
    """Samples in their own order, of which the first output is the right one."""
    y = np.zeros((n_rows, network.n_outputs), network.dtype)
    y[:, 0] = 1
    x = normal(network.dtype.name, n_rows, network.n_inputs)
    return Samples(x, y, np.ones(n_rows, network.dtype), np.empty((0, n_rows), np.int64))


def adam_of(network: Network) -> Update:
    adam = fastnet.Adam(0.01)
    slots = adam.initial_slots(network.parameter_buffer.size, network.dtype)
    return Update(adam.kind, adam.settings, slots, np.ones(2), adam.rates(0, 1))


# --- a pack of networks, each trained by its own iteration of a prange ---


def pack_trainer(forward: Any, gradient: Any, step: Any) -> Callable[..., None]:
    def train(layout, parameters, samples, objective, update, slots, powers, gradients, losses, out):
        for i in numba.prange(parameters.shape[0]):
            own = Update(update.kind, update.settings, slots[i], powers[i], update.learning_rates)
            for _ in range(5):
                losses[i] = gradient(layout, parameters[i], samples, objective, gradients[i])
                step(layout, parameters[i], gradients[i], 7.0, objective, own, 0.01)
            forward(layout, parameters[i], samples.x, out[i])

    return train


def pack_of(dtype: str) -> tuple[Any, ...]:
    """What `pack_trainer`'s function is called with: networks that start from different parameters."""
    networks = [Network([3, 5, 2], "tanh", "softmax", dtype=dtype).initialize(seed=i) for i in range(N_NETWORKS)]
    parameters = np.stack([network.parameter_buffer for network in networks])
    update = adam_of(networks[0])
    return (
        networks[0].layout,
        parameters,
        samples_of(networks[0], N_ROWS),
        OBJECTIVE,
        update,
        np.stack([update.slots] * N_NETWORKS),
        np.ones((N_NETWORKS, 2)),
        np.zeros_like(parameters),
        np.zeros(N_NETWORKS),
        np.zeros((N_NETWORKS, N_ROWS, 2), dtype),
    )


def test_packs_in_prange_have_the_bits_of_the_reference() -> None:
    """In float32; the example of the next test is one in float64."""
    of_kernels = pack_trainer(kernels.forward, kernels.gradient, kernels.step)
    of_reference = pack_trainer(reference.forward, reference.gradient, reference_optimizers.step)
    desired = pack_of("float32")
    of_reference(*desired)
    for train in (numba.njit(parallel=True)(of_kernels), of_kernels):
        arguments = pack_of("float32")
        train(*arguments)
        for position in (1, 5, 6, 7, 8, 9):
            assert_same_bits(arguments[position], desired[position], f"argument {position}")


def test_page_shows_its_example_and_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    docs = Path(__file__).parents[1] / "docs"
    example = docs / "examples" / "many_starts.py"
    runpy.run_path(str(example))
    printed, page = capsys.readouterr().out, (docs / "kernels.md").read_text(encoding="utf-8")
    assert "the bits of fit: True" in printed
    for shown in (example.read_text(encoding="utf-8"), printed):
        assert shown in page, f"docs/kernels.md has to show:\n{shown}"


def test_first_example_of_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "kernels.md").read_text(encoding="utf-8")
    first = page.partition("```python\n")[2].partition("```")[0]
    program = tmp_path / "program.py"
    program.write_text(first, encoding="utf-8")
    assert np.isfinite(runpy.run_path(str(program))["total"])


# --- a serial loop ---


def integrator(forward: Any) -> Callable[..., None]:
    """Euler's method for a differential equation whose right-hand side is a network."""

    def integrate(layout, parameters, state, slope, step, n):
        for _ in range(n):
            forward(layout, parameters, state, slope)
            for unit in range(state.shape[1]):
                state[0, unit] += step * slope[0, unit]

    return integrate


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_have_the_bits_of_the_reference(dtype: str) -> None:
    network = Network([2, 7, 2], "tanh", dtype=dtype).initialize(seed=3)
    states = []
    for integrate in (
        integrator(reference.forward),
        integrator(kernels.forward),
        numba.njit(integrator(kernels.forward)),
    ):
        state = normal(dtype, 1, 2)
        step = state.dtype.type(0.125)
        integrate(network.layout, network.parameter_buffer, state, np.empty_like(state), step, 50)
        states.append(state)
    assert np.isfinite(states[0]).all()
    for state in states[1:]:
        assert_same_bits(state, states[0])


@pytest.mark.parametrize(
    "options", [{"fastmath": True}, {"boundscheck": True}, {"error_model": "python"}, {"nogil": True}], ids=str
)
def test_options_of_the_caller_do_not_change_the_bits(options: dict[str, Any]) -> None:
    @numba.njit(**options)
    def predict(layout, parameters, x, out):
        # By their module, as users may write it.
        return kernels.sigmoid(kernels.forward(layout, parameters, x, out))

    network = Network([3, 9, 4], "gelu", "softmax", dtype="float32").initialize(seed=5)
    x = normal("float32", 33, 3)
    arguments = (network.layout, network.parameter_buffer, x, np.empty((33, 4), "float32"))
    assert_same_bits(predict(*arguments), exact.sigmoid(network.predict(x, backend="exact")))


PROGRAM = """
import numba, numpy as np
from fastnet import Network
from fastnet.kernels import forward

@numba.njit(cache=True)
def predict(layout, parameters, x, out):
    return forward(layout, parameters, x, out)[0, 0]

# Compiled in each process, where the kernel may have been loaded.
@numba.njit
def predict_anew(layout, parameters, x, out):
    return forward(layout, parameters, x, out)[0, 0]

network = Network([2, 3, 1], "tanh").initialize(seed=1)
x = np.ones((1, 2))
for function in (predict, predict_anew):
    assert function(network.layout, network.parameter_buffer, x, np.empty((1, 1))) == network.predict(x)[0, 0]
print(sum(predict.stats.cache_hits.values()))
"""


def test_callers_can_be_cached(tmp_path: Path) -> None:
    """And find the kernel that they call, also where it is not compiled any more."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(fastnet.__file__).parents[1])}
    for hits, changes in (("0\n", {}), ("1\n", {}), ("1\n", {"FASTNET_CACHE_DIR": str(tmp_path / "empty")})):
        ran = subprocess.run(
            [sys.executable, "-W", "error", program],
            capture_output=True,
            text=True,
            check=False,
            env=environment | changes,
        )
        assert (ran.stdout, ran.stderr) == (hits, "")


def test_callers_call_the_code_that_is_there() -> None:
    """A copy of it would be optimised and emitted again for each caller, which takes seconds."""
    network = Network([2, 3, 1], "tanh").initialize(seed=1)

    @numba.njit
    def predict(layout, parameters, x, out):
        return kernels.forward(layout, parameters, x, out)

    x, out = normal("float64", 5, 2), np.empty((5, 1))
    assert_same_bits(predict(network.layout, network.parameter_buffer, x, out), network.predict(x, backend="exact"))
    (code,) = predict.inspect_llvm().values()
    if not is_lendable(kernels.forward.py_func, predict.overloads[predict.signatures[0]].library):
        pytest.skip("callers in this Numba have copies")
    functions = re.findall(r"^(declare|define) .*@\"?_ZN7fastnet", code, re.MULTILINE)
    assert functions == ["declare"]


def test_callers_are_right_where_a_kernel_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reversed matrices are of no other test, so that the kernel is compiled here."""

    def failing(_: Any) -> bytes:
        raise pickle.PicklingError("it cannot be pickled")

    @numba.njit
    def total(values):
        return kernels.sum_in_order(values)

    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "dumps", failing)
    values = np.arange(6.0).reshape(2, 3)[::-1]
    with pytest.raises(pickle.PicklingError):
        kernels.sum_in_order(values)
    assert total(values).tolist() == [[12], [3]]


# --- allocation ---


@numba.njit
def forward_repeatedly(n, layout, parameters, x, out):
    for _ in range(n):
        kernels.forward(layout, parameters, x, out)


@numba.njit
def train_repeatedly(n, layout, parameters, samples, objective, update, out):
    for _ in range(n):
        kernels.gradient(layout, parameters, samples, objective, out)
        kernels.step(layout, parameters, out, 7.0, objective, update, 0.01)


@pytest.fixture
def _counted() -> Iterator[None]:
    """Numba counts what compiled code allocates."""
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


def allocations(repeatedly: Callable[..., None], *arguments: Any) -> int:
    """How many allocations a thousand calls take more than one, after a first one; all must be given back."""
    counts = []
    for n in (1, 1, 1001):
        before = rtsys.get_allocation_stats()
        repeatedly(n, *arguments)
        after = rtsys.get_allocation_stats()
        assert after.alloc - before.alloc == after.free - before.free
        counts.append(after.alloc - before.alloc)
    return int(counts[2] - counts[1])


@pytest.mark.usefixtures("_counted")
@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_through_small_networks_allocate_nothing(dtype: str) -> None:
    network = Network([8, 32, 32, 4], "tanh", "softmax", dtype=dtype).initialize(seed=2, scheme="glorot_uniform")
    layout, parameters = network.layout, network.parameter_buffer
    for n_rows in (1, FEW_ROWS):
        x, out = normal(dtype, n_rows, 8), np.empty((n_rows, 4), dtype)
        assert allocations(forward_repeatedly, layout, parameters, x, out) == 0
    samples, out = samples_of(network, FEW_ROWS), np.zeros_like(parameters)
    assert allocations(train_repeatedly, layout, parameters, samples, OBJECTIVE, adam_of(network), out) == 0


@pytest.mark.usefixtures("_counted")
def test_more_rows_take_memory_and_give_it_back() -> None:
    network = Network([8, 32, 4], "tanh", "softmax").initialize(seed=2, scheme="glorot_uniform")
    layout, parameters = network.layout, network.parameter_buffer
    x, out = normal("float64", FEW_ROWS + 1, 8), np.empty((FEW_ROWS + 1, 4))
    assert allocations(forward_repeatedly, layout, parameters, x, out) == 1000
    samples, out = samples_of(network, 100), np.zeros_like(parameters)
    assert allocations(train_repeatedly, layout, parameters, samples, OBJECTIVE, adam_of(network), out) == 1000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [1, 8, 15, 100, contract.BLOCK_ROWS + 1])
def test_gradients_have_the_same_bits_on_the_stack_and_elsewhere(n_rows: int, dtype: str) -> None:
    for sizes in ([3, 5, 2], [8, 32, 32, 4], [40, 70, 3]):
        network = Network(sizes, "tanh", "softmax", dtype=dtype).initialize(seed=4, scheme="glorot_uniform")
        arguments = (network.layout, network.parameter_buffer, samples_of(network, n_rows), OBJECTIVE)
        out, desired = (np.zeros_like(network.parameter_buffer) for _ in range(2))
        assert kernels.gradient(*arguments, out) == reference.gradient(*arguments, desired)
        assert_same_bits(out, desired)


# --- what does not fit ---


def test_shapes_that_do_not_fit_raise_in_loops() -> None:
    network = Network([8, 4])
    arguments = (network.layout, network.parameter_buffer, np.zeros((1, 7)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="^x must have 8 columns, one for each input of the network; got shape"):
        forward_repeatedly(1, *arguments)


def test_arrays_of_other_dtypes_and_layouts_are_refused() -> None:
    """In one line, where Numba would write pages."""
    network = Network([8, 4], output_activation="softmax")
    layout, parameters, samples = network.layout, network.parameter_buffer, samples_of(network, 3)
    out = np.zeros((3, 4))
    read_only = np.zeros_like(parameters)
    read_only.flags.writeable = False
    for dtype in ("float32", "int64"):
        with pytest.raises(TypeError, match=f"^x must be a C-contiguous matrix of float64; got a .* array of {dtype} "):
            forward_repeatedly(1, layout, parameters, samples.x.astype(dtype), out)
    with pytest.raises(TypeError, match=r"^x must be a C-contiguous matrix of float64; got an array of float64 with"):
        forward_repeatedly(1, layout, parameters, np.asfortranarray(samples.x), out)
    with pytest.raises(TypeError, match=r"^out must be a writable .* vector of float64; got a read-only"):
        kernels.gradient(layout, parameters, samples, OBJECTIVE, read_only)
    update = adam_of(network)
    with pytest.raises(TypeError, match="read-only"):
        kernels.step(layout, read_only, parameters, 3.0, OBJECTIVE, update, 0.01)
    assert not parameters.any()
