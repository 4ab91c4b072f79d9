"""The memory that a network is worked with: the planes of a block of rows, and what threads and products need.

The planes of a block (inputs of the activations, their outputs, deltas) lie in one workspace of constant size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastnet.contract import ACTIVATION, N_INPUTS, N_OUTPUTS, STRIDE, VECTOR_BYTES
from fastnet.kernels import losses
from fastnet.kernels.activations import needs_inputs
from fastnet.kernels.jit import jit_inline
from fastnet.kernels.memory import aligned, at, integers, lanes_of, most, moved
from fastnet.kernels.products import buffer_size, entry, padded, scratch_size

#: Columns of a plan, which says where a block's planes begin in the workspace, with one row for each
#: layer: the inputs of its activation, its outputs, its deltas. Those of a hidden activation whose derivative comes
#: from its outputs alone are replaced by these, so that less has to stay in caches: steps of digits and tabular took
#: 0.985 and 0.97 of the time.
(Z_PLANE, A_PLANE, DELTA_PLANE) = range(3)
PLAN_COLUMNS = 3
#: Memory up to which two threads have planes, rows and parameters of their own, and one goes on with the other's sums:
#: it pays where a core's caches hold them. On Zen 4 steps took 0.7 of the time on shared memory with 0.4 MB, 0.9 to
#: 0.95 with 1.3 and 1.4, 0.97 to 1.06 with 2.7, 1.2 to 1.3 with 5.2.
RELAYED_BYTES = 6 << 18


class Net(NamedTuple):
    """A network and the memory it is worked with, as pointers."""

    layout: Any
    n_layers: int
    parameters: Any
    #: Where the planes begin.
    plan: Any
    #: Of this thread alone where one of two goes on with the other's sums (`fastnet.kernels.relay`), as parameters are.
    planes: Any
    #: Positions of the planes of the losses and the absolute errors of the last layer.
    losses: int
    distances: int
    #: The sums of the squares of each column of weights, for the penalty.
    squares: Any
    #: Rows of a block in their order.
    gathered: Any
    #: 0, 1, 2, …
    natural: Any
    #: Of this thread alone: what the products need, and the sums over the rows of losses and errors.
    scratch: Any
    sums: Any
    #: Whether this thread begins sums with which another one goes on, and whether it is the other one.
    hands_on: bool
    goes_on: bool
    #: Gradients that were begun: this thread's copy, and what the first one writes. Then its sums over the rows, and
    #: the parameters that the second one writes.
    partial: Any
    handed: Any
    handed_sums: Any
    shared_parameters: Any


class Parts(NamedTuple):
    """Where the parts of a workspace begin, in elements."""

    squares: int
    gathered: int
    #: The parts of the threads, one after another.
    own: int
    n_own: int
    #: The same for planes, gathered rows, parameters and sums, where two threads have their own; else 0.
    copies: int
    n_copies: int
    integers: int
    end: int


@jit_inline
def place(net, layer, plane):
    """Where a plane of a layer begins."""
    return at(net.plan, layer, PLAN_COLUMNS, plane)


@jit_inline
def _n_planes(layout, n_layers, layer):
    """How many planes of a layer there are."""
    is_replaced = layer < n_layers - 1 and not needs_inputs(entry(layout, layer, ACTIVATION))
    return PLAN_COLUMNS - 1 if is_replaced else PLAN_COLUMNS


@jit_inline
def _plane_size(layout, layer, data, n_rows):
    """Rows that share a vector are computed in groups, of which the last may not be full."""
    return padded(data, n_rows) * entry(layout, layer, STRIDE)


@jit_inline
def parts_of(layout, n_layers, data, n_rows, n_gathered, n_natural, n_threads):
    """The parts of the workspace for blocks of ``n_rows``."""
    n_planes, most_terms, n_squares = 0, n_rows, 0
    for layer in range(n_layers):
        stride = entry(layout, layer, STRIDE)
        n_planes += _n_planes(layout, n_layers, layer) * _plane_size(layout, layer, data, n_rows)
        most_terms = most(most_terms, most(entry(layout, layer, N_INPUTS), stride))
        n_squares += stride
    squares = n_planes + 2 * _plane_size(layout, n_layers - 1, data, n_rows)
    gathered = squares + n_squares
    own = gathered + padded(data, n_gathered)
    n_own = padded(data, scratch_size(data, most_terms, most_terms)) + 2 * entry(layout, n_layers - 1, STRIDE)
    copies = own + n_threads * n_own
    n_copies = own - n_squares + 2 * padded(data, buffer_size(layout, n_layers))
    if n_copies // lanes_of(data) * VECTOR_BYTES > RELAYED_BYTES:
        n_copies = 0
    # Of more threads only two may work now and then, with these arguments and memory.
    whole = copies + (2 * n_copies if n_threads > 1 else 0)
    # An integer takes at most two elements; then room to align the whole.
    end = whole + 2 * (n_layers * PLAN_COLUMNS + n_natural) + lanes_of(data)
    return Parts(squares, gathered, own, n_own, copies, n_copies, whole, end)


@jit_inline
def make_net(layout, n_layers, parameters, parts, n_rows, memory, team):
    """The network with its memory; `fill` has to be called once."""
    workspace = aligned(memory)
    n_plane = _plane_size(layout, n_layers - 1, parameters, n_rows)
    plan = integers(moved(workspace, parts.integers))
    own = moved(workspace, parts.own + team.thread * parts.n_own)
    is_relay = team.n_threads == 2 and parts.n_copies > 0
    planes, gathered, own_parameters = workspace, moved(workspace, parts.gathered), parameters
    partial = handed = own
    if is_relay:
        planes = moved(workspace, parts.copies + team.thread * parts.n_copies)
        gathered = moved(planes, parts.squares)
        own_parameters = moved(gathered, parts.own - parts.gathered)
        partial = moved(own_parameters, padded(parameters, buffer_size(layout, n_layers)))
        handed = moved(partial, -team.thread * parts.n_copies)
    return Net(
        layout,
        n_layers,
        own_parameters,
        plan,
        planes,
        parts.squares - 2 * n_plane,
        parts.squares - n_plane,
        moved(workspace, parts.squares),
        gathered,
        moved(plan, n_layers * PLAN_COLUMNS),
        moved(own, 2 * entry(layout, n_layers - 1, STRIDE)),
        own,
        is_relay and team.thread == 0,
        is_relay and team.thread == 1,
        partial,
        handed,
        moved(workspace, parts.own),
        parameters,
    )


@jit_inline
def fill(net, n_rows, n_natural):
    """Write the plan and the natural order."""
    first, end = 0, 0
    for layer in range(net.n_layers):
        size = _plane_size(net.layout, layer, net.parameters, n_rows)
        n_planes = _n_planes(net.layout, net.n_layers, layer)
        net.plan[first + Z_PLANE] = end
        net.plan[first + A_PLANE] = end + (n_planes - 2) * size
        net.plan[first + DELTA_PLANE] = end + (n_planes - 1) * size
        first += PLAN_COLUMNS
        end += n_planes * size
    for row in range(n_natural):
        net.natural[row] = row


@jit_inline
def output_planes(net):
    """The planes of the last layer."""
    last = net.n_layers - 1
    return losses.Output(
        net.planes,
        place(net, last, Z_PLANE),
        place(net, last, A_PLANE),
        place(net, last, DELTA_PLANE),
        net.losses,
        net.distances,
        entry(net.layout, last, ACTIVATION),
        entry(net.layout, last, N_OUTPUTS),
        entry(net.layout, last, STRIDE),
    )
