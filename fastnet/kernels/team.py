"""Threads that work on one training: how they share it out, and how they wait for each other.

Each member of a team runs the same compiled function, and all count up one number where they have to wait. None of
Numba's pools is used: their regions cost 1.4 us with OpenMP and 19 us with the workqueue, OpenMP's does not survive
`fork`, and the workqueue cannot be entered twice.

Cores are not equally fast: some are built so, others are shared with another machine's threads (two threads waited
for each other for 50 us of a step of 160). So the members' parts of a region are not equal either: who comes last out
of it leaves some of its share to the others.
"""

from __future__ import annotations

import platform
import sys
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import integers, least, nowhere
from fastnet.kernels.simd import INT32, INTP
from fastnet.runtime.board import SHARES

#: Looks at the number before a member goes to sleep: some 30 us.
LOOKS = 1000
#: The number of Linux's system call `futex`, by machine, and two of its operations on memory of one process.
_FUTEX = {"x86_64": 202, "aarch64": 98}
_SLEEP, _WAKE = 128, 129
#: Who comes last leaves 1 / 2^6 of its share to the others: it takes 26 steps until cores of which one is half as fast
#: as the other come at the same time, and nobody minds one that has been disturbed once.
_EASING = 6
#: LLVM's intrinsics for the instruction that says a loop waits, and their arguments, by the beginning of the triple.
_YIELD_HINT = ("llvm.aarch64.hint", (1,))
_PAUSES: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "aarch64": _YIELD_HINT,
    "arm64": _YIELD_HINT,
}


class Team(NamedTuple):
    """A member of a team: which one it is, of how many, and the board on which they count arrivals and sleepers."""

    board: Any
    thread: int
    n_threads: int


@intrinsic
def member(typing_context, board, thread, n_threads):
    """A `Team` of integers that are no literals."""
    kind = types.NamedTuple([board, types.intp, types.intp], Team)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_tuple(builder, signature.return_type, values)

    return kind(*kind.types), codegen


@jit_inline
def alone(data):
    """The only member of a team; ``data`` is any pointer."""
    return member(integers(nowhere(data)), 0, 1)


class Part(NamedTuple):
    """A member's share of a region: what comes before it, what it is, and all shares together."""

    before: int
    own: int
    total: int


@jit_inline
def part_of(region, team):
    """The member's share of a region."""
    before, own, total = 0, 1, 1
    if team.n_threads > 1:
        before, total = 0, 0
        for thread in range(team.n_threads):
            if thread == team.thread:
                before = total
            total += team.board[_place(region, thread, team)]
        own = team.board[_place(region, team.thread, team)]
    return Part(before, own, total)


@jit_inline
def whole(part):
    """All shares together."""
    return Part(0, part.total, part.total)


@jit_inline
def share(n, unit, part):
    """A part of 0 … n, in multiples of ``unit``: where it begins and ends."""
    # Divisions would be a tenth of an epoch of the 3-4-1 network.
    if part.own == part.total:
        return 0, n
    return _share(n, unit, part)


@jit_part
def _share(n, unit, part):
    n_units = (n + unit - 1) // unit
    low = n_units * part.before // part.total * unit
    high = n_units * (part.before + part.own) // part.total * unit
    return low, least(n, high)


@jit_inline
def _place(region, thread, team):
    return SHARES + region * team.n_threads + thread


@jit_inline
def wait(team):
    """Wait until all members are here; what they have written before is then there for all to read.

    Returns whether this one came last.
    """
    return team.n_threads > 1 and _wait(team.board, team.n_threads)


@jit_inline
def wait_after(region, team):
    """`wait` at the end of a region, which has other shares then.

    Shares are written between this end and the next one of the other region, by the only one that came last; nobody
    reads them meanwhile.
    """
    if wait(team):
        leave_share(region, team.thread, team)


@jit_inline
def leave_share(region, last, team):
    """Some of the share of the member that comes last becomes that of the others."""
    own = _place(region, last, team)
    left = team.board[own] >> _EASING
    part = left // (team.n_threads - 1)
    team.board[own] -= part * team.n_threads
    for thread in range(team.n_threads):
        team.board[_place(region, thread, team)] += part


@intrinsic
def _wait(typing_context, board, n_threads):
    """Look for a while, then sleep; returns whether this is the last of its round.

    A member that only offered its core (`sched_yield`) fell behind everything else that ran: beside another process a
    step of 70 us took 8 ms; and two members that had been started on one core stayed there, at 150 us a step.
    One that sleeps is woken on a core that is free.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        counter, count = values
        one = ir.Constant(INTP, 1)
        # Sequentially consistent, as all that follows: of a member that goes to sleep and one that arrives last, one
        # sees what the other has written.
        arrived_now = builder.add(builder.atomic_rmw("add", counter, one, "seq_cst"), one)
        # The number only grows. Who is the last of a round lets all of it go on.
        rounds = builder.udiv(builder.add(arrived_now, builder.sub(count, one)), count)
        goal = builder.mul(rounds, count)
        is_last = builder.icmp_unsigned("==", arrived_now, goal)
        with builder.if_else(is_last) as (last, others):
            with last:
                wake(builder, counter, count)
            with others:
                look(builder, counter, goal)
        return is_last

    return types.boolean(board, types.intp), codegen


@intrinsic
def tell(typing_context, counter, number):
    """Say that a number has been counted up to, to a member that looks; what was written before is there to read.

    One that sleeps will look when it is woken by what is announced.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        builder.store_atomic(values[1], values[0], "release", 8)
        return context.get_dummy_value()

    return types.none(counter, types.intp), codegen


@intrinsic
def announce(typing_context, counter, number):
    """`tell` a member that may sleep; it takes longer, until the other core has given the number up."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        builder.atomic_rmw("xchg", *values, "seq_cst")
        wake(builder, values[0], ir.Constant(INTP, 1))
        return context.get_dummy_value()

    return types.none(counter, types.intp), codegen


@intrinsic
def told(typing_context, counter):
    """What another member has told."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.load_atomic(values[0], "acquire", 8)

    return types.intp(counter), codegen


@intrinsic
def count_up(typing_context, counter):
    """Count a number up that other members count, too; returns what it was."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.atomic_rmw("add", values[0], ir.Constant(INTP, 1), "monotonic")

    return types.intp(counter), codegen


@intrinsic
def wait_for(typing_context, counter, goal):
    """Wait until another member has told a number, or more."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        look(builder, *values)
        return context.get_dummy_value()

    return types.none(counter, types.intp), codegen


def wake(builder: ir.IRBuilder, counter: ir.Value, count: ir.Value) -> None:
    """Wake so many of those that sleep until a number is counted up; how many they are stands after it."""
    asleep = builder.load_atomic(builder.gep(counter, [ir.Constant(INTP, 1)]), "seq_cst", 8)
    with builder.if_then(builder.icmp_unsigned(">", asleep, ir.Constant(INTP, 0)), likely=False):
        _futex(builder, counter, _WAKE, count)


def look(builder: ir.IRBuilder, counter: ir.Value, goal: ir.Value) -> None:
    """Look at a number until it has come to a goal, for a while, then sleep."""
    one, sleepers = ir.Constant(INTP, 1), builder.gep(counter, [ir.Constant(INTP, 1)])
    labels = ("look", "not_yet", "sleep", "again", "done")
    looking, not_yet, sleep, again, done = (builder.append_basic_block(f"wait.{label}") for label in labels)
    before = builder.block
    builder.branch(looking)
    builder.position_at_end(looking)
    looks = builder.phi(INTP)
    arrived = builder.load_atomic(counter, "acquire", 8)
    builder.cbranch(builder.icmp_unsigned(">=", arrived, goal), done, not_yet)
    builder.position_at_end(not_yet)
    pause(builder)
    builder.cbranch(builder.icmp_unsigned("<", looks, ir.Constant(INTP, LOOKS)), again, sleep)
    builder.position_at_end(sleep)
    builder.atomic_rmw("add", sleepers, one, "seq_cst")
    # Only while the number is still what it was.
    _futex(builder, counter, _SLEEP, arrived)
    builder.atomic_rmw("sub", sleepers, one, "seq_cst")
    builder.branch(again)
    builder.position_at_end(again)
    looks.add_incoming(ir.Constant(INTP, 0), before)
    looks.add_incoming(builder.add(looks, one), again)
    builder.branch(looking)
    builder.position_at_end(done)


def pause(builder: ir.IRBuilder) -> None:
    """Tell the core that this is a loop that waits."""
    triple = llvm.get_process_triple().partition("-")[0]
    if triple in _PAUSES:
        name, arguments = _PAUSES[triple]
        operands = [ir.Constant(INT32, argument) for argument in arguments]
        builder.call(declared(builder, name, ir.VoidType(), *[INT32] * len(operands)), operands)


def _futex(builder: ir.IRBuilder, counter: ir.Value, operation: int, value: ir.Value) -> None:
    """Sleep while the lower half of the counter is that of a value, or wake so many members; else offer the core."""
    machine = platform.machine()
    if sys.platform == "linux" and machine in _FUTEX:
        kind = ir.FunctionType(INTP, [INTP], var_arg=True)
        call = cgutils.get_or_insert_function(builder.module, kind, "syscall")
        nothing = ir.Constant(INTP, 0)
        address = builder.ptrtoint(counter, INTP)
        number, what = ir.Constant(INTP, _FUTEX[machine]), ir.Constant(INTP, operation)
        builder.call(call, [number, address, what, value, nothing, nothing, nothing])
    elif sys.platform != "win32":
        builder.call(declared(builder, "sched_yield", INT32), [])


def declared(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
    """A function from elsewhere."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)
