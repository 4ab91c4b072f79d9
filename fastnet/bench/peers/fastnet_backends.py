"""fastnet itself: the kernels, and the reference with BLAS."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError
from fastnet.contract import BLOCK_ROWS, Objective, Update
from fastnet.layout import make_layout
from fastnet.testing.cases import ADAM
from fastnet.warming import warmup

#: Once for each dtype.
_warm_up = cache(warmup)


class _Fit(Training):
    def __init__(self, problem: Problem, backend: str, specialize: bool = False) -> None:
        self.problem = problem
        how = {"backend": backend, "threads": problem.threads, "specialize": specialize}
        self.settings = problem.case.settings | how
        one_output = problem.network.n_outputs == 1
        self.y = problem.y if problem.labels is None or one_output else problem.labels
        self.reset()

    def reset(self) -> None:
        self.network = self.problem.network.copy()

    def run(self, epochs: int) -> None:
        self.network.fit(self.problem.x, self.y, **self.settings | {"epochs": epochs})

    def parameters(self) -> Array:
        return self.network.parameters


class Numba(Peer):
    """The kernels."""

    name: ClassVar[str] = "numba"
    label: ClassVar[str] = "fastnet"

    def warm_up(self, dtype: str) -> None:
        _warm_up(dtype)

    def training(self, problem: Problem) -> Training:
        return _Fit(problem, self.name)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        network, x, backend = problem.network, problem.x[:n_rows], self.name
        return lambda: network.predict(x, backend=backend)

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        from fastnet import kernels

        if name == "adam":
            return _adam_step(*arrays)
        function = getattr(kernels, name)
        return lambda: function(*arrays)

    @property
    def import_statement(self) -> str | None:
        return "import fastnet"


class Specialized(Numba):
    """Kernels compiled for a small network alone."""

    name: ClassVar[str] = "numba-specialized"
    label: ClassVar[str] = "fastnet, specialized"
    is_everywhere: ClassVar[bool] = False

    def training(self, problem: Problem) -> Training:
        from fastnet.runtime.plans import MOST_PRODUCTS, most_outputs

        network = problem.network
        n_weights = sum(weights.size for weights in network.weights)
        is_wide = network.n_outputs > most_outputs(8 * network.dtype.itemsize)
        if n_weights > MOST_PRODUCTS or is_wide or problem.batch_size > BLOCK_ROWS:
            raise UnsupportedError("is for small networks")
        return _Fit(problem, "numba", specialize=True)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        raise UnsupportedError("is for training")

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        raise UnsupportedError("is for training")

    @property
    def import_statement(self) -> None:
        """What a script imports is the same as without."""
        return


class NumpyBackend(Numba):
    """The reference with BLAS: the arithmetic of `exact` in its blocks, with its losses and checks."""

    name: ClassVar[str] = "numpy"
    label: ClassVar[str] = "fastnet, numpy"

    def warm_up(self, dtype: str) -> None:
        """Nothing is compiled."""

    def operation(self, name: str, arrays: tuple[Array, ...]) -> Callable[[], Any]:
        raise UnsupportedError("has NumPy's operations, which are the NumPy loop's")


def _adam_step(parameters: Array, gradient: Array, first: Array, second: Array) -> Callable[[], Any]:
    from fastnet import kernels

    # A layer of one input has one row of parameters.
    layout = make_layout([1, parameters.size], ["identity"], bias=False, dtype=parameters.dtype)
    update = Update(ADAM.kind, ADAM.settings, np.stack([first, second]), np.ones(2), ADAM.rates(0, 1))
    objective = Objective(loss=0, parameter=0.0, mean=False, l2=0.0, batch_size=1)

    def step() -> Array:
        kernels.step(layout, parameters, gradient, 1.0, objective, update, 0.001)
        return parameters

    return step
