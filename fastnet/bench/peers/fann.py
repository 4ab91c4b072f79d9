"""FANN, the C library (Debian's libfann2), through ctypes: full batches of sigmoid networks."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError
from fastnet.testing.cases import Case

#: Of the enumerations in fann_data.h.
_TRAIN_BATCH, _LINEAR_ERROR, _SIGMOID = 1, 0, 3


class Fann(Peer):
    """`fann_train_on_data` with plain gradient descent."""

    name: ClassVar[str] = "fann"
    label: ClassVar[str] = "FANN"
    is_everywhere: ClassVar[bool] = False

    def absence(self) -> str | None:
        return None if all(map(find_library, _LIBRARIES.values())) else "libfann2 is not installed"

    def variant(self, case: Case) -> tuple[Case, str]:
        note = "slopes of outputs beyond 0.01 and 0.99 count as those there"
        if not case.bias:
            return replace(case, bias=True), f"biases; {note}"
        return case, note

    def training(self, problem: Problem) -> Training:
        case = problem.case
        if set(problem.network.activations) != {"sigmoid"} or case.loss != "squared_error":
            raise UnsupportedError("has no relu, no softmax and no cross-entropy")
        if problem.steps_per_epoch > 1 or case.shuffle or case.reduction != "sum":
            raise UnsupportedError("has no mini-batches")
        return _Ann(problem)


_LIBRARIES = {"float32": "floatfann", "float64": "doublefann"}


def load(dtype: str) -> Any:
    """The library for a dtype, its functions declared."""
    library = ctypes.CDLL(find_library(_LIBRARIES[dtype]))
    real = ctypes.c_float if dtype == "float32" else ctypes.c_double
    pointer, unsigned, integer = ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "fann_create_standard_array": (pointer, [unsigned, pointer]),
        "fann_create_train_from_callback": (pointer, [unsigned, unsigned, unsigned, pointer]),
        "fann_destroy": (None, [pointer]),
        "fann_destroy_train": (None, [pointer]),
        "fann_get_connection_array": (None, [pointer, pointer]),
        "fann_set_weight": (None, [pointer, unsigned, unsigned, real]),
        "fann_set_activation_function_hidden": (None, [pointer, integer]),
        "fann_set_activation_function_output": (None, [pointer, integer]),
        "fann_set_learning_rate": (None, [pointer, ctypes.c_float]),
        "fann_set_train_error_function": (None, [pointer, integer]),
        "fann_set_training_algorithm": (None, [pointer, integer]),
        "fann_train_on_data": (None, [pointer, pointer, unsigned, unsigned, ctypes.c_float]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Ann(Training):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.library = load(problem.case.dtype)
        sizes = np.array(problem.case.layer_sizes, np.uintc)
        self.ann = self.library.fann_create_standard_array(sizes.size, sizes.ctypes.data)
        x, y = problem.x, problem.y

        def copy_sample(index: int, n_inputs: int, n_outputs: int, inputs: int, outputs: int) -> None:
            ctypes.memmove(inputs, x[index].ctypes.data, x[index].nbytes)
            ctypes.memmove(outputs, y[index].ctypes.data, y[index].nbytes)

        callback = ctypes.CFUNCTYPE(None, *[ctypes.c_uint] * 3, *[ctypes.c_void_p] * 2)(copy_sample)
        self.data = self.library.fann_create_train_from_callback(len(x), x.shape[1], y.shape[1], callback)
        self.library.fann_set_training_algorithm(self.ann, _TRAIN_BATCH)
        self.library.fann_set_train_error_function(self.ann, _LINEAR_ERROR)
        self.library.fann_set_activation_function_hidden(self.ann, _SIGMOID)
        self.library.fann_set_activation_function_output(self.ann, _SIGMOID)
        # FANN divides by the number of samples.
        self.library.fann_set_learning_rate(self.ann, problem.learning_rate * len(x))
        self.connections = self._connections()
        self.reset()

    def _connections(self) -> list[tuple[int, int]]:
        """The neurons that each parameter connects, in fastnet's order; a layer's bias is its last neuron."""
        connections = []
        first = 0
        for n_inputs, n_outputs in zip(self.problem.case.layer_sizes, self.problem.case.layer_sizes[1:], strict=False):
            after = first + n_inputs + 1
            connections += [(first + i, after + j) for i in range(n_inputs + 1) for j in range(n_outputs)]
            first = after
        return connections

    def reset(self) -> None:
        first = self.problem.network.parameters.tolist()
        for (start, end), value in zip(self.connections, first, strict=True):
            self.library.fann_set_weight(self.ann, start, end, value)

    def run(self, epochs: int) -> None:
        self.library.fann_train_on_data(self.ann, self.data, epochs, 0, 0.0)

    def parameters(self) -> Array:
        connection = np.dtype([("start", np.uintc), ("end", np.uintc), ("weight", self.problem.case.dtype)], align=True)
        table = np.zeros(len(self.connections), connection)
        self.library.fann_get_connection_array(self.ann, table.ctypes.data)
        weights = {(start, end): weight for start, end, weight in table.tolist()}
        return np.array([weights[connection] for connection in self.connections], self.problem.case.dtype)

    def __del__(self) -> None:
        self.library.fann_destroy_train(self.data)
        self.library.fann_destroy(self.ann)
