"""Optimizers: their settings. The steps themselves are in `fastnet.reference.optimizers`.

The order of an optimizer's `settings` is that of the constants in `fastnet.contract` that begin
with its name; its `slots`, the arrays of state that each parameter has, are:

======== =====================================================================
SGD      velocity, if there is momentum
Adam     first moment, second moment (AdamW likewise)
RMSprop  mean square, then velocity if there is momentum
Rprop    previous gradient, step size
======== =====================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnet import contract
from fastnet.layout import aligned_zeros, filled
from fastnet.schedules import Schedule
from fastnet.validation import check_boolean, check_choice, check_integer, check_number


@dataclass(frozen=True)
class Optimizer(ABC):
    """What the optimizers share: the learning rate, and the form in which they go to a backend."""

    learning_rate: float | Schedule = 0.01

    #: Code of the optimizer in `fastnet.contract`.
    kind: ClassVar[int]

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.learning_rate, Schedule):
            self._check("learning_rate", low=0.0, low_open=True)

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """The number of arrays of state that each parameter has."""

    @property
    @abstractmethod
    def settings(self) -> NDArray[np.float64]:
        """The settings but for the learning rate, in the order of the constants in `fastnet.contract`."""

    def initial_slots(self, size: int, dtype: np.dtype[Any]) -> NDArray[np.floating]:
        """Make the state before the first step.

        Parameters
        ----------
        size : int
            Size of the parameter buffer.
        dtype : numpy.dtype
            The network's dtype.

        Returns
        -------
        numpy.ndarray of `dtype`, shape (n_slots, size), 64-byte aligned
            Zeros, but for Rprop's step sizes.
        """
        return aligned_zeros((self.n_slots, size), dtype)

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
            The rates, the same bits on every machine.
        """
        if not isinstance(self.learning_rate, float):
            return self.learning_rate.rates(first_epoch, n_epochs)
        check_integer("first_epoch", first_epoch, 0)
        return filled(check_integer("n_epochs", n_epochs, 0), self.learning_rate, np.float64)

    def _check(self, name: str, **interval: Any) -> None:
        """Replace a setting by its checked value."""
        object.__setattr__(self, name, check_number(name, getattr(self, name), **interval))

    def _check_fraction(self, name: str) -> None:
        self._check(name, low=0.0, high=1.0, high_open=True)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float or Schedule
        Factor of the gradient, above 0.
    momentum : float
        Share of the last step that the next one keeps, at least 0 and below 1 (Polyak 1964).
    nesterov : bool
        Whether the gradient is taken as if the momentum had acted already (Sutskever et al. 2013),
        which needs momentum.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> SGD(learning_rate=0.1, momentum=0.9).n_slots
    1
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    kind: ClassVar[int] = contract.SGD

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check_fraction("momentum")
        object.__setattr__(self, "nesterov", check_boolean("nesterov", self.nesterov))
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov must be False without momentum; got True with momentum 0.0")

    @property
    def n_slots(self) -> int:
        """The number of arrays of state: the velocity, if there is momentum."""
        return 0 if self.momentum == 0.0 else 1

    @property
    def settings(self) -> NDArray[np.float64]:
        """Positions `SGD_MOMENTUM` and `SGD_NESTEROV` of `fastnet.contract`."""
        return np.array([self.momentum, self.nesterov])


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, in the efficient form at the end of their section 2).

    Parameters
    ----------
    learning_rate : float or Schedule
        Bound of a step, about, above 0.
    beta_1, beta_2 : float
        Decay of the first and the second moment, at least 0 and below 1.
    epsilon : float
        What is added to the root of the second moment, above 0: their epsilon hat.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> Adam().settings.tolist()
    [0.9, 0.999, 1e-08, 0.0]
    """

    learning_rate: float | Schedule = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    kind: ClassVar[int] = contract.ADAM

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check_fraction("beta_1")
        self._check_fraction("beta_2")
        self._check("epsilon", low=0.0, low_open=True)

    @property
    def n_slots(self) -> int:
        """The number of arrays of state: the two moments."""
        return 2

    @property
    def settings(self) -> NDArray[np.float64]:
        """Positions `ADAM_BETA_1`, `ADAM_BETA_2`, `ADAM_EPSILON` and `ADAM_WEIGHT_DECAY` of `fastnet.contract`."""
        return np.array([self.beta_1, self.beta_2, self.epsilon, 0.0])


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As for `Adam`.
    weight_decay : float
        At least 0; a step also takes this, times the learning rate, of every parameter off it.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> AdamW(weight_decay=0.1).settings.tolist()
    [0.9, 0.999, 1e-08, 0.1]
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check("weight_decay", low=0.0)

    @property
    def settings(self) -> NDArray[np.float64]:
        """The positions that `Adam` has."""
        return np.array([self.beta_1, self.beta_2, self.epsilon, self.weight_decay])


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012), with momentum as Keras has it.

    Parameters
    ----------
    learning_rate : float or Schedule
        Factor of the scaled gradient, above 0.
    rho : float
        Decay of the mean square, at least 0 and below 1.
    momentum : float
        Share of the last step that the next one keeps, at least 0 and below 1.
    epsilon : float
        What is added to the root of the mean square, above 0.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> RMSprop(momentum=0.5).initial_slots(8, np.dtype(np.float32)).shape
    (2, 8)
    """

    learning_rate: float | Schedule = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-8

    kind: ClassVar[int] = contract.RMSPROP

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check_fraction("rho")
        self._check_fraction("momentum")
        self._check("epsilon", low=0.0, low_open=True)

    @property
    def n_slots(self) -> int:
        """The number of arrays of state: the mean square, then the velocity if there is momentum."""
        return 1 if self.momentum == 0.0 else 2

    @property
    def settings(self) -> NDArray[np.float64]:
        """Positions `RMSPROP_RHO`, `RMSPROP_MOMENTUM` and `RMSPROP_EPSILON` of `fastnet.contract`."""
        return np.array([self.rho, self.momentum, self.epsilon])


@dataclass(frozen=True)
class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun 1993), for full batches.

    Parameters
    ----------
    learning_rate : float or Schedule
        Size of the first step, above 0; of a schedule, only the rate of epoch 0 counts.
    eta_minus, eta_plus : float
        Factors of the step size after a change of the gradient's sign, between 0 and 1, and
        without one, above 1.
    step_min, step_max : float
        Limits of the step size, above 0.

    Raises
    ------
    TypeError, ValueError
        If a value is of a wrong type or out of range.

    Examples
    --------
    >>> Rprop(learning_rate=0.5).initial_slots(2, np.dtype(np.float64)).tolist()
    [[0.0, 0.0], [0.5, 0.5]]
    """

    learning_rate: float | Schedule = 0.01
    eta_minus: float = 0.5
    eta_plus: float = 1.2
    step_min: float = 1e-6
    step_max: float = 50.0

    kind: ClassVar[int] = contract.RPROP

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._check("eta_minus", low=0.0, high=1.0, low_open=True, high_open=True)
        self._check("eta_plus", low=1.0, low_open=True)
        self._check("step_min", low=0.0, low_open=True)
        self._check("step_max", low=self.step_min)

    @property
    def n_slots(self) -> int:
        """The number of arrays of state: the previous gradient and the step size."""
        return 2

    @property
    def settings(self) -> NDArray[np.float64]:
        """Positions `RPROP_ETA_MINUS`, `RPROP_ETA_PLUS`, `RPROP_STEP_MIN`, `RPROP_STEP_MAX` of `fastnet.contract`."""
        return np.array([self.eta_minus, self.eta_plus, self.step_min, self.step_max])

    def initial_slots(self, size: int, dtype: np.dtype[Any]) -> NDArray[np.floating]:
        """Make the state before the first step: step sizes are the rate of epoch 0; see `Optimizer`."""
        slots = super().initial_slots(size, dtype)
        slots[1] = self.rates(0, 1)[0]
        return slots


_BY_NAME: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "rprop": Rprop}


def get_optimizer(value: str | Optimizer) -> Optimizer:
    """Look up an optimizer.

    Parameters
    ----------
    value : str or Optimizer
        "sgd", "adam", "adamw", "rmsprop" or "rprop" for one with its default settings, or an optimizer.

    Returns
    -------
    Optimizer
        The optimizer.

    Raises
    ------
    TypeError
        If `value` is neither a name nor an optimizer.
    ValueError
        If it is an unknown name.

    Examples
    --------
    >>> get_optimizer("adamw")
    AdamW(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.01)
    """
    if isinstance(value, Optimizer):
        return value
    return _BY_NAME[check_choice("optimizer", value, tuple(_BY_NAME), "an optimizer")]()
