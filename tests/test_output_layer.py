"""`Network.fit_output_layer`, and predictions on every backend."""

import numpy as np
import pytest

from fastnet import Network, prediction
from tests.support import assert_same_bits

BACKENDS = ("numba", "exact", "numpy")

X = np.random.RandomState(0).standard_normal((11, 3))
Y = np.random.RandomState(1).standard_normal((11, 2))


def network(*layer_sizes, seed=2, **arguments):
    return Network(layer_sizes or (3, 5, 2), "tanh", **arguments).initialize(seed)


class TestPredict:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("n_samples", [1, 11])
    def test_outputs(self, dtype, backend, n_samples):
        net = network(3, 5, 4, 2, dtype=dtype)
        before = net.copy()
        outputs = net.predict(X[:n_samples], backend=backend)
        assert outputs.dtype == dtype
        assert outputs.shape == (n_samples, 2)
        assert outputs.flags.writeable
        assert outputs.flags.c_contiguous
        assert net == before
        # Rows do not depend on each other; those of BLAS may, in their last bits.
        if backend != "numpy":
            one_by_one = np.vstack([net.predict(row[None], backend=backend) for row in X[:n_samples]])
            assert_same_bits(outputs, one_by_one)

    def test_backends_agree(self):
        net = network(3, 5, 4, 2)
        assert_same_bits(net.predict(X), net.predict(X, backend="exact"))

    def test_in_several_calls(self, monkeypatch):
        net = network(3, 4, 1)
        expected = net.predict(X)
        monkeypatch.setattr(prediction, "_PREDICTED_AT_ONCE", 1)
        assert_same_bits(net.predict(X), expected)


@pytest.mark.parametrize("backend", BACKENDS)
class TestFitOutputLayer:
    def test_one_layer_is_the_pseudo_inverse(self, backend):
        net = Network([3, 2], bias=False)
        assert net.fit_output_layer(X, Y, backend=backend) is net
        desired = np.linalg.pinv(X) @ Y
        # Two backward stable solutions: they differ by about cond(X)^2 eps, times a small power of the size.
        bound = np.linalg.cond(X) ** 2 * np.finfo(float).eps * X.size * abs(desired).max()
        np.testing.assert_allclose(net.weights[0], desired, rtol=0, atol=bound)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("layer_sizes", [(3, 2), (3, 4, 2), (3, 6, 4, 2)])
    def test_no_change_of_the_last_layer_is_better(self, backend, layer_sizes, bias, dtype):
        net = network(*layer_sizes, bias=bias, dtype=dtype)
        before = net.copy()
        net.fit_output_layer(X, Y, backend=backend)
        for layer in range(net.n_layers - 1):
            assert_same_bits(net.weights[layer], before.weights[layer])
        # At the minimum the residuals are orthogonal to all that the last layer can add up.
        below = Network.from_arrays(
            [*map(np.asarray, net.weights[:-1]), np.eye(layer_sizes[-2])],
            [*net.biases[:-1], np.zeros(layer_sizes[-2])] if bias else None,
            "tanh",
            dtype=dtype,
        )
        terms = below.predict(X.astype(dtype), backend=backend).astype(float)
        if bias:
            terms = np.column_stack([terms, np.ones(len(X))])
        residuals = net.predict(X, backend=backend) - Y
        # Rounding the solution to the dtype moves a residual by at most this, and a product by n times that.
        size = abs(terms) @ abs(np.vstack([net.weights[-1], *net.biases[-1:]])) + abs(Y)
        bound = 2 * net.n_parameters * np.finfo(dtype).eps * abs(terms).T @ size
        assert (abs(terms.T @ residuals) <= bound).all()

    def test_least_norm(self, backend):
        net = Network([3, 1], bias=False).fit_output_layer([[1.0, 2.0, 2.0]], [9.0], backend=backend)
        # Of all solutions, x^T y / |x|^2; each of the few operations rounds by half an eps of at most 2.
        np.testing.assert_allclose(net.weights[0].ravel(), [1.0, 2.0, 2.0], rtol=8 * np.finfo(float).eps)

    def test_keeps_the_optimizer(self, backend):
        net = network()
        net.fit(X, Y, epochs=2, backend="numpy")
        state = net._training
        net.fit_output_layer(X, Y, backend=backend)
        assert net._training is state
