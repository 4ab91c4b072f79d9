"""How two threads of a training share a sum: the first one begins it with its rows, the second goes on with the others.

So every sum takes its terms in order, and each thread works on its own rows alone: their activations and deltas stay
where they are. The gradient is handed on piece by piece, some rows of weights at a time, while the first thread works
on the next one; the second takes the optimizer's step of a piece, and hands the parameters back.

A cache line of which two cores have a copy takes its writer 7 ns: the other copy has to be called in. One that the
reader has written, too, belongs to it, and comes back within 1.2 ns (Zen 4). So each thread has its own parameters,
what is handed on goes through memory with one writer and one reader at a time, and the reader writes to each line what
it has read.

With more threads all work on the same memory, as do two whose copies would exceed
`fastnet.kernels.workspace.RELAYED_BYTES`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.contract import BIAS, N_INPUTS, STRIDE, WEIGHTS
from fastnet.kernels.jit import jit_inline, jit_part
from fastnet.kernels.memory import lanes_of, least, load, most, moved, store
from fastnet.kernels.products import ROWS_TOGETHER, entry
from fastnet.kernels.team import announce, leave_share, tell, told, wait_for
from fastnet.runtime.board import ENDED, FIRST_REGION, HANDED_ON, RETURNED, STATUS

#: Elements of a piece, about: its copies and its signal should take little time beside its work, and the second
#: thread waits for the first one of a block.
PIECE_ELEMENTS = 1024
#: Pieces of a layer, about: products of few rows read much for what they calculate.
MOST_PIECES = 32


@intrinsic
def _own_line(typing_context, pointer, index):
    """Write an element to where it has been read: the cache line is this core's then."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        word = ir.IntType(pointer.dtype.bitwidth)
        address = builder.bitcast(builder.gep(values[0], [values[1]]), word.as_pointer())
        # Atomic, or LLVM would leave out both.
        value = builder.load_atomic(address, "monotonic", word.width // 8)
        builder.store_atomic(value, address, "monotonic", word.width // 8)
        return context.get_dummy_value()

    return types.none(pointer, types.intp), codegen


@jit_part
def _copy(target, source, first, size, owns):
    """Copy whole vectors to the same places of another memory; with ``owns`` this core has their lines then."""
    for index in range(first, first + size, lanes_of(source)):
        store(target, index, load(source, index))
        if owns:
            _own_line(source, index)


@jit_inline
def piece_end(net, low, end, stride):
    """Where the piece of a layer's rows of weights ends that begins at ``low``; without a relay, all is one piece."""
    if net.hands_on or net.goes_on:
        rows = most(PIECE_ELEMENTS // stride, end // MOST_PIECES)
        return least(low + most(ROWS_TOGETHER, rows // ROWS_TOGETHER * ROWS_TOGETHER), end)
    return end


@jit_part
def _copy_piece(net, target, source, layer, low, high, owns):
    """Copy rows of weights of a layer, and before the first one its biases."""
    stride, bias = entry(net.layout, layer, STRIDE), entry(net.layout, layer, BIAS)
    _copy(target, source, entry(net.layout, layer, WEIGHTS) + low * stride, (high - low) * stride, owns)
    if low == 0 and bias >= 0:
        _copy(target, source, bias, stride, owns)


@jit_inline
def take_sums(net, team, turn, waited):
    """In the second thread: the first one's sums of losses and errors; it gets the next block's shares for them."""
    wait_for(moved(team.board, HANDED_ON), turn + 1)
    # Now the first thread has read its share of this block. Who was late in the last one leaves some of it.
    leave_share(FIRST_REGION, 0 if waited else 1, team)
    tell(moved(team.board, RETURNED), turn + 1)
    _copy(net.sums, net.handed_sums, 0, 2 * entry(net.layout, net.n_layers - 1, STRIDE), True)


@jit_inline
def take_piece(net, target, layer, low, high, team, number, seen):
    """Before the second thread's part of a piece: the first one's sums. Returns up to where they are there."""
    if net.goes_on:
        if seen < number:
            # To look at what another core writes takes 0.1 us.
            seen = told(moved(team.board, HANDED_ON))
            if seen < number:
                wait_for(moved(team.board, HANDED_ON), number)
                seen = -1
        _copy_piece(net, target, net.handed, layer, low, high, True)
    return seen


@jit_inline
def hand_piece_on(net, layer, low, high, team, steps, number, is_last):
    """After a piece: the first thread says that its sums are there, the second one hands back parameters."""
    if net.goes_on and steps:
        _copy_piece(net, net.shared_parameters, net.parameters, layer, low, high, False)
    counter = moved(team.board, RETURNED if net.goes_on else HANDED_ON)
    if is_last:
        announce(counter, number)
    else:
        tell(counter, number)


@jit_part
def take_parameters(net, layer, team, number):
    """In the first thread: the parameters of a layer, of which the second one counts the first piece as ``number``.

    Returns the number after its pieces.
    """
    low, end = 0, entry(net.layout, layer, N_INPUTS)
    while low < end:
        high = piece_end(net, low, end, entry(net.layout, layer, STRIDE))
        wait_for(moved(team.board, RETURNED), number)
        _copy_piece(net, net.parameters, net.shared_parameters, layer, low, high, True)
        low, number = high, number + 1
    return number


@jit_inline
def take_all_parameters(net, size):
    """At the beginning of a call: all parameters, as they were given to it."""
    if net.hands_on or net.goes_on:
        _copy(net.parameters, net.shared_parameters, 0, size, False)


@jit_inline
def end_together(net, team, status):
    """At the end of a call: the second thread's status, for both."""
    if net.goes_on:
        team.board[STATUS] = status
        announce(moved(team.board, RETURNED), ENDED)
    if net.hands_on:
        wait_for(moved(team.board, RETURNED), ENDED)
        status = team.board[STATUS]
    return status
