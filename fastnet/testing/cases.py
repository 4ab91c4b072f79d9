"""The registry of trainings that tests and benchmarks share.

A `Case` says everything about a training: network, data, loss, optimizer, seeds. `Case.setup` prepares
it and returns a function without arguments that trains, so that preparation is never timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnet import contract
from fastnet.backends import Backend
from fastnet.history import DivergenceError
from fastnet.network import Network
from fastnet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, Rprop
from fastnet.schedules import InverseScaling
from fastnet.testing.datasets import DATASETS

#: Activations that hidden layers may have.
HIDDEN = tuple(name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY)
#: Every form of every optimizer, with rates at which small networks train.
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(learning_rate=0.01),
    "momentum": SGD(learning_rate=0.005, momentum=0.9),
    "nesterov": SGD(learning_rate=0.005, momentum=0.9, nesterov=True),
    "adam": Adam(learning_rate=0.01),
    "adamw": AdamW(learning_rate=0.01, weight_decay=0.1),
    "rmsprop": RMSprop(learning_rate=0.01),
    "rmsprop_momentum": RMSprop(learning_rate=0.01, momentum=0.5),
    "rprop": Rprop(learning_rate=0.01),
    "schedule": SGD(learning_rate=InverseScaling(0.02, power=0.3)),
}


@dataclass(frozen=True)
class Case:
    """A training; the data and the initial parameters come from ``seed``.

    Attributes
    ----------
    layer_sizes, activation, output_activation, bias, dtype
        As for `fastnet.Network`.
    loss, epochs, batch_size, reduction, l2, shuffle
        As for `fastnet.Network.fit`.
    optimizer : str or Optimizer
        A name of `OPTIMIZERS`, or an optimizer.
    n_samples : int
        How many samples there are.
    weighted : bool
        Whether they have weights.
    seed : int
        For data, parameters and orders.
    dataset : str
        A name of `fastnet.testing.datasets.DATASETS`.
    scheme : str
        How `fastnet.Network.initialize` draws the parameters.

    Examples
    --------
    >>> train = Case((3, 4, 1)).setup("numpy")
    >>> sorted(train())
    ['biases.0', 'biases.1', 'loss_curve', 'mean_absolute_error', 'predictions', 'slots', 'weights.0', 'weights.1']
    """

    layer_sizes: tuple[int, ...] = (3, 5, 2)
    activation: str = "tanh"
    output_activation: str = "identity"
    loss: str = "squared_error"
    optimizer: str | Optimizer = "sgd"
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
    dataset: str = "random"
    scheme: str = "uniform"

    def network(self) -> Network:
        """The network with its initial parameters."""
        network = Network(self.layer_sizes, self.activation, self.output_activation, self.bias, self.dtype)
        return network.initialize(self.seed, self.scheme)

    def data(self) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[np.floating] | None]:
        """Inputs, targets or labels that the loss accepts, and sample weights."""
        rng = np.random.RandomState(self.seed)
        x, y = DATASETS[self.dataset](self, rng)
        weight = rng.random_sample(self.n_samples) if self.weighted else None
        return x, y, weight

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `fastnet.Network.fit` but for the data and the backend."""
        return {
            "loss": self.loss,
            "optimizer": OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "reduction": self.reduction,
            "l2": self.l2,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    def setup(self, backend: str | Backend, **how: Any) -> Callable[[], dict[str, NDArray[Any]]]:
        """Prepare the training; the function returned trains, and returns all that is left by name.

        ``how`` are arguments of `fastnet.Network.fit` that do not change results: ``threads``, ``specialize``. Without
        the latter the kernel for all networks trains.
        """
        network, (x, y, weight) = self.network(), self.data()
        how = {"specialize": False, **how}

        def train() -> dict[str, NDArray[Any]]:
            try:
                history = network.fit(x, y, sample_weight=weight, backend=backend, **self.settings, **how)
            except DivergenceError as error:
                # A start that diverges has to do so alike.
                return {"divergence": np.array([error.epoch, error.layer]), "loss_curve": error.history.loss_curve}
            return {
                **{f"weights.{index}": weights.copy() for index, weights in enumerate(network.weights)},
                **{f"biases.{index}": biases.copy() for index, biases in enumerate(network.biases)},
                "slots": network._training.slots,
                "loss_curve": history.loss_curve,
                "mean_absolute_error": history.mean_absolute_error,
                "predictions": network.predict(x, backend=backend),
            }

        return train

    def train(self, backend: str | Backend, **how: Any) -> dict[str, NDArray[Any]]:
        """Prepare and train."""
        return self.setup(backend, **how)()


NOTEBOOK = Case((3, 4, 1), "sigmoid", "sigmoid", "squared_error", "sgd", "float64", False, 4, None, 5001, "sum")

#: Libraries add epsilon before or after the bias correction; this one is too small for that to matter.
ADAM = Adam(0.001, epsilon=1e-12)


def _classifier(
    layer_sizes: tuple[int, ...],
    n_samples: int,
    batch_size: int,
    epochs: int = 1,
    dataset: str = "classes",
    activation: str = "relu",
) -> Case:
    """A classifier as one would train it: softmax, Adam, shuffled mini-batches."""
    return Case(
        layer_sizes,
        activation,
        "softmax",
        "cross_entropy",
        ADAM,
        n_samples=n_samples,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=True,
        dataset=dataset,
        scheme="glorot_uniform",
    )


#: The trainings of the benchmark suites, at their full length. The tests compare their bits as those of the others.
BENCHMARKS: dict[str, Case] = {
    "notebook": Case(
        (3, 4, 1),
        "sigmoid",
        "sigmoid",
        "squared_error",
        SGD(1.0),
        "float64",
        False,
        4,
        None,
        5001,
        "sum",
        seed=4,
        dataset="notebook_1",
    ),
    "notebook-bias": Case(
        (4, 3, 1),
        "sigmoid",
        "sigmoid",
        "squared_error",
        SGD(0.1),
        "float64",
        True,
        3,
        None,
        5000,
        "sum",
        dataset="notebook_2",
    ),
    "digits": _classifier((64, 100, 10), n_samples=1797, batch_size=200, epochs=10, dataset="digits"),
    "tabular": _classifier((8, 64, 64, 2), n_samples=20_000, batch_size=256),
    "mnist-like": _classifier((784, 128, 10), n_samples=10_000, batch_size=128),
    "mnist-wide": _classifier((784, 512, 10), n_samples=5_120, batch_size=256),
    "regression": Case(
        (16, 32, 32, 1),
        "relu",
        "identity",
        "squared_error",
        ADAM,
        n_samples=20_000,
        batch_size=256,
        epochs=1,
        shuffle=True,
        dataset="surface",
        scheme="glorot_uniform",
    ),
    "deep": _classifier((*(64,) * 8, 10), n_samples=5_120, batch_size=256, activation="tanh"),
}


def covering_cases() -> dict[str, Case]:
    """A few cases, by name, that together use every function of the kernels, in both dtypes."""
    cases = {}
    optimizers = list(OPTIMIZERS)
    for dtype in ("float32", "float64"):
        for position, activation in enumerate(HIDDEN):
            cases[f"{activation}-{dtype}"] = Case(
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
        for loss, output in contract.MATCHED_ACTIVATION.items():
            # More than a block of rows to a batch, and a ragged last batch.
            cases[f"{contract.LOSSES[loss]}-{dtype}"] = Case(
                (5, 17, 4),
                "relu",
                contract.ACTIVATIONS[output],
                contract.LOSSES[loss],
                "adam",
                dtype,
                n_samples=300,
                batch_size=290,
            )
        # Matrices that are packed before they are multiplied.
        cases[f"large-{dtype}"] = Case(
            (64, 100, 10),
            "relu",
            "softmax",
            "cross_entropy",
            "adam",
            dtype,
            n_samples=209,
            batch_size=200,
            epochs=1,
            scheme="glorot_uniform",
        )
    return cases


def small_cases() -> dict[str, Case]:
    """A few networks, by name, that are small enough to have kernels compiled for them alone."""
    notebook = replace(NOTEBOOK, epochs=200)
    orders = Case((2, 8, 8, 1), optimizer="adam", n_samples=19, batch_size=8, shuffle=True, l2=0.01)
    classes = Case((4, 12, 3), "relu", "softmax", "cross_entropy", "rmsprop", n_samples=21, batch_size=None)
    found = {}
    for dtype in ("float32", "float64"):
        found[f"notebook-{dtype}"] = replace(notebook, dtype=dtype)
        found[f"orders-{dtype}"] = replace(orders, dtype=dtype)
    return found | {"classes-float64": classes}


def edge_values(dtype: DTypeLike) -> NDArray[np.floating]:
    """Zeros, the borders of the subnormals and of the format, numbers around one, infinities, NaN; both signs."""
    info = np.finfo(np.dtype(dtype))
    one = info.dtype.type(1)
    tiny, least, largest = info.smallest_normal, info.smallest_subnormal, info.max
    positive = [0 * one, least, 2 * least, tiny - least, tiny, tiny + least, 2 * tiny, info.eps, one / 3]
    positive += [np.nextafter(one, 0 * one), one, np.nextafter(one, 2 * one), 2 * one, 3 * one]
    positive += [np.nextafter(largest, one), largest, info.dtype.type(np.inf), info.dtype.type(np.nan)]
    values = np.array(positive, info.dtype)
    return np.concatenate([values, -values])
