"""Kernels without Numba in memory: loaded from the cache, the same bits, errors as from compiled ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnet import Network
from fastnet.kernels import network as kernels
from fastnet.kernels.prediction import FEW_ROWS
from fastnet.runtime import digest, entry_points, files, loader
from fastnet.runtime.plans import Plan, make_plan
from fastnet.testing.cases import Case
from tests.support import assert_same_bits

DTYPES = ["float32", "float64"]
#: Each kernel that the runtime loads is used; what is printed are bits.
USES = """
import sys
import numpy as np
from fastnet import Network
x = np.linspace(-1, 1, 12, dtype={dtype!r}).reshape(4, 3)
x.flags.writeable = False
for specialize in (False, True):
    network = Network([3, 4, 1], "tanh", dtype={dtype!r}).initialize(seed=0, scheme="glorot_uniform")
    history = network.fit(x, x[:, :1] * 2, epochs=3, optimizer="adam", specialize=specialize, backend={backend!r})
    print(network.parameters.tobytes().hex(), history.loss_curve.tobytes().hex())
    print(network.predict(x, backend={backend!r}).tobytes().hex())
print(network.predict(np.tile(x, (5000, 1)), backend={backend!r}).tobytes().hex()[-100:])
try:
    network.predict([[1.0, 2.0, np.inf]], backend={backend!r})
except ValueError as error:
    print(error)
print("numba" in sys.modules, file=sys.stderr)
"""


def run(dtype: str, backend: str) -> tuple[str, str]:
    command = [sys.executable, "-W", "error", "-c", USES.format(dtype=dtype, backend=backend)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return ran.stdout, ran.stderr


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_process_whose_kernels_are_in_the_cache_needs_no_numba(dtype: str) -> None:
    desired, _ = run(dtype, "exact")
    # The first one may have to compile.
    assert run(dtype, "numba")[0] == desired
    assert run(dtype, "numba") == (desired, "False\n")


@pytest.fixture(params=["loaded", "compiled"])
def entry_point(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """`entry_points.entry_point`, from the cache or by Numba."""

    def found(name: str, variant: str) -> Any:
        entry_points.entry_point(name, variant)
        monkeypatch.setattr(entry_points, "_functions", {})
        monkeypatch.setattr(entry_points, "_origins", {})
        if request.param == "compiled":
            monkeypatch.setattr(entry_points, "_from_cache", lambda name, variant: None)
        function = entry_points.entry_point(name, variant)
        assert entry_points.origins() == {(name, variant): request.param}
        return function

    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_those_of_forward(entry_point: Callable[[str, str], Any], dtype: str) -> None:
    forward_finite = entry_point("forward_finite", dtype)
    network = Network([5, 7, 3], "tanh", "softmax", dtype=dtype).initialize(seed=0, scheme="glorot_uniform")
    x = np.random.default_rng(0).standard_normal((300, 5)).astype(dtype)
    pieces = 300, np.empty(0, np.int64), 1
    for n_rows in (1, 16, 17, 300):
        rows, out, desired = x[:n_rows], np.full((n_rows, 3), 7, dtype), np.empty((n_rows, 3), dtype)
        workspace = np.empty(0, dtype)
        needed = forward_finite(network.layout, network.parameter_buffer, rows, out, workspace, *pieces)
        assert (needed < 0) == (n_rows > FEW_ROWS)
        if needed < 0:
            assert (out == 7).all()
            workspace = np.empty(-needed, dtype)
            assert forward_finite(network.layout, network.parameter_buffer, rows, out, workspace, *pieces) == 1
        assert_same_bits(out, kernels.forward(network.layout, network.parameter_buffer, rows, desired))
        rows = rows.copy()
        rows[-1, -1] = np.nan
        out[:] = 7
        assert forward_finite(network.layout, network.parameter_buffer, rows, out, workspace, *pieces) == 0
        assert (out == 7).all()


@pytest.mark.parametrize("layer_sizes", [(30, 100, 3), (5, 7, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_piece_writes_no_row_of_the_next(
    entry_point: Callable[[str, str], Any], dtype: str, layer_sizes: tuple[int, ...]
) -> None:
    """With rows across the lanes and with units: the next piece is another thread's, here one that is not finite."""
    forward_finite = entry_point("forward_finite", dtype)
    network = Network(layer_sizes, "tanh", "softmax", dtype=dtype).initialize(seed=0, scheme="glorot_uniform")
    x = np.random.default_rng(0).standard_normal((300, layer_sizes[0])).astype(dtype)
    desired = kernels.forward(network.layout, network.parameter_buffer, x, np.empty((300, 3), dtype))
    x[200] = np.nan
    for rows_at_once in (32, 100, 200):
        out, pieces = np.full((300, 3), 7, dtype), (rows_at_once, np.empty(0, np.int64), 1)
        arguments = network.layout, network.parameter_buffer, x, out
        needed = forward_finite(*arguments, np.empty(0, dtype), *pieces)
        assert forward_finite(*arguments, np.empty(-needed, dtype), *pieces) == 0
        n_done = 200 // rows_at_once * rows_at_once
        assert_same_bits(out[:n_done], desired[:n_done])
        assert (out[n_done:] == 7).all()


def test_arguments_of_no_use_are_refused(entry_point: Callable[[str, str], Any]) -> None:
    train_together = entry_point("train_together", "float64")
    with pytest.raises(TypeError, match="train_together expected 11 arguments, got 0"):
        train_together()
    arguments = kernel_arguments()
    with pytest.raises(TypeError, match="integer"):
        train_together(*arguments, "0", np.empty(0), np.zeros(16, np.int64), np.empty(0, np.int64), 1)


def kernel_arguments(case: Case | None = None) -> tuple[Any, ...]:
    """The arguments of `train` but the last."""
    from fastnet.backends import Backend, load_backend

    found: list[Any] = []
    numba = load_backend("numba")

    def trainer(execution: Any, *arguments: Any) -> Any:
        found.extend(arguments)
        assert numba.trainer is not None
        return numba.trainer(execution, *arguments)

    (case or Case(epochs=1)).train(Backend(numba.forward, numba.train, is_compiled=True, trainer=trainer))
    return tuple(found)


def test_read_only_inputs_are_no_other_kernel(entry_point: Callable[[str, str], Any]) -> None:
    """Numba would compile anew for arrays that cannot be written to."""
    finite = entry_point("finite", "float32")
    values = np.ones(100, np.float32)
    values.flags.writeable = False
    assert finite(values) is True
    assert finite(np.append(values, np.float32(np.inf))) is False


def kept_file(name: str = "finite", variant: str = "float64") -> tuple[Path, dict[str, Any], bytes]:
    entry_points.entry_point(name, variant)
    path, key = entry_points._file(name, variant)
    found = files.read(path, key)
    assert found is not None
    return path, *found


@pytest.mark.parametrize("damage", ["symbol", "externals"])
def test_code_that_cannot_be_loaded_is_compiled(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, header, payload = kept_file()
    if damage == "symbol":
        header["symbol"] = "nowhere"
    else:
        # LLVM would end the process.
        header["externals"] = [*header["externals"], "no_such_function"]
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    files.write(tmp_path / path.parent.name / path.name, header, payload)
    monkeypatch.setattr(entry_points, "_functions", {})
    monkeypatch.setattr(entry_points, "_origins", {})
    assert entry_points.entry_point("finite", "float64")(np.zeros(3)) is True
    assert entry_points.origins() == {("finite", "float64"): "compiled"}


def test_what_machine_code_needs_is_said() -> None:
    _, header, payload = kept_file()
    with pytest.raises(LookupError, match="machine code needs symbols that are not there: no_such_function, nor_this"):
        loader.load(
            "finite", payload[: header["code_bytes"]], header["symbol"], ["malloc", "no_such_function", "nor_this"]
        )


def test_kernels_need_python_and_the_system_only() -> None:
    """Nothing of Numba: it would have to be in memory."""
    for name in ("train_together", "forward_finite", "finite"):
        _, header, _ = kept_file(name)
        assert {one for one in header["externals"] if not one.startswith("Py")} <= {
            "fma",
            "fmaf",
            "sqrt",
            "syscall",
            "sched_yield",
            "pthread_create",
            "pthread_join",
            "pthread_setaffinity_np",
            "pthread_tryjoin_np",
        }


def test_plans_are_variants() -> None:
    case = Case((2, 3, 1), "tanh", "identity", epochs=1, batch_size=None)
    plan = make_plan(*kernel_arguments(case)[:5], ordered=False)
    assert isinstance(plan, Plan)
    assert not entry_points.is_kept("train", Plan(*plan.fields[:-1], 999))
    case.train("numba", specialize=True)
    assert entry_points.is_kept("train", plan)
    assert entry_points.variant_name(plan) == plan.digest


@pytest.mark.parametrize("variable", ["NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX"])
def test_another_cpu_is_another_target(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loader.target()
    monkeypatch.setenv(variable, "0")
    assert loader.target.__wrapped__() != before


def test_disabled_compilation_is_refused_with_kernels_in_the_cache_too() -> None:
    kept_file("forward_finite")
    code = "from fastnet import Network; Network.from_arrays([[[2.0]]]).predict([[1.0]])"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "NUMBA_DISABLE_JIT" in ran.stderr.splitlines()[-1]


def test_nothing_is_kept_where_sources_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert digest.loaded_digest.__wrapped__() is None
