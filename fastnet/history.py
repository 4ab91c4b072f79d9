"""What a fit reports: its history, and the error that ends a training that diverged."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Report:
    """How training stood at an epoch.

    Attributes
    ----------
    epoch : int
        Counted from 0 in each fit.
    loss, mean_absolute_error : float
        Over the epoch's samples, each with the parameters before the step it took part in; with
        full batches, this is before the epoch's update.
    """

    epoch: int
    loss: float
    mean_absolute_error: float


@dataclass(eq=False)
class History:
    """The course of a fit.

    Attributes
    ----------
    loss_curve, mean_absolute_error : (n_epochs,) float64 array
        One entry for each epoch: the loss with its reduction and penalty, and the mean
        distance of predictions from y, without weights. Each batch counts with the parameters before
        its step.
    report_every : int or None
        Every how many epochs there is a report.
    stopped_by : str or None
        None after all epochs, else "callback", "interrupt" or "divergence".

    Examples
    --------
    >>> import fastnet
    >>> network = fastnet.Network([1, 1]).initialize(seed=0)
    >>> history = network.fit([[0.0], [1.0]], [1.0, 2.0], epochs=3, report_every=2, backend="numpy")
    >>> len(history.loss_curve), [report.epoch for report in history.reports]
    (3, [0, 2])
    """

    loss_curve: NDArray[np.float64]
    mean_absolute_error: NDArray[np.float64]
    report_every: int | None = None
    stopped_by: str | None = None

    @property
    def n_epochs(self) -> int:
        """The number of epochs that were run."""
        return len(self.loss_curve)

    @property
    def reports(self) -> list[Report]:
        """One for every ``report_every``-th epoch, the first included, but for one that diverged."""
        if self.report_every is None:
            return []
        return [
            Report(epoch, float(self.loss_curve[epoch]), float(self.mean_absolute_error[epoch]))
            for epoch in range(0, self.n_epochs, self.report_every)
            if isfinite(self.loss_curve[epoch])
        ]


class DivergenceError(FloatingPointError):
    """Training met a loss or a parameter that is not finite.

    The network is set back to `parameters`, and its optimizer's state is forgotten.

    Attributes
    ----------
    what : str
        "the loss" or "a parameter".
    epoch : int
        The epoch with the batch whose loss was not finite, or whose steps made a parameter so.
    layer : int
        The first layer, counted from 1, with a parameter that is not finite; without one, the first
        whose output is not, or else the last.
    history : History
        All epochs up to this one, which may have ended with that batch.
    parameters : (n_parameters,) array
        The parameters at the last report with a finite loss, before its epoch's steps; or else at the
        start of the fit.
    parameters_epoch : int
        The epoch of that report, or 0.
    """

    def __init__(
        self,
        what: str,
        epoch: int,
        layer: int,
        history: History,
        parameters: NDArray[np.floating],
        parameters_epoch: int,
    ) -> None:
        super().__init__(
            f"{what} is not finite at epoch {epoch}, first in layer {layer}; the network is set back to its "
            f"parameters before epoch {parameters_epoch}. Try a smaller learning_rate, reduction='mean' or smaller "
            "inputs (mean 0, variance 1)"
        )
        self.what = what
        self.epoch = epoch
        self.layer = layer
        self.history = history
        self.parameters = parameters
        self.parameters_epoch = parameters_epoch

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is unpickled from its message, which here is none of the arguments.
        return type(self), (
            self.what,
            self.epoch,
            self.layer,
            self.history,
            self.parameters,
            self.parameters_epoch,
        )
