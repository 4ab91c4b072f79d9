"""Whether a kernel that can be done without is worth the time until it is there."""

from __future__ import annotations

from functools import lru_cache

from fastnet.runtime.entry_points import is_kept
from fastnet.runtime.plans import Plan

#: Seconds to load what was compiled before.
LOAD_SECONDS = 0.002
#: Variants that are remembered.
_MOST_VARIANTS = 1024


class Payback:
    """What the variants of a kernel would have saved in this process, had they been there.

    Parameters
    ----------
    name : str
        The kernel's name among `fastnet.runtime.entry_points`.
    compile_seconds : float
        How long it takes to compile one.
    """

    def __init__(self, name: str, compile_seconds: float) -> None:
        self.name, self.compile_seconds = name, compile_seconds
        self._missed: dict[str | Plan, float] = {}

    def is_due(self, variant: str | Plan, saved: float, spared: float = 0.0) -> bool:
        """Whether to load a variant, or to compile it.

        Parameters
        ----------
        variant : str or Plan
            The variant.
        saved : float
            Seconds that it would save now.
        spared : float
            Seconds of another compilation that it makes needless.
        """
        if len(self._missed) >= _MOST_VARIANTS:
            self._missed.clear()
        self._missed[variant] = self._missed.get(variant, 0.0) + saved
        gained = self._missed[variant] + spared
        return gained >= LOAD_SECONDS and (gained >= self.compile_seconds or _was_kept(self.name, variant))


@lru_cache(_MOST_VARIANTS)
def _was_kept(name: str, variant: str | Plan) -> bool:
    """Whether a kernel was in the cache when it was first asked for."""
    return is_kept(name, variant)
