"""The figures that the notebooks print, on every backend."""

from dataclasses import replace

import numpy as np
import pytest

import fastnet
from fastnet.reference import blas, exact
from fastnet.reference import network as reference
from fastnet.testing import notebooks
from fastnet.testing.notebooks import NOTEBOOK_1, NOTEBOOK_2, NOTEBOOK_3
from fastnet.testing.segments import train_stack

BACKENDS = ("numpy", "exact", "numba")
MATRIX = notebooks.MATRIX.astype(float)


def integers(array):
    """An array of integral floats as the notebook prints its integers."""
    assert np.array_equal(array, array.astype(int))
    return str(array.astype(int))


def figures_of(notebook, backend):
    net = notebook.network()
    if notebook.updates_before:
        notebook.fit(net, notebook.updates_before, backend)
    figures, errors = notebook.run(net, backend)
    assert errors.shape == (notebook.epochs,)
    return figures, errors, net


@pytest.mark.parametrize("notebook", [NOTEBOOK_1, NOTEBOOK_3], ids=["1", "3"])
def test_loop_prints_the_figures(notebook):
    net = notebook.network()
    if notebook.updates_before:
        notebook.run_loop(net, notebook.updates_before)
    assert [notebook.show(figure) for figure in notebook.run_loop(net, notebook.epochs)] == list(notebook.printed)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("notebook", [NOTEBOOK_1, NOTEBOOK_3], ids=["1", "3"])
def test_printed_errors(notebook, backend):
    figures, errors, _ = figures_of(notebook, backend)
    assert [notebook.show(figure) for figure in figures] == list(notebook.printed)
    assert np.array_equal(errors[:: notebook.report_every], figures)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_are_those_of_the_loop(backend):
    net = NOTEBOOK_2.network()
    expected = NOTEBOOK_2.run_loop(net, NOTEBOOK_2.epochs)
    figures, _, trained = figures_of(NOTEBOOK_2, backend)
    assert [NOTEBOOK_2.show(figure) for figure in figures] == [NOTEBOOK_2.show(figure) for figure in expected]
    # Each of the 5000 updates adds some rounding errors of a weight's last place; the training is
    # stable, so they do not grow.
    largest = np.abs(net.parameters).max()
    assert np.abs(trained.parameters - net.parameters).max() <= NOTEBOOK_2.epochs * np.spacing(largest)


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=["1", "2", "3"])
def test_the_loss_is_half_the_sum_of_squares(notebook):
    net = notebook.network()
    residual = notebook.y - net.predict(notebook.x, backend="exact")
    history = notebook.fit(net, 1, "exact")
    # Two roundings a term, three or four terms.
    assert history.loss_curve[0] == pytest.approx(float((residual.T @ residual).item()) / 2, rel=4 * 2.0**-52)


def test_printed_weights():
    net = NOTEBOOK_1.network()
    assert tuple(str(weights) for weights in net.weights) == notebooks.PRINTED_WEIGHTS


def test_initialize_draws_the_notebooks_weights():
    sizes, options = [3, 4, 1], {"activation": "sigmoid", "output_activation": "sigmoid", "bias": False}
    assert fastnet.Network(sizes, **options).initialize(seed=4) == NOTEBOOK_1.network()
    random = np.random.RandomState(1)
    net = fastnet.Network(sizes, **options).initialize(seed=random)
    assert net.initialize(seed=random) == NOTEBOOK_3.network()
    net = fastnet.Network([4, 3, 1], activation="sigmoid", output_activation="sigmoid")
    assert net.initialize(seed=0, low=0.0, high=1.0) == NOTEBOOK_2.network()


def stacked_outputs(n_starts, arithmetic, epochs=NOTEBOOK_2.epochs):
    """What notebook 2 prints for random starts, trained side by side in the reference."""
    weights, biases = notebooks.random_starts(n_starts)
    nets = [notebooks.network([w[i] for w in weights], [b[i] for b in biases]) for i in range(n_starts)]
    x, y, rate = NOTEBOOK_2.x, NOTEBOOK_2.y, NOTEBOOK_2.learning_rate
    # The outputs are printed before the last update.
    train_stack(nets, x, y, epochs=epochs - 1, learning_rate=rate, reduction="sum", arithmetic=arithmetic)
    buffers = np.stack([net.parameter_buffer for net in nets])
    outputs = np.empty((n_starts, len(x), 1))
    return reference.forward(nets[0].layout, buffers, x.astype(float), outputs, arithmetic)[..., 0]


def check_percentiles(outputs):
    """The outputs lie as the notebook's do.

    The ranges come from 2000 starts and hold 90 % of them. The share of another n starts that they hold has a
    standard deviation of sqrt(0.9 * 0.1 * (1 / 2000 + 1 / n)); four of them are allowed, as for the percentiles.
    """
    n_starts = len(outputs)

    def allowed(share):
        return 4 * np.sqrt(share * (1 - share) * (1 / 2000 + 1 / n_starts))

    columns = zip(outputs.T, notebooks.OUTPUT_RANGES, NOTEBOOK_2.printed, notebooks.PRINTED_PERCENTILES, strict=True)
    for column, (low, high), printed, percentile in columns:
        assert np.mean((low <= column) & (column <= high)) == pytest.approx(0.9, abs=allowed(0.9))
        share = percentile / 100
        # The percentile is stated to 1 %.
        assert np.mean(column <= float(printed)) == pytest.approx(share, abs=allowed(share) + 0.005)
        assert np.percentile(column, 5) <= float(printed) <= np.percentile(column, 95)


@pytest.fixture(scope="module")
def numba_outputs():
    return notebooks.outputs_of_starts(1000, "numba")


def test_random_starts_numba(numba_outputs):
    check_percentiles(numba_outputs)


def test_random_starts_numpy(numba_outputs):
    outputs = stacked_outputs(200, blas)
    check_percentiles(outputs)
    # See test_outputs_are_those_of_the_loop; an output changes less than the weights of its unit do.
    assert np.abs(outputs - numba_outputs[:200]).max() <= NOTEBOOK_2.epochs * 2.0**-50


def test_some_random_starts_exact():
    weights, biases = notebooks.random_starts(2)
    short = replace(NOTEBOOK_2, epochs=100)
    nets = [notebooks.network([w[i] for w in weights], [b[i] for b in biases]) for i in range(2)]
    desired = [short.run(net, "numba")[0] for net in nets]
    assert np.array_equal(stacked_outputs(2, exact, short.epochs), desired)


@pytest.mark.exhaustive
def test_random_starts_exact(numba_outputs):
    outputs = stacked_outputs(1000, exact)
    assert np.array_equal(outputs, numba_outputs)
    check_percentiles(outputs)


@pytest.mark.parametrize("functions", ["kernels", "reference"])
def test_printed_matrices(functions):
    if functions == "kernels":
        from fastnet.kernels import matmul, multiply, transpose
    else:
        from fastnet.reference.exact import matmul, multiply, transpose

    transposed = transpose(MATRIX)
    assert np.array_equal(transposed, MATRIX.T)
    products = matmul(MATRIX, transposed), matmul(transposed, MATRIX)
    assert tuple(map(integers, products)) == notebooks.PRINTED_PRODUCTS
    a, b = (factor.astype(float) for factor in notebooks.FACTORS)
    assert integers(multiply(a, b)) == integers(multiply(b, a)) == notebooks.PRINTED_ELEMENTWISE
    # The product of matrices does not commute.
    assert not np.array_equal(matmul(a, b), matmul(b, a))


def test_printed_pseudo_inverse():
    from fastnet.kernels import matmul

    layer = fastnet.Network([3, 2], output_activation="identity", bias=False)
    layer.fit_output_layer(MATRIX, np.eye(2))
    assert str(layer.weights[0]) == notebooks.PRINTED_PSEUDO_INVERSE
    assert str(matmul(layer.weights[0], MATRIX)) == notebooks.PRINTED_PROJECTION
    # What the notebook prints off this diagonal is rounding error, as is what is left here.
    assert matmul(MATRIX, layer.weights[0]) == pytest.approx(np.eye(2), abs=1e-14)
