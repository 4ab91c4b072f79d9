"""Numerical regression testing: whether results are the same, and where they parted if not.

Names are imported when they are first used: pytest loads the plugin beside them at every start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnet.testing.cases import Case
    from fastnet.testing.comparison import compare
    from fastnet.testing.difference import first_difference
    from fastnet.testing.faults import FAULTS
    from fastnet.testing.golden import assert_trajectory, check, golden_from_arrays, record
    from fastnet.testing.gradients import check_gradient
    from fastnet.testing.segments import fit_exactly
    from fastnet.testing.ulp import assert_max_ulp, max_ulp, ulp_distance

__all__ = [
    "FAULTS",
    "Case",
    "assert_max_ulp",
    "assert_trajectory",
    "check",
    "check_gradient",
    "compare",
    "first_difference",
    "fit_exactly",
    "golden_from_arrays",
    "max_ulp",
    "record",
    "ulp_distance",
]

_HOMES = {
    "FAULTS": "faults",
    "Case": "cases",
    "assert_max_ulp": "ulp",
    "assert_trajectory": "golden",
    "check": "golden",
    "check_gradient": "gradients",
    "compare": "comparison",
    "first_difference": "difference",
    "fit_exactly": "segments",
    "golden_from_arrays": "golden",
    "max_ulp": "ulp",
    "record": "golden",
    "ulp_distance": "ulp",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fastnet.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fastnet.testing' has no attribute {name!r}")
