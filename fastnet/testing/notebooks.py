"""Three notebooks that train small networks: their data, their own NumPy loops, and what they printed.

The loops keep the notebooks' operations, names and integer inputs, for they are what fastnet is timed
against; what they printed they return. All of them sum the gradient over the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.history import History
from fastnet.network import Network
from fastnet.optimizers import SGD
from fastnet.testing.segments import fit_exactly

Array = NDArray[np.floating]
#: Weights, and biases, of the layers in order.
Parameters = tuple[list[Array], list[Array]]
#: Trains the weights and biases in place for some epochs, and returns the figures that are printed.
Loop = Callable[[NDArray[np.int64], NDArray[np.int64], Sequence[Array], Sequence[Array], int], list[float]]


@dataclass(frozen=True, eq=False)
class Notebook:
    """A notebook: what it trains, on what, and what it printed.

    Attributes
    ----------
    name, title : str
        Which notebook it is, and what its network is and how it is trained.
    x, y : array of int64
        The samples, as the notebook has them.
    start : callable
        Returns the first weights and biases; there are no biases where the notebook has none.
    loop : callable
        The notebook's own loop.
    learning_rate : float
        The rate of the gradient descent.
    epochs : int
        How many epochs the notebook's cell trains for.
    updates_before : int
        How many updates the weights had seen before that cell ran for the output that was kept.
    report_every : int
        The mean absolute error is printed every so many epochs; with 0 the last outputs are printed.
    figure_format : str
        How the figures are printed: Python 2 shows 12 significant digits, NumPy 8 places.
    printed : tuple of str
        The figures, as printed.
    seeded : bool
        Whether the first weights are known, so that the figures can be met to the last digit.
    """

    name: str
    title: str
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    start: Callable[[], Parameters]
    loop: Loop
    learning_rate: float
    epochs: int
    updates_before: int
    report_every: int
    figure_format: str
    printed: tuple[str, ...]
    seeded: bool = True

    def network(self) -> Network:
        """A network with the first weights and biases."""
        return network(*self.start())

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `fastnet.Network.fit` that say what is trained, but for the data and the epochs."""
        return {
            "loss": "squared_error",
            "optimizer": SGD(learning_rate=self.learning_rate),
            "batch_size": None,
            "reduction": "sum",
            "shuffle": False,
        }

    def fit(self, net: Network, epochs: int, backend: str) -> History:
        """Train a network as the notebook's loop does; on ``"exact"`` in segments, by `fit_exactly`."""
        report_every = self.report_every or None
        if backend == "exact":
            rate = self.learning_rate
            return fit_exactly(
                net, self.x, self.y, epochs=epochs, learning_rate=rate, reduction="sum", report_every=report_every
            )
        return net.fit(self.x, self.y, **self.settings, epochs=epochs, report_every=report_every, backend=backend)

    def run(self, net: Network, backend: str) -> tuple[list[float], Array]:
        """Train a network for the notebook's epochs.

        Returns
        -------
        figures : list of float
            What the notebook prints.
        mean_absolute_error : array of float64, shape (epochs,)
            The error of each epoch.
        """
        if self.report_every:
            history = self.fit(net, self.epochs, backend)
            return [report.mean_absolute_error for report in history.reports], history.mean_absolute_error
        # The outputs printed are those of the last epoch, before its update.
        history = self.fit(net, self.epochs - 1, backend)
        outputs = net.predict(self.x, backend=backend)
        last = self.fit(net, 1, backend)
        return outputs.ravel().tolist(), np.append(history.mean_absolute_error, last.mean_absolute_error)

    def run_loop(self, net: Network, epochs: int) -> list[float]:
        """Train a network with the notebook's own loop; return what it prints."""
        weights, biases = arrays(net)
        figures = self.loop(self.x, self.y, weights, biases, epochs)
        net.parameters = network(weights, biases).parameters
        return figures

    def show(self, figure: float) -> str:
        """A figure as the notebook prints it."""
        return format(figure, self.figure_format)


def network(weights: Sequence[Array], biases: Sequence[Array]) -> Network:
    """A network of sigmoids with these weights and biases."""
    return Network.from_arrays(weights, biases or None, activation="sigmoid", output_activation="sigmoid")


def arrays(net: Network) -> Parameters:
    """Contiguous copies of a network's weights and biases."""
    return [w.copy() for w in net.weights], [b.copy() for b in net.biases]


# Notebook 1: 000_3915bdbbc34f31fc


def _start_1() -> Parameters:
    random = np.random.RandomState(4).random_sample
    return [2 * random((3, 4)) - 1, 2 * random((4, 1)) - 1], []


def _non_linear(x: Array, deriv: bool = False) -> Array:
    if deriv:
        return x * (1 - x)
    return 1.0 / (1.0 + np.exp(-x))


def _loop_1(
    x: NDArray[np.int64], y: NDArray[np.int64], weights: Sequence[Array], _: Sequence[Array], epochs: int
) -> list[float]:
    weight_1, weight_2 = weights
    errors = []
    for epoch in range(epochs):
        layer_0 = x
        layer_1 = _non_linear(np.dot(layer_0, weight_1))
        layer_2 = _non_linear(np.dot(layer_1, weight_2))

        layer_2_error = y - layer_2

        if (epoch % 1000) == 0:
            errors.append(float(np.mean(np.abs(layer_2_error))))

        layer_2_delta = layer_2_error * _non_linear(layer_2, deriv=True)
        layer_1_error = layer_2_delta.dot(weight_2.T)
        layer_1_delta = layer_1_error * _non_linear(layer_1, deriv=True)

        weight_2 += layer_1.T.dot(layer_2_delta)
        weight_1 += layer_0.T.dot(layer_1_delta)
    return errors


_XOR_X = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
_XOR_Y = np.array([[0], [1], [1], [0]])

NOTEBOOK_1 = Notebook(
    name="Notebook 1",
    title="3-4-1, sigmoid, no bias, rate 1, 4 samples",
    x=_XOR_X,
    y=_XOR_Y,
    start=_start_1,
    loop=_loop_1,
    learning_rate=1.0,
    epochs=5001,
    updates_before=15_002,
    report_every=1000,
    figure_format=".12g",
    printed=(
        "0.00808433294859",
        "0.0078083459104",
        "0.00755821099357",
        "0.00733015223882",
        "0.00712112115172",
        "0.00692862618316",
    ),
)
#: The first weights, as NumPy printed them.
PRINTED_WEIGHTS = (
    """\
[[ 0.93405968  0.0944645   0.94536872  0.42963199]
 [ 0.39545765 -0.56782101  0.95254891 -0.98753949]
 [-0.49403528 -0.13041694  0.55876584 -0.60462985]]""",
    """\
[[ 0.72598647]
 [ 0.96680135]
 [-0.67231552]
 [ 0.19466789]]""",
)


# Notebook 2: 001_658075dd34572237


def random_starts(n_starts: int) -> Parameters:
    """Weights and biases of notebook 2, which drew them from [0, 1) without a seed.

    Parameters
    ----------
    n_starts : int
        How many networks to draw; the first ones are the same for any number.

    Returns
    -------
    weights, biases : lists of arrays
        Of the shapes (n_starts, 4, 3) and (n_starts, 3, 1), and (n_starts, 3) and (n_starts, 1).
    """
    drawn = np.random.RandomState(0).uniform(size=(n_starts, 19))
    hidden, hidden_bias, output, output_bias = np.split(drawn, [12, 15, 18], axis=1)
    return [hidden.reshape(-1, 4, 3), output.reshape(-1, 3, 1)], [hidden_bias, output_bias]


def outputs_of_starts(n_starts: int, backend: str) -> Array:
    """The outputs that notebook 2 prints, for random starts.

    Parameters
    ----------
    n_starts : int
        How many networks to train, one after the other.
    backend : str
        The backend that trains them.

    Returns
    -------
    array of float64, shape (n_starts, 3)
        A row for each start.
    """
    weights, biases = random_starts(n_starts)
    outputs = np.empty((n_starts, len(NOTEBOOK_2.printed)))
    for i in range(n_starts):
        net = network([w[i] for w in weights], [b[i] for b in biases])
        outputs[i], _ = NOTEBOOK_2.run(net, backend)
    return outputs


def _start_2() -> Parameters:
    weights, biases = random_starts(1)
    return [w[0] for w in weights], [b[0] for b in biases]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _derivatives_sigmoid(x: Array) -> Array:
    return x * (1 - x)


def _loop_2(
    X: NDArray[np.int64], y: NDArray[np.int64], weights: Sequence[Array], biases: Sequence[Array], epoch: int
) -> list[float]:
    wh, wout = weights
    bh, bout = (bias[np.newaxis] for bias in biases)
    lr = 0.1
    for _ in range(epoch):
        hidden_layer_input1 = np.dot(X, wh)
        hidden_layer_input = hidden_layer_input1 + bh
        hiddenlayer_activations = _sigmoid(hidden_layer_input)
        output_layer_input1 = np.dot(hiddenlayer_activations, wout)
        output_layer_input = output_layer_input1 + bout
        output = _sigmoid(output_layer_input)

        D = y - output
        slope_output_layer = _derivatives_sigmoid(output)
        slope_hidden_layer = _derivatives_sigmoid(hiddenlayer_activations)
        d_output = D * slope_output_layer
        Error_at_hidden_layer = d_output.dot(wout.T)
        d_hiddenlayer = Error_at_hidden_layer * slope_hidden_layer
        wout += hiddenlayer_activations.T.dot(d_output) * lr
        bout += np.sum(d_output, axis=0, keepdims=True) * lr
        wh += X.T.dot(d_hiddenlayer) * lr
        bh += np.sum(d_hiddenlayer, axis=0, keepdims=True) * lr
    return [float(figure) for figure in output.ravel()]


NOTEBOOK_2 = Notebook(
    name="Notebook 2",
    title="4-3-1, sigmoid, biases, rate 0.1, 3 samples",
    x=np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 0, 1]]),
    y=np.array([[1], [1], [0]]),
    start=_start_2,
    loop=_loop_2,
    learning_rate=0.1,
    epochs=5000,
    updates_before=0,
    report_every=0,
    figure_format=".8f",
    printed=("0.98263475", "0.96727247", "0.04497071"),
    seeded=False,
)
#: Where the outputs lie for 5 % to 95 % of 2000 random starts, and the percentiles of the printed ones.
OUTPUT_RANGES = ((0.9702, 0.9854), (0.9596, 0.9740), (0.0352, 0.0558))
PRINTED_PERCENTILES = (79, 30, 62)

#: The matrix whose transpose, products and pseudo-inverse are printed, and the pair that is multiplied
#: element by element.
MATRIX = np.array([[4, 2, 3], [2, 0, 1]])
FACTORS = (np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]]))
PRINTED_PRODUCTS = (
    """\
[[29 11]
 [11  5]]""",
    """\
[[20  8 14]
 [ 8  4  6]
 [14  6 10]]""",
)
PRINTED_PSEUDO_INVERSE = """\
[[-0.08333333  0.58333333]
 [ 0.41666667 -0.91666667]
 [ 0.16666667 -0.16666667]]"""
PRINTED_PROJECTION = """\
[[ 0.83333333 -0.16666667  0.33333333]
 [-0.16666667  0.83333333  0.33333333]
 [ 0.33333333  0.33333333  0.33333333]]"""
PRINTED_ELEMENTWISE = """\
[[ 5 12]
 [21 32]]"""


# Notebook 3: 002_05d98b4c929f4597


def _start_3() -> Parameters:
    random = np.random.RandomState(1).random_sample
    # The cell that draws the weights had been run twice.
    random((3, 4)), random((4, 1))
    return [2 * random((3, 4)) - 1, 2 * random((4, 1)) - 1], []


def _sigmoid_3(x: Array, deriv: bool = False) -> Array:
    if deriv:
        return x * (1 - x)
    return 1 / (1 + np.exp(-x))


def _loop_3(
    X: NDArray[np.int64], y: NDArray[np.int64], weights: Sequence[Array], _: Sequence[Array], epochs: int
) -> list[float]:
    w_0, w_1 = weights
    errors = []
    for j in range(epochs):
        layer_0 = X
        layer_1 = _sigmoid_3(np.dot(layer_0, w_0))
        layer_2 = _sigmoid_3(np.dot(layer_1, w_1))

        Err_layer_2 = y - layer_2

        if (j % 1000) == 0:
            errors.append(float(np.mean(np.abs(Err_layer_2))))

        layer_2_delta = Err_layer_2 * _sigmoid_3(layer_2, deriv=True)

        Err_layer_1 = layer_2_delta.dot(w_1.T)
        layer_1_delta = Err_layer_1 * _sigmoid_3(layer_1, deriv=True)

        w_1 += layer_1.T.dot(layer_2_delta)
        w_0 += layer_0.T.dot(layer_1_delta)
    return errors


NOTEBOOK_3 = Notebook(
    name="Notebook 3",
    title="3-4-1, sigmoid, no bias, rate 1, 4 samples",
    x=_XOR_X,
    y=_XOR_Y,
    start=_start_3,
    loop=_loop_3,
    learning_rate=1.0,
    epochs=10_000,
    updates_before=0,
    report_every=1000,
    figure_format=".12g",
    printed=(
        "0.498143063951",
        "0.0447576809491",
        "0.0273990949977",
        "0.0212823881636",
        "0.017947679405",
        "0.0157831271653",
        "0.0142368549605",
        "0.0130629438924",
        "0.0121333462089",
        "0.0113740710438",
    ),
)

NOTEBOOKS = (NOTEBOOK_1, NOTEBOOK_2, NOTEBOOK_3)
