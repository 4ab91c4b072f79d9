"""How Python calls the kernels that the runtime loads: by a wrapper that needs nothing but Python and NumPy's arrays.

Numba's wrappers need Numba in memory, which takes longer to import than all else that a first fit does. These have the
same name and the same interface, so that Numba calls them, too. They take what they are given: whoever calls them looks
at types.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.np import arrayobj

from fastnet.kernels.simd import INT32, INTP

_OBJECT = ir.IntType(8).as_pointer()
_DOUBLE = ir.DoubleType()
_INT64 = ir.IntType(64)
#: Bytes before the fields of an object.
_HEAD = object.__basicsize__
#: Words of an array, after the head: NumPy's macros, compiled into all that uses its interface, read them there.
_DATA, _SHAPE, _STRIDES = 0, 2, 3


def add_wrapper(context: Any, library: Any, fndesc: Any) -> None:
    """Add to a library what Python calls, a C function of an object, the tuple of arguments, and keywords.

    Only the arguments matter to it.
    """
    module = context.create_module("fastnet_wrapper")
    kernel_type = context.call_conv.get_function_type(fndesc.restype, fndesc.argtypes)
    kernel = ir.Function(module, kernel_type, fndesc.llvm_func_name)
    function = ir.Function(module, ir.FunctionType(_OBJECT, [_OBJECT] * 3), fndesc.llvm_cpython_wrapper_name)
    builder = ir.IRBuilder(function.append_basic_block())
    _Wrapper(context, builder, function.args[1]).call(kernel, fndesc)
    library.add_ir_module(module)


class _Wrapper:
    """A wrapper in the middle of being emitted."""

    def __init__(self, context: Any, builder: ir.IRBuilder, arguments: ir.Value) -> None:
        self.context, self.builder, self.arguments = context, builder, arguments

    def call(self, kernel: ir.Function, fndesc: Any) -> None:
        """Unpack the arguments, call the kernel without the interpreter's lock, and return what it returns."""
        builder, kinds = self.builder, fndesc.argtypes
        items = self._items(fndesc.qualname, len(kinds))
        values = [self._value(kind, item) for kind, item in zip(kinds, items, strict=True)]
        with builder.if_then(cgutils.is_not_null(builder, self._python("PyErr_Occurred", _OBJECT)), likely=False):
            builder.ret(ir.Constant(_OBJECT, None))
        state = self._python("PyEval_SaveThread", _OBJECT)
        status, result = self.context.call_conv.call_function(builder, kernel, fndesc.restype, kinds, values)
        self._python("PyEval_RestoreThread", ir.VoidType(), state)
        with builder.if_then(status.is_error, likely=False):
            self._raise(status.excinfoptr)
        builder.ret(self._boxed(fndesc.restype, result))

    def _python(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call a function of Python's C interface; by names of its variables Numba means something else."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def _text(self, text: str) -> ir.Value:
        return self.context.insert_const_string(self.builder.module, text)

    def _items(self, name: str, count: int) -> list[ir.Value]:
        """So many arguments; others are refused."""
        builder, number = self.builder, ir.Constant(INTP, count)
        slots = [cgutils.alloca_once(builder, _OBJECT) for _ in range(count)]
        kind = ir.FunctionType(INT32, [_OBJECT, _OBJECT, INTP, INTP], var_arg=True)
        unpack = cgutils.get_or_insert_function(builder.module, kind, "PyArg_UnpackTuple")
        found = builder.call(unpack, [self.arguments, self._text(name), number, number, *slots])
        with builder.if_then(builder.icmp_signed("==", found, ir.Constant(INT32, 0)), likely=False):
            builder.ret(ir.Constant(_OBJECT, None))
        return [builder.load(slot) for slot in slots]

    def _value(self, kind: types.Type, item: ir.Value) -> ir.Value:
        """The kernel's value of a Python object."""
        builder = self.builder
        if isinstance(kind, types.Array):
            return self._array(kind, item)
        if isinstance(kind, types.BaseTuple):
            places = [ir.Constant(INTP, place) for place in range(len(kind))]
            fields = [self._python("PyTuple_GetItem", _OBJECT, item, place) for place in places]
            values = [self._value(of, field) for of, field in zip(kind, fields, strict=True)]
            return self.context.make_tuple(builder, kind, values)
        if isinstance(kind, types.Boolean):
            truth = self._python("PyObject_IsTrue", INT32, item)
            return builder.icmp_signed("!=", truth, ir.Constant(INT32, 0))
        if kind == types.int64:
            return self._python("PyLong_AsLongLong", _INT64, item)
        if kind == types.float64:
            return self._python("PyFloat_AsDouble", _DOUBLE, item)
        if isinstance(self.context.data_model_manager[kind], models.OpaqueModel):
            return self.context.get_dummy_value()
        raise TypeError(f"no kernel that the runtime loads can take {kind}")

    def _array(self, kind: types.Array, item: ir.Value) -> ir.Value:
        builder, words = self.builder, INTP.as_pointer()
        fields = builder.bitcast(builder.gep(item, [ir.Constant(INTP, _HEAD)]), words.as_pointer())

        def word(place: int) -> ir.Value:
            return builder.load(builder.gep(fields, [ir.Constant(INTP, place)]))

        def numbers(place: int) -> ir.Value:
            start = word(place)
            loaded = [builder.load(builder.gep(start, [ir.Constant(INTP, axis)])) for axis in range(kind.ndim)]
            return cgutils.pack_array(builder, loaded)

        array = self.context.make_array(kind)(self.context, builder)
        item_size = self.context.get_constant(types.intp, kind.dtype.bitwidth // 8)
        data = builder.bitcast(word(_DATA), array.data.type)
        arrayobj.populate_array(array, data, numbers(_SHAPE), numbers(_STRIDES), item_size, None)
        return array._getvalue()

    def _boxed(self, kind: types.Type, value: ir.Value) -> ir.Value:
        if isinstance(kind, types.Boolean):
            return self._python("PyBool_FromLong", _OBJECT, self.builder.zext(value, INTP))
        if kind == types.int64:
            return self._python("PyLong_FromLongLong", _OBJECT, value)
        raise TypeError(f"no kernel that the runtime loads can return {kind}")

    def _raise(self, information: ir.Value) -> None:
        """Raise what the kernel has raised, by `fastnet.runtime.errors.raise_pickled`."""
        builder = self.builder
        exception = builder.load(information)
        pickled, size = builder.extract_value(exception, 0), builder.extract_value(exception, 1)
        data = self._python("PyBytes_FromStringAndSize", _OBJECT, pickled, builder.sext(size, INTP))
        module = self._python("PyImport_ImportModule", _OBJECT, self._text("fastnet.runtime.errors"))
        name = self._python("PyUnicode_FromString", _OBJECT, self._text("raise_pickled"))
        kind = ir.FunctionType(_OBJECT, [_OBJECT] * 2, var_arg=True)
        call = cgutils.get_or_insert_function(builder.module, kind, "PyObject_CallMethodObjArgs")
        builder.ret(builder.call(call, [module, name, data, ir.Constant(_OBJECT, None)]))
