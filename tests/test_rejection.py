"""Input of fit, predict and fit_output_layer: what is taken, however it lies in memory, and what is refused.

How single values are checked is tested in test_validation.py; here every argument is connected to
its check, and a refused call has changed nothing.
"""

import re

import numpy as np
import pytest

import fastnet
from fastnet import Huber, Network
from tests.support import assert_same_bits

BACKENDS = ("numba", "exact", "numpy")

X = np.random.RandomState(0).standard_normal((6, 3)).astype(np.float32)
Y = np.random.RandomState(1).random_sample((6, 2)).astype(np.float32)
PROBABILITIES = Y / Y.sum(axis=1, keepdims=True)
LABELS = [0, 1, 1, 0, 1, 0]
WEIGHT = np.arange(6, dtype=np.float32)


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def network(output_activation="identity", **arguments):
    return Network([3, 4, 2], "tanh", output_activation, **arguments).initialize(2)


# Name of an argument, its value, the error, and how its message begins.
REFUSED = [
    ("X", X[:, :2], ValueError, "X must have 3 columns, one for each input of the network; got shape (6, 2)"),
    ("X", X[0], ValueError, "X must be 2-dimensional; got an array of shape (3,)"),
    ("X", 1.0, ValueError, "X must be 2-dimensional; got an array of shape ()"),
    ("X", X[None], ValueError, "X must be 2-dimensional; got an array of shape (1, 6, 3)"),
    ("X", X[:0], ValueError, "X must not be empty; got an array of shape (0, 3)"),
    ("X", [], ValueError, "X must be 2-dimensional; got an array of shape (0,)"),
    ("X", [[1, 2, 3], [4, 5]], ValueError, "X must be an array or nested lists of equal lengths: "),
    ("X", X.astype(object), TypeError, "X must hold real numbers; got objects"),
    ("X", X.astype(complex), TypeError, "X must hold real numbers; got complex numbers"),
    ("X", X.astype(str), TypeError, "X must hold real numbers; got strings"),
    ("X", None, TypeError, "X must hold real numbers; got objects"),
    ("X", changed(X, (1, 2), np.nan), ValueError, "X must be finite: 1 of 18 numbers are NaN or infinite, the first"),
    ("X", changed(X, (5, 0), -np.inf), ValueError, "X must be finite: 1 of 18 numbers are NaN or infinite, the first"),
    ("X", np.ma.MaskedArray(X, mask=X > 0), ValueError, "X must not have masked elements"),
    ("X", X[:5], ValueError, "X and y must have as many samples; got 5 and 6"),
    ("y", Y[:5], ValueError, "X and y must have as many samples; got 6 and 5"),
    ("y", Y[:, :1], ValueError, "y must have 2 columns, one for each output of the network; got shape (6, 1)"),
    ("y", Y[:, 0], ValueError, "y must have 2 columns, one for each output of the network; got shape (6,)"),
    ("y", Y[..., None], ValueError, "y must be 2-dimensional; got an array of shape (6, 2, 1)"),
    ("y", Y[:0], ValueError, "y must not be empty; got an array of shape (0, 2)"),
    ("y", [[1, 2], [3]], ValueError, "y must be an array or nested lists of equal lengths: "),
    ("y", Y.astype(object), TypeError, "y must hold real numbers; got objects"),
    ("y", Y.astype(complex), TypeError, "y must hold real numbers; got complex numbers"),
    ("y", changed(Y, (3, 1), np.nan), ValueError, "y must be finite: 1 of 12 numbers are NaN or infinite"),
]
REFUSED_BY_FIT = [
    ("loss", "squared_eror", ValueError, "loss must be one of 'squared_error', "),
    ("loss", None, TypeError, "loss must be one of 'squared_error', "),
    ("loss", Huber, TypeError, "loss must be one of 'squared_error', "),
    ("optimizer", "adm", ValueError, "optimizer must be one of 'sgd', 'adam', "),
    ("optimizer", fastnet.Adam, TypeError, "optimizer must be one of 'sgd', 'adam', "),
    ("optimizer", None, TypeError, "optimizer must be one of 'sgd', 'adam', "),
    ("epochs", 0, ValueError, "epochs must be an integer of at least 1; got 0"),
    ("epochs", -1, ValueError, "epochs must be an integer of at least 1; got -1"),
    ("epochs", 2.0, TypeError, "epochs must be an integer of at least 1; got 2.0"),
    ("epochs", True, TypeError, "epochs must be an integer of at least 1; got True"),
    ("epochs", None, TypeError, "epochs must be an integer of at least 1; got None"),
    ("batch_size", 0, ValueError, "batch_size must be an integer of at least 1; got 0"),
    ("batch_size", -5, ValueError, "batch_size must be an integer of at least 1; got -5"),
    ("batch_size", 2.5, TypeError, "batch_size must be an integer of at least 1; got 2.5"),
    ("batch_size", "auto", TypeError, "batch_size must be an integer of at least 1; got 'auto'"),
    ("reduction", "avg", ValueError, "reduction must be one of 'sum', 'mean'; got 'avg'"),
    ("reduction", None, TypeError, "reduction must be one of 'sum', 'mean'; got None"),
    ("shuffle", 1, TypeError, "shuffle must be True or False; got 1"),
    ("shuffle", "yes", TypeError, "shuffle must be True or False; got 'yes'"),
    ("seed", -1, ValueError, "seed must be an integer of at least 0 and at most 4294967295; got -1"),
    ("seed", 2**32, ValueError, "seed must be an integer of at least 0 and at most 4294967295; got 4294967296"),
    ("seed", 1.0, TypeError, "seed must be None, an integer, "),
    ("seed", "1", TypeError, "seed must be None, an integer, "),
    ("sample_weight", WEIGHT[:5], ValueError, "sample_weight must have shape (6,), a weight for each sample; got (5,)"),
    ("sample_weight", WEIGHT[:, None], ValueError, "sample_weight must be 1-dimensional; got an array of shape (6, 1)"),
    ("sample_weight", 1.0, ValueError, "sample_weight must be 1-dimensional; got an array of shape ()"),
    ("sample_weight", -WEIGHT, ValueError, "sample_weight must not be negative, nor zero everywhere; got"),
    ("sample_weight", 0 * WEIGHT, ValueError, "sample_weight must not be negative, nor zero everywhere; got"),
    ("sample_weight", changed(WEIGHT, 0, np.nan), ValueError, "sample_weight must be finite: 1 of 6 numbers"),
    ("sample_weight", WEIGHT.astype(complex), TypeError, "sample_weight must hold real numbers; got complex"),
    ("sample_weight", "balanced", TypeError, "sample_weight must hold real numbers; got strings"),
    ("l2", -0.1, ValueError, "l2 must be a number in [0, inf); got -0.1"),
    ("l2", np.inf, ValueError, "l2 must be a number in [0, inf); got inf"),
    ("l2", np.nan, ValueError, "l2 must be a number in [0, inf); got nan"),
    ("l2", None, TypeError, "l2 must be a number in [0, inf); got None"),
    ("l2", [0.1], TypeError, "l2 must be a number in [0, inf); got [0.1]"),
    ("report_every", 0, ValueError, "report_every must be an integer of at least 1; got 0"),
    ("report_every", 1.5, TypeError, "report_every must be an integer of at least 1; got 1.5"),
    ("callback", "print", TypeError, "callback must be callable; got 'print'"),
    ("callback", 1, TypeError, "callback must be callable; got 1"),
    ("progress", 1, TypeError, "progress must be True or False; got 1"),
    ("progress", None, TypeError, "progress must be True or False; got None"),
    ("threads", 0, ValueError, "threads must be an integer of at least 1; got 0"),
    ("threads", "all", TypeError, "threads must be an integer of at least 1; got 'all'"),
]
KNOWN_BACKENDS = "backend must be one of 'numba', 'exact', 'numpy', or a fastnet.backends.Backend; got "
BACKEND = [
    ("backend", "nunba", ValueError, KNOWN_BACKENDS + "'nunba'. Did you mean"),
    ("backend", "torch", ValueError, KNOWN_BACKENDS + "'torch'"),
    ("backend", None, TypeError, KNOWN_BACKENDS + "None"),
]
# Loss, output activation, targets, and how the message of the ValueError begins.
REFUSED_TARGETS = [
    ("binary_cross_entropy", "sigmoid", Y + 1, "y must lie in [0, 1] for loss 'binary_cross_entropy'; got values from"),
    ("binary_cross_entropy", "sigmoid", Y - 1, "y must lie in [0, 1] for loss 'binary_cross_entropy'; got values from"),
    ("cross_entropy", "softmax", Y + 1, "y must lie in [0, 1] for loss 'cross_entropy'; got values from"),
    ("cross_entropy", "softmax", Y, "y must have rows that add up to 1 for loss 'cross_entropy' and softmax; got"),
    ("cross_entropy", "softmax", 0 * Y, "y must have rows that add up to 1 for loss 'cross_entropy' and softmax; got"),
    ("cross_entropy", "softmax", changed(LABELS, 4, 2), "y must hold labels from 0 to 1; got 2 at index 4 and 1 such"),
    (
        "cross_entropy",
        "softmax",
        changed(LABELS, 3, -1),
        "y must hold labels from 0 to 1; got -1 at index 3 and 1 such",
    ),
    (
        "cross_entropy",
        "softmax",
        [0, 1, 0.5, 0, 1, 0.1],
        "y must hold labels from 0 to 1; got 0.5 at index 2 and 2 such",
    ),
    ("cross_entropy", "softmax", LABELS[:5], "X and y must have as many samples; got 6 and 5"),
    ("cross_entropy", "softmax", changed(WEIGHT, 0, np.nan), "y must be finite: "),
    (
        "cross_entropy",
        "softmax",
        Y[:, :1],
        "y must have 2 columns, one for each output of the network (or be labels of",
    ),
    ("cross_entropy", "softmax", [[1, 0], [1]], "y must be an array or nested lists of equal lengths: "),
    ("poisson", "exponential", Y - 1, "y must not be negative for loss 'poisson'; got -"),
]


NEAR_MISSES = [
    ("loss", "squard_error", "squared_error"),
    ("loss", "Huber", "huber"),
    ("optimizer", "Adam", "adam"),
    ("optimizer", "rms_prop", "rmsprop"),
    ("reduction", "means", "mean"),
    ("backend", "Numba", "numba"),
]


def check_refused(net, call, error, message):
    """Require the error, and that the network, its training, and the arrays given are as they were."""
    net.fit(X, PROBABILITIES, epochs=2, optimizer="rmsprop", shuffle=True, backend="numpy")
    given = (X, Y, PROBABILITIES, WEIGHT)
    copies = [array.copy() for array in given]
    before, state = net.copy(), net._training
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()
    assert net == before
    assert net._training is state
    assert (state.n_epochs, state.seed, state.optimizer) == (2, None, fastnet.RMSprop())
    assert_same_bits(state.slots, before._training.slots)
    assert_same_bits(state.powers, before._training.powers)
    assert state.source.random_sample() == before._training.source.random_sample()
    for array, values in zip(given, copies, strict=True):
        assert_same_bits(array, values)


class TestRefused:
    @pytest.mark.parametrize(("argument", "value", "error", "message"), REFUSED + REFUSED_BY_FIT + BACKEND)
    def test_by_fit(self, argument, value, error, message):
        net, source = network(), np.random.RandomState(0)
        good = {"X": X, "y": Y, "shuffle": True, "seed": source, "optimizer": "adam", "backend": "numpy"}
        check_refused(net, lambda: net.fit(**good | {argument: value}), error, message)
        assert source.random_sample() == np.random.RandomState(0).random_sample()

    @pytest.mark.parametrize(("loss", "output_activation", "targets", "message"), REFUSED_TARGETS)
    def test_targets(self, loss, output_activation, targets, message):
        net = network(output_activation)
        check_refused(net, lambda: net.fit(X, targets, loss=loss, backend="numpy"), ValueError, message)

    @pytest.mark.parametrize(
        ("argument", "value", "error", "message"),
        [row for row in REFUSED if row[0] == "X" and "as many samples" not in row[3]] + BACKEND,
    )
    def test_by_predict(self, argument, value, error, message):
        net = network()
        good = {"X": X, "backend": "numpy"}
        check_refused(net, lambda: net.predict(**good | {argument: value}), error, message)

    @pytest.mark.parametrize(("argument", "value", "error", "message"), REFUSED + BACKEND)
    @pytest.mark.parametrize("layer_sizes", [(3, 2), (3, 4, 2)])
    def test_by_fit_output_layer(self, layer_sizes, argument, value, error, message):
        net = Network(layer_sizes).initialize(0)
        good = {"X": X, "y": Y, "backend": "numpy"}
        check_refused(net, lambda: net.fit_output_layer(**good | {argument: value}), error, message)

    @pytest.mark.parametrize("output_activation", ["sigmoid", "softmax", "exponential"])
    def test_an_activation_of_the_layer_that_is_solved_for(self, output_activation):
        net = network(output_activation)
        message = f"fit_output_layer needs a network whose output_activation is 'identity'; got '{output_activation}'"
        check_refused(net, lambda: net.fit_output_layer(X, Y, backend="numpy"), ValueError, message)

    @pytest.mark.parametrize(("argument", "value", "near"), NEAR_MISSES)
    def test_near_misses_are_suggested(self, argument, value, near):
        with pytest.raises(ValueError, match=rf"; got {value!r}\. Did you mean {near!r}\?$"):
            network().fit(X, Y, **{"backend": "numpy"} | {argument: value})

    def test_one_class(self):
        with pytest.raises(ValueError, match=r"^loss 'cross_entropy' needs a network of at least 2 outputs; got 1$"):
            Network([3, 1], output_activation="softmax").fit(X, Y[:, 0], loss="cross_entropy", backend="numpy")

    @pytest.mark.parametrize("argument", ["X", "y", "sample_weight"])
    def test_too_large_for_the_dtype(self, argument):
        net = network(dtype="float32")
        arguments = {"X": X, "y": Y, "sample_weight": WEIGHT}
        arguments[argument] = 1e39 * (arguments[argument].astype(float) + 1.0)
        with pytest.raises(
            ValueError, match=rf"^{argument} must be finite: \d+ of \d+ numbers are too large for float32"
        ):
            net.fit(**arguments, backend="numpy")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("row", [0, 99_999, 200_000])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_large_inputs_that_are_not_finite(self, dtype, row, value):
        """Compiled code looks through them; their last numbers fill no vector."""
        x, net = np.zeros((200_001, 3), dtype), network(dtype=dtype)
        x[:, 0] = np.finfo(dtype).max
        before = net.copy()
        with_one = changed(x, (row, 2), value)
        message = rf"^X must be finite: 1 of 600003 numbers are NaN or infinite, the first at index \({row}, 2\): "
        for refused in (with_one, np.ascontiguousarray(with_one[:, ::-1])[:, ::-1]):
            with pytest.raises(ValueError, match=message):
                net.fit(refused, np.zeros((len(x), 2), dtype))
        assert net == before
        assert np.isfinite(net.fit(x * 0, np.zeros((len(x), 2), dtype), epochs=1).loss_curve).all()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("layer", [1, 2])
    @pytest.mark.parametrize("kind", ["weights", "biases"])
    def test_parameters_that_are_not_finite(self, kind, layer, value):
        net = network()
        getattr(net, kind)[layer - 1][..., 1] = value
        before = net.copy()
        message = f"^the network's parameters must be finite to be trained; some of layer {layer} are not$"
        with pytest.raises(ValueError, match=message):
            net.fit(X, Y, backend="numpy")
        assert net == before
        assert net._training is None

    def test_outputs_below_the_last_layer_that_are_not_finite(self):
        net = Network.from_arrays([[[1e30]], [[1.0]]], dtype="float32")
        message = "X must give finite outputs of the layers below the last; some are NaN or infinite"
        with pytest.raises(ValueError, match=f"^{message}$"):
            net.fit_output_layer([[1e30]], [1.0], backend="numpy")
        assert net.parameters.tolist() == [np.float32(1e30), 1.0]

    def test_a_solution_out_of_range(self):
        net = Network([1, 1], bias=False, dtype="float32")
        with pytest.raises(ValueError, match=r"^y must have a least-squares solution within the range of float32"):
            net.fit_output_layer([[1e-30]], [1e30], backend="numpy")
        assert net.parameters.tolist() == [0.0]

    def test_keywords_only_and_known(self):
        for arguments, keywords in (((X, Y, "squared_error"), {}), ((X, Y), {"epoch": 1})):
            with pytest.raises(TypeError):
                network().fit(*arguments, **keywords)


# Integers that are numbers of every dtype below.
INTEGERS = {
    "X": np.random.RandomState(5).randint(0, 4, (6, 3)).astype(np.float64),
    "y": np.random.RandomState(6).randint(0, 2, (6, 2)).astype(np.float64),
    "sample_weight": np.array([1.0, 2.0, 0.0, 1.0, 3.0, 1.0]),
}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)


FORMS = {
    "lists": np.ndarray.tolist,
    "rows of a tuple": tuple,
    "int8": lambda array: array.astype(np.int8),
    "uint64": lambda array: array.astype(np.uint64),
    "float16": lambda array: array.astype(np.float16),
    "float32": lambda array: array.astype(np.float32),
    "longdouble": lambda array: array.astype(np.longdouble),
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "byte-swapped integers": lambda array: array.astype(">i4"),
    "Fortran-ordered": np.asfortranarray,
    "every second": lambda array: np.repeat(array, 2, axis=0)[::2],
    "every second column": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: array[::-1].copy()[::-1],
    "read-only": read_only,
    "unaligned": unaligned,
    "unmasked": np.ma.MaskedArray,
    "memoryview": memoryview,
}


class TestAccepted:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("backend", ["numba", "numpy"])
    def test_forms(self, backend, form, dtype):
        given = {name: FORMS[form](array) for name, array in INTEGERS.items()}
        copies = {name: np.array(array) for name, array in given.items()}
        results = []
        for data in (INTEGERS, given):
            net = network(dtype=dtype)
            history = net.fit(**data, epochs=2, batch_size=4, shuffle=True, seed=0, backend=backend)
            outputs = net.predict(data["X"], backend=backend)
            results.append((net.parameters, history.loss_curve, outputs))
            net.fit_output_layer(data["X"], data["y"], backend=backend)
            results[-1] += (net.parameters,)
        for one, other in zip(*results, strict=True):
            assert_same_bits(one, other)
        for name, array in given.items():
            np.testing.assert_array_equal(np.array(array), copies[name], strict=True)
            if isinstance(array, np.ndarray):
                assert array.flags.writeable == (form not in ("read-only", "unaligned"))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_arrays_that_need_no_conversion_are_untouched(self, backend):
        given = {name: array.copy() for name, array in INTEGERS.items()}
        net = network()
        net.fit(**given, epochs=2, batch_size=4, shuffle=True, backend=backend)
        net.fit_output_layer(given["X"], given["y"], backend=backend)
        outputs = net.predict(given["X"], backend=backend)
        for name, array in given.items():
            assert_same_bits(array, INTEGERS[name])
            assert not np.shares_memory(outputs, array)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_identity_of_the_inputs_is_no_view(self, backend):
        net = Network.from_arrays([np.eye(3)])
        outputs = net.predict(INTEGERS["X"], backend=backend)
        assert_same_bits(outputs, INTEGERS["X"])
        assert not np.shares_memory(outputs, INTEGERS["X"])

    @pytest.mark.parametrize(
        "labels",
        [
            LABELS,
            np.array(LABELS, np.uint8),
            np.array(LABELS, bool),
            np.array(LABELS, ">f4"),
            np.array(LABELS, ">i2"),
            np.eye(2)[LABELS],
        ],
        ids=["list", "uint8", "bool", "float", "int16", "one-hot"],
    )
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_labels(self, backend, labels):
        one, other = network("softmax"), network("softmax")
        one.fit(X, labels, loss="cross_entropy", epochs=2, backend=backend)
        other.fit(X, np.eye(2)[LABELS].tolist(), loss="cross_entropy", epochs=2, backend=backend)
        assert one == other

    def test_labels_of_more_classes_than_samples(self):
        one, other = (Network([3, 4, 9], output_activation="softmax").initialize(0) for _ in range(2))
        labels = [0, 8, 3, 3, 5, 0]
        one.fit(X, labels, loss="cross_entropy", epochs=2)
        other.fit(X, np.eye(9)[labels], loss="cross_entropy", epochs=2)
        assert one == other

    def test_probabilities(self):
        for rounded in (PROBABILITIES, PROBABILITIES.round(2), PROBABILITIES.astype(np.float16)):
            network("softmax").fit(X, rounded, loss="cross_entropy", epochs=1, backend="numpy")
        # What a sigmoid puts out need not add up to 1.
        network("sigmoid").fit(X, Y, loss="cross_entropy", epochs=1, backend="numpy")

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_row_of_targets_for_one_output(self, backend):
        one, other = (Network([3, 4, 1]).initialize(0) for _ in range(2))
        one.fit(X, Y[:, 0], epochs=2, backend=backend)
        other.fit(X, Y[:, :1], epochs=2, backend=backend)
        assert one == other

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_the_smallest_of_all(self, backend):
        net = Network([1, 1]).initialize(0)
        net.fit([[1]], [2], epochs=1, batch_size=1, backend=backend)
        assert net.predict([[True]], backend=backend).shape == (1, 1)

    @pytest.mark.parametrize("zero", [0, 0.0, np.float32(0), np.int64(0)])
    def test_numbers_of_other_types(self, zero):
        arguments = {"epochs": np.int32(2), "batch_size": np.uint8(4), "l2": zero, "shuffle": np.False_}
        one, other = network(), network()
        one.fit(X, Y, **arguments, seed=np.int64(1), report_every=np.int16(1), backend="numpy")
        other.fit(X, Y, epochs=2, batch_size=4, backend="numpy")
        assert one == other
