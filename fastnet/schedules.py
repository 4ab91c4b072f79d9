"""Learning rates that change from epoch to epoch.

Rates must be the same bits on every machine, which powers and cosines of the C library are not.
So only + - * / and sqrt occur here, element by element; they are exact to the last bit everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import factorial, pi

import numpy as np
from numpy.typing import NDArray

from fastnet.validation import check_integer, check_number


class Schedule(ABC):
    """What schedules share: the learning rates of successive epochs."""

    @abstractmethod
    def at(self, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the learning rates of some epochs.

        Parameters
        ----------
        epochs : numpy.ndarray of int64
            Numbers of epochs, from 0 over the network's whole training.

        Returns
        -------
        numpy.ndarray of float64, of the same shape
            The rates.
        """

    def rates(self, first_epoch: int, n_epochs: int) -> NDArray[np.float64]:
        """Compute the learning rates of successive epochs.

        Parameters
        ----------
        first_epoch : int
            Number of the first epoch, counted from 0 over the network's whole training.
        n_epochs : int
            The number of epochs.

        Returns
        -------
        numpy.ndarray of float64, shape (n_epochs,)
            The rates, which do not depend on where the training was divided into calls.
        """
        first = check_integer("first_epoch", first_epoch, 0)
        return self.at(np.arange(first, first + check_integer("n_epochs", n_epochs, 0), dtype=np.int64))


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """Fall with a power of the epoch: initial / (epoch + 1)^power, scikit-learn's "invscaling".

    Parameters
    ----------
    initial : float
        Rate of epoch 0, above 0.
    power : float
        The exponent, from 0 to 1024. The fewer binary digits its fraction has, the faster: 0.5 is
        one square root, 0.3 takes 51.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> InverseScaling(1.0).rates(0, 4).round(3).tolist()
    [1.0, 0.707, 0.577, 0.5]
    """

    initial: float
    power: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "initial", check_number("initial", self.initial, low=0.0, low_open=True))
        object.__setattr__(self, "power", check_number("power", self.power, low=0.0, high=1024.0))

    def at(self, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the learning rates of some epochs; see `Schedule.at`."""
        with np.errstate(under="ignore"):
            return self.initial / _power((epochs + 1).astype(np.float64), self.power)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Fall by a factor after every so many epochs: initial * factor^floor(epoch / every).

    Parameters
    ----------
    initial : float
        Rate of the first epochs, above 0.
    factor : float
        What a step multiplies the rate with, above 0 and at most 1.
    every : int
        Epochs from step to step, at least 1.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> StepDecay(1.0, factor=0.5, every=2).rates(0, 6).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    initial: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "initial", check_number("initial", self.initial, low=0.0, low_open=True))
        object.__setattr__(self, "factor", check_number("factor", self.factor, low=0.0, high=1.0, low_open=True))
        object.__setattr__(self, "every", check_integer("every", self.every, 1))

    def at(self, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the learning rates of some epochs; see `Schedule.at`."""
        with np.errstate(under="ignore"):
            return self.initial * _integer_power(np.float64(self.factor), epochs // self.every)


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Fall along half a cosine wave (Loshchilov and Hutter 2016, eq. 5, without restarts).

    The rate is final + (initial - final) * (1 + cos(pi * epoch / n_epochs)) / 2, and stays at
    `final` from epoch `n_epochs` on.

    Parameters
    ----------
    initial : float
        Rate of epoch 0, above 0.
    n_epochs : int
        Epochs until the final rate, at least 1.
    final : float
        The final rate, at least 0 and at most `initial`.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> CosineDecay(1.0, n_epochs=4).rates(0, 6).round(3).tolist()
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    initial: float
    n_epochs: int
    final: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "initial", check_number("initial", self.initial, low=0.0, low_open=True))
        object.__setattr__(self, "n_epochs", check_integer("n_epochs", self.n_epochs, 1))
        object.__setattr__(self, "final", check_number("final", self.final, low=0.0, high=self.initial))

    def at(self, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the learning rates of some epochs; see `Schedule.at`."""
        # (1 + cos(2x)) / 2 = 1 - sin(x)^2; the second half of the wave mirrors the first, so that
        # small rates keep all their digits.
        epochs = np.minimum(epochs, self.n_epochs)
        near = np.minimum(epochs, self.n_epochs - epochs)
        sine = _sine(pi / 2 * (near / self.n_epochs))
        small = sine * sine
        early = near == epochs
        return self.initial * np.where(early, 1.0 - small, small) + self.final * np.where(early, small, 1.0 - small)


def _integer_power(base: NDArray[np.float64] | np.float64, exponent: NDArray[np.int64]) -> NDArray[np.float64]:
    """base^exponent by squaring."""
    result = np.ones(np.broadcast_shapes(np.shape(base), exponent.shape))
    with np.errstate(over="ignore", under="ignore"):
        while exponent.any():
            result = np.where(exponent & 1, result * base, result)
            base = base * base
            exponent = exponent >> 1
    return result


def _power(base: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """base^exponent for a base of at least 1: squares for the integer part, square roots for the fraction."""
    whole = int(exponent)
    result = _integer_power(base, np.array(whole))
    fraction = exponent - whole
    root = base
    with np.errstate(over="ignore"):
        while fraction > 0 and (root > 1).any():
            root = np.sqrt(root)
            fraction *= 2
            if fraction >= 1:
                result = result * root
                fraction -= 1
    return result


def _sine(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Taylor's series up to x^17; between 0 and pi/4 the rest is below 1e-19."""
    square = x * x
    series = np.zeros_like(x)
    for power in range(17, 1, -2):
        series = (series + (-1) ** (power // 2) / factorial(power)) * square
    return x + x * series
