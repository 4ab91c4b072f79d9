"""How Python calls kernels: by wrappers that need nothing but Python and NumPy's arrays.

Numba's wrappers need Numba in memory, which takes longer to import than all else that a first fit does. And to look at
types, to make an array of a result and to hand that to Python takes Numba 0.6 us, more than exp of 2048 float32. These
have the same names, and those of the kernels that the runtime loads the same interface, so that Numba calls them, too.
They take what they are given: whoever calls them looks at types.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.np import arrayobj

from fastnet.kernels.signatures import SCALARS
from fastnet.kernels.simd import INT32, INTP

_OBJECT = ir.IntType(8).as_pointer()
_DOUBLE = ir.DoubleType()
_INT64 = ir.IntType(64)
#: Bytes before the fields of an object.
_HEAD = object.__basicsize__
_WORD = ctypes.sizeof(ctypes.c_void_p)
#: Words of an array, after the head: NumPy's macros, compiled into all that uses its interface, read them there.
_DATA, _N_AXES, _SHAPE, _STRIDES, _DESCRIPTOR, _FLAGS = 0, 1, 2, 3, 5, 6
#: Flags of an array of rows one after another, at addresses that are multiples of the size of an element.
_PLAIN = 0x0001 | 0x0100
#: Elements from which other Python threads may run meanwhile: to let them takes as long as some 200, and fewer than
#: this take some 10 us.
_RELEASED_FROM = 1 << 14

#: Names by which wrappers know NumPy's class of arrays, its dtypes and its function `PyArray_NewLikeArray`, and the
#: place of that in the table with which all is compiled that uses NumPy's interface.
_ARRAY_CLASS, _DTYPE, _NEW_LIKE, _NEW_LIKE_PLACE = "fastnet_array_class", "fastnet_", "fastnet_new_like_array", 277


@cache
def finds_numpy() -> bool:
    """Let LLVM find them, before what `add_filling_wrapper` makes is compiled or loaded; whether it is possible."""
    try:
        capsule = import_module("numpy._core._multiarray_umath")._ARRAY_API
    except (ImportError, AttributeError):
        return False
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = (ctypes.c_void_p * (_NEW_LIKE_PLACE + 1)).from_address(pointer_of(capsule, None))
    llvm.add_symbol(_NEW_LIKE, table[_NEW_LIKE_PLACE])
    llvm.add_symbol(_ARRAY_CLASS, id(np.ndarray))
    for name in SCALARS:
        llvm.add_symbol(_DTYPE + name, id(np.dtype(name)))
    return True


def add_wrapper(context: Any, library: Any, fndesc: Any) -> None:
    """Add to a library what Python calls, a C function of an object, the tuple of arguments, and keywords.

    Only the arguments matter to it.
    """
    _add(_Wrapper, 3, context, library, fndesc)


def add_filling_wrapper(context: Any, library: Any, fndesc: Any) -> None:
    """Add to a library what Python calls of a kernel that fills memory: a C function of two objects.

    The second one is an array, of whose shape a new one is returned. What is no plain array of the kernel's dtype the
    first one is called with, in its place. The kernel takes two pointers and the number of elements.
    """
    _add(_FillingWrapper, 2, context, library, fndesc)


def _add(kind: type[_Wrapper], n_objects: int, context: Any, library: Any, fndesc: Any) -> None:
    module = context.create_module("fastnet_wrapper")
    kernel_type = context.call_conv.get_function_type(fndesc.restype, fndesc.argtypes)
    kernel = ir.Function(module, kernel_type, fndesc.llvm_func_name)
    function = ir.Function(module, ir.FunctionType(_OBJECT, [_OBJECT] * n_objects), fndesc.llvm_cpython_wrapper_name)
    builder = ir.IRBuilder(function.append_basic_block())
    kind(context, builder, *function.args[:2]).call(kernel, fndesc)
    library.add_ir_module(module)


class _Wrapper:
    """A wrapper in the middle of being emitted."""

    def __init__(self, context: Any, builder: ir.IRBuilder, of: ir.Value, given: ir.Value) -> None:
        self.context, self.builder, self.of, self.given = context, builder, of, given

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
        # Kernels of the runtime raise nothing: arrays are looked at before they get there.
        with builder.if_then(status.is_error, likely=False):
            self._python("PyErr_BadInternalCall", ir.VoidType())
            builder.ret(ir.Constant(_OBJECT, None))
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
        found = builder.call(unpack, [self.given, self._text(name), number, number, *slots])
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

    def _field(self, item: ir.Value, place: int, kind: ir.Type) -> ir.Value:
        """A field of an array."""
        builder = self.builder
        fields = builder.gep(item, [ir.Constant(INTP, _HEAD + place * _WORD)])
        return builder.load(builder.bitcast(fields, kind.as_pointer()))

    def _array(self, kind: types.Array, item: ir.Value) -> ir.Value:
        builder = self.builder

        def numbers(place: int) -> ir.Value:
            start = self._field(item, place, INTP.as_pointer())
            loaded = [builder.load(builder.gep(start, [ir.Constant(INTP, axis)])) for axis in range(kind.ndim)]
            return cgutils.pack_array(builder, loaded)

        array = self.context.make_array(kind)(self.context, builder)
        item_size = self.context.get_constant(types.intp, kind.dtype.bitwidth // 8)
        data = self._field(item, _DATA, array.data.type)
        arrayobj.populate_array(array, data, numbers(_SHAPE), numbers(_STRIDES), item_size, None)
        return array._getvalue()

    def _boxed(self, kind: types.Type, value: ir.Value) -> ir.Value:
        if isinstance(kind, types.Boolean):
            return self._python("PyBool_FromLong", _OBJECT, self.builder.zext(value, INTP))
        if kind == types.int64:
            return self._python("PyLong_FromLongLong", _OBJECT, value)
        raise TypeError(f"no kernel that the runtime loads can return {kind}")


class _FillingWrapper(_Wrapper):
    """A wrapper that makes the kernel's result."""

    def call(self, kernel: ir.Function, fndesc: Any) -> None:
        """Make an array, let the kernel fill it, and return it."""
        builder, (values, results, integer) = self.builder, fndesc.argtypes
        item = self.given
        with builder.if_then(builder.not_(self._is_plain(item, values.dtype)), likely=False):
            builder.ret(self._python("PyObject_CallOneArg", _OBJECT, self.of, item))
        nothing, no = ir.Constant(_OBJECT, None), ir.Constant(INT32, 0)
        # In C's order, of the same dtype, and of no other class.
        result = self._python(_NEW_LIKE, _OBJECT, item, no, nothing, no)
        with builder.if_then(builder.icmp_unsigned("==", result, nothing), likely=False):
            builder.ret(nothing)
        size = self._size(item)
        state = cgutils.alloca_once_value(builder, nothing)
        with builder.if_then(builder.icmp_signed(">=", size, ir.Constant(INTP, _RELEASED_FROM))):
            builder.store(self._python("PyEval_SaveThread", _OBJECT), state)
        memory = [
            self._field(array, _DATA, self.context.get_value_type(kind))
            for array, kind in ((item, values), (result, results))
        ]
        arguments = [*memory, size]
        self.context.call_conv.call_function(builder, kernel, fndesc.restype, (values, results, integer), arguments)
        with builder.if_then(builder.icmp_unsigned("!=", builder.load(state), nothing)):
            self._python("PyEval_RestoreThread", ir.VoidType(), builder.load(state))
        builder.ret(result)

    def _is_plain(self, item: ir.Value, kind: types.Type) -> ir.Value:
        """Whether it is an array of a dtype, and of no derived class, that lies in memory as kernels want it."""
        builder = self.builder
        # The class is the last thing in an object's head.
        is_array = self._is(self._field(item, -1, _OBJECT), _ARRAY_CLASS)
        result = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(1), 0))
        with builder.if_then(is_array):
            has_dtype = self._is(self._field(item, _DESCRIPTOR, _OBJECT), f"{_DTYPE}{kind}")
            flags = builder.and_(self._field(item, _FLAGS, INT32), ir.Constant(INT32, _PLAIN))
            is_plain = builder.icmp_unsigned("==", flags, ir.Constant(INT32, _PLAIN))
            builder.store(builder.and_(has_dtype, is_plain), result)
        return builder.load(result)

    def _is(self, item: ir.Value, name: str) -> ir.Value:
        """Whether it is the object that LLVM knows by a name."""
        known = cgutils.add_global_variable(self.builder.module, ir.IntType(8), name)
        return self.builder.icmp_unsigned("==", item, known)

    def _size(self, item: ir.Value) -> ir.Value:
        """The number of elements."""
        builder, shape = self.builder, self._field(item, _SHAPE, INTP.as_pointer())
        size = cgutils.alloca_once_value(builder, ir.Constant(INTP, 1))
        n_axes = builder.sext(self._field(item, _N_AXES, INT32), INTP)
        with cgutils.for_range(builder, n_axes) as loop:
            length = builder.load(builder.gep(shape, [loop.index]))
            builder.store(builder.mul(builder.load(size), length), size)
        return builder.load(size)
