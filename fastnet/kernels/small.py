"""Training of small networks in registers: `fastnet.kernels.training`, traced for one architecture.

The loop over epochs and batches is that of every training, `training.run`; what it calls to work on numbers is traced
(`fastnet.kernels.tracing`), with the sizes of a `fastnet.runtime.plans.Plan`. What stays from batch to batch lies in a
stack slot, of which LLVM makes registers, because nothing else points into it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnet import contract
from fastnet.contract import BIAS, VECTOR_BYTES, WEIGHTS
from fastnet.kernels import losses, optimizers, regions, signatures, training
from fastnet.kernels.jit import jit_entry, jit_inline
from fastnet.kernels.memory import pointer
from fastnet.kernels.plans import PlanType, SlotType, TracedPlan
from fastnet.kernels.products import View
from fastnet.kernels.scope import Scope, Settings
from fastnet.kernels.simd import INTP, Lanes
from fastnet.kernels.team import Part, alone
from fastnet.kernels.tracing import traced
from fastnet.runtime.plans import Plan


class _Net(NamedTuple):
    """What `training.run` reads of a network."""

    layout: Any
    n_layers: int
    #: The address of the slot.
    parameters: Any
    gathered: Any
    hands_on: bool
    goes_on: bool


#: The part of who is alone.
_ALL = Part(0, 1, 1)
_NO_STEP = regions.Step(False, 1.0, 0.0, 0.0)


def _unpacked(builder: ir.IRBuilder, kind: types.NamedTuple, value: ir.Value) -> Any:
    """The fields of a jitted named tuple."""
    return kind.instance_class(*(builder.extract_value(value, number) for number in range(len(kind))))


def _plan_of(net: types.NamedTuple) -> TracedPlan:
    return net.types[net.fields.index("parameters")].plan  # type: ignore[no-any-return]


@intrinsic
def _reserve(typing_context, plan):
    """The stack slot of a plan."""
    frozen = plan.plan

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        n_vectors = sum(map(len, frozen.parts.values()))
        slot = cgutils.alloca_once(builder, ir.ArrayType(frozen.element, n_vectors * frozen.lanes))
        slot.align = VECTOR_BYTES
        return builder.bitcast(slot, frozen.element.as_pointer())

    return SlotType(frozen)(plan), codegen


def _transfer(move: Callable[[Scope, str, ir.Value], None], slot: SlotType, *arrays: types.Type) -> Any:
    """Signature and code of an intrinsic that moves parameters, state and gradient."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        scope = Scope(builder, slot.plan, values[0])
        for name, array in zip(("parameters", "slots", "gradient"), values[1:], strict=True):
            move(scope, name, array)
        return context.get_dummy_value()

    return types.none(slot, *arrays), codegen


@intrinsic
def _read_in(typing_context, slot, parameters, slots, gradient):
    """Fill the slot."""
    return _transfer(Scope.read_in, slot, parameters, slots, gradient)


@intrinsic
def _write_out(typing_context, slot, parameters, slots, gradient):
    """Write parameters, state and gradient to their arrays."""
    return _transfer(Scope.write_out, slot, parameters, slots, gradient)


@intrinsic
def _first_region(typing_context, net, x, samples, first_row, objective, low, high, team, last_turn):
    """`regions.first_region`, then the sums over the rows and the gradient."""
    plan = _plan_of(net)

    def emit(builder: ir.IRBuilder, slot: ir.Value, n_rows: int, values: Any, first: ir.Value, parameter: Any) -> None:
        scope = Scope(builder, plan, slot)
        traced_net, rows = scope.net(n_rows), scope.samples(n_rows, values, first)
        aim = contract.Objective(plan.loss, parameter, plan.mean, 0.0, plan.batch_rows)
        inputs = View(rows.x, 0, rows.n_inputs, 1)
        gradient = scope.part("gradient") if plan.is_grouped else scope.registers()
        records = training.Records(None, None, gradient, None, None, None)
        traced(regions.first_region)(traced_net, inputs, rows, 0, aim, 0, n_rows, None, -1)
        traced(regions.sum_block)(traced_net, rows, 0, 0, n_rows, False)
        traced(regions.second_region)(
            traced_net, inputs, 0, n_rows, records, plan.is_grouped, _NO_STEP, aim, None, _ALL, None, 0
        )
        scope.keep("sums", traced_net.sums)
        scope.keep("gradient", gradient)
        scope.interleave()

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        slot, pointers = _unpacked(builder, net, values[0]).parameters, _unpacked(builder, samples, values[2])
        parameter: Any = Lanes(builder, _unpacked(builder, objective, values[4]).parameter)
        first, n_rows = values[3], builder.sub(values[6], values[5])
        rest, sizes = n_rows, {plan.batch_rows, plan.tail_rows}
        if plan.is_grouped:
            group = ir.Constant(INTP, plan.group_rows)
            n_groups, rest = builder.udiv(n_rows, group), builder.urem(n_rows, group)
            sizes = {size % plan.group_rows for size in sizes}
            scope = Scope(builder, plan, slot)
            scope.clear("sums")
            scope.clear("gradient")
            with cgutils.for_range(builder, n_groups) as loop:
                emit(
                    builder,
                    slot,
                    plan.group_rows,
                    pointers,
                    builder.add(first, builder.mul(loop.index, group)),
                    parameter,
                )
            first = builder.add(first, builder.mul(n_groups, group))
        if sizes == {plan.batch_rows, 0} and not plan.is_grouped:
            emit(builder, slot, plan.batch_rows, pointers, first, parameter)
            return context.get_dummy_value()
        for size in sizes - {0}:
            with builder.if_then(builder.icmp_unsigned("==", rest, ir.Constant(INTP, size))):
                emit(builder, slot, size, pointers, first, parameter)
        return context.get_dummy_value()

    intp = types.intp
    return types.none(net, x, samples, intp, objective, intp, intp, team, intp), codegen


@intrinsic
def _sum_block(typing_context, net, samples, first_row, low, high, goes_on):
    """`regions.sum_block`, of rows that have been summed."""
    plan = _plan_of(net)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        scope = Scope(builder, plan, _unpacked(builder, net, values[0]).parameters)
        sums = traced(regions.sum_block)(scope.net(0), scope.samples(0, None, None), 0, 0, 0, False)
        return context.make_tuple(builder, signature.return_type, [total.value for total in sums])

    intp = types.intp
    return types.UniTuple(types.float64, 2)(net, samples, intp, intp, intp, types.boolean), codegen


@intrinsic
def _add_weights(typing_context, net, samples, first_row, n_rows, total):
    """`regions.add_weights`."""
    plan = _plan_of(net)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        _, rows, first, n_rows, total = values
        if not plan.weighted:
            return builder.fadd(total, builder.sitofp(n_rows, total.type))
        scope, pointers = Scope(builder, plan, None), _unpacked(builder, samples, rows)
        sum_of_rows = cgutils.alloca_once_value(builder, total)
        with cgutils.for_range(builder, n_rows) as loop:
            row = builder.add(first, loop.index)
            if plan.ordered:
                row = scope.sample(scope.moved(pointers.order, row))
            weight = scope.sample(scope.moved(pointers.weight, row))
            weight = builder.fpext(weight, total.type) if plan.bits == 32 else weight
            builder.store(builder.fadd(builder.load(sum_of_rows), weight), sum_of_rows)
        return builder.load(sum_of_rows)

    return types.float64(net, samples, types.intp, types.intp, types.float64), codegen


@intrinsic
def _penalty_of(typing_context, net, l2):
    """`regions.square_columns` and `regions.penalty_of`."""
    plan = _plan_of(net)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        if not plan.penalised:
            return ir.Constant(ir.DoubleType(), 0.0)
        scope = Scope(builder, plan, _unpacked(builder, net, values[0]).parameters)
        traced_net = scope.net(0)
        traced(regions.square_columns)(traced_net, _ALL)
        penalty = traced(regions.penalty_of)(traced_net, Lanes(builder, values[1]))
        scope.interleave()
        return penalty.value

    return types.float64(net, types.float64), codegen


@intrinsic
def _second_region(typing_context, net, x, first_row, n_rows, records, add, step, objective, state, part, team, turn):
    """The step of `regions.second_region`; the gradient is there."""
    plan = _plan_of(net)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        numbers, aim = _unpacked(builder, state, values[8]), _unpacked(builder, objective, values[7])
        is_taken, *factors = _unpacked(builder, step, values[6])
        scale, rate, learning_rate = (Lanes(builder, value) for value in factors)
        with builder.if_then(is_taken):
            scope = Scope(builder, plan, _unpacked(builder, net, values[0]).parameters)
            parameters, gradient, slots = (scope.part(name) for name in ("parameters", "gradient", "slots"))
            settings = Settings(scope, numbers.settings)
            here = optimizers.State(plan.optimizer, settings, slots, plan.n_slots, None, plan.size)
            # Each step of a whole batch is followed by a look for parameters that are not finite.
            no_penalty = None if plan.is_whole else 0.0
            for column in (WEIGHTS, BIAS):
                l2 = Lanes(builder, aim.l2) if plan.penalised and column == WEIGHTS else no_penalty
                for places, _ in plan.vectors(column):
                    factor = scale if plan.mean else 1.0
                    traced(optimizers.step_span)(
                        places, None, l2, factor, parameters, gradient, here, learning_rate, rate
                    )
            scope.keep("parameters", parameters)
            scope.keep("slots", slots)
            scope.interleave()
        return context.make_tuple(builder, signature.return_type, [values[-1], ir.Constant(ir.IntType(1), 0)])

    intp, flag = types.intp, types.boolean
    results = types.Tuple([intp, flag])
    return results(net, x, intp, intp, records, flag, step, objective, state, part, team, intp), codegen


@intrinsic
def _is_finite(typing_context, slot, size):
    """`regions.is_finite`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        scope = Scope(builder, slot.plan, values[0])
        return scope.is_finite("parameters").value

    return types.boolean(slot, types.intp), codegen


@jit_inline
def _no_rows(net, samples, first_row, low, high, low_input, high_input):
    """In place of `regions.gather`: traced rows are read where they lie."""


@jit_inline
def _no_sums(net, team, turn, waited):
    """In place of `relay.take_sums`: there is one thread."""


@jit_inline
def _own_status(net, team, status):
    """In place of `relay.end_together`: there is one thread."""
    return status


@jit_inline
def _no_squares(net, part):
    """In place of `regions.square_columns`, which `_penalty_of` does."""


@jit_inline
def _one_row(net):
    """In place of `regions.rows_together`: there is one thread."""
    return 1


def _with(kernel: Any, **helpers: Any) -> Any:
    """A kernel with other helpers."""
    function = kernel.py_func
    return jit_inline(FunctionType(function.__code__, function.__globals__ | helpers, function.__name__))


_run = _with(
    training.run,
    rows_together=_one_row,
    gather=_no_rows,
    take_sums=_no_sums,
    end_together=_own_status,
    first_region=_first_region,
    square_columns=_no_squares,
    penalty_of=_penalty_of,
    sum_block=_sum_block,
    add_weights=_add_weights,
    second_region=_second_region,
    is_finite=_is_finite,
)


def _signature(plan: Plan) -> tuple[types.Type, ...]:
    """The types of the arguments of `train`."""
    return PlanType(plan), *signatures.training(types.float32 if plan.bits == 32 else types.float64)


@jit_entry(_signature)
def train(plan, layout, parameters, samples, objective, update, progress, n_blocks):
    """`fastnet.kernels.network.train` of what is planned: `plan` is that of the other arguments.

    They are not looked at, for they are those of a fit, which has made them; that would be a fifth of the compilation.
    """
    data, slots, gradient = pointer(parameters), pointer(update.slots), pointer(progress.gradient)
    slot = _reserve(plan)
    _read_in(slot, data, slots, gradient)
    net = _Net(pointer(layout), layout.shape[0], slot, pointer(samples.x), False, False)
    rows = losses.rows_of(samples, pointer(samples.order), samples.order.shape[0] > 0)
    state, records = optimizers.state_of(update, parameters.size), training.records_of(update, progress)
    status = _run(net, rows, objective, state, records, alone(data), n_blocks)
    _write_out(slot, data, slots, gradient)
    return status
