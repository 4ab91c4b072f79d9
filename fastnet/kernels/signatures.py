"""The types of the arguments of kernels that the runtime loads, by variants: a dtype, or a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from fastnet import contract

#: Variants by dtype: of the parameters, or of random words.
SCALARS = {"float32": types.float32, "float64": types.float64, "uint32": types.uint32}


def _array(dtype: types.Type, ndim: int, *, readonly: bool = False) -> types.Array:
    return types.Array(dtype, ndim, "C", readonly=readonly)


_LAYOUT = _array(types.int64, 2, readonly=True)


def _record(kind: type, *fields: types.Type) -> types.Type:
    return types.BaseTuple.from_types(fields, kind)


def training(real: types.Type) -> tuple[types.Type, ...]:
    """Of `fastnet.kernels.network.train`."""
    vector, matrix = _array(real, 1), _array(real, 2)
    numbers, integer, number = _array(types.float64, 1), types.int64, types.float64
    samples = _record(contract.Samples, matrix, matrix, vector, _array(integer, 2))
    objective = _record(contract.Objective, integer, number, types.boolean, number, integer)
    update = _record(contract.Update, integer, numbers, matrix, numbers, numbers)
    progress = _record(contract.Progress, _array(integer, 1), numbers, vector, numbers, numbers)
    return _LAYOUT, vector, samples, objective, update, progress, integer


def together(variant: str) -> tuple[types.Type, ...]:
    """Of `fastnet.kernels.network.train_together`."""
    integers = _array(types.int64, 1)
    return *training(SCALARS[variant]), _array(SCALARS[variant], 1), integers, integers, types.int64


def forward(variant: str) -> tuple[types.Type, ...]:
    """Of `fastnet.kernels.network.forward_finite`."""
    vector, matrix = _array(SCALARS[variant], 1), _array(SCALARS[variant], 2)
    return _LAYOUT, vector, matrix, matrix, vector, types.int64, _array(types.int64, 1), types.int64


def values(variant: str) -> tuple[types.Type, ...]:
    """Of `fastnet.kernels.network.finite`."""
    return (_array(SCALARS[variant], 1),)


def orders(variant: str) -> tuple[types.Type, ...]:
    """Of `fastnet.kernels.orders.draw_orders`."""
    words = _array(SCALARS[variant], 1)
    return words, words, words, _array(types.int64, 2)


def variant_of(signature: Callable[..., Any], kinds: tuple[types.Type, ...]) -> str | None:
    """The name of the variant with these types, if there is one."""
    # What has a plan is a `fastnet.kernels.plans.PlanType`.
    plan = getattr(kinds[0], "plan", None)
    variants: dict[str, Any] = {name: name for name in SCALARS} if plan is None else {plan.digest: plan}
    return next((name for name, variant in variants.items() if signature(variant) == kinds), None)
