"""The loops of loops.c, compiled for the sizes of a case by gcc, with and without -ffast-math."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError
from fastnet.optimizers import Adam
from fastnet.runtime import files
from fastnet.runtime.digest import loaded_digest
from fastnet.runtime.loader import target

_SOURCE = Path(__file__).with_name("loops.c")
_ACTIVATIONS = {"identity": "identity", "sigmoid": "sigmoid", "tanh": "tanh_", "relu": "relu", "softmax": "softmax"}
_CANCELLING = {("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy")}


class CLoops(Peer):
    """gcc -O3 -march=native."""

    name: ClassVar[str] = "c"
    label: ClassVar[str] = "C, -O3"
    flags: ClassVar[tuple[str, ...]] = ("-O3", "-march=native")

    def absence(self) -> str | None:
        return None if shutil.which("gcc") else "gcc is not installed"

    def training(self, problem: Problem) -> Training:
        return _Compiled(problem, self.flags)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        library = compile_loops(self.flags, definitions(problem, min(n_rows, 256)))
        x, parameters = problem.x[:n_rows], problem.network.parameters
        out = np.empty((n_rows, problem.network.n_outputs), x.dtype)

        def predict() -> Array:
            library.predict(address(parameters), address(x), address(out), n_rows)
            # Others return outputs that the next call leaves alone.
            return out.copy()

        return predict


class CLoopsFastMath(CLoops):
    """gcc -O3 -march=native -ffast-math, which may reorder sums and takes vectorised functions of libm."""

    name: ClassVar[str] = "c-fast-math"
    label: ClassVar[str] = "C, -ffast-math"
    flags: ClassVar[tuple[str, ...]] = ("-O3", "-march=native", "-ffast-math")


def address(array: Array) -> ctypes.c_void_p:
    """Where an array's memory is."""
    return ctypes.c_void_p(array.ctypes.data)


def definitions(problem: Problem, rows: int) -> tuple[str, ...]:
    """What loops.c is given with -D."""
    case = problem.case
    if (case.output_activation, case.loss) not in _CANCELLING and case.loss != "squared_error":
        raise UnsupportedError(f"is not written for {case.loss} after {case.output_activation}")
    if not set(problem.network.activations) <= _ACTIVATIONS.keys():
        raise UnsupportedError("is not written for all of the activations")
    layers, position = [], 0
    for index, (w, b, activation) in enumerate(problem.layers()):
        bias = -1 if b is None else position + w.size
        layers.append(f"X({index}, {w.shape[0]}, {w.shape[1]}, {position}, {bias}, {_ACTIVATIONS[activation]})")
        position += w.size + (0 if b is None else b.size)
    suffix = "f" if case.dtype == "float32" else ""
    values: dict[str, Any] = {
        "REAL": "float" if suffix else "double",
        "EXP": f"exp{suffix}",
        "TANH": f"tanh{suffix}",
        "SQRT": f"sqrt{suffix}",
        "ROWS": rows,
        "N_SAMPLES": case.n_samples,
        "N_INPUTS": case.layer_sizes[0],
        "N_OUTPUTS": case.layer_sizes[-1],
        "N_PARAMETERS": position,
        "LAYERS(X)": " ".join(layers),
        "REVERSED(X)": " ".join(reversed(layers)),
        "LAST": len(layers) - 1,
        "CANCELS": int(case.loss != "squared_error"),
        "MEAN": int(case.reduction == "mean"),
        "ADAM": int(isinstance(problem.optimizer, Adam)),
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


@cache
def compile_loops(flags: tuple[str, ...], defined: tuple[str, ...]) -> ctypes.CDLL:
    """Compile loops.c, unless it is among the cached kernels from an earlier time, and load it."""
    digest, key = loaded_digest(), files.key_of(__name__, repr((flags, defined)), target(), _source_and_compiler())
    with tempfile.TemporaryDirectory(prefix="fastnet-bench-") as folder:
        # A loaded library needs its file no more.
        linked = Path(folder) / "loops.so"
        kept = None if digest is None else files.read(files.file_of(digest, key), key)
        if kept is not None:
            linked.write_bytes(kept[1])
        else:
            start = time.perf_counter()
            _compile([*flags, *defined], linked)
            if digest is not None:
                header = {**key, "seconds": round(time.perf_counter() - start, 3)}
                with suppress(OSError):
                    files.write(files.file_of(digest, key), header, linked.read_bytes())
        library = ctypes.CDLL(str(linked))
    number, pointer = ctypes.c_double, ctypes.c_void_p
    library.train.argtypes = [pointer] * 4 + [ctypes.c_long] + [number] * 4
    library.predict.argtypes = [pointer] * 3 + [ctypes.c_long]
    library.train.restype = library.predict.restype = library.reset.restype = None
    return library


def _compile(options: Sequence[str], linked: Path) -> None:
    """Write loops.c as a library."""
    compiled = linked.with_suffix(".o")
    # Linked with -ffast-math, a library tells the CPU to flush subnormals, for all of the process.
    for command in (
        ["gcc", *options, "-fPIC", "-c", "-o", str(compiled), str(_SOURCE)],
        ["gcc", "-shared", "-o", str(linked), str(compiled), "-lm"],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True)


@cache
def _source_and_compiler() -> str:
    """What a library comes from, beside options and CPU."""
    gcc = subprocess.run(["gcc", "--version"], check=True, capture_output=True)
    return hashlib.sha256(_SOURCE.read_bytes() + gcc.stdout).hexdigest()


class _Compiled(Training):
    def __init__(self, problem: Problem, flags: tuple[str, ...]) -> None:
        self.problem = problem
        self.library = compile_loops(flags, definitions(problem, problem.batch_size))
        optimizer = problem.optimizer
        more = (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) if isinstance(optimizer, Adam) else (0.0,) * 3
        self.settings = (problem.learning_rate, *more)
        self.reset()

    def reset(self) -> None:
        self.values = self.problem.network.parameters
        self.orders = self.problem.orders()
        self.library.reset()

    def run(self, epochs: int) -> None:
        x, y = address(self.problem.x), address(self.problem.y)
        if not self.problem.case.shuffle:
            self.library.train(address(self.values), x, y, None, epochs, *self.settings)
            return
        for _ in range(epochs):
            order = next(self.orders)
            assert order is not None
            self.library.train(address(self.values), x, y, order.ctypes.data, 1, *self.settings)

    def parameters(self) -> Array:
        return self.values
