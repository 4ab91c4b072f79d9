"""PyTorch: eager, and compiled by `torch.compile`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError, flat
from fastnet.optimizers import Adam
from fastnet.testing.cases import ADAM

_MODULES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU"}


class PyTorch(Peer):
    """Modules, a loss and an optimizer of `torch`, in the usual loop."""

    name: ClassVar[str] = "pytorch"
    label: ClassVar[str] = "PyTorch"
    distribution: ClassVar[str] = "torch"
    modules: ClassVar[tuple[str, ...]] = ("torch",)

    def training(self, problem: Problem) -> Training:
        return _Loop(problem, compiled=False)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        import torch

        model = make_model(problem)
        if problem.network.activations[-1] == "softmax":
            model.append(torch.nn.Softmax(dim=1))
        return self._predictor(model, torch.from_numpy(problem.x[:n_rows]))

    def _predictor(self, model: Any, x: Any) -> Callable[[], Any]:
        import torch

        def predict() -> Array:
            with torch.inference_mode():
                outputs: Array = model(x).numpy()
            return outputs

        return predict

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        import torch

        tensors = [torch.from_numpy(array) for array in arrays]
        if name == "adam":
            return _adam_step(*tensors)
        function = getattr(torch, name)
        return lambda: function(*tensors).numpy()


def _adam_step(parameters: Any, gradient: Any, first: Any, second: Any) -> Callable[[], Any]:
    import torch

    variable = parameters.requires_grad_()
    variable.grad = gradient
    optimizer = torch.optim.Adam([variable], lr=0.001, eps=ADAM.epsilon, fused=True)
    optimizer.state[variable] = {"step": torch.zeros(()), "exp_avg": first, "exp_avg_sq": second}

    def step() -> Array:
        optimizer.step()
        return np.asarray(variable.detach().numpy())

    return step


class TorchCompile(PyTorch):
    """The same with model and loss compiled; the compiler needs one for C++."""

    name: ClassVar[str] = "torch.compile"
    label: ClassVar[str] = "torch.compile"
    is_everywhere: ClassVar[bool] = False

    def absence(self) -> str | None:
        return super().absence() or (None if shutil.which("g++") else "g++, which it compiles with, is not installed")

    def training(self, problem: Problem) -> Training:
        return _Loop(problem, compiled=True)

    def _predictor(self, model: Any, x: Any) -> Callable[[], Any]:
        return super()._predictor(_compiled(model), x)

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        raise UnsupportedError("has PyTorch's operations")

    @property
    def import_statement(self) -> None:
        return None


def _compiled(function: Any) -> Any:
    import torch

    try:
        # Else it gives up on a function of which it has compiled eight versions, whosever they are.
        return torch.compile(function, isolate_recompiles=True)
    except TypeError as error:
        raise UnsupportedError("needs PyTorch 2.13 or newer") from error


def make_model(problem: Problem) -> Any:
    """The network as modules; a softmax is left to the loss."""
    import torch

    dtype = torch.float32 if problem.case.dtype == "float32" else torch.float64
    parts: list[Any] = []
    for w, b, activation in problem.layers():
        parts.append(torch.nn.Linear(*w.shape, bias=b is not None, dtype=dtype))
        if activation in _MODULES:
            parts.append(getattr(torch.nn, _MODULES[activation])())
        elif activation not in ("identity", "softmax"):
            raise UnsupportedError(f"is not written for {activation}")
    model = torch.nn.Sequential(*parts)
    set_parameters(model, problem)
    return model


def set_parameters(model: Any, problem: Problem) -> None:
    """Give a model the first parameters of a problem."""
    import torch

    with torch.no_grad():
        for layer, (w, b, _) in zip(_linear(model), problem.layers(), strict=True):
            layer.weight.copy_(torch.from_numpy(w.T))
            if b is not None:
                layer.bias.copy_(torch.from_numpy(b))


def _linear(model: Any) -> list[Any]:
    return [module for module in model if hasattr(module, "weight")]


def make_loss(problem: Problem) -> Callable[[Any, Any], Any]:
    """The loss of a batch, reduced as the case wants it."""
    import torch

    case = problem.case
    if case.loss == "squared_error":
        # Half the squares, summed over the outputs; the mean is one over the samples.
        if case.reduction == "sum":
            return lambda outputs, y: 0.5 * (outputs - y).square().sum()
        return lambda outputs, y: 0.5 * (outputs - y).square().sum() / len(y)
    if (case.output_activation, case.loss) == ("softmax", "cross_entropy"):
        cross_entropy: Callable[[Any, Any], Any] = torch.nn.CrossEntropyLoss(reduction=case.reduction)
        return cross_entropy
    raise UnsupportedError(f"is not written for {case.loss} after {case.output_activation}")


class _Loop(Training):
    def __init__(self, problem: Problem, compiled: bool) -> None:
        import torch

        self.problem = problem
        self.model = make_model(problem)
        loss = make_loss(problem)
        model = self.model
        self.loss: Any = lambda x, y: loss(model(x), y)
        if compiled:
            self.loss = _compiled(self.loss)
        self.x = torch.from_numpy(problem.x)
        is_labelled = problem.labels is not None and problem.case.loss == "cross_entropy"
        self.y = torch.from_numpy(problem.labels if is_labelled else problem.y)
        self.reset()

    def reset(self) -> None:
        import torch

        set_parameters(self.model, self.problem)
        settings = self.problem.optimizer
        parameters = self.model.parameters()
        self.optimizer: Any
        if isinstance(settings, Adam):
            # Fused, a step of digits takes 360 us, and 470 us as it is by default.
            self.optimizer = torch.optim.Adam(
                parameters,
                self.problem.learning_rate,
                (settings.beta_1, settings.beta_2),
                settings.epsilon,
                fused=True,
            )
        else:
            self.optimizer = torch.optim.SGD(parameters, self.problem.learning_rate)
        self.orders = self.problem.orders()

    def run(self, epochs: int) -> None:
        import torch

        batches = list(self.problem.batches())
        for _ in range(epochs):
            order = next(self.orders)
            rows = None if order is None else torch.from_numpy(order)
            for batch in batches:
                x, y = (self.x[batch], self.y[batch]) if rows is None else (self.x[rows[batch]], self.y[rows[batch]])
                self.optimizer.zero_grad()
                self.loss(x, y).backward()
                self.optimizer.step()

    def parameters(self) -> Array:
        layers = _linear(self.model)
        weights = [layer.weight.detach().numpy().T for layer in layers]
        biases = [layer.bias.detach().numpy() for layer in layers if layer.bias is not None]
        return np.asarray(flat(weights, biases))
