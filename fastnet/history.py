"""What a fit reports: its history, and the error that ends a training that diverged."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass
class History:
    """The course of a fit.

    Attributes
    ----------
    loss_curve, mean_absolute_error : (n_epochs,) float64 array
        One entry for each epoch: the loss with its reduction and penalty, and the mean of
        \\|y - prediction\\|. Each batch counts with the parameters before its step.
    reports : list of Report
        One for every ``report_every``-th epoch, the first included.
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
    reports: list[Report] = field(default_factory=list)
    stopped_by: str | None = None

    @property
    def n_epochs(self) -> int:
        """The number of whole epochs that were run."""
        return len(self.loss_curve)


class DivergenceError(FloatingPointError):
    """Training met a loss or a parameter that is not finite.

    The network is set back to `parameters`, and its optimizer's state is forgotten.

    Attributes
    ----------
    epoch : int
        The epoch whose loss was not finite, or whose steps made a parameter so.
    layer : int
        The first layer, counted from 1, with a parameter or an output that is not finite.
    history : History
        All epochs up to this one.
    parameters : (n_parameters,) array
        The parameters at the last report (or else at the start of the fit).
    """

    def __init__(
        self, what: str, epoch: int, layer: int, history: History, parameters: NDArray[np.floating]
    ) -> None:
        super().__init__(
            f"{what} is not finite at epoch {epoch}, first in layer {layer}; the network is set back to its "
            "parameters at the last report. Try a smaller learning_rate, reduction='mean' or smaller inputs "
            "(mean 0, variance 1)"
        )
        self.epoch = epoch
        self.layer = layer
        self.history = history
        self.parameters = parameters
