"""ONNX Runtime, for prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastnet.bench.peers.base import Peer, Problem, Training, UnsupportedError

_OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softmax": "Softmax"}


class OnnxRuntime(Peer):
    """An `InferenceSession` of the network."""

    name: ClassVar[str] = "onnxruntime"
    label: ClassVar[str] = "ONNX Runtime"
    distribution: ClassVar[str] = "onnx and onnxruntime"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")

    def training(self, problem: Problem) -> Training:
        raise UnsupportedError("only predicts")

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        import onnxruntime

        session = onnxruntime.InferenceSession(make_model(problem), providers=["CPUExecutionProvider"])
        feed = {"x": problem.x[:n_rows]}
        return lambda: session.run(None, feed)[0]


def make_model(problem: Problem) -> bytes:
    """The network as ONNX: a Gemm and an activation for each layer."""
    from onnx import TensorProto, checker, helper, numpy_helper

    element = TensorProto.FLOAT if problem.case.dtype == "float32" else TensorProto.DOUBLE
    nodes, initializers, last = [], [], "x"
    for i, (w, b, activation) in enumerate(problem.layers()):
        names = [f"w{i}", *([f"b{i}"] if b is not None else [])]
        initializers += [
            numpy_helper.from_array(array, name)
            for array, name in zip((w, b), names, strict=False)
            if array is not None
        ]
        nodes.append(helper.make_node("Gemm", [last, *names], [f"z{i}"]))
        last = f"z{i}"
        if activation in _OPERATORS:
            nodes.append(helper.make_node(_OPERATORS[activation], [last], [f"a{i}"]))
            last = f"a{i}"
        elif activation != "identity":
            raise UnsupportedError(f"is not written for {activation}")
    sizes = problem.case.layer_sizes
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", element, [None, sizes[0]])],
        [helper.make_tensor_value_info(last, element, [None, sizes[-1]])],
        initializers,
    )
    # An older version than the package's own is read by every runtime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized
