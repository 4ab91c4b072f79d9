"""Ctrl-C: within 0.2 s in a real process; whole epochs are left; handlers are respected."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fastnet
from fastnet import Network, interruption, training
from fastnet.backends import Backend, load_backend
from fastnet.testing.cases import OPTIMIZERS
from tests.support import assert_same_bits

ROOT = Path(__file__).parents[1]
#: Exact is the same code as NumPy over another arithmetic, which takes long.
BACKENDS = ("numba", "numpy")
#: Seconds from the signal to the return of fit.
LIMIT = 0.2

CHILD = """
import json, signal, sys, threading, time, warnings
import numpy as np
import fastnet

# A shell's background jobs inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings = json.loads(sys.argv[1])
layer_sizes, n_samples = settings.pop("layer_sizes"), settings.pop("n_samples")
random = np.random.RandomState(0)
x, y = random.standard_normal((n_samples, layer_sizes[0])), random.standard_normal((n_samples, layer_sizes[-1]))

def train(net, epochs):
    return net.fit(x, y, **settings, shuffle=True, seed=1, epochs=epochs)

def tell_when_held():
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        time.sleep(0.001)
    print("held", flush=True)

# Compile before anybody waits.
train(fastnet.Network(layer_sizes, "tanh").initialize(0), 1)
for _ in range(3):
    net = fastnet.Network(layer_sizes, "tanh").initialize(0)
    threading.Thread(target=tell_when_held).start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(net, 10**9)
    returned = time.monotonic()
    restored = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    n_epochs = history.n_epochs
    other = fastnet.Network(layer_sizes, "tanh").initialize(0)
    curve = train(other, n_epochs).loss_curve if n_epochs else np.empty(0)
    same = [net == other, bool((curve == history.loss_curve).all())]
    same += [bool((train(one, 1).loss_curve == train(two, 1).loss_curve).all()) for one, two in [(net, other)]]
    same += [net == other, bool(np.isfinite(net.predict(x)).all())]
    print(json.dumps({
        "returned": returned, "n_epochs": n_epochs, "stopped_by": history.stopped_by, "same": same,
        "restored": restored, "warnings": [[w.category.__name__, str(w.message), w.filename] for w in caught],
    }), flush=True)
"""


@pytest.mark.parametrize(
    "settings",
    [
        # A microsecond, or a fraction of a second for an epoch; one that Ctrl-C cuts off is undone.
        {"layer_sizes": [3, 4, 1], "n_samples": 4, "batch_size": None, "optimizer": "adam"},
        {"layer_sizes": [3, 4, 1], "n_samples": 10, "batch_size": 4, "optimizer": "adam"},
        {"layer_sizes": [64, 400, 10], "n_samples": 20000, "batch_size": None, "optimizer": "rprop"},
        {"layer_sizes": [64, 400, 10], "n_samples": 20000, "batch_size": 100, "optimizer": "adam"},
    ],
    ids=["short epochs", "short batches", "long epochs", "long epochs of batches"],
)
def test_a_real_process_stops_in_time(settings):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(settings)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    latencies = []
    with child:
        try:
            for attempt in range(3):
                assert child.stdout.readline() == "held\n"
                time.sleep(0.1 + 0.05 * attempt)
                sent = time.monotonic()
                child.send_signal(signal.SIGINT)
                result = json.loads(child.stdout.readline())
                latencies.append(result["returned"] - sent)
                assert result["stopped_by"] == "interrupt"
                assert all(result["same"])
                assert result["restored"]
                message = f"training was interrupted after {result['n_epochs']} of {10**9} epochs"
                assert result["warnings"] == [["RuntimeWarning", message, "<string>"]]
        finally:
            child.kill()
    # The machine may be busy with other things; fastnet is to blame if it is late every time.
    assert min(latencies) < LIMIT


X = np.random.RandomState(0).standard_normal((700, 3))
Y = np.random.RandomState(1).standard_normal((700, 2))
#: Several batches an epoch, the first ones of two blocks, the last one ragged.
SETTINGS = {"batch_size": 300, "shuffle": True, "seed": 4, "optimizer": OPTIMIZERS["nesterov"]}
BLOCKS_PER_EPOCH = 5


class BrokenError(Exception):
    """Raised in the place of an epoch, or by a handler."""


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Python's own handler, which background jobs of a shell are started without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def network():
    return Network([3, 5, 2], "tanh").initialize(2)


def assert_continues(net, history, backend, **more):
    """Require that a network is as if it had been trained for the epochs of a history, and goes on so."""
    arguments = SETTINGS | {"backend": backend} | more
    other = network()
    whole = other.fit(X, Y, epochs=history.n_epochs + 2, **arguments)
    rest = net.fit(X, Y, epochs=2, **arguments)
    assert_same_bits(np.concatenate([history.loss_curve, rest.loss_curve]), whole.loss_curve)
    assert_same_bits(net.parameter_buffer, other.parameter_buffer)
    for name in ("slots", "powers"):
        assert_same_bits(getattr(net._training, name), getattr(other._training, name))


def interrupt(net, **arguments):
    with pytest.warns(RuntimeWarning, match=r"^training was interrupted after \d+ of \d+ epochs$") as caught:
        history = net.fit(X, Y, **arguments)
    assert caught[0].filename == __file__
    assert history.stopped_by == "interrupt"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return history


def before_call(number, action, monkeypatch):
    """Have ``action`` happen before one of the calls of a backend that work off a single block each."""
    calls = []

    def load(name):
        functions = load_backend(name)

        def train(*arguments):
            calls.append(arguments[-1])
            # The first one compiles.
            if len(calls) == number + 2:
                action()
            return functions.train(*arguments)

        return Backend(functions.forward, train, functions.is_compiled)

    monkeypatch.setattr(training, "_CALL_SECONDS", 0.0)
    monkeypatch.setattr(training, "load_backend", load)
    return calls


def press():
    signal.raise_signal(signal.SIGINT)


class TestWholeEpochs:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("number", [0, 3, *range(2 * BLOCKS_PER_EPOCH - 1, 3 * BLOCKS_PER_EPOCH)])
    def test_an_epoch_that_is_cut_off_is_undone(self, number, backend, monkeypatch):
        net, told = network(), []
        calls = before_call(number, press, monkeypatch)
        arguments = SETTINGS | {"callback": lambda epoch, history: told.append(epoch)}
        history = interrupt(net, epochs=9, backend=backend, **arguments)
        assert calls == [0] + [1] * (number + 1)
        assert told == list(range(history.n_epochs))
        assert history.n_epochs == (number + 1) // BLOCKS_PER_EPOCH
        monkeypatch.undo()
        assert_continues(net, history, backend)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("number", [1, 3, 5])
    def test_of_a_full_batch(self, number, backend, monkeypatch):
        net = network()
        before_call(number, press, monkeypatch)
        history = interrupt(net, epochs=9, backend=backend, **SETTINGS | {"batch_size": None})
        assert history.n_epochs == (number + 1) // 3
        monkeypatch.undo()
        assert_continues(net, history, backend, batch_size=None)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("number", [1, 7])
    def test_exception_between_blocks(self, number, backend, monkeypatch):
        def fail():
            raise BrokenError

        net = network()
        before_call(number, fail, monkeypatch)
        with pytest.raises(BrokenError):
            net.fit(X, Y, epochs=9, backend=backend, **SETTINGS)
        monkeypatch.undo()
        history = network().fit(X, Y, epochs=1, backend=backend, **SETTINGS)
        if number < BLOCKS_PER_EPOCH:
            history.loss_curve = history.loss_curve[:0]
        assert_continues(net, history, backend)

    @pytest.mark.parametrize("batch_size", [None, 300])
    def test_exception_within_a_step(self, batch_size, monkeypatch):
        # A handler that raises can do so between any two operations of NumPy code.
        from fastnet.reference import optimizers

        step, calls = optimizers.step, []

        def torn_step(layout, parameters, *arguments):
            calls.append(1)
            before = parameters.copy()
            step(layout, parameters, *arguments)
            if len(calls) == 3:
                parameters[::2] = before[::2]
                raise BrokenError

        net = network()
        monkeypatch.setattr(optimizers, "step", torn_step)
        with pytest.raises(BrokenError):
            net.fit(X, Y, epochs=9, backend="numpy", **SETTINGS | {"batch_size": batch_size})
        monkeypatch.undo()
        # Calls of several epochs are undone together, so a multiple is not known; none is torn.
        history = network().fit(X, Y, epochs=2, backend="numpy", **SETTINGS | {"batch_size": batch_size})
        history.loss_curve = history.loss_curve[: net._training.n_epochs]
        assert_continues(net, history, "numpy", batch_size=batch_size)

    @pytest.mark.parametrize("backend", [*BACKENDS, "exact"])
    def test_between_epochs(self, backend):
        net = network()
        history = interrupt(
            net, epochs=9, callback=lambda epoch, history: epoch == 2 and press(), backend=backend, **SETTINGS
        )
        assert history.n_epochs == 3
        assert_continues(net, history, backend)

    def test_in_the_last_epoch_it_still_counts(self):
        net = network()
        history = interrupt(net, epochs=3, callback=lambda epoch, history: epoch == 2 and press(), backend="numpy")
        assert history.n_epochs == 3


class TestHandlers:
    def test_second_raises(self):
        def callback(epoch, history):
            if epoch == 1:
                press()
                press()

        net = network()
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, Y, epochs=9, callback=callback, backend="numpy", **SETTINGS)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert_continues(net, network().fit(X, Y, epochs=2, backend="numpy", **SETTINGS), "numpy")

    @pytest.mark.parametrize("end", ["all", "callback", "exception", "divergence"])
    def test_restored(self, end):
        inside = []

        def callback(epoch, history):
            inside.append(signal.getsignal(signal.SIGINT))
            if end == "exception":
                raise BrokenError
            return end == "callback"

        optimizer = fastnet.SGD(1e300 if end == "divergence" else 0.1)
        try:
            network().fit(X, Y, epochs=3, optimizer=optimizer, callback=callback, backend="numpy")
        except (BrokenError, fastnet.DivergenceError):
            assert end in ("exception", "divergence")
        assert signal.default_int_handler not in inside
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_handler_that_raises_is_respected(self):
        def handler(number, frame):
            raise BrokenError

        signal.signal(signal.SIGINT, handler)
        net = network()
        with pytest.raises(BrokenError):
            net.fit(X, Y, epochs=9, callback=lambda epoch, history: press(), backend="numpy", **SETTINGS)
        assert signal.getsignal(signal.SIGINT) is handler
        assert_continues(net, network().fit(X, Y, epochs=1, backend="numpy", **SETTINGS), "numpy")

    @pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
    def test_a_handler_that_does_not_raise_is_respected(self, handler):
        signal.signal(signal.SIGINT, handler)
        history = network().fit(X, Y, epochs=3, callback=lambda epoch, history: press(), backend="numpy")
        assert (history.n_epochs, history.stopped_by) == (3, None)
        assert signal.getsignal(signal.SIGINT) is handler

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_in_another_thread(self, backend):
        net, other, inside = network(), network(), []

        def train():
            arguments = {"backend": backend, "callback": lambda epoch, history: inside.append(epoch)}
            net.fit(X, Y, epochs=3, **arguments, **SETTINGS)

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        other.fit(X, Y, epochs=3, backend=backend, **SETTINGS)
        assert inside == [0, 1, 2]
        assert net == other

    def test_another_thread_leaves_handlers_alone(self):
        def hold():
            with interruption.HeldInterrupt() as interrupt:
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
                held.append(interrupt)

        held = []
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
        assert not held[0].is_noted()


def test_interrupted_while_compiling_changes_nothing(monkeypatch):
    def load(name):
        functions = load_backend(name)

        def train(*arguments):
            press()
            return functions.train(*arguments)

        return Backend(functions.forward, train, functions.is_compiled)

    net, untouched = network(), network()
    for trained in (net, untouched):
        trained.fit(X, Y, epochs=1, backend="numpy", **SETTINGS)
    state = net._training
    monkeypatch.setattr(training, "load_backend", load)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=1, backend="numpy", optimizer="adam")
    assert net._training is state
    assert net == untouched


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_call_is_one_block(backend, monkeypatch):
    """However slow a backend is, it is asked for a second block only when the first has been timed."""
    calls = before_call(0, lambda: None, monkeypatch)
    network().fit(X, Y, epochs=1, backend=backend, **SETTINGS)
    assert calls == [0] + [1] * BLOCKS_PER_EPOCH
