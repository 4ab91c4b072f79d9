"""Threads for one call: started, kept to cores and ended by compiled code, to which the interpreter is nothing.

There is no pool that a `fork` would lose, or that two callers would share. A thread of Python's waits for the
interpreter's lock before it begins and before it ends: with such threads a call took 0.19 ms beside the work, now 0.04.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnet.kernels.simd import INT32, INTP
from fastnet.kernels.team import LOOKS, declared, look, pause, wake

_ADDRESS = ir.IntType(8).as_pointer()
_NULL = ir.Constant(_ADDRESS, None)
#: What the gate says to those who wait at it: that all are there, or that some could not be started.
_BEGIN, _END = 1, 2
#: The fields of what all threads of a call read; then come the arguments.
_GATE, _SLEEPERS, _N_THREADS, _ARGUMENTS = range(4)
#: The fields of what one of them has alone.
_SHARED, _THREAD, _IDENT = range(3)
#: What POSIX's functions return of a thread that still runs.
_BUSY = 16


@intrinsic
def call_together(typing_context, function, arguments, n_threads, cores, n_words):
    """Call ``function(arguments, thread, n_threads)`` in so many threads, this one being 0; return what it returns.

    All have returned by then, and what they have written is there. Where one cannot be started, this one does all
    alone, with ``n_threads`` 1.

    Parameters
    ----------
    function : jitted function
        What it raises in this thread is raised when the others have ended; in those it is lost.
    arguments : tuple
        Arrays among them are not counted: the caller holds them.
    n_threads : int
    cores : pointer to int64
        For each thread ``n_words`` words, whose bits are the cores that it is kept to; none: the system chooses. The
        caller's own are not read.
    n_words : int
    """
    kinds = arguments, types.intp, types.intp
    call_type = function.get_call_type(typing_context, kinds, {})
    result = call_type.return_type

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        _, given, wanted, masks, n_mask_words = values
        compiled = function.dispatcher.overloads[call_type.args]
        context.add_linking_libs([compiled.library])

        def call(builder: ir.IRBuilder, given: ir.Value, thread: ir.Value, n_threads: ir.Value) -> Any:
            callee = context.declare_function(builder.module, compiled.fndesc)
            values = [given, thread, n_threads]
            return context.call_conv.call_function(builder, callee, result, call_type.args, values)

        shared_type = ir.LiteralStructType([INTP, INTP, INTP, given.type])
        start = _start_function(builder, shared_type, call)
        one, others = ir.Constant(INTP, 1), builder.sub(wanted, ir.Constant(INTP, 1))
        shared, own_type = cgutils.alloca_once(builder, shared_type), _own_type(shared_type)
        started = cgutils.alloca_once_value(builder, ir.Constant(INTP, 0))
        own = cgutils.alloca_once_value(builder, ir.Constant(own_type.as_pointer(), None))
        are_several = builder.icmp_signed(">", wanted, one)
        with builder.if_then(are_several):
            _store(builder, shared, _GATE, ir.Constant(INTP, 0))
            _store(builder, shared, _SLEEPERS, ir.Constant(INTP, 0))
            _store(builder, shared, _N_THREADS, wanted)
            _store(builder, shared, _ARGUMENTS, given)
            builder.store(builder.alloca(own_type, size=others), own)
            with cgutils.for_range(builder, others) as loop:
                mine = builder.gep(builder.load(own), [loop.index])
                thread = builder.add(loop.index, one)
                _store(builder, mine, _SHARED, shared)
                _store(builder, mine, _THREAD, thread)
                is_started = _SYSTEM.start(builder, start, mine, _field(builder, mine, _IDENT))
                with builder.if_then(builder.not_(is_started), likely=False):
                    loop.do_break()
                mask = builder.gep(masks, [builder.mul(thread, n_mask_words)])
                _SYSTEM.keep_to(builder, builder.load(_field(builder, mine, _IDENT)), mask, n_mask_words)
                builder.store(thread, started)
        are_all = builder.icmp_signed("==", builder.load(started), others)
        with builder.if_then(are_several):
            gate = _field(builder, shared, _GATE)
            said = builder.select(are_all, ir.Constant(INTP, _BEGIN), ir.Constant(INTP, _END))
            builder.atomic_rmw("xchg", gate, said, "seq_cst")
            wake(builder, gate, others)
        n_threads = builder.select(are_all, wanted, one)
        status, found = call(builder, given, ir.Constant(INTP, 0), n_threads)
        with cgutils.for_range(builder, builder.load(started)) as loop:
            mine = builder.gep(builder.load(own), [loop.index])
            _SYSTEM.join(builder, builder.load(_field(builder, mine, _IDENT)))
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return found

    return result(function, arguments, types.intp, cores, types.intp), codegen


def _own_type(shared_type: ir.Type) -> ir.Type:
    return ir.LiteralStructType([shared_type.as_pointer(), INTP, INTP])


def _start_function(builder: ir.IRBuilder, shared_type: ir.Type, call: Any) -> ir.Function:
    """The function with which another thread starts: it waits at the gate, and does its part."""
    name = f"{builder.function.name}.start"
    start = ir.Function(builder.module, ir.FunctionType(_ADDRESS, [_ADDRESS]), name)
    start.linkage = "internal"
    inner = ir.IRBuilder(start.append_basic_block())
    mine = inner.bitcast(start.args[0], _own_type(shared_type).as_pointer())
    shared, thread = (inner.load(_field(inner, mine, place)) for place in (_SHARED, _THREAD))
    gate = _field(inner, shared, _GATE)
    look(inner, gate, ir.Constant(INTP, _BEGIN))
    said = inner.load_atomic(gate, "acquire", 8)
    with inner.if_then(inner.icmp_unsigned("==", said, ir.Constant(INTP, _BEGIN))):
        given, n_threads = (inner.load(_field(inner, shared, place)) for place in (_ARGUMENTS, _N_THREADS))
        call(inner, given, thread, n_threads)
    inner.ret(_NULL)
    return start


def _field(builder: ir.IRBuilder, record: ir.Value, place: int) -> ir.Value:
    return builder.gep(record, [ir.Constant(INT32, 0), ir.Constant(INT32, place)])


def _store(builder: ir.IRBuilder, record: ir.Value, place: int, value: ir.Value) -> None:
    builder.store(value, _field(builder, record, place))


class _Posix:
    """Threads of POSIX's."""

    def start(self, builder: ir.IRBuilder, function: ir.Function, argument: ir.Value, ident: ir.Value) -> ir.Value:
        """Start a function of an address, and note the thread; returns whether that was possible."""
        kinds = INTP.as_pointer(), _ADDRESS, function.type, _ADDRESS
        create = declared(builder, "pthread_create", INT32, *kinds)
        failure = builder.call(create, [ident, _NULL, function, builder.bitcast(argument, _ADDRESS)])
        return builder.icmp_signed("==", failure, ir.Constant(INT32, 0))

    def keep_to(self, builder: ir.IRBuilder, ident: ir.Value, mask: ir.Value, n_words: ir.Value) -> None:
        """Keep a thread to some cores, if there is any word of them; where a sandbox forbids it, the system chooses.

        The thread could do it by itself, once it runs: 3 ms later, where it waits for the core of its caller.
        """

    def join(self, builder: ir.IRBuilder, ident: ir.Value) -> None:
        """Wait until a thread has ended."""
        join = declared(builder, "pthread_join", INT32, INTP, _ADDRESS)
        builder.call(join, [ident, _NULL])


class _Linux(_Posix):
    """Threads that can be kept to cores, and asked whether they have ended."""

    def keep_to(self, builder: ir.IRBuilder, ident: ir.Value, mask: ir.Value, n_words: ir.Value) -> None:
        keep = declared(builder, "pthread_setaffinity_np", INT32, INTP, INTP, mask.type)
        with builder.if_then(builder.icmp_signed(">", n_words, ir.Constant(INTP, 0))):
            builder.call(keep, [ident, builder.mul(n_words, ir.Constant(INTP, 8)), mask])

    def join(self, builder: ir.IRBuilder, ident: ir.Value) -> None:
        """Ask for a while: who sleeps until another one has ended wakes 14 us later."""
        ask = declared(builder, "pthread_tryjoin_np", INT32, INTP, _ADDRESS)
        answer = cgutils.alloca_once(builder, INT32)
        with cgutils.for_range(builder, ir.Constant(INTP, LOOKS)) as loop:
            builder.store(builder.call(ask, [ident, _NULL]), answer)
            is_busy = builder.icmp_signed("==", builder.load(answer), ir.Constant(INT32, _BUSY))
            with builder.if_then(builder.not_(is_busy)):
                loop.do_break()
            pause(builder)
        with builder.if_then(builder.icmp_signed("==", builder.load(answer), ir.Constant(INT32, _BUSY))):
            super().join(builder, ident)


class _Windows:
    """Threads of Windows."""

    def start(self, builder: ir.IRBuilder, function: ir.Function, argument: ir.Value, ident: ir.Value) -> ir.Value:
        """Start a function of an address, and note the thread; returns whether that was possible."""
        kinds = _ADDRESS, INTP, function.type, _ADDRESS, INT32, _ADDRESS
        create, no = declared(builder, "CreateThread", INTP, *kinds), ir.Constant(INTP, 0)
        given = [_NULL, no, function, builder.bitcast(argument, _ADDRESS), ir.Constant(INT32, 0), _NULL]
        handle = builder.call(create, given)
        builder.store(handle, ident)
        return builder.icmp_unsigned("!=", handle, no)

    def keep_to(self, builder: ir.IRBuilder, ident: ir.Value, mask: ir.Value, n_words: ir.Value) -> None:
        """Leave it to the system."""

    def join(self, builder: ir.IRBuilder, ident: ir.Value) -> None:
        """Wait until a thread has ended."""
        wait = declared(builder, "WaitForSingleObject", INT32, INTP, INT32)
        builder.call(wait, [ident, ir.Constant(INT32, -1)])
        builder.call(declared(builder, "CloseHandle", INT32, INTP), [ident])


_SYSTEM: Any = {"linux": _Linux, "win32": _Windows}.get(sys.platform, _Posix)()
