"""What kernels on arrays refuse: arrays of other types when they are compiled, other sizes when they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import CPUCallConv
from numba.extending import intrinsic

_POINTER = ir.IntType(8).as_pointer()
_NAMES = {None: "array", 1: "vector", 2: "matrix"}


class ArgumentError(ValueError):
    """What a kernel refuses when it runs.

    The numbers go into the text when somebody reads it: jitted code that makes text takes a second to compile.

    Parameters
    ----------
    text : str
        What is allowed, with a place for each number.
    *numbers : int

    Examples
    --------
    >>> print(ArgumentError("b must have {} rows; got {}", 3, 2))
    b must have 3 rows; got 2
    """

    def __str__(self) -> str:
        text, *numbers = self.args
        return str(text).format(*numbers)


class _Raising(CPUCallConv):
    """Numba's way to raise what has numbers in it, but that helpers can: Numba does not find what they have kept."""

    def emit_unwrap_dynamic_exception_fn(self, module: Any, struct: Any, kinds: Any) -> Any:
        """A function of a pointer to integers, which are freed; it returns a tuple of Python's."""
        name = f"fastnet_integers_{len(struct.elements)}"
        if name in module.globals:
            return module.globals[name]
        function = ir.Function(module, ir.FunctionType(_POINTER, [_POINTER]), name)
        function.linkage = "linkonce_odr"
        builder = ir.IRBuilder(function.append_basic_block())
        python, memory = self.context.get_python_api(builder), function.args[0]
        values = builder.load(builder.bitcast(memory, struct.as_pointer()))
        integers = [
            python.long_from_longlong(builder.extract_value(values, place)) for place in range(len(struct.elements))
        ]
        self.context.nrt.free(builder, memory)
        result = python.tuple_pack(integers)
        for integer in integers:
            python.decref(integer)
        builder.ret(result)
        return function


@intrinsic(prefer_literal=True)
def require(typing_context, fits, text, values):
    """Raise an `ArgumentError` unless something fits, of a literal text and a tuple of integers and shapes."""
    shown = text.literal_value.format(*map(_place, values))

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        with builder.if_then(builder.not_(arguments[0]), likely=False):
            integers = list(_integers(context, builder, values, arguments[2]))
            kinds = [types.int64] * len(integers)
            _Raising(context).return_dynamic_user_exc(builder, ArgumentError, (shown, *integers), (None, *kinds))
        return context.get_dummy_value()

    return types.none(types.boolean, text, values), codegen


def _place(kind: types.Type) -> str:
    """Where a text has an integer, or a shape."""
    return str(tuple(map(_place, kind))).replace("'", "") if isinstance(kind, types.BaseTuple) else "{}"


def _integers(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> Iterator[ir.Value]:
    if isinstance(kind, types.BaseTuple):
        for of, item in zip(kind, cgutils.unpack_tuple(builder, value), strict=True):
            yield from _integers(context, builder, of, item)
    else:
        yield context.cast(builder, value, kind, types.int64)


def _words(*words: str) -> str:
    """A noun and what goes before it, with an article."""
    text = " ".join(filter(None, words))
    return f"{'an' if text.startswith('a') else 'a'} {text}"


def _described(kind: types.Type) -> str:
    if isinstance(kind, types.Array):
        words = "" if kind.mutable else "read-only", "C-contiguous" if kind.layout == "C" else ""
        return _words(*words, f"array of {kind.dtype} with {kind.ndim} {'axis' if kind.ndim == 1 else 'axes'}")
    return "a list" if isinstance(kind, types.List) else str(kind)


def _check(*any_of: types.Type, contiguous: bool = False, writable: bool = False) -> Any:
    """A function that refuses, when a kernel is compiled, what is no array of so many axes and of the dtype of another.

    It is called with the argument's name, the argument, the number of axes, and the other array. None stands for any
    number, and for any of the dtypes.
    """

    def typing(typing_context: Any, name: Any, array: Any, n_axes: Any, like: Any) -> Any:
        dtypes = (like.dtype,) if isinstance(like, types.Array) else any_of
        axes = getattr(n_axes, "literal_value", None)
        fits = (
            isinstance(array, types.Array)
            and array.dtype in dtypes
            and axes in (None, array.ndim)
            and (array.layout == "C" or not contiguous)
            and (array.mutable or not writable)
        )
        if not fits:
            noun = _NAMES.get(axes, f"array of {axes} axes")
            words = "writable" if writable else "", "C-contiguous" if contiguous else "", noun
            allowed = f"{_words(*words)} of {' or '.join(map(str, dtypes))}"
            raise TypeError(f"{name.literal_value} must be {allowed}; got {_described(array)}")

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            return context.get_dummy_value()

        return types.none(name, array, n_axes, like), codegen

    return intrinsic(prefer_literal=True)(typing)


# By dtype, and by what a kernel does with the array: plain ones it reaches by pointers, writable ones it changes.
_REALS = types.float32, types.float64
check_array = _check(*_REALS)
check_plain = _check(*_REALS, contiguous=True)
check_writable = _check(*_REALS, writable=True)
check_plain_writable = _check(*_REALS, contiguous=True, writable=True)
check_int64 = _check(types.int64, contiguous=True)
check_float64 = _check(types.float64, contiguous=True)
check_writable_int64 = _check(types.int64, contiguous=True, writable=True)
check_writable_float64 = _check(types.float64, contiguous=True, writable=True)
