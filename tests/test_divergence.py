"""A loss or a parameter that is not finite: where it is found, what is said, and what is left of the network."""

import copy
import pickle

import numpy as np
import pytest

import fastnet
from fastnet import DivergenceError, Network
from tests.support import assert_same_bits

BACKENDS = ("numba", "exact", "numpy")

X = np.random.RandomState(0).standard_normal((10, 3))
Y = np.random.RandomState(1).standard_normal((10, 2))
#: The parameters of a linear network grow by a factor of some tens in each step.
EXPLODING = fastnet.SGD(learning_rate=30.0)


def network(**arguments):
    return Network([3, 2], **arguments).initialize(seed=2)


def diverge(net, x=X, y=Y, **arguments):
    with pytest.raises(DivergenceError) as caught:
        net.fit(x, y, **{"epochs": 1000, "optimizer": EXPLODING} | arguments)
    return caught.value


@pytest.mark.parametrize("backend", BACKENDS)
class TestExplosion:
    @pytest.mark.parametrize("batch_size", [None, 3])
    @pytest.mark.parametrize("report_every", [None, 1, 4])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_error(self, backend, dtype, report_every, batch_size):
        arguments = {"batch_size": batch_size, "report_every": report_every, "backend": backend}
        net = network(dtype=dtype)
        error = diverge(net, **arguments)
        history = error.history
        assert error.what == "the loss"
        assert error.layer == 1
        assert error.epoch > 1
        assert history.stopped_by == "divergence"
        assert history.n_epochs == error.epoch + 1
        assert np.isfinite(history.loss_curve[:-1]).all()
        assert not np.isfinite(history.loss_curve[-1])
        assert all(np.isfinite(report.loss) for report in history.reports)
        assert str(error).startswith(f"the loss is not finite at epoch {error.epoch}, first in layer 1; ")
        assert f"its parameters before epoch {error.parameters_epoch}." in str(error)
        assert "Try a smaller learning_rate" in str(error)
        # The parameters are those before the last report, whose loss was finite.
        reported = [report.epoch for report in history.reports]
        assert error.parameters_epoch == (reported[-1] if reported else 0)
        assert error.epoch - error.parameters_epoch <= (report_every or 1000)
        expected = network(dtype=dtype)
        if error.parameters_epoch:
            before = expected.fit(
                X, Y, epochs=error.parameters_epoch, optimizer=EXPLODING, batch_size=batch_size, backend=backend
            )
            assert_same_bits(history.loss_curve[: error.parameters_epoch], before.loss_curve)
        assert_same_bits(error.parameters, expected.parameters)
        assert net == expected
        # From there on, with a rate that is small enough for such parameters, all is well.
        net.fit(X, Y, epochs=2, optimizer=fastnet.SGD(1e-3), backend=backend)

    def test_the_optimizer_is_forgotten(self, backend):
        net = network()
        diverge(net, optimizer=fastnet.SGD(30.0, momentum=0.9), backend=backend)
        assert net._training is None

    def test_callback_is_not_told(self, backend):
        told = []
        error = diverge(network(), callback=lambda epoch, history: told.append(epoch), backend=backend)
        assert told == list(range(error.epoch))

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_a_batch_whose_loss_is_not_finite_is_the_last(self, backend, shuffle):
        # float32 cannot hold the square of the target 1e30; the other rows have nothing to learn.
        y = np.zeros((10, 2), np.float32)
        y[6, 1] = 1e30
        net = Network([3, 2], dtype="float32")
        error = diverge(net, y=y, batch_size=2, shuffle=shuffle, seed=0, optimizer="sgd", backend=backend)
        assert (error.epoch, error.layer) == (0, 1)
        assert error.history.loss_curve.tolist() == [np.inf]
        assert not net.parameters.any()

    def test_silent(self, backend):
        with np.errstate(all="raise"):
            diverge(network(dtype="float32"), backend=backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_kernels_and_reference_diverge_alike(dtype, shuffle):
    errors = []
    for backend in ("numba", "exact"):
        net = Network([3, 4, 3, 2], "leaky_relu", dtype=dtype).initialize(seed=3)
        arguments = {"batch_size": 4, "shuffle": shuffle, "seed": 1, "report_every": 2, "backend": backend}
        errors.append(diverge(net, optimizer=fastnet.SGD(30.0), **arguments))
    one, other = errors
    assert (one.what, one.epoch, one.layer) == (other.what, other.epoch, other.layer)
    assert_same_bits(one.parameters, other.parameters)
    for curve in ("loss_curve", "mean_absolute_error"):
        assert_same_bits(getattr(one.history, curve), getattr(other.history, curve))


@pytest.mark.parametrize("backend", BACKENDS)
class TestLayer:
    @pytest.mark.parametrize("layer", [1, 2, 3])
    def test_of_the_loss(self, backend, layer):
        # The weight of one layer takes the activations beyond float32.
        weights = [[[1e30]], [[1e30]], [[1e30]]]
        for other in range(3):
            if other + 1 != layer:
                weights[other] = [[1e9]] if other + 1 < layer else [[1.0]]
        net = Network.from_arrays(weights, activation="relu", dtype="float32")
        error = diverge(net, [[1e9]], [0.0], epochs=3, backend=backend)
        assert (error.what, error.epoch, error.layer) == ("the loss", 0, layer)

    def test_of_a_loss_that_alone_is_not_finite(self, backend):
        net = Network.from_arrays([[[1.0]], [[1e30]]], activation="identity", dtype="float32")
        error = diverge(net, [[1.0]], [0.0], epochs=3, backend=backend)
        assert (error.what, error.epoch, error.layer) == ("the loss", 0, 2)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_of_the_batch(self, backend, shuffle):
        # One sample alone overflows, and does so in the first of three layers.
        x = np.ones((9, 1))
        x[7] = 1e30
        net = Network.from_arrays([[[1e10]], [[1.0]], [[1.0]]], activation="identity", dtype="float32")
        arguments = {"batch_size": 2, "shuffle": shuffle, "seed": 0, "optimizer": fastnet.SGD(1e-30)}
        error = diverge(net, x, np.zeros(9), backend=backend, **arguments)
        assert (error.what, error.epoch, error.layer) == ("the loss", 0, 1)

    @pytest.mark.parametrize("layer", [1, 2])
    def test_of_a_parameter_behind_a_saturated_sigmoid(self, backend, layer):
        # The loss of a sigmoid stays finite whatever the weights are; one step makes a weight infinite.
        first, second = ([[0.0]], [[1.0]]) if layer == 1 else ([[1.0]], [[0.0]])
        net = Network.from_arrays([first, second], activation="identity", output_activation="sigmoid")
        error = diverge(net, [[10.0]], [2.0], epochs=3, optimizer=fastnet.SGD(1e308), reduction="sum", backend=backend)
        assert (error.what, error.epoch, error.layer) == ("a parameter", 0, layer)
        assert np.isfinite(error.history.loss_curve).tolist() == [True]
        assert str(error).startswith(f"a parameter is not finite at epoch 0, first in layer {layer}; ")
        assert net.parameters.tolist() == [*first[0], *second[0]]

    def test_of_a_bias(self, backend):
        net = Network.from_arrays([[[0.0]]], [[0.0]], output_activation="sigmoid")
        error = diverge(net, [[0.0]], [20.0], optimizer=fastnet.SGD(1e308), reduction="sum", backend=backend)
        assert (error.what, error.epoch, error.layer) == ("a parameter", 0, 1)

    def test_a_loss_before_a_saturated_step_counts_as_reported(self, backend):
        net = Network.from_arrays([[[0.0]]], output_activation="sigmoid")
        rates = fastnet.StepDecay(1e308, 1e-308, 1)
        arguments = {"optimizer": fastnet.SGD(rates), "reduction": "sum", "report_every": 1, "backend": backend}
        error = diverge(net, [[10.0]], [2.0], **arguments)
        assert [report.epoch for report in error.history.reports] == [0]
        assert (error.epoch, error.parameters_epoch) == (0, 0)

    def test_of_a_penalty(self, backend):
        net = Network.from_arrays([[[1e20]]], dtype="float32")
        error = diverge(net, [[1.0]], [0.0], l2=0.5, backend=backend)
        assert (error.what, error.epoch, error.layer) == ("the loss", 0, 1)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_error_crosses_processes(duplicate):
    error = diverge(network(), report_every=3, backend="numpy")
    other = duplicate(error)
    assert type(other) is DivergenceError
    assert str(other) == str(error)
    assert (other.what, other.epoch, other.layer, other.parameters_epoch) == (
        error.what,
        error.epoch,
        error.layer,
        error.parameters_epoch,
    )
    assert_same_bits(other.parameters, error.parameters)
    assert_same_bits(other.history.loss_curve, error.history.loss_curve)


def test_is_a_floating_point_error():
    assert issubclass(DivergenceError, FloatingPointError)
