"""Predictions: the same bits for one row and for many, into arrays of one's own, and bad inputs refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastnet import Network, kernels
from tests.support import assert_same_bits

DTYPES = ["float32", "float64"]
#: Rows below and above what is done on the stack, a whole block and more, and several pieces for threads.
ROWS = [1, 2, 15, 16, 17, 31, 33, 255, 257, 1000]
#: Layers narrower and wider than vectors, among them such as are computed with rows across the lanes.
SIZES = [
    (64, 100, 10),
    (1, 1),
    (1, 70, 40),
    (5, 3, 2),
    (3, 130, 20),
    (2, 9, 65),
    (20, 50, 1),
    (17, 35, 18),
    (16, 8, 16),
    (30, 98, 3),
]


def inputs(n_rows: int, n_inputs: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(n_rows).standard_normal((n_rows, n_inputs)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_rows_have_the_bits_of_the_reference(sizes: tuple[int, ...], output: str, dtype: str) -> None:
    network = Network(sizes, "tanh", output, dtype=dtype).initialize(seed=1, scheme="glorot_uniform")
    x = inputs(max(ROWS), sizes[0], dtype)
    desired = network.predict(x, backend="exact")
    for n_rows in ROWS:
        assert_same_bits(network.predict(x[:n_rows]), desired[:n_rows], f"{n_rows} rows")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
def test_relu_has_the_bits_of_the_reference(bias: bool, dtype: str) -> None:
    for sizes in SIZES:
        network = Network(sizes, "relu", bias=bias, dtype=dtype).initialize(seed=1)
        x = inputs(300, sizes[0], dtype)
        assert_same_bits(network.predict(x), network.predict(x, backend="exact"), f"{sizes}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_written_beside_the_outputs(dtype: str) -> None:
    for sizes in SIZES:
        network = Network(sizes, dtype=dtype).initialize(seed=1)
        for n_rows in ROWS:
            room = np.full((n_rows + 40, sizes[-1]), np.nan, dtype)
            network.predict(inputs(n_rows, sizes[0], dtype), out=room[20:-20])
            assert (np.isfinite(room).all(axis=1) == ([False] * 20 + [True] * n_rows + [False] * 20)).all()


def test_a_kernel_writes_to_any_array() -> None:
    """Of another dtype, or not contiguous, too."""
    network = Network([20, 50, 3], "tanh", dtype="float32").initialize(seed=1)
    x = inputs(50, 20, "float32")
    desired = network.predict(x)
    for out in (np.empty((50, 3)), np.empty((50, 6), np.float32)[:, ::2], np.empty((3, 50), np.float32).T):
        assert kernels.forward(network.layout, network.parameter_buffer, x, out) is not None
        assert_same_bits(out.astype(np.float32), desired)


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_networks_take_memory_elsewhere(dtype: str) -> None:
    network = Network([3, 3000, 4], "relu", dtype=dtype).initialize(seed=1)
    x = inputs(20, 3, dtype)
    desired = network.predict(x, backend="exact")
    for n_rows in (1, 16, 20):
        assert_same_bits(network.predict(x[:n_rows]), desired[:n_rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_many_classes_and_of_special_values(dtype: str) -> None:
    for n_classes in (2, 8, 16, 17, 33, 64, 65, 200):
        network = Network([n_classes, n_classes], output_activation="softmax", bias=False, dtype=dtype)
        network.weights[0][...] = np.eye(n_classes)
        x = 50 * inputs(40, n_classes, dtype)
        x[3] = 0.0
        x[5] = -0.0
        x[7, 0] = np.finfo(dtype).max
        x[9] = -np.finfo(dtype).max
        assert_same_bits(network.predict(x), network.predict(x, backend="exact"), f"{n_classes} classes")


@pytest.mark.parametrize("backend", ["numba", "exact", "numpy"])
@pytest.mark.parametrize("n_rows", [1, 300])
def test_outputs_into_an_array(backend: str, n_rows: int) -> None:
    network = Network([4, 6, 3], "tanh", "softmax").initialize(seed=0)
    x = inputs(n_rows, 4, "float64")
    out = np.full((n_rows, 3), np.nan)
    assert network.predict(x, backend=backend, out=out) is out
    assert_same_bits(out, network.predict(x, backend=backend))


@pytest.mark.parametrize("n_rows", [3, 3000])
def test_inputs_that_are_refused_leave_the_array_as_it_was(n_rows: int) -> None:
    network, x, out = (
        Network([8, 5, 3], dtype="float64").initialize(seed=0),
        inputs(n_rows, 8, "float64"),
        np.ones((n_rows, 3)),
    )
    x[-1, -1] = np.inf
    with pytest.raises(ValueError, match="X must be finite"):
        network.predict(x, out=out)
    assert (out == 1.0).all()


def test_outputs_over_their_own_inputs() -> None:
    network = Network([3, 5, 3], "tanh").initialize(seed=0)
    x = inputs(300, 3, "float64")
    desired = network.predict(x)
    assert network.predict(x, out=x) is x
    assert_same_bits(x, desired)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0.0]], TypeError, r"out must be a numpy.ndarray; got \[\[0.0\]\] of type list"),
        (np.zeros((2, 2)), ValueError, r"out must have shape \(2, 1\) and dtype float64; got \(2, 2\) and float64"),
        (np.zeros((2, 1), np.float32), ValueError, "got .* and float32"),
        (np.zeros((2, 2))[:, :1], ValueError, "out must be C-contiguous, aligned and writable"),
        (np.broadcast_to(np.zeros(1), (2, 1)), ValueError, "out must be C-contiguous, aligned and writable"),
    ],
)
def test_other_outputs_are_refused(out: object, error: type[Exception], message: str) -> None:
    network = Network([3, 1]).initialize(seed=0)
    with pytest.raises(error, match=message):
        network.predict(inputs(2, 3, "float64"), out=out)


@pytest.mark.parametrize("n_rows", [1, 5000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2, -1])
def test_inputs_that_are_not_finite_are_refused(n_rows: int, bad: float, place: int) -> None:
    network = Network([3, 1]).initialize(seed=0)
    x = inputs(n_rows, 3, "float64")
    x.flat[place] = bad
    with pytest.raises(ValueError, match="X must be finite: 1 of"):
        network.predict(x)


def test_inputs_of_every_kind() -> None:
    network = Network([3, 4, 2], "tanh").initialize(seed=0)
    x = np.round(4 * inputs(6, 3, "float64"))
    desired = network.predict(x)
    readonly = x.copy()
    readonly.flags.writeable = False
    kinds = [x.tolist(), x.astype(int), np.asfortranarray(x), readonly, x.astype(">f8"), np.repeat(x, 2, axis=0)[::2]]
    for kind in kinds:
        assert_same_bits(network.predict(kind), desired)
    with pytest.raises(ValueError, match="X must have 3 columns"):
        network.predict(x[:, :2])
    with pytest.raises(ValueError, match="X must be 2-dimensional"):
        network.predict(x[0])
    with pytest.raises(ValueError, match="X must not be empty"):
        network.predict(x[:0])


def test_threads_are_checked() -> None:
    network = Network([3, 1]).initialize(seed=0)
    with pytest.raises(ValueError, match="threads must be an integer of at least 1; got 0"):
        network.predict(inputs(2, 3, "float64"), threads=0)
    assert_same_bits(network.predict(inputs(2, 3, "float64"), threads=5), network.predict(inputs(2, 3, "float64")))


def test_memory_does_not_grow_with_the_rows() -> None:
    network = Network([8, 300, 2], "relu", dtype="float32").initialize(seed=0)
    peaks = []
    for n_rows in (10_000, 200_000):
        x, out = inputs(n_rows, 8, "float32"), np.empty((n_rows, 2), np.float32)
        network.predict(x, out=out)
        tracemalloc.start()
        network.predict(x, out=out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The check for numbers that are not finite makes a truth value for each of them.
    assert peaks[1] < 200_000 * 8 * 1.2


def test_read_only_inputs_are_not_copied() -> None:
    """They may be a file that is mapped, larger than memory."""
    network = Network([64, 16, 2], "relu", dtype="float32").initialize(seed=0)
    x, y = inputs(40_000, 64, "float32"), np.zeros((40_000, 2), np.float32)
    x.flags.writeable = False
    for use in (network.predict, lambda x: network.fit(x, y, epochs=1, batch_size=100)):
        use(x)
        tracemalloc.start()
        use(x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < x.nbytes / 2
