"""scikit-learn's multilayer perceptrons, by their public interface: warm starts from given weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, Training, UnsupportedError, flat
from fastnet.optimizers import Adam
from fastnet.testing.cases import Case

_NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


class ScikitLearn(Peer):
    """`MLPClassifier` and `MLPRegressor`."""

    name: ClassVar[str] = "scikit-learn"
    label: ClassVar[str] = "scikit-learn"
    distribution: ClassVar[str] = "scikit-learn"
    modules: ClassVar[tuple[str, ...]] = ("sklearn",)

    def variant(self, case: Case) -> tuple[Case, str]:
        if case.output_activation == "sigmoid" and case.loss == "squared_error":
            notes = ["cross-entropy in place of the squared error"]
            if not case.bias:
                notes.append("biases")
            # The gradient of a mean times the batch's size is that of the sum.
            return replace(case, loss="binary_cross_entropy", bias=True), " and ".join(notes)
        if case.output_activation == "softmax" and case.layer_sizes[-1] == 2:
            sizes = (*case.layer_sizes[:-1], 1)
            other = replace(case, layer_sizes=sizes, output_activation="sigmoid", loss="binary_cross_entropy")
            return other, "one logistic output for two classes"
        return case, ""

    def training(self, problem: Problem) -> Training:
        return _Estimator(problem)

    def prediction(self, problem: Problem, n_rows: int) -> Callable[[], Any]:
        model = _Estimator(problem).model
        x = problem.x[:n_rows]
        return (lambda: model.predict_proba(x)) if hasattr(model, "predict_proba") else (lambda: model.predict(x))

    @property
    def import_statement(self) -> str:
        return "import sklearn.neural_network"


class _Estimator(Training):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.model = make_estimator(problem, 1)
        self.y = targets(problem)
        # A first fit makes the arrays that later fits start from.
        self.run(1)
        self.reset()

    def reset(self) -> None:
        network, model = self.problem.network, self.model
        for own, first in zip([*model.coefs_, *model.intercepts_], [*network.weights, *network.biases], strict=True):
            own[...] = first

    def run(self, epochs: int) -> None:
        self.model.max_iter = epochs
        with warnings.catch_warnings():
            # It says that training has not converged.
            warnings.simplefilter("ignore")
            self.model.fit(self.problem.x, self.y)

    def parameters(self) -> Array:
        return flat(self.model.coefs_, self.model.intercepts_)


def targets(problem: Problem) -> Any:
    """The targets as scikit-learn takes them."""
    if problem.labels is not None:
        return problem.labels
    y = problem.y.ravel() if problem.y.shape[1] == 1 else problem.y
    return y.astype(np.int64) if problem.case.loss == "binary_cross_entropy" else y


def make_estimator(problem: Problem, max_iter: int) -> Any:
    """An estimator that trains for all epochs, and starts the next fit from its weights."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    case, optimizer = problem.case, problem.optimizer
    hidden = set(problem.network.activations[:-1])
    if len(hidden) > 1 or not hidden <= _NAMES.keys() or not case.bias:
        raise UnsupportedError("has no such network")
    kinds = {
        ("softmax", "cross_entropy"): MLPClassifier,
        ("sigmoid", "binary_cross_entropy"): MLPClassifier,
        ("identity", "squared_error"): MLPRegressor,
    }
    kind = kinds.get((case.output_activation, case.loss))
    if kind is None:
        raise UnsupportedError(f"has no {case.loss} after {case.output_activation}")
    rate = problem.learning_rate
    if case.reduction == "sum":
        if case.n_samples % problem.batch_size:
            raise UnsupportedError("takes means, and the batches differ in size")
        rate *= problem.batch_size
    settings: dict[str, Any] = {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False}
    if isinstance(optimizer, Adam):
        settings = {
            "solver": "adam",
            "beta_1": optimizer.beta_1,
            "beta_2": optimizer.beta_2,
            "epsilon": optimizer.epsilon,
        }
    return kind(
        hidden_layer_sizes=case.layer_sizes[1:-1],
        activation=_NAMES[hidden.pop()] if hidden else "identity",
        alpha=0.0,
        batch_size=problem.batch_size,
        learning_rate_init=rate,
        max_iter=max_iter,
        shuffle=case.shuffle,
        random_state=case.seed,
        tol=0.0,
        n_iter_no_change=np.inf,
        warm_start=True,
        **settings,
    )
