"""A network: its architecture and its parameters, in one buffer that training updates in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnet.initialization import draw_parameters
from fastnet.layout import (
    aligned_zeros,
    buffer_size,
    check_architecture,
    check_parameter_arrays,
    make_layout,
    parameter_views,
)
from fastnet.validation import RandomSource, check_array

if TYPE_CHECKING:
    from fastnet.backends import Backend
    from fastnet.history import History
    from fastnet.losses import Huber, Quantile
    from fastnet.optimizers import Optimizer


@cache
def _training() -> Any:
    """`fastnet.training`, which imports this module."""
    from fastnet import training

    return training


@cache
def _prediction() -> Any:
    """`fastnet.prediction`, which imports this module; asking for it anew takes a tenth of a small prediction."""
    from fastnet import prediction

    return prediction


class Network:
    """A dense neural network (multilayer perceptron).

    Parameters
    ----------
    layer_sizes : sequence of int
        The number of inputs, then the number of units of each layer; the last one is the number
        of outputs.
    activation : str or sequence of str
        Activation of the hidden layers: one name for all, or one name for each. The names are
        identity, sigmoid, tanh, relu, leaky_relu, softplus, elu, silu and gelu.
    output_activation : str
        Activation of the last layer: one of the above, exponential or softmax.
    bias : bool
        Whether layers have biases.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, or not one of the values above.

    Notes
    -----
    Parameters are zero until `initialize`. Two networks are equal if their architectures are, and
    all bits of their parameters; the optimizer's state does not count.

    Examples
    --------
    >>> network = Network([3, 4, 1], activation="sigmoid", output_activation="sigmoid", bias=False)
    >>> network.initialize(seed=4)
    <Network 3 -> 4 sigmoid -> 1 sigmoid, without bias, float64, 16 parameters>
    >>> network.weights[1].round(8).ravel().tolist()
    [0.72598647, 0.96680135, -0.67231552, 0.19466789]
    """

    # Equality depends on parameters that change.
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        output_activation: str = "identity",
        bias: bool = True,
        dtype: DTypeLike = "float64",
    ) -> None:
        self._layer_sizes, self._activations, self._bias, self._dtype = check_architecture(
            layer_sizes, activation, output_activation, bias, dtype
        )
        self._layout = make_layout(self._layer_sizes, self._activations, self._bias, self._dtype)
        self._buffer = aligned_zeros(buffer_size(self._layout), self._dtype)
        self._weights, self._biases = parameter_views(self._buffer, self._layout)
        # What `fastnet.training` remembers between fits: the optimizer, its state, the epoch.
        self._training: Any = None

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike] | None = None,
        activation: str | Sequence[str] = "relu",
        output_activation: str = "identity",
        dtype: DTypeLike | None = None,
    ) -> Self:
        """Make a network from its weights and biases.

        Parameters
        ----------
        weights : sequence of array-like, shapes (in, out)
            Weights of each layer, which are copied.
        biases : sequence of array-like, shapes (out,), optional
            Biases of each layer; None or an empty sequence makes a network without.
        activation, output_activation : str
            As for `Network`.
        dtype : dtype, optional
            float32 or float64. By default float32 if all arrays are, else float64.

        Returns
        -------
        Network
            The network.

        Raises
        ------
        TypeError, ValueError
            If the arrays do not fit together, are empty, or hold anything but finite real numbers.

        Examples
        --------
        >>> Network.from_arrays([[[1.0, 2.0]], [[3.0], [4.0]]], [[0.0, 0.0], [5.0]], activation="tanh")
        <Network 1 -> 2 tanh -> 1 identity, float64, 7 parameters>
        """
        matrices, rows, dtype = check_parameter_arrays(weights, biases, dtype)
        layer_sizes = [len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]
        network = cls(layer_sizes, activation, output_activation, bool(rows), dtype)
        network._fill(matrices, rows)
        return network

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of inputs, then the number of units of each layer."""
        return self._layer_sizes

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the layers' activations, the output's last."""
        return self._activations

    @property
    def bias(self) -> bool:
        """Whether layers have biases."""
        return self._bias

    @property
    def dtype(self) -> np.dtype[Any]:
        """The parameters' dtype, float32 or float64."""
        return self._dtype

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that make a network like this one, in types that JSON has."""
        return {
            "layer_sizes": list(self._layer_sizes),
            "activation": list(self._activations[:-1]),
            "output_activation": self._activations[-1],
            "bias": self._bias,
            "dtype": self._dtype.name,
        }

    @property
    def n_inputs(self) -> int:
        """The number of inputs."""
        return self._layer_sizes[0]

    @property
    def n_outputs(self) -> int:
        """The number of outputs."""
        return self._layer_sizes[-1]

    @property
    def n_layers(self) -> int:
        """The number of layers, inputs not counted."""
        return len(self._layer_sizes) - 1

    @property
    def n_parameters(self) -> int:
        """The number of weights and biases."""
        return sum(array.size for array in (*self._weights, *self._biases))

    @property
    def weights(self) -> tuple[NDArray[np.floating], ...]:
        """Weights of each layer: views of shapes (in, out) into the buffer; writing changes the network."""
        return self._weights

    @property
    def biases(self) -> tuple[NDArray[np.floating], ...]:
        """Biases of each layer: views of shapes (out,) into the buffer; empty without biases."""
        return self._biases

    @property
    def parameter_buffer(self) -> NDArray[np.floating]:
        """All parameters with their padding, 64-byte aligned; the padding has to stay zero."""
        return self._buffer

    @property
    def layout(self) -> NDArray[np.int64]:
        """Where the parameters lie in the buffer: a read-only table, columns named in `fastnet.contract`."""
        return self._layout

    @property
    def parameters(self) -> NDArray[np.floating]:
        """All parameters, flat and without padding: for each layer the weights row by row, then the biases.

        Reading gives a copy of shape (n_parameters,). Assigning an array-like of as many finite
        numbers sets the parameters, rounded to `dtype`, and keeps the optimizer's state; it raises
        a `TypeError` or `ValueError`, and changes nothing, for anything else.
        """
        return np.concatenate([array.ravel() for array in self._in_order()])

    @parameters.setter
    def parameters(self, value: ArrayLike) -> None:
        flat = check_array("parameters", value, self._dtype, 1)
        if len(flat) != self.n_parameters:
            raise ValueError(f"parameters must have shape ({self.n_parameters},); got {flat.shape}")
        self._fill_flat(flat)

    def initialize(
        self,
        seed: int | RandomSource | None = None,
        scheme: str = "uniform",
        low: float = -1.0,
        high: float = 1.0,
    ) -> Self:
        """Draw new parameters, and forget the optimizer's state.

        Parameters
        ----------
        seed : int, None, numpy.random.RandomState or numpy.random.Generator
            An integer gives the same parameters with every version of NumPy (NEP 19); the normal
            schemes also depend on the C library's logarithm. None takes fresh entropy.
        scheme : str
            With n inputs and m outputs of a layer:

            - uniform: weights and biases uniform in [`low`, `high`);
            - glorot_uniform: weights uniform within sqrt(6 / (n + m)) of 0 (Glorot and Bengio
              2010, eq. 16);
            - glorot_normal: weights normal with variance 2 / (n + m) (their eq. 12);
            - he_uniform, he_normal: weights of variance 2 / n (He et al. 2015, eq. 10);
            - scikit-learn: weights and biases uniform within sqrt(6 / (n + m)) of 0, or
              sqrt(2 / (n + m)) where the hidden activation is sigmoid, as `MLPClassifier` and
              `MLPRegressor` have it; an output layer goes by the hidden layer before it.

            Biases are zero in the Glorot and He schemes. Normal distributions are not truncated.
        low, high : float
            The interval of the uniform scheme.

        Returns
        -------
        Network
            This network.

        Raises
        ------
        TypeError, ValueError
            If an argument is not one of the above; the network is then as it was.

        Notes
        -----
        Numbers are drawn in float64, for each layer weights first, then biases, and rounded to
        `dtype`; rounding to float32 may give `high` itself.

        Examples
        --------
        >>> network = Network([2, 3, 1], dtype="float32").initialize(seed=0, scheme="he_uniform")
        >>> network.weights[0].dtype, bool(abs(network.weights[0]).max() < 3 ** 0.5)
        (dtype('float32'), True)
        """
        drawn = draw_parameters(self._layer_sizes, self._activations, self._bias, self._dtype, seed, scheme, low, high)
        self._fill(*drawn)
        self._training = None
        return self

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | Huber | Quantile = "squared_error",
        optimizer: str | Optimizer = "adam",
        epochs: int = 100,
        batch_size: int | None = None,
        reduction: str = "mean",
        shuffle: bool = False,
        seed: int | RandomSource | None = None,
        sample_weight: ArrayLike | None = None,
        l2: float = 0.0,
        report_every: int | None = None,
        callback: Callable[[int, History], Any] | None = None,
        progress: bool = False,
        threads: int | None = None,
        specialize: bool | str = "auto",
        backend: str | Backend = "numba",
    ) -> History:
        """Train in place, from the present parameters and, with the same optimizer, its present state.

        Two fits of 100 epochs give the same bits as one of 200.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_inputs)
            Finite real numbers, rounded to `dtype`.
        y : array-like, shape (n_samples, n_outputs)
            Targets; (n_samples,) will do for one output. For cross_entropy probabilities, which
            with a softmax have to add up to 1 in each row, or labels 0 … n_outputs - 1 of shape
            (n_samples,).
        loss : str, Huber or Quantile
            squared_error (half the sum of squares), binary_cross_entropy, cross_entropy, poisson,
            absolute_error, huber or quantile. A sample's loss is summed over the outputs.
        optimizer : str or Optimizer
            sgd, adam, adamw, rmsprop, rprop, or one of `fastnet.optimizers` with its settings.
            Another one than in the last fit starts with a fresh state.
        epochs : int
            How many times to go through the samples.
        batch_size : int, optional
            Samples between two updates; None takes all of them. The last batch may be smaller.
        reduction : {"mean", "sum"}
            Whether a batch's losses are averaged (by their weights) or summed.
        shuffle : bool
            Whether every epoch takes the samples in a new order.
        seed : int, None, numpy.random.RandomState or numpy.random.Generator
            Where the orders come from. A later fit with the same seed goes on with the stream; None
            takes fresh entropy.
        sample_weight : array-like, shape (n_samples,), optional
            Factors of the samples' losses, not negative.
        l2 : float
            l2 / 2 times the sum of the squared weights, without biases, is added to a batch's summed
            losses, before the mean is taken (as scikit-learn's ``alpha``).
        report_every : int, optional
            Keep a `Report` of every so many epochs, the first one included.
        callback : callable, optional
            Called as ``callback(epoch, history)`` after each epoch, with the history up to it, whose
            arrays are read-only; a true result stops training. The network is then as after a fit
            of so many epochs: it can be copied, asked for predictions and given other parameters.
            An exception leaves it so.
        progress : bool
            Whether to show a progress bar (needs tqdm).
        threads : int, optional
            At most how many threads to use; None means as many as `fastnet.set_threads` was told. Results do not
            depend on it. Small networks take one in any case; others take fewer where that is faster.
        specialize : {"auto", True, False}
            Whether to compile kernels for this small network alone, which takes most of a second and then trains the
            smallest two to four times as fast; they are kept on disk. "auto" does it where fits like this one have
            been asked for so many epochs that it pays, where it has been done before, and while there are no kernels
            for all networks yet, which take longer to compile. Results do not depend on it.
        backend : {"numba", "exact", "numpy"} or Backend
            The kernels; the reference, which gives the same bits, slowly; plain NumPy with BLAS; or a
            `fastnet.backends.Backend` of your own.

        Returns
        -------
        History
            Losses and reports. Ctrl-C ends training early with a warning and the history up to it:
            an epoch that it cuts off is undone, so that another fit goes on with the same bits. A
            second Ctrl-C raises `KeyboardInterrupt` at once.

        Raises
        ------
        TypeError, ValueError
            If an argument is not one of the above, or the network's parameters are not finite;
            nothing is changed then.
        DivergenceError
            If the loss or a parameter stops being finite: it has the history, and the parameters
            before the last report with a finite loss, to which the network is set back.

        Examples
        --------
        >>> network = Network([1, 1], dtype="float64").initialize(seed=0)
        >>> history = network.fit([[0.0], [1.0]], [1.0, 3.0], optimizer="rprop", epochs=200, backend="numpy")
        >>> network.predict([[2.0]], backend="numpy").round(3).tolist()
        [[5.0]]
        """
        history: History = _training().fit(
            self,
            X,
            y,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            reduction=reduction,
            shuffle=shuffle,
            seed=seed,
            sample_weight=sample_weight,
            l2=l2,
            report_every=report_every,
            callback=callback,
            progress=progress,
            threads=threads,
            specialize=specialize,
            backend=backend,
        )
        return history

    def predict(
        self,
        X: ArrayLike,
        backend: str | Backend = "numba",
        *,
        out: NDArray[np.floating] | None = None,
        threads: int | None = None,
    ) -> NDArray[np.floating]:
        """The outputs for the rows of X.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_inputs)
            Finite real numbers, rounded to `dtype`.
        backend : {"numba", "exact", "numpy"}
            As for `fit`.
        out : numpy.ndarray, shape (n_samples, n_outputs), optional
            Where to write the outputs: C-contiguous, of `dtype`. Apart from it, memory does not grow with X.
        threads : int, optional
            At most how many threads to use; None means as many as `fastnet.set_threads` was told. Results do not
            depend on it.

        Returns
        -------
        (n_samples, n_outputs) array of `dtype`
            The outputs, after the output activation; `out` if it is given.

        Raises
        ------
        TypeError, ValueError
            If X or `out` does not fit the network, or there is no such backend.

        Examples
        --------
        >>> Network.from_arrays([[[2.0]]], [[1.0]]).predict([[3.0]], backend="numpy")
        array([[7.]])
        """
        outputs: NDArray[np.floating] = _prediction().predict(self, X, backend, out, threads)
        return outputs

    def fit_output_layer(self, X: ArrayLike, y: ArrayLike, backend: str | Backend = "numba") -> Self:
        """Set the last layer to the least-squares solution, given the layers below it.

        With one layer and without bias, the weights become pinv(X) y. Of several solutions the one of
        least norm is taken. It comes from LAPACK: its last bits depend on the machine.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_inputs)
        y : array-like, shape (n_samples, n_outputs)
        backend : {"numba", "exact", "numpy"}
            What computes the outputs of the layers below.

        Returns
        -------
        Network
            This network.

        Raises
        ------
        TypeError, ValueError
            If X and y do not fit the network, its output activation is not the identity, or a number
            on the way is not finite; nothing is changed then.

        Examples
        --------
        >>> network = Network([3, 2], bias=False)
        >>> network.fit_output_layer([[4, 2, 3], [2, 0, 1]], [[1, 0], [0, 1]]).weights[0].round(8)
        array([[-0.08333333,  0.58333333],
               [ 0.41666667, -0.91666667],
               [ 0.16666667, -0.16666667]])
        """
        _prediction().fit_output_layer(self, X, y, backend)
        return self

    def copy(self) -> Self:
        """A network with the same parameters and optimizer state, which shares nothing with this one.

        Returns
        -------
        Network
            The copy.

        Examples
        --------
        >>> network = Network([2, 1]).initialize(seed=0)
        >>> network.copy() == network
        True
        """
        return deepcopy(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write architecture and parameters to a file; see `fastnet.persistence.write`.

        Parameters
        ----------
        path : str or path-like
            Name of the file, which ends in .safetensors or .npz.

        Examples
        --------
        >>> network = Network([2, 1]).initialize(seed=0)
        >>> network.save("network.npz")  # doctest: +SKIP
        >>> Network.load("network.npz") == network  # doctest: +SKIP
        True
        """
        from fastnet import persistence

        persistence.write(path, self.architecture, self._weights, self._biases)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a network from a file; see `fastnet.persistence.read`.

        Parameters
        ----------
        path : str or path-like
            Name of a file that `save` has written.

        Returns
        -------
        Network
            The network, bit for bit, without the optimizer's state.
        """
        from fastnet import persistence

        architecture, weights, biases = persistence.read(path)
        network = cls(**architecture)
        network._fill(weights, biases)
        return network

    def _in_order(self) -> list[NDArray[np.floating]]:
        """Weights and biases of the first layer, of the second, …."""
        if not self._biases:
            return list(self._weights)
        return [array for layer in zip(self._weights, self._biases, strict=True) for array in layer]

    def _fill(self, weights: Sequence[NDArray[np.floating]], biases: Sequence[NDArray[np.floating]]) -> None:
        for view, array in zip((*self._weights, *self._biases), (*weights, *biases), strict=True):
            view[...] = array

    def _fill_flat(self, flat: NDArray[np.floating]) -> None:
        start = 0
        for view in self._in_order():
            view[...] = flat[start : start + view.size].reshape(view.shape)
            start += view.size

    def __copy__(self) -> Self:
        # Without this, both networks would train on one optimizer state.
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "parameters": self.parameters, "training": self._training}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The views of a new buffer share it; unpickled ones would not.
        Network.__init__(self, **state["architecture"])
        self._fill_flat(state["parameters"])
        self._training = state["training"]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self.architecture == other.architecture and self.parameters.tobytes() == other.parameters.tobytes()

    def __repr__(self) -> str:
        layers = zip(self._layer_sizes[1:], self._activations, strict=True)
        chain = " -> ".join([str(self.n_inputs), *(f"{size} {activation}" for size, activation in layers)])
        bias = "" if self._bias else "without bias, "
        count = "1 parameter" if self.n_parameters == 1 else f"{self.n_parameters} parameters"
        return f"<{type(self).__name__} {chain}, {bias}{self._dtype}, {count}>"
