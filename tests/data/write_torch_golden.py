"""Writes goldens of a network that PyTorch trains, with a derived bound on how far fastnet may be off.

It runs where both are installed; the versions used stand in the files:

    python3.11 -m venv /tmp/torchenv
    /tmp/torchenv/bin/pip install torch==2.13.0 numpy==2.4.6 scipy==1.17.1 -e .
    /tmp/torchenv/bin/python -m tests.data.write_torch_golden --reason "…"

The bound comes from a running error analysis (`tests.running_error`): parameters start without error, and each
step's new errors are added to what the earlier ones have become, at worst. It holds for every evaluation in float64
whose sums have any order and whose elementary functions err by no more than `EITHER` says (those of PyTorch, from
SLEEF, by 1 ULP); two evaluations are within twice the error. Three places where PyTorch's operations are others than
those of the analysis:

- The gradient of 0.5 d^2 is (0.5 * 2) d: multiplications by powers of two, which are exact. No mean is taken.
- Adam's first moment is m + (g - m) (1 - beta_1), with errors of at most 3 u (1 - beta_1) (|g| + |m|) + u |m'| for m';
  the analysis has for beta_1 m + (1 - beta_1) g at least u (beta_1 |m| + 3 (1 - beta_1) |g|) + u |m'|, which is more as
  long as 3 (1 - beta_1) <= beta_1.
- PyTorch adds epsilon to sqrt(v / (1 - beta_2^t)), fastnet (Kingma and Ba's efficient form) to sqrt(v). So for each
  step PyTorch is given epsilon / sqrt(1 - beta_2^t), which makes them the same function. Its powers have one
  rounding, for which the analysis has t: through 1 / (1 - beta_2^t) each is worth hundreds of u, many times what
  PyTorch's one more division and the rounding of that epsilon add. In the first step, where t is 1, powers are exact.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastnet import contract
from fastnet.optimizers import SGD, Adam, Optimizer
from fastnet.testing.golden import golden_from_arrays
from fastnet.testing.golden_records import Bound
from tests import bounded_formulas
from tests.bounded_formulas import Layer
from tests.running_error import EITHER, Arithmetic, Bounded

if TYPE_CHECKING:
    import torch

Arrays = list[NDArray[np.float64]]

SIZES, ACTIVATIONS, EPOCHS = (3, 6, 5, 2), (contract.TANH, contract.SIGMOID, contract.IDENTITY), 5
OPTIMIZERS: dict[str, Optimizer] = {"sgd": SGD(learning_rate=0.02), "adam": Adam(learning_rate=0.02)}


def data() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.RandomState(0)
    return random.standard_normal((12, SIZES[0])), random.random_sample((12, SIZES[-1]))


def torch_model() -> torch.nn.Sequential:
    # Here and below, so that tests can import this file without PyTorch.
    import torch

    torch.manual_seed(0)
    functions = {contract.TANH: torch.nn.Tanh, contract.SIGMOID: torch.nn.Sigmoid, contract.IDENTITY: torch.nn.Identity}
    layers: list[torch.nn.Module] = []
    for n_inputs, n_outputs, activation in zip(SIZES, SIZES[1:], ACTIVATIONS, strict=False):
        layers += [torch.nn.Linear(n_inputs, n_outputs, dtype=torch.float64), functions[activation]()]
    return torch.nn.Sequential(*layers)


def torch_arrays(model: torch.nn.Sequential) -> Arrays:
    """Weights, (out, in), and bias of each layer."""
    return [parameter.detach().numpy().copy() for parameter in model.parameters()]


def train_torch(model: torch.nn.Sequential, optimizer: Optimizer) -> Iterator[tuple[float, Arrays]]:
    """The loss of each epoch, before its step, and the parameters after it."""
    import torch

    x, y = map(torch.from_numpy, data())
    if isinstance(optimizer, Adam):
        betas = (optimizer.beta_1, optimizer.beta_2)
        stepper: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), optimizer.learning_rate, betas)
    else:
        stepper = torch.optim.SGD(model.parameters(), optimizer.learning_rate)
    for epoch in range(EPOCHS):
        stepper.zero_grad()
        error = model(x) - y
        loss = (0.5 * error**2).sum(0).sum()
        loss.backward()
        if isinstance(optimizer, Adam):
            stepper.param_groups[0]["eps"] = optimizer.epsilon / (1 - optimizer.beta_2 ** (epoch + 1)) ** 0.5
        stepper.step()
        yield loss.item(), torch_arrays(model)


def bounds(start: Arrays, optimizer: Optimizer) -> Iterator[float]:
    """For each epoch the largest bound on a difference, relative to its array's largest magnitude."""
    arithmetic = Arithmetic(np.dtype(np.float64), EITHER)
    x, y = map(arithmetic.exact, data())
    weight = arithmetic.exact(np.ones(len(x.value)))
    objective = contract.Objective(contract.SQUARED_ERROR, 0.0, False, 0.0, len(x.value))
    parameters = [arithmetic.exact(array.T) for array in start]
    states = [[array.constant(0.0)] * optimizer.n_slots for array in parameters]
    for epoch in range(EPOCHS):
        layers = [Layer(*parameters[2 * i : 2 * i + 2], activation) for i, activation in enumerate(ACTIVATIONS)]
        total, gradient = bounded_formulas.backpropagate(layers, objective, x, y, weight)
        rate = arithmetic.rounded(float(optimizer.rates(epoch, 1)[0]))
        if optimizer.kind == contract.ADAM:
            rate = bounded_formulas.adam_rate(arithmetic, float(rate.value), optimizer.settings, epoch + 1)
        derivatives = [array for layer in gradient for array in (layer.weights, layer.bias)]
        largest = [_relative(total)]
        for i, (w, g) in enumerate(zip(parameters, derivatives, strict=True)):
            parameters[i], *states[i] = bounded_formulas.step(
                optimizer.kind, w, g, states[i], optimizer.settings, float(rate.value), rate
            )
            largest.append(_relative(parameters[i]))
        yield max(largest)


def _relative(bounded: Bounded) -> float:
    # A file's numbers are an evaluation, too: the largest of them may be smaller by one error.
    return float(np.max(bounded.difference) / np.max(np.abs(bounded.value) - bounded.error))


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reason", help="why they are written again")
    parser.add_argument("--author")
    arguments = parser.parse_args()
    for name, optimizer in OPTIMIZERS.items():
        model = torch_model()
        start = torch_arrays(model)
        of_epochs = list(bounds(start, optimizer))
        # Rounded up to two digits.
        size = float(f"{1.05 * max(of_epochs):.1e}")
        growth = f"from {of_epochs[0]:.1e} in epoch 0 to {of_epochs[-1]:.1e} in epoch {EPOCHS - 1}"
        because = (
            f"running error analysis in tests/data/write_torch_golden.py: it grows {growth}, as each step's rounding "
            "errors are taken on by the later steps at worst"
        )
        golden_from_arrays(
            Path(__file__).with_name(f"torch_{name}.golden"),
            start,
            dict(enumerate(train_torch(model, optimizer))),
            *data(),
            bound=Bound(size, "relative", because),
            source={"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
            activation=[contract.ACTIVATIONS[code] for code in ACTIVATIONS[:-1]],
            output_activation=contract.ACTIVATIONS[ACTIVATIONS[-1]],
            transposed=True,
            reason=arguments.reason,
            author=arguments.author,
            optimizer=optimizer,
            epochs=EPOCHS,
            reduction="sum",
        )


if __name__ == "__main__":
    main()
