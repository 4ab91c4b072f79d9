"""What a fit does: losses, batches, weights, penalties, orders, callbacks; and that it can be cut anywhere."""

import re
import sys
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import fastnet
from fastnet import DivergenceError, Network, Report, training
from fastnet.testing.cases import OPTIMIZERS
from tests.support import assert_same_bits

BACKENDS = ("numba", "exact", "numpy")
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

X = np.random.RandomState(0).standard_normal((11, 3))
Y = np.random.RandomState(1).standard_normal((11, 2))
#: Orders, and a ragged last batch.
SHUFFLED = {"shuffle": True, "seed": 6, "batch_size": 4}


def network(*layer_sizes, seed=2, **arguments):
    return Network(layer_sizes or (3, 5, 2), "tanh", **arguments).initialize(seed)


def state_of(net):
    """All that the next fit depends on, but for the source of the orders."""
    state = net._training
    return net.parameter_buffer, state.slots, state.powers, np.array(state.n_epochs)


def assert_same_state(actual, desired):
    for one, other in zip(state_of(actual), state_of(desired), strict=True):
        assert_same_bits(one, other)


def curves_of(*histories):
    return np.hstack([[history.loss_curve, history.mean_absolute_error] for history in histories])


# Small integers and powers of two: every sum and product below is exact, in any order.
INTEGER_X = np.random.RandomState(3).randint(-2, 3, (600, 2))
INTEGER_Y = np.random.RandomState(4).randint(-4, 5, 600)
WEIGHTS = {
    "ones": [1, 1, 1, 1, 1, 1],
    "integers": [1, 3, 0, 4, 2, 2],
    "a batch of zeros": [2, 2, 3, 1, 0, 0],
    "fractions": [0.5, 0.25, 1.0, 0.25, 1.75, 0.25],
}


def by_hand(x, y, sample_weight, epochs, batch_size, reduction, l2, rate):
    """Gradient descent of a linear neuron without any rounding: curves and parameters."""
    w, bias = [Fraction(1), Fraction(-2)], Fraction(1)
    curves = []
    for _ in range(epochs):
        loss, error, total = Fraction(0), Fraction(0), Fraction(0)
        for first in range(0, len(x), batch_size):
            batch = slice(first, first + batch_size)
            gradient, gradient_of_bias = [l2 * v for v in w], Fraction(0)
            batch_weight = sum(map(Fraction, sample_weight[batch]))
            loss += l2 * sum(v * v for v in w) / 2
            for row, target, weight in zip(x[batch], y[batch], map(Fraction, sample_weight[batch]), strict=True):
                d = w[0] * row[0] + w[1] * row[1] + bias - target
                loss += weight * d * d / 2
                error += abs(d)
                gradient = [g + weight * d * v for g, v in zip(gradient, row, strict=True)]
                gradient_of_bias += weight * d
            total += batch_weight
            scale = rate
            if reduction == "mean":
                scale *= 1 / batch_weight if batch_weight else 0
            w = [v - scale * g for v, g in zip(w, gradient, strict=True)]
            bias -= scale * gradient_of_bias
        curves.append([loss / (total if reduction == "mean" else 1), error / len(x)])
    return curves, [*w, bias]


@pytest.mark.parametrize("backend", BACKENDS)
class TestByHand:
    def check(self, backend, n_samples, sample_weight, epochs, batch_size, rate, reduction, l2=0):
        x, y = INTEGER_X[:n_samples], INTEGER_Y[:n_samples]
        net = Network.from_arrays([[[1.0], [-2.0]]], [[1.0]])
        history = net.fit(
            x,
            y,
            optimizer=fastnet.SGD(float(rate)),
            epochs=epochs,
            batch_size=batch_size,
            reduction=reduction,
            l2=l2,
            sample_weight=sample_weight,
            backend=backend,
        )
        weights = np.ones(n_samples) if sample_weight is None else sample_weight
        curves, parameters = by_hand(
            x.tolist(), y.tolist(), weights, epochs, batch_size or n_samples, reduction, Fraction(l2), rate
        )
        assert net.parameters.tolist() == parameters
        # Division by 6 is rounded, once; the bits of what is divided are exact.
        assert curves_of(history).T.tolist() == [[float(entry) for entry in row] for row in curves]

    @pytest.mark.parametrize("weights", WEIGHTS)
    @pytest.mark.parametrize("l2", [0, 0.5])
    @pytest.mark.parametrize("batch_size", [4, 6, 100])
    def test_sums(self, backend, batch_size, l2, weights):
        self.check(backend, 6, WEIGHTS[weights], 2, batch_size, Fraction(1, 8), "sum", l2)

    @pytest.mark.parametrize("weights", [None, "integers", "a batch of zeros", "fractions"])
    @pytest.mark.parametrize("l2", [0, 0.5])
    def test_means(self, backend, l2, weights):
        # Weights of batches of four and of two samples that are powers of two, or nothing.
        self.check(backend, 6, WEIGHTS.get(weights), 2, 4, Fraction(1, 2), "mean", l2)

    @pytest.mark.parametrize("batch_size", [None, 300, 256, 512])
    def test_several_blocks(self, backend, batch_size):
        self.check(backend, 600, None, 1, batch_size, Fraction(1, 1024), "sum")

    def test_predict_several_blocks(self, backend):
        net = Network.from_arrays([[[1.0], [-2.0]]], [[1.0]])
        expected = INTEGER_X @ [[1], [-2]] + 1
        assert net.predict(INTEGER_X, backend=backend).tolist() == expected.tolist()

    def test_weights_are_repetitions(self, backend):
        times = [0, 3, 1, 2, 0, 1]
        start = Network.from_arrays([[[1.0, 0.5], [-2.0, 3.0]], [[2.0], [-1.0]]], [[1.0, 1.0], [0.5]], "identity")
        weighted, repeated = start.copy(), start.copy()
        settings = {"optimizer": fastnet.SGD(2.0**-6), "epochs": 2, "reduction": "sum", "backend": backend}
        x, y = INTEGER_X[:6], INTEGER_Y[:6]
        a = weighted.fit(x, y, sample_weight=times, **settings)
        b = repeated.fit(np.repeat(x, times, axis=0), np.repeat(y, times), **settings)
        assert weighted == repeated
        assert_same_bits(a.loss_curve, b.loss_curve)

    def test_only_the_ratios_of_weights_count_in_a_mean(self, backend):
        # Powers of two change no significand.
        weight = np.random.RandomState(5).random_sample(11)
        one, other = network(), network()
        for net, factor in ((one, 1.0), (other, 8.0)):
            net.fit(X, Y, sample_weight=factor * weight, batch_size=4, epochs=3, backend=backend)
        assert one == other


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_batch_without_weight_does_no_harm(name):
    weight = [0, 0, 0, 0, 1, 0, 2, 1, 1, 1, 3]
    trained = []
    for backend in BACKENDS:
        net = network()
        history = net.fit(
            X, Y, sample_weight=weight, batch_size=4, l2=0.1, epochs=3, optimizer=OPTIMIZERS[name], backend=backend
        )
        assert np.isfinite(history.loss_curve).all()
        assert np.isfinite(net.parameters).all()
        trained.append(net)
    assert_same_state(trained[0], trained[1])


class TestHistory:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("report_every", [1, 3, 100])
    def test_reports(self, backend, report_every):
        silent, reporting = network(), network()
        bare = silent.fit(X, Y, epochs=7, backend=backend)
        history = reporting.fit(X, Y, epochs=7, report_every=report_every, backend=backend)
        assert bare.reports == []
        assert history.n_epochs == 7
        assert history.stopped_by is None
        assert_same_bits(curves_of(history), curves_of(bare))
        assert_same_state(silent, reporting)
        errors = history.mean_absolute_error
        assert history.reports == [
            Report(epoch, history.loss_curve[epoch], errors[epoch]) for epoch in range(0, 7, report_every)
        ]

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_report_is_of_before_its_update(self, backend):
        net = network()
        net.fit(X, Y, epochs=4, backend=backend)
        outputs = net.predict(X, backend=backend)
        report = net.fit(X, Y, epochs=1, report_every=1, backend=backend).reports[0]
        # Sums of n positive terms in any two orders differ by at most 2 n eps.
        tolerance = 2 * X.size * np.finfo(float).eps
        assert report.loss == pytest.approx(((outputs - Y) ** 2).sum() / 2 / len(X), rel=tolerance)
        assert report.mean_absolute_error == pytest.approx(abs(outputs - Y).mean(), rel=tolerance)

    def test_is_a_copy(self):
        net = network()
        seen = []
        history = net.fit(
            X, Y, epochs=5, report_every=2, callback=lambda epoch, history: seen.append(history), backend="numpy"
        )
        assert [len(h.loss_curve) for h in seen] == [1, 2, 3, 4, 5]
        assert [len(h.reports) for h in seen] == [1, 1, 2, 2, 3]
        for so_far in seen:
            assert_same_bits(curves_of(so_far), curves_of(history)[:, : so_far.n_epochs])
            with pytest.raises(ValueError, match="read-only"):
                so_far.loss_curve[0] = 0.0
        history.loss_curve[:] = 0.0
        assert seen[-1].loss_curve.all()

    def test_memory_is_for_epochs_that_are_run(self):
        history = network().fit(X, Y, epochs=10**15, callback=lambda epoch, history: epoch == 2, backend="numpy")
        assert history.n_epochs == 3

    @pytest.mark.parametrize("backend", ["numba", "numpy"])
    def test_rooms_and_rates_come_in_parts(self, backend, monkeypatch):
        arguments = {
            "epochs": 23,
            "batch_size": 3,
            "shuffle": True,
            "seed": 0,
            "report_every": 5,
            "optimizer": OPTIMIZERS["schedule"],
        }
        whole, parts = network(), network()
        expected = whole.fit(X, Y, **arguments, backend=backend)
        monkeypatch.setattr(training, "_EPOCHS_AT_ONCE", 3)
        monkeypatch.setattr(training, "_INDICES_AT_ONCE", 25)
        history = parts.fit(X, Y, **arguments, backend=backend)
        assert_same_bits(curves_of(history), curves_of(expected))
        assert history.reports == expected.reports
        assert_same_state(parts, whole)


class TestContinuing:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    @pytest.mark.parametrize("backend", ["numba", "numpy"])
    @pytest.mark.parametrize("batch_size", [None, 4])
    def test_a_hundred_and_a_hundred_are_two_hundred(self, name, backend, batch_size):
        arguments = {
            "optimizer": OPTIMIZERS[name],
            "batch_size": batch_size,
            "shuffle": True,
            "seed": 6,
            "backend": backend,
        }
        whole, parts = network(), network()
        expected = whole.fit(X, Y, epochs=200, **arguments)
        histories = [parts.fit(X, Y, epochs=100, **arguments) for _ in range(2)]
        assert_same_bits(curves_of(*histories), curves_of(expected))
        assert_same_state(parts, whole)

    @pytest.mark.parametrize("schedule", [fastnet.StepDecay(0.1, 0.5, 2), fastnet.CosineDecay(0.1, 6)])
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_cuts_anywhere(self, schedule, backend):
        optimizer = fastnet.AdamW(schedule)
        arguments = {"optimizer": optimizer, "batch_size": 5, "shuffle": True, "seed": 6, "l2": 0.1, "backend": backend}
        whole, parts = network(dtype="float32"), network(dtype="float32")
        expected = whole.fit(X, Y, epochs=8, **arguments)
        histories = [parts.fit(X, Y, epochs=epochs, **arguments) for epochs in (1, 5, 2)]
        assert_same_bits(curves_of(*histories), curves_of(expected))
        assert_same_state(parts, whole)

    def test_equal_settings_are_the_same_optimizer(self):
        one, other = network(), network()
        one.fit(X, Y, epochs=4, backend="numpy")
        for optimizer in ("adam", fastnet.Adam()):
            other.fit(X, Y, epochs=2, optimizer=optimizer, backend="numpy")
        assert_same_state(other, one)

    def test_another_optimizer_starts_afresh(self):
        net, fresh = network(), network()
        net.fit(X, Y, epochs=3, optimizer=fastnet.Adam(0.01), backend="numpy")
        fresh.parameters = net.parameters
        for trained in (net, fresh):
            trained.fit(X, Y, epochs=3, optimizer=fastnet.Adam(0.02), backend="numpy")
        assert_same_state(net, fresh)

    def test_initialize_starts_afresh(self):
        net, fresh = network(), network()
        net.fit(X, Y, epochs=3, backend="numpy")
        net.initialize(2)
        for trained in (net, fresh):
            trained.fit(X, Y, epochs=3, backend="numpy")
        assert_same_state(net, fresh)

    def test_backends_share_the_state(self):
        one, other = network(), network()
        for backend in ("numba", "exact", "numba"):
            one.fit(X, Y, epochs=2, batch_size=4, backend=backend)
        other.fit(X, Y, epochs=6, batch_size=4, backend="exact")
        assert_same_state(one, other)

    @pytest.mark.parametrize("threads", [1, 2, 7])
    def test_threads_change_nothing(self, threads):
        one, other = network(), network()
        one.fit(X, Y, epochs=3)
        other.fit(X, Y, epochs=3, threads=threads)
        assert_same_state(one, other)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_schedule_is_a_row_of_rates(self, backend):
        schedule = fastnet.InverseScaling(0.3, 0.5)
        one, other = network(), network()
        one.fit(X, Y, epochs=3, batch_size=4, optimizer=fastnet.SGD(schedule), backend=backend)
        for rate in schedule.rates(0, 3):
            other.fit(X, Y, epochs=1, batch_size=4, optimizer=fastnet.SGD(rate), backend=backend)
        assert one == other


SOURCES = {"integer": lambda: 8, "RandomState": lambda: np.random.RandomState(8), "Generator": lambda: rng(8)}


def rng(seed):
    return np.random.default_rng(seed)


class TestShuffle:
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_every_epoch_takes_the_next_permutation(self, source, backend):
        orders = np.random.RandomState(8) if source == "integer" else SOURCES[source]()
        one, other = network(), network()
        weight = np.arange(11.0)
        history = one.fit(
            X, Y, sample_weight=weight, epochs=4, batch_size=4, shuffle=True, seed=SOURCES[source](), backend=backend
        )
        losses = []
        for _ in range(4):
            rows = orders.permutation(11)
            fit = other.fit(X[rows], Y[rows], sample_weight=weight[rows], epochs=1, batch_size=4, backend=backend)
            losses += fit.loss_curve.tolist()
        assert history.loss_curve.tolist() == losses
        assert_same_state(one, other)

    def test_blocks_of_shuffled_rows(self):
        # The batch of 300 is worked through in blocks of 256 and 44 rows.
        one, other = network(2, 3, 1), network(2, 3, 1)
        one.fit(INTEGER_X, INTEGER_Y, epochs=2, batch_size=300, shuffle=True, seed=0)
        other.fit(INTEGER_X, INTEGER_Y, epochs=2, batch_size=300, shuffle=True, seed=0, backend="exact")
        assert_same_state(one, other)

    @pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
    @pytest.mark.parametrize("end", ["all", "callback", "exception", "divergence"])
    def test_source_moves_on_by_the_epochs_run(self, make, end):
        def callback(epoch, history):
            if end == "exception" and epoch == 2:
                raise KeyError(epoch)
            return end == "callback" and epoch == 2

        source, expected = make(9), make(9)
        arguments = {"epochs": 9, "shuffle": True, "seed": source, "backend": "numpy"}
        n_epochs = 3
        if end == "all":
            n_epochs = network().fit(X, Y, **arguments).n_epochs
        elif end == "callback":
            network().fit(X, Y, callback=callback, **arguments)
        elif end == "exception":
            with pytest.raises(KeyError):
                network().fit(X, Y, callback=callback, **arguments)
        else:
            with pytest.raises(DivergenceError) as caught:
                network().fit(X, Y, optimizer=fastnet.SGD(1e300), **arguments)
            n_epochs = caught.value.epoch + 1
        for _ in range(n_epochs):
            expected.permutation(11)
        assert source.permutation(100).tolist() == expected.permutation(100).tolist()

    def test_seeds(self):
        def orders_of(net, seed):
            """Tells orders apart by what they do to the network."""
            net.parameters = network().parameters
            net.fit(X, Y, epochs=1, batch_size=4, shuffle=True, seed=seed, optimizer="sgd", backend="numpy")
            return net.parameters.tolist()

        net = network()
        first, second = orders_of(net, 1), orders_of(net, 1)
        assert first != second
        assert orders_of(net, 2) == orders_of(network(), 2)
        # Back at 1, its stream begins again.
        assert [orders_of(net, 1), orders_of(net, np.int64(1))] == [first, second]
        assert orders_of(network(), None) != orders_of(network(), None)
        fresh = network()
        assert orders_of(fresh, None) != orders_of(fresh, None)

    def test_not_shuffling_draws_nothing(self):
        source = np.random.RandomState(0)
        network().fit(X, Y, epochs=2, seed=source, backend="numpy")
        assert source.random_sample() == np.random.RandomState(0).random_sample()


class BrokenError(Exception):
    """Raised by callbacks."""


@pytest.mark.parametrize("backend", BACKENDS)
class TestCallback:
    def test_is_called_after_every_epoch(self, backend):
        calls = []

        def callback(epoch, history):
            calls.append((epoch, history.n_epochs, history.stopped_by, net.parameters.tolist()))

        net, other = network(), network()
        history = net.fit(X, Y, epochs=3, batch_size=4, callback=callback, backend=backend)
        assert history.stopped_by is None
        for epoch, call in enumerate(calls):
            other.fit(X, Y, epochs=1, batch_size=4, backend=backend)
            assert call == (epoch, epoch + 1, None, other.parameters.tolist())
        assert len(calls) == 3

    @pytest.mark.parametrize("answer", [True, 1, np.True_, "yes"])
    def test_true_stops(self, backend, answer):
        arguments = {
            "batch_size": 4,
            "shuffle": True,
            "seed": 0,
            "optimizer": OPTIMIZERS["schedule"],
            "backend": backend,
        }
        net, whole = network(), network()
        history = net.fit(X, Y, epochs=9, callback=lambda epoch, history: answer if epoch == 1 else 0, **arguments)
        assert (history.n_epochs, history.stopped_by) == (2, "callback")
        rest = net.fit(X, Y, epochs=3, **arguments)
        assert_same_bits(curves_of(history, rest), curves_of(whole.fit(X, Y, epochs=5, **arguments)))
        assert_same_state(net, whole)

    def test_exception_leaves_whole_epochs(self, backend):
        def callback(epoch, history):
            if epoch == 1:
                raise BrokenError

        arguments = {
            "batch_size": 4,
            "shuffle": True,
            "seed": 0,
            "optimizer": OPTIMIZERS["nesterov"],
            "backend": backend,
        }
        net, whole = network(), network()
        with pytest.raises(BrokenError):
            net.fit(X, Y, epochs=9, callback=callback, **arguments)
        net.fit(X, Y, epochs=3, **arguments)
        whole.fit(X, Y, epochs=5, **arguments)
        assert_same_state(net, whole)

    def test_may_copy_the_network(self, backend):
        copies = []
        arguments = {
            "batch_size": 4,
            "shuffle": True,
            "seed": 0,
            "optimizer": OPTIMIZERS["schedule"],
            "backend": backend,
        }
        net = network()
        net.fit(X, Y, epochs=4, callback=lambda epoch, history: copies.append(net.copy()), **arguments)
        copies[1].fit(X, Y, epochs=2, **arguments)
        assert_same_state(copies[1], net)

    def test_may_use_and_change_the_network(self, backend):
        def callback(epoch, history):
            net.predict(X, backend=backend)
            net.parameters = 0.5 * net.parameters

        net, other = network(), network()
        net.fit(X, Y, epochs=3, optimizer="rprop", callback=callback, backend=backend)
        for _ in range(3):
            other.fit(X, Y, epochs=1, optimizer="rprop", backend=backend)
            other.parameters = 0.5 * other.parameters
        assert_same_state(net, other)


class TestProgress:
    @pytest.mark.parametrize("callback", [None, lambda epoch, history: epoch == 3])
    def test_bar(self, callback, capsys):
        net, silent = network(), network()
        history = net.fit(X, Y, epochs=7, progress=True, callback=callback, backend="numpy")
        shown = capsys.readouterr().err
        assert f"{history.n_epochs}/7" in shown
        assert "epoch" in shown
        silent.fit(X, Y, epochs=history.n_epochs, backend="numpy")
        assert capsys.readouterr().err == ""
        assert_same_state(net, silent)

    def test_without_tqdm(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        net = network()
        with pytest.raises(ImportError, match=r"^progress=True needs tqdm: pip install ") as caught:
            net.fit(X, Y, progress=True, backend="numpy")
        assert net == network()
        assert net._training is None
        # The extra that it names has tqdm, itself or through other extras.
        extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        todo, found = re.findall(r"fastnet\[(\w+)\]", str(caught.value)), set()
        assert todo
        while todo:
            for requirement in extras[todo.pop()]:
                name, _, inner = requirement.partition("[")
                found.add(re.match(r"[\w-]+", name).group())
                todo += inner.partition("]")[0].split(",") if name == "fastnet" else []
        assert "tqdm" in found
        net.fit(X, Y, epochs=1, backend="numpy")
