"""Threads that work on one training: how they share it out, and how they wait for each other.

Each member of a team runs the same compiled function, and all count up one number where they have to wait. None of
Numba's pools is used: their regions cost 1.4 us with OpenMP and 19 us with the workqueue, OpenMP's does not survive
`fork`, and the workqueue cannot be entered twice.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnet.kernels.jit import jit_inline
from fastnet.kernels.memory import integers, nowhere
from fastnet.kernels.simd import INT32, INTP

#: Looks at the number before a member offers its core to others: some 30 us.
_LOOKS = 1000
#: LLVM's intrinsics for the instruction that says a loop waits, and their arguments, by the beginning of the triple.
_YIELD_HINT = ("llvm.aarch64.hint", (1,))
_PAUSES: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "aarch64": _YIELD_HINT,
    "arm64": _YIELD_HINT,
}


class Team(NamedTuple):
    """A member of a team: which one it is, of how many, and where they count arrivals."""

    arrivals: Any
    thread: int
    n_threads: int


@intrinsic
def member(typing_context, arrivals, thread, n_threads):
    """A `Team` of integers that are no literals."""
    kind = types.NamedTuple([arrivals, types.intp, types.intp], Team)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_tuple(builder, signature.return_type, values)

    return kind(*kind.types), codegen


@jit_inline
def alone(data):
    """The only member of a team; ``data`` is any pointer."""
    return member(integers(nowhere(data)), 0, 1)


@jit_inline
def share(n, unit, team):
    """The member's part of 0 … n, in multiples of ``unit``: where it begins and ends."""
    n_units = (n + unit - 1) // unit
    low = n_units * team.thread // team.n_threads * unit
    high = n_units * (team.thread + 1) // team.n_threads * unit
    return low, min(n, high)


@jit_inline
def wait(team):
    """Wait until all members are here; what they have written before is then there for all to read."""
    if team.n_threads > 1:
        _wait(team.arrivals, team.n_threads)


@intrinsic
def _wait(typing_context, arrivals, n_threads):
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        counter, count = values
        one = ir.Constant(INTP, 1)
        ticket = builder.atomic_rmw("add", counter, one, "acq_rel")
        # The number only grows. Who was the last of a round lets all of it go on.
        goal = builder.mul(builder.add(builder.udiv(ticket, count), one), count)
        before = builder.block
        labels = ("look", "pause", "offer", "again", "done")
        look, pause, offer, again, done = (builder.append_basic_block(f"wait.{label}") for label in labels)
        builder.branch(look)
        builder.position_at_end(look)
        looks = builder.phi(INTP)
        arrived = builder.load_atomic(counter, "acquire", 8)
        builder.cbranch(builder.icmp_unsigned(">=", arrived, goal), done, pause)
        builder.position_at_end(pause)
        _pause(builder)
        builder.cbranch(builder.icmp_unsigned("<", looks, ir.Constant(INTP, _LOOKS)), again, offer)
        builder.position_at_end(offer)
        _offer_core(builder)
        builder.branch(again)
        builder.position_at_end(again)
        looks.add_incoming(ir.Constant(INTP, 0), before)
        looks.add_incoming(builder.add(looks, one), again)
        builder.branch(look)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.none(arrivals, types.intp), codegen


def _pause(builder: ir.IRBuilder) -> None:
    """Tell the core that this is a loop that waits."""
    triple = llvm.get_process_triple().partition("-")[0]
    if triple in _PAUSES:
        name, arguments = _PAUSES[triple]
        operands = [ir.Constant(INT32, argument) for argument in arguments]
        builder.call(_declared(builder.module, name, ir.VoidType(), len(operands)), operands)


def _offer_core(builder: ir.IRBuilder) -> None:
    """Let another thread have the core: there may be fewer cores than members."""
    if sys.platform == "win32":
        return
    builder.call(_declared(builder.module, "sched_yield", INT32, 0), [])


def _declared(module: ir.Module, name: str, result: ir.Type, n_arguments: int) -> ir.Function:
    """A function from elsewhere, that takes integers of 32 bits."""
    return cgutils.get_or_insert_function(module, ir.FunctionType(result, [INT32] * n_arguments), name)
