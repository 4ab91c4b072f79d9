"""Data sets for the registry of cases: drawn from a case's seed, or those of the notebooks and of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnet.testing import notebooks

if TYPE_CHECKING:
    from fastnet.testing.cases import Case

#: Inputs of shape (n_samples, n_inputs), and targets of shape (n_samples, n_outputs) or labels of shape (n_samples,).
Data: TypeAlias = tuple[NDArray[np.floating], NDArray[Any]]


def random(case: Case, rng: np.random.RandomState) -> Data:
    """Normal inputs, and targets that are drawn without regard to them, as the loss wants them."""
    x = rng.standard_normal((case.n_samples, case.layer_sizes[0]))
    # Some inputs are exact zeros, as one-hot columns and dead units are.
    x[rng.random_sample(x.shape) < 0.1] = 0.0
    y = rng.random_sample((case.n_samples, case.layer_sizes[-1]))
    if case.loss == "poisson":
        y = np.floor(4 * y)
    elif case.loss == "cross_entropy":
        y /= y.sum(axis=1, keepdims=True)
    return x, y


def classes(case: Case, rng: np.random.RandomState) -> Data:
    """Normal inputs, and as labels the largest of noisy linear functions of them, one for each class."""
    n_classes = max(2, case.layer_sizes[-1])
    x = rng.standard_normal((case.n_samples, case.layer_sizes[0]))
    scores = x @ rng.standard_normal((case.layer_sizes[0], n_classes))
    return x, np.argmax(scores + rng.standard_normal(scores.shape), axis=1)


def surface(case: Case, rng: np.random.RandomState) -> Data:
    """Normal inputs, and as targets noisy waves along random directions."""
    x = rng.standard_normal((case.n_samples, case.layer_sizes[0]))
    directions = rng.standard_normal((case.layer_sizes[0], case.layer_sizes[-1])) / np.sqrt(case.layer_sizes[0])
    waves = np.sin(x @ directions)
    return x, waves + 0.1 * rng.standard_normal(waves.shape)


def digits(case: Case, rng: np.random.RandomState) -> Data:
    """The first samples of scikit-learn's digits: 8 x 8 pixels between 0 and 1, and labels from 0 to 9."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install fastnet[sklearn]") from error
    pixels, labels = load_digits(return_X_y=True)
    return pixels[: case.n_samples] / 16.0, labels[: case.n_samples]


def notebook_1(case: Case, rng: np.random.RandomState) -> Data:
    """The four samples of the first notebook."""
    return _of_notebook(notebooks.NOTEBOOK_1)


def notebook_2(case: Case, rng: np.random.RandomState) -> Data:
    """The three samples of the second notebook."""
    return _of_notebook(notebooks.NOTEBOOK_2)


def _of_notebook(notebook: notebooks.Notebook) -> Data:
    return notebook.x.astype(np.float64), notebook.y.astype(np.float64)


#: What `fastnet.testing.cases.Case.dataset` may name.
DATASETS: dict[str, Callable[[Case, np.random.RandomState], Data]] = {
    function.__name__: function for function in (random, classes, surface, digits, notebook_1, notebook_2)
}
