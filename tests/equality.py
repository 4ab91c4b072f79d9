"""Trainings that are run on several backends, or CPUs, and compared bit by bit."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace

import numpy as np
from numba.core import registry
from numpy.typing import NDArray

import fastnet
from fastnet import contract
from fastnet.optimizers import Optimizer

HIDDEN = tuple(name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY)
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": fastnet.SGD(learning_rate=0.01),
    "momentum": fastnet.SGD(learning_rate=0.005, momentum=0.9),
    "nesterov": fastnet.SGD(learning_rate=0.005, momentum=0.9, nesterov=True),
    "adam": fastnet.Adam(learning_rate=0.01),
    "adamw": fastnet.AdamW(learning_rate=0.01, weight_decay=0.1),
    "rmsprop": fastnet.RMSprop(learning_rate=0.01),
    "rmsprop_momentum": fastnet.RMSprop(learning_rate=0.01, momentum=0.5),
    "rprop": fastnet.Rprop(learning_rate=0.01),
    "schedule": fastnet.SGD(learning_rate=fastnet.InverseScaling(0.02, power=0.3)),
}


@dataclass(frozen=True)
class Case:
    """A training to compare; the data and the initial parameters come from ``seed``."""

    layer_sizes: tuple[int, ...] = (3, 5, 2)
    activation: str = "tanh"
    output_activation: str = "identity"
    loss: str = "squared_error"
    optimizer: str = "sgd"
    dtype: str = "float64"
    bias: bool = True
    n_samples: int = 11
    batch_size: int | None = 4
    epochs: int = 2
    reduction: str = "mean"
    l2: float = 0.0
    shuffle: bool = False
    weighted: bool = False
    seed: int = 0

    def data(self) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating] | None]:
        """Inputs, targets that the loss accepts, and sample weights."""
        rng = np.random.RandomState(self.seed)
        x = rng.standard_normal((self.n_samples, self.layer_sizes[0]))
        # Some inputs are exact zeros, as one-hot columns and dead units are.
        x[rng.random_sample(x.shape) < 0.1] = 0.0
        y = rng.random_sample((self.n_samples, self.layer_sizes[-1]))
        if self.loss == "poisson":
            y = np.floor(4 * y)
        elif self.loss == "cross_entropy":
            y /= y.sum(axis=1, keepdims=True)
        weight = rng.random_sample(self.n_samples) if self.weighted else None
        return x, y, weight

    def train(self, backend: str) -> dict[str, NDArray[np.generic]]:
        """Everything that the training leaves behind, by name."""
        network = fastnet.Network(self.layer_sizes, self.activation, self.output_activation, self.bias, self.dtype)
        network.initialize(self.seed)
        x, y, weight = self.data()
        try:
            history = network.fit(
                x,
                y,
                loss=self.loss,
                optimizer=OPTIMIZERS[self.optimizer],
                epochs=self.epochs,
                batch_size=self.batch_size,
                reduction=self.reduction,
                l2=self.l2,
                shuffle=self.shuffle,
                seed=self.seed,
                sample_weight=weight,
                backend=backend,
            )
        except fastnet.DivergenceError as error:
            # A start that diverges has to do so alike.
            return {"divergence": np.array([error.epoch, error.layer]), "loss_curve": error.history.loss_curve}
        return {
            "parameter_buffer": network.parameter_buffer.copy(),
            "optimizer slots": network._training.slots,
            "loss_curve": history.loss_curve,
            "mean_absolute_error": history.mean_absolute_error,
            "predictions": network.predict(x, backend=backend),
        }


def digest(arrays: dict[str, NDArray[np.generic]]) -> str:
    """SHA-256 of all bits."""
    joined = hashlib.sha256()
    for name, array in arrays.items():
        joined.update(f"{name} {array.dtype} {array.shape}".encode())
        joined.update(np.ascontiguousarray(array).tobytes())
    return joined.hexdigest()


NOTEBOOK = Case((3, 4, 1), "sigmoid", "sigmoid", "squared_error", "sgd", "float64", False, 4, None, 5001, "sum")


def cpu_cases() -> list[Case]:
    """A few cases that together use every function of the kernels, for CPUs that need a compilation of their own."""
    cases = []
    for dtype in ("float32", "float64"):
        optimizers = list(OPTIMIZERS)
        for position, activation in enumerate(HIDDEN):
            cases.append(
                Case(
                    (7, 19, 6, 3),
                    activation,
                    contract.ACTIVATIONS[(position + 5) % len(contract.ACTIVATIONS)],
                    contract.LOSSES[position % len(contract.LOSSES)],
                    optimizers[position % len(optimizers)],
                    dtype,
                    bias=position % 2 == 0,
                    n_samples=23,
                    batch_size=8,
                    l2=0.01 * (position % 3),
                    shuffle=position % 2 == 1,
                    weighted=position % 3 == 1,
                    seed=position,
                )
            )
        for loss, output in (
            ("binary_cross_entropy", "sigmoid"),
            ("cross_entropy", "softmax"),
            ("poisson", "exponential"),
        ):
            cases.append(Case((5, 17, 4), "relu", output, loss, "adam", dtype, n_samples=300, batch_size=290))
        cases.append(replace(NOTEBOOK, dtype=dtype))
    return cases


def main() -> None:
    """Print for which CPU LLVM compiles, then the digest of every case on the kernels."""
    lines = [" ".join(registry.cpu_target.target_context.codegen().magic_tuple()[1:])]
    lines += [digest(case.train("numba")) for case in cpu_cases()]
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main()
