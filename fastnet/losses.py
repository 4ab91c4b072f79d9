"""Losses that have a setting, and the codes of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet import contract
from fastnet.validation import check_choice, check_number


@dataclass(frozen=True)
class Huber:
    """Huber's loss (1964): half the square of errors up to `delta`, and linear beyond.

    Parameters
    ----------
    delta : float
        Magnitude of the error where the two meet, above 0.

    Raises
    ------
    TypeError, ValueError
        If `delta` is of a wrong type or out of range.

    Examples
    --------
    >>> get_loss(Huber(delta=0.5)) == (contract.HUBER, 0.5)
    True
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        """Check the setting."""
        object.__setattr__(self, "delta", check_number("delta", self.delta, low=0.0, low_open=True))


@dataclass(frozen=True)
class Quantile:
    """The quantile or pinball loss (Koenker and Bassett 1978), whose minimum is at that quantile.

    Parameters
    ----------
    quantile : float
        Which quantile, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If `quantile` is of a wrong type or out of range.

    Examples
    --------
    >>> get_loss(Quantile(0.9)) == (contract.QUANTILE, 0.9)
    True
    """

    quantile: float = 0.5

    def __post_init__(self) -> None:
        """Check the setting."""
        quantile = check_number("quantile", self.quantile, low=0.0, high=1.0, low_open=True, high_open=True)
        object.__setattr__(self, "quantile", quantile)


def get_loss(value: str | Huber | Quantile) -> tuple[int, float]:
    """Look up a loss.

    Parameters
    ----------
    value : str, Huber or Quantile
        A name of `fastnet.contract.LOSSES`, or a loss with its setting. The names "huber" and
        "quantile" stand for `Huber()` and `Quantile()`.

    Returns
    -------
    code : int
        Code of the loss in `fastnet.contract`.
    parameter : float
        Huber's delta, the quantile, or 0.

    Raises
    ------
    TypeError
        If `value` is neither a name nor such a loss.
    ValueError
        If it is an unknown name.

    Examples
    --------
    >>> get_loss("squared_error")
    (0, 0.0)
    """
    if isinstance(value, Huber):
        return contract.HUBER, value.delta
    if isinstance(value, Quantile):
        return contract.QUANTILE, value.quantile
    name = check_choice("loss", value, contract.LOSSES, "a Huber or a Quantile")
    if name == "huber":
        return get_loss(Huber())
    if name == "quantile":
        return get_loss(Quantile())
    return contract.LOSSES.index(name), 0.0
