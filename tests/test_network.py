import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet import contract
from fastnet.initialization import SCHEMES
from fastnet.layout import aligned_zeros, buffer_size, make_layout, parameter_views
from fastnet.network import Network
from tests.support import assert_same_bits, bit_patterns

DTYPES = ("float32", "float64")
HIDDEN = [name for name in contract.ACTIVATIONS if name not in contract.OUTPUT_ONLY]

architectures = st.fixed_dictionaries(
    {
        "layer_sizes": st.lists(st.integers(1, 40), min_size=2, max_size=5),
        "activation": st.sampled_from(HIDDEN),
        "output_activation": st.sampled_from(contract.ACTIVATIONS),
        "bias": st.booleans(),
        "dtype": st.sampled_from(DTYPES),
    }
)


def with_any_bits(network, seed=0):
    """Fill a network with random bit patterns: NaNs with payloads, infinities, subnormals, both zeros."""
    for i, array in enumerate((*network.weights, *network.biases)):
        array[...] = bit_patterns(network.dtype, array.size, seed + i).reshape(array.shape)
    return network


def shares_its_buffer(network):
    return all(np.shares_memory(array, network.parameter_buffer) for array in (*network.weights, *network.biases))


class TestArchitecture:
    def test_attributes(self):
        network = Network((3, np.int64(5), 2), activation=["tanh"], output_activation="softmax", dtype=np.float32)
        assert network.layer_sizes == (3, 5, 2)
        assert network.activations == ("tanh", "softmax")
        assert network.bias is True
        assert network.dtype == np.float32
        assert (network.n_inputs, network.n_outputs, network.n_layers) == (3, 2, 2)
        assert network.n_parameters == 3 * 5 + 5 + 5 * 2 + 2
        assert [w.shape for w in network.weights] == [(3, 5), (5, 2)]
        assert [b.shape for b in network.biases] == [(5,), (2,)]
        assert Network([3, 2], bias=False).biases == ()

    @given(architectures)
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_architecture_makes_the_same(self, arguments):
        network = Network(**arguments)
        assert Network(**network.architecture) == network
        assert Network(**network.architecture).architecture == network.architecture

    @pytest.mark.parametrize(
        ("network", "text"),
        [
            (
                Network([3, 4, 1], "sigmoid", "sigmoid", bias=False),
                "<Network 3 -> 4 sigmoid -> 1 sigmoid, without bias, float64, 16 parameters>",
            ),
            (Network([2, 1], dtype="float32"), "<Network 2 -> 1 identity, float32, 3 parameters>"),
            (Network([1, 1], bias=False), "<Network 1 -> 1 identity, without bias, float64, 1 parameter>"),
        ],
    )
    def test_repr(self, network, text):
        assert repr(network) == text

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"layer_sizes": [3]}, ValueError, r"^layer_sizes must have at least .*; got \[3\]$"),
            ({"layer_sizes": []}, ValueError, r"^layer_sizes must have at least .*; got \[\]$"),
            ({"layer_sizes": [3, 0, 1]}, ValueError, r"^layer_sizes\[1\] must be an integer of at least 1; got 0$"),
            ({"layer_sizes": [-3, 1]}, ValueError, r"^layer_sizes\[0\] must be an integer of at least 1; got -3$"),
            ({"layer_sizes": [3, 1.0]}, TypeError, r"^layer_sizes\[1\] must be an integer of at least 1; got 1.0 of"),
            ({"layer_sizes": [True, 1]}, TypeError, r"^layer_sizes\[0\] must be an integer"),
            ({"layer_sizes": 3}, TypeError, r"^layer_sizes must be a sequence of integers; got 3$"),
            ({"layer_sizes": "31"}, TypeError, r"^layer_sizes must be a sequence of integers; got '31'$"),
            ({"layer_sizes": [10**10, 10**10]}, ValueError, r"^layer_sizes must fit in memory"),
            ({"activation": "sigmod"}, ValueError, r"Did you mean 'sigmoid'\?$"),
            ({"activation": "softmax"}, ValueError, r"^activation must be .* only output_activation can be$"),
            ({"activation": ["exponential"]}, ValueError, r"^activation\[0\] must be .* only output_activation can"),
            ({"activation": ["tanh", "tanh"]}, ValueError, r"one for each of the 1 hidden layers; got \['tanh', "),
            ({"activation": []}, ValueError, r"one for each of the 1 hidden layers; got \[\]$"),
            ({"activation": None}, TypeError, r"^activation must be a name, or a sequence"),
            ({"activation": [None]}, TypeError, r"^activation\[0\] must be one of 'identity'"),
            ({"output_activation": "sofmax"}, ValueError, r"Did you mean 'softmax'\?$"),
            ({"output_activation": ["tanh"]}, TypeError, r"^output_activation must be one of 'identity'"),
            ({"bias": 1}, TypeError, r"^bias must be True or False; got 1 "),
            ({"dtype": "float16"}, ValueError, r"^dtype must be 'float32' or 'float64'; got 'float16'$"),
            ({"dtype": None}, TypeError, r"^dtype must be 'float32' or 'float64'; got None"),
        ],
    )
    def test_wrong_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            Network(**{"layer_sizes": [3, 4, 1]} | arguments)

    def test_a_wrong_name_counts_without_hidden_layers(self):
        with pytest.raises(ValueError, match=r"^activation must be one of"):
            Network([3, 1], activation="sigmod")

    def test_import_is_light(self):
        code = (
            "import sys, fastnet.network; print([m for m in ('numba', 'sklearn', 'safetensors') if m in sys.modules])"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "[]"


class TestBuffer:
    @given(architectures)
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_layout(self, arguments):
        network = Network(**arguments)
        layout, buffer = network.layout, network.parameter_buffer
        lanes = contract.VECTOR_BYTES // network.dtype.itemsize
        assert layout.dtype == np.int64
        assert layout.shape == (network.n_layers, contract.LAYOUT_COLUMNS)
        assert not layout.flags.writeable
        assert buffer.ctypes.data % contract.VECTOR_BYTES == 0
        assert buffer.dtype == network.dtype
        assert buffer.shape == (buffer_size(layout),)
        end = 0
        for i, row in enumerate(layout.tolist()):
            assert row[contract.N_INPUTS] == network.layer_sizes[i]
            assert row[contract.N_OUTPUTS] == network.layer_sizes[i + 1]
            assert contract.ACTIVATIONS[row[contract.ACTIVATION]] == network.activations[i]
            stride = row[contract.STRIDE]
            assert stride % lanes == 0
            assert 0 <= stride - row[contract.N_OUTPUTS] < lanes
            assert row[contract.WEIGHTS] == end
            end += row[contract.N_INPUTS] * stride
            assert row[contract.BIAS] == (end if network.bias else -1)
            end += stride if network.bias else 0
        assert end == buffer.size

    @given(architectures)
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_views_cover_the_buffer_but_for_its_padding(self, arguments):
        network = Network(**arguments).initialize(seed=1, low=0.5, high=1.0)
        assert shares_its_buffer(network)
        # No parameter is zero, so what is zero is padding.
        assert np.count_nonzero(network.parameter_buffer) == network.n_parameters
        for array in (*network.weights, *network.biases):
            array[...] = 0
        assert not network.parameter_buffer.any()

    def test_views_read_and_write_the_buffer(self):
        network = Network([2, 3, 1])
        network.weights[0][1, 2] = 5.0
        network.biases[1][0] = 7.0
        row = network.layout[0]
        assert network.parameter_buffer[row[contract.WEIGHTS] + row[contract.STRIDE] + 2] == 5.0
        assert network.parameter_buffer[network.layout[1, contract.BIAS]] == 7.0

    def test_a_stack_of_buffers(self):
        layout = make_layout([3, 4, 2], ["tanh", "identity"], True, np.dtype(np.float64))
        stack = aligned_zeros((5, buffer_size(layout)), np.dtype(np.float64))
        weights, biases = parameter_views(stack, layout)
        assert [array.shape for array in (*weights, *biases)] == [(5, 3, 4), (5, 4, 2), (5, 4), (5, 2)]
        assert all(np.shares_memory(array, stack) for array in (*weights, *biases))
        for i in range(5):
            for all_of_them, one in zip(weights, parameter_views(stack[i], layout)[0], strict=True):
                assert np.shares_memory(all_of_them[i], one)
                assert all_of_them[i].strides == one.strides

    def test_attributes_cannot_be_replaced(self):
        network = Network([2, 3, 1])
        for name in ("weights", "biases", "parameter_buffer", "layout", "layer_sizes", "dtype", "bias", "activations"):
            with pytest.raises(AttributeError):
                setattr(network, name, getattr(network, name))
        with pytest.raises(TypeError):
            network.weights[0] = np.zeros((2, 3))


class TestParameters:
    def test_order(self):
        network = Network([2, 3, 1], dtype="float32")
        network.parameters = range(13)
        assert network.weights[0].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert network.biases[0].tolist() == [6, 7, 8]
        assert network.weights[1].tolist() == [[9], [10], [11]]
        assert network.biases[1].tolist() == [12]
        assert network.parameters.tolist() == list(range(13))
        assert network.parameters.dtype == np.float32

    @given(architectures)
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_round_trip(self, arguments):
        network = Network(**arguments).initialize(seed=3)
        other = Network(**arguments)
        other.parameters = network.parameters
        assert other == network
        assert_same_bits(other.parameter_buffer, network.parameter_buffer)

    def test_reading_copies(self):
        network = Network([2, 1]).initialize(seed=0)
        network.parameters[:] = 0.0
        assert network.parameters.all()

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (np.zeros(12), ValueError, r"^parameters must have shape \(13,\); got \(12,\)$"),
            (np.zeros((13, 1)), ValueError, r"^parameters must be 1-dimensional; got an array of shape \(13, 1\)$"),
            ([], ValueError, r"^parameters must not be empty"),
            ([0.0] * 12 + [np.nan], ValueError, r"^parameters must be finite: 1 of 13 .* at index 12: nan$"),
            ([1e39] * 13, ValueError, r"^parameters must be finite: 13 of 13 numbers are too large for float32"),
            (np.zeros(13, complex), TypeError, r"^parameters must hold real numbers; got complex"),
        ],
    )
    def test_refused_without_change(self, value, error, message):
        network = Network([2, 3, 1], dtype="float32").initialize(seed=0)
        before = network.copy()
        with pytest.raises(error, match=message):
            network.parameters = value
        assert network == before

    def test_assigning_keeps_the_optimizer_state(self):
        network = Network([2, 1])
        network._training = state = object()
        network.parameters = [1, 2, 3]
        assert network._training is state


class TestInitialize:
    def test_the_first_notebook(self):
        network = Network([3, 4, 1], activation="sigmoid", output_activation="sigmoid", bias=False).initialize(seed=4)
        printed = [
            [
                [0.93405968, 0.0944645, 0.94536872, 0.42963199],
                [0.39545765, -0.56782101, 0.95254891, -0.98753949],
                [-0.49403528, -0.13041694, 0.55876584, -0.60462985],
            ],
            [[0.72598647], [0.96680135], [-0.67231552], [0.19466789]],
        ]
        for weights, figures in zip(network.weights, printed, strict=True):
            assert weights.round(8).tolist() == figures
        random = np.random.RandomState(4)
        assert_same_bits(network.weights[0], 2 * random.random_sample((3, 4)) - 1)
        assert_same_bits(network.weights[1], 2 * random.random_sample((4, 1)) - 1)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_order_of_draws(self, dtype):
        network = Network([2, 3, 1], dtype=dtype).initialize(seed=5, low=0.0, high=1.0)
        assert_same_bits(network.parameters, np.random.RandomState(5).random_sample(13).astype(dtype))

    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
    def test_sources(self, scheme, make):
        source = make(7)
        first = Network([3, 4, 2]).initialize(source, scheme)
        second = Network([3, 4, 2]).initialize(source, scheme)
        assert first == Network([3, 4, 2]).initialize(make(7), scheme)
        assert first != second
        if make is np.random.RandomState:
            assert first == Network([3, 4, 2]).initialize(7, scheme)

    def test_fresh_entropy(self):
        assert Network([3, 2]).initialize() != Network([3, 2]).initialize()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_float32_is_float64_rounded(self, dtype):
        for scheme in SCHEMES:
            exact = Network([5, 6, 2]).initialize(1, scheme).parameters
            assert_same_bits(Network([5, 6, 2], dtype=dtype).initialize(1, scheme).parameters, exact.astype(dtype))

    @pytest.mark.parametrize(
        ("scheme", "bound"),
        [
            ("glorot_uniform", np.sqrt(6 / 500)),
            ("he_uniform", np.sqrt(6 / 200)),
            ("scikit-learn", np.sqrt(6 / 500)),
            ("uniform", 1.0),
        ],
    )
    def test_uniform_bounds(self, scheme, bound):
        weights = Network([200, 300]).initialize(0, scheme).weights[0]
        # Of 60000 draws in [-b, b), the outermost lies further than 0.001 b inside with probability e^-30.
        assert -bound <= weights.min() < -0.999 * bound
        assert 0.999 * bound < weights.max() < bound
        # A mean of n uniform draws has the standard deviation b / sqrt(3 n): five of them.
        assert abs(weights.mean()) < 5 * bound / np.sqrt(3 * weights.size)

    @pytest.mark.parametrize(("scheme", "variance"), [("glorot_normal", 2 / 500), ("he_normal", 2 / 200)])
    def test_normal_variance(self, scheme, variance):
        weights = Network([200, 300]).initialize(0, scheme).weights[0]
        # The squares of n normal draws have the mean variance and the standard deviation variance * sqrt(2 / n).
        assert abs(np.mean(weights**2) - variance) < 5 * variance * np.sqrt(2 / weights.size)
        # Untruncated: of 60000 draws some are beyond three standard deviations, 162 on average.
        assert 100 < np.count_nonzero(weights**2 > 9 * variance) < 230

    @pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme.startswith(("glorot", "he"))])
    def test_zero_biases(self, scheme):
        network = Network([3, 4, 2]).initialize(seed=0).initialize(1, scheme)
        assert not any(biases.any() for biases in network.biases)
        without = Network([3, 4, 2], bias=False).initialize(1, scheme)
        assert all(np.array_equal(a, b) for a, b in zip(network.weights, without.weights, strict=True))

    @pytest.mark.parametrize(("activation", "factor"), [("sigmoid", 2.0), ("relu", 6.0), ("tanh", 6.0)])
    def test_as_scikit_learn(self, activation, factor):
        network = Network([3, 5, 4, 2], activation, "softmax").initialize(9, "scikit-learn")
        random = np.random.RandomState(9)
        for weights, biases in zip(network.weights, network.biases, strict=True):
            bound = np.sqrt(factor / sum(weights.shape))
            # RandomState.uniform may fuse its multiplication and addition: one rounding of numbers up to 2 b apart.
            for array in (weights, biases):
                np.testing.assert_allclose(
                    array, random.uniform(-bound, bound, array.shape), rtol=0, atol=bound * 2**-52
                )

    def test_scikit_learn_output_goes_by_the_hidden_layer(self):
        with_sigmoid = Network([200, 200], output_activation="sigmoid").initialize(0, "scikit-learn")
        assert abs(with_sigmoid.weights[0]).max() > np.sqrt(2 / 400)
        mixed = Network([200, 200, 200], ["sigmoid"], "relu").initialize(0, "scikit-learn")
        assert abs(mixed.weights[1]).max() <= np.sqrt(2 / 400)

    def test_forgets_the_optimizer_state(self):
        network = Network([2, 1])
        network._training = object()
        assert network.initialize(seed=0) is network
        assert network._training is None

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"seed": -1}, ValueError, r"^seed must be an integer of at least 0"),
            ({"seed": 1.5}, TypeError, r"^seed must be None, an integer"),
            ({"scheme": "glorot"}, ValueError, r"^scheme must be one of 'uniform', "),
            ({"scheme": "sklearn"}, ValueError, r"Did you mean 'scikit-learn'\?$"),
            ({"low": 2.0}, ValueError, r"^high must be a number in \[2, .*; got 1.0$"),
            ({"low": np.nan}, ValueError, r"^low must be a number in "),
            ({"high": 1e39}, ValueError, r"^high must be a number in "),
            ({"low": "0"}, TypeError, r"^low must be a number in "),
            ({"low": -3e38, "high": 3e38}, ValueError, r"^high - low must be a number in "),
            (
                {"scheme": "he_normal", "low": 0.0},
                ValueError,
                r"^low and high must be left out with scheme 'he_normal'",
            ),
        ],
    )
    def test_refused_without_change(self, arguments, error, message):
        network = Network([2, 3, 1], dtype="float32").initialize(seed=0)
        network._training = state = object()
        before = network.parameters
        with pytest.raises(error, match=message):
            network.initialize(**arguments)
        assert_same_bits(network.parameters, before)
        assert network._training is state


class TestFromArrays:
    def test_round_trip(self):
        for bias in (True, False):
            network = Network([3, 5, 2], "tanh", "softmax", bias).initialize(seed=2)
            again = Network.from_arrays(network.weights, network.biases, "tanh", "softmax")
            assert again == network
            assert not np.shares_memory(again.parameter_buffer, network.parameter_buffer)

    def test_default_dtype(self):
        single, double = np.ones((2, 3), np.float32), np.ones((3, 1))
        assert Network.from_arrays([single]).dtype == np.float32
        assert Network.from_arrays([single.astype(">f4")]).dtype == np.float32
        assert Network.from_arrays([single, double]).dtype == np.float64
        assert Network.from_arrays([single], [np.ones(3)]).dtype == np.float64
        assert Network.from_arrays([single.astype(np.float16)]).dtype == np.float64
        assert Network.from_arrays([[[1, 2]]]).dtype == np.float64
        assert Network.from_arrays([double], dtype="float32").dtype == np.float32

    @pytest.mark.parametrize(
        ("weights", "biases", "error", "message"),
        [
            ([], None, ValueError, r"^weights must hold an array for each layer; got none$"),
            (3, None, TypeError, r"^weights must be a sequence of arrays; got 3$"),
            ([np.ones((2, 3))], 3, TypeError, r"^biases must be a sequence of arrays; got 3$"),
            (np.ones((2, 3)), None, ValueError, r"^weights\[0\] must be 2-dimensional; got an array of shape \(3,\)$"),
            ([np.ones((2, 3)), np.ones((2, 1))], None, ValueError, r"^weights\[1\] must have a row for each of the 3 "),
            (
                [np.ones((2, 3))],
                [[1.0], [2.0]],
                ValueError,
                r"^biases must hold an array for each of the 1 layers; got 2$",
            ),
            ([np.ones((2, 3))], [[1.0]], ValueError, r"^biases\[0\] must have shape \(3,\); got \(1,\)$"),
            ([np.ones((2, 0))], None, ValueError, r"^weights\[0\] must not be empty"),
            ([[[1.0, np.inf]]], None, ValueError, r"^weights\[0\] must be finite"),
            ([np.ones((2, 1))], [[np.nan]], ValueError, r"^biases\[0\] must be finite"),
        ],
    )
    def test_refused(self, weights, biases, error, message):
        with pytest.raises(error, match=message):
            Network.from_arrays(weights, biases)


class TestCopies:
    @pytest.mark.parametrize(
        "duplicate",
        [Network.copy, copy.copy, copy.deepcopy, *(lambda n, p=p: pickle.loads(pickle.dumps(n, p)) for p in range(6))],
    )
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_duplicates(self, duplicate, dtype):
        network = with_any_bits(Network([3, 20, 2], ["elu"], "softmax", dtype=dtype))
        network._training = {"slots": np.ones(3)}
        other = duplicate(network)
        assert other == network
        assert other.architecture == network.architecture
        assert other.parameters.tobytes() == network.parameters.tobytes()
        assert shares_its_buffer(other)
        assert not other.layout.flags.writeable
        assert other.parameter_buffer.ctypes.data % contract.VECTOR_BYTES == 0
        assert not np.shares_memory(other.parameter_buffer, network.parameter_buffer)
        assert not np.shares_memory(other._training["slots"], network._training["slots"])
        other.weights[1][0, 0] = 9.0
        assert other != network

    def test_subclass(self):
        assert type(Subclass([2, 1]).copy()) is Subclass
        assert repr(Subclass.from_arrays([[[1.0]]])).startswith("<Subclass 1 -> 1")


class Subclass(Network):
    pass


class TestEquality:
    @pytest.mark.parametrize(
        "other",
        [
            Network([3, 5, 1]),
            Network([3, 4, 1], activation="tanh"),
            Network([3, 4, 1], output_activation="sigmoid"),
            Network([3, 4, 1], bias=False),
            Network([3, 4, 1], dtype="float32"),
            # As many parameters, in another arrangement.
            Network([8, 2, 1]),
        ],
    )
    def test_architecture_counts(self, other):
        assert Network([3, 4, 1]) == Network([3, 4, 1])
        assert Network([3, 4, 1]) != other

    def test_bits_count(self):
        network, other = Network([1, 1]), Network([1, 1])
        other.weights[0][0, 0] = -0.0
        assert network != other
        network.weights[0][0, 0] = other.weights[0][0, 0] = np.nan
        assert network == other
        other.weights[0].view(np.int64)[0, 0] += 1
        assert network != other

    def test_optimizer_state_does_not(self):
        network = Network([1, 1])
        network._training = object()
        assert network == Network([1, 1])

    def test_others(self):
        network = Network([1, 1])
        assert network != 1
        assert network.__eq__(1) is NotImplemented
        with pytest.raises(TypeError, match="unhashable"):
            hash(network)
