"""The vector type, and formulas staged into LLVM instructions.

A kernel file writes a formula once as a Python function over `Lanes`; `staged` makes an
intrinsic of it that jitted code calls with vectors or with scalars. The formula runs while
Numba lowers the caller and emits one instruction for each operation, in the order written,
with no fast-math flag: what is added to what, and what is fused, stands in the source.
Staging also keeps the formulas out of type inference, which is where compile time goes.

A `Vector` is 64 bytes on every CPU (8 float64 or 16 float32). LLVM splits it into the
registers that the CPU has; lanes never meet, so the results do not depend on the split.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

from fastnet.contract import VECTOR_BYTES

_INT32 = ir.IntType(32)
_INTP = ir.IntType(64)
_BOOL = ir.IntType(1)


class Vector(types.Type):
    """Numba type of ``lanes`` elements of ``element`` in one LLVM vector."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.lanes = VECTOR_BYTES * 8 // element.bitwidth
        super().__init__(name=f"Vector({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


class Lanes:
    """An LLVM value, vector or scalar, whose operators emit instructions.

    Numbers on the other side of an operator are rounded to the element type and broadcast.
    """

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    @property
    def element(self) -> ir.Type:
        """The LLVM type of one lane."""
        return self.value.type.element if isinstance(self.value.type, ir.VectorType) else self.value.type

    @property
    def width(self) -> int:
        """Bits of one lane."""
        if isinstance(self.element, ir.IntType):
            return int(self.element.width)
        return 32 if isinstance(self.element, ir.FloatType) else 64

    def shaped(self, element: ir.Type) -> ir.Type:
        """The type with as many lanes as this value and another element."""
        if isinstance(self.value.type, ir.VectorType):
            return ir.VectorType(element, self.value.type.count)
        return element

    def constant(self, number: float) -> ir.Constant:
        """``number`` in every lane."""
        element = self.element
        if isinstance(element, ir.FloatType):
            number = float(np.float32(number))
        if isinstance(self.value.type, ir.VectorType):
            return ir.Constant(self.value.type, [ir.Constant(element, number)] * self.value.type.count)
        return ir.Constant(element, number)

    def constant_bits(self, number: float) -> Lanes:
        """The bits of ``number`` in every lane."""
        return Lanes(self.builder, self.constant(number)).bits()

    def like(self, other: Lanes | float) -> ir.Value:
        """``other`` as a value of this one's type."""
        return other.value if isinstance(other, Lanes) else self.constant(other)

    def _with(self, value: ir.Value) -> Lanes:
        return Lanes(self.builder, value)

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fadd(self.value, self.like(other)))

    def __radd__(self, other: float) -> Lanes:
        return self._with(self.builder.fadd(self.like(other), self.value))

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fsub(self.value, self.like(other)))

    def __rsub__(self, other: float) -> Lanes:
        return self._with(self.builder.fsub(self.like(other), self.value))

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fmul(self.value, self.like(other)))

    def __rmul__(self, other: float) -> Lanes:
        return self._with(self.builder.fmul(self.like(other), self.value))

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fdiv(self.value, self.like(other)))

    def __rtruediv__(self, other: float) -> Lanes:
        return self._with(self.builder.fdiv(self.like(other), self.value))

    def __neg__(self) -> Lanes:
        return self._with(self.builder.fneg(self.value))

    def __lt__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fcmp_ordered("<", self.value, self.like(other)))

    def __gt__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fcmp_ordered(">", self.value, self.like(other)))

    def __le__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fcmp_ordered("<=", self.value, self.like(other)))

    def equals(self, other: Lanes | float) -> Lanes:
        """``self == other`` per lane; false for NaN."""
        return self._with(self.builder.fcmp_ordered("==", self.value, self.like(other)))

    def bits(self) -> Lanes:
        """The same bits as integers."""
        return self._with(self.builder.bitcast(self.value, self.shaped(ir.IntType(self.width))))

    def floats(self) -> Lanes:
        """The same bits as floating-point numbers."""
        element = ir.FloatType() if self.width == 32 else ir.DoubleType()
        return self._with(self.builder.bitcast(self.value, self.shaped(element)))

    def integer_add(self, other: Lanes | int) -> Lanes:
        return self._with(self.builder.add(self.value, self.like(other)))

    def integer_sub(self, other: Lanes | int) -> Lanes:
        return self._with(self.builder.sub(self.value, self.like(other)))

    def __and__(self, other: Lanes | int) -> Lanes:
        return self._with(self.builder.and_(self.value, self.like(other)))

    def __or__(self, other: Lanes | int) -> Lanes:
        return self._with(self.builder.or_(self.value, self.like(other)))

    def __lshift__(self, count: int) -> Lanes:
        return self._with(self.builder.shl(self.value, self.like(count)))

    def __rshift__(self, count: int) -> Lanes:
        """Logical shift."""
        return self._with(self.builder.lshr(self.value, self.like(count)))


def _call(name: str, first: Lanes, *others: Lanes | float) -> Lanes:
    """Call the LLVM intrinsic ``name`` on values of one type; `declare_intrinsic` knows no vectors."""
    kind = first.value.type
    if isinstance(kind, ir.VectorType):
        suffix = f"v{kind.count}f{first.width}"
    else:
        suffix = f"f{first.width}"
    operands = [first.value, *(first.like(other) for other in others)]
    signature = ir.FunctionType(kind, [kind] * len(operands))
    function = cgutils.get_or_insert_function(first.builder.module, signature, f"llvm.{name}.{suffix}")
    return Lanes(first.builder, first.builder.call(function, operands))


def fma(a: Lanes, b: Lanes | float, c: Lanes | float) -> Lanes:
    """a * b + c, rounded once."""
    return _call("fma", a, b, c)


def sqrt(a: Lanes) -> Lanes:
    """Square root, correctly rounded."""
    return _call("sqrt", a)


def absolute(a: Lanes) -> Lanes:
    """a without its sign bit."""
    return _call("fabs", a)


def copysign(a: Lanes, sign: Lanes) -> Lanes:
    """a with the sign bit of ``sign``."""
    return _call("copysign", a, sign)


def select(condition: Lanes, yes: Lanes | float, no: Lanes | float) -> Lanes:
    """``yes`` where ``condition`` holds, else ``no``; one of the two is a `Lanes`."""
    model = yes if isinstance(yes, Lanes) else no
    assert isinstance(model, Lanes)
    chosen = model.builder.select(condition.value, model.like(yes), model.like(no))
    return Lanes(model.builder, chosen)


def switch(
    builder: ir.IRBuilder, code: ir.Value, cases: Mapping[int, Callable[[], Lanes | tuple[Lanes, ...]]]
) -> Lanes | tuple[Lanes, ...]:
    """The values of the case whose key is ``code``: a branch, so that only one case is computed.

    The last case serves every other code.
    """
    keys = list(cases)
    done = builder.append_basic_block("switch.done")
    blocks = [builder.append_basic_block(f"switch.{key}") for key in keys]
    branch = builder.switch(code, blocks[-1])
    incoming = []
    for key, block in zip(keys, blocks, strict=True):
        branch.add_case(ir.Constant(code.type, key), block)
        builder.position_at_end(block)
        results = cases[key]()
        incoming.append((results if isinstance(results, tuple) else (results,), builder.block))
        builder.branch(done)
    builder.position_at_end(done)
    merged = []
    for index, first in enumerate(incoming[0][0]):
        phi = builder.phi(first.value.type)
        for results, block in incoming:
            phi.add_incoming(results[index].value, block)
        merged.append(Lanes(builder, phi))
    return merged[0] if len(merged) == 1 else tuple(merged)


def _as_lanes(builder: ir.IRBuilder, kind: types.Type, value: ir.Value, target: types.Type) -> Lanes:
    """A jitted argument in the lanes of ``target``: scalars are rounded to its element and broadcast."""
    if isinstance(kind, Vector):
        return Lanes(builder, value)
    element = target.element if isinstance(target, Vector) else target
    if kind.bitwidth > element.bitwidth:
        value = builder.fptrunc(value, ir.FloatType())
    elif kind.bitwidth < element.bitwidth:
        value = builder.fpext(value, ir.DoubleType())
    if isinstance(target, Vector):
        return Lanes(builder, _splat(builder, value, target.lanes))
    return Lanes(builder, value)


def _splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(value.type, lanes)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [ir.Constant(_INT32, 0)] * lanes)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


def staged(formula: Callable[..., Any]) -> Any:
    """Make ``formula`` callable from jitted code.

    Floating-point arguments (vectors, or scalars when there is no vector among them) reach the
    formula as `Lanes` of one type, that of the first vector or else of the first scalar; integer
    arguments reach it as LLVM values, to be given to `switch`. The formula returns `Lanes`, or a
    tuple of them.
    """

    def emit(typing_context: Any, *arguments: types.Type) -> Any:
        floats = [kind for kind in arguments if isinstance(kind, (Vector, types.Float))]
        vectors = [kind for kind in floats if isinstance(kind, Vector)]
        target = (vectors or floats)[0]
        n_results = getattr(formula, "n_results", 1)
        result = target if n_results == 1 else types.UniTuple(target, n_results)
        plain = tuple(types.intp if isinstance(kind, types.Integer) else kind for kind in arguments)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            operands = [
                _as_lanes(builder, kind, value, target) if kind in floats else value
                for kind, value in zip(signature.args, values, strict=True)
            ]
            results = formula(*operands)
            if n_results == 1:
                return results.value
            return context.make_tuple(builder, signature.return_type, [lanes.value for lanes in results])

        return result(*plain), codegen

    context = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(formula).parameters.values()
    emit.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    emit.__name__ = formula.__name__
    emit.__doc__ = formula.__doc__
    emit.__module__ = formula.__module__
    function = intrinsic(emit)
    function.formula = formula
    return function


def results(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare that a formula for `staged` returns ``count`` values."""

    def declare(formula: Callable[..., Any]) -> Callable[..., Any]:
        formula.n_results = count  # type: ignore[attr-defined]
        return formula

    return declare


class Tile(types.Type):
    """Numba type of ``rows`` x ``vectors`` vectors that live in registers: the sums of a micro-kernel."""

    def __init__(self, vector: Vector, rows: int, vectors: int) -> None:
        self.vector = vector
        self.rows = rows
        self.vectors = vectors
        super().__init__(name=f"Tile({vector}, {rows}, {vectors})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        vector = manager.lookup(tile.vector).get_value_type()
        super().__init__(manager, tile, ir.ArrayType(vector, tile.rows * tile.vectors))


@intrinsic
def pointer(typing_context, array):  # type: ignore[no-untyped-def]
    """Address of a C-contiguous array's first element.

    Kernels hand pointers on, not arrays: an array's reference count is an atomic operation at each
    call, which took 1600 ns of an epoch that takes 160 without. The array must outlive the pointer
    (see `keep`).
    """
    if array.layout != "C":
        raise TypingError("a kernel needs a C-contiguous array")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def keep(typing_context, array):  # type: ignore[no-untyped-def]
    """Hold an array until here, past the last use of a pointer into it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.get_dummy_value()

    return types.none(array), codegen


@intrinsic
def lanes_of(typing_context, pointer):  # type: ignore[no-untyped-def]
    """Lanes in a vector of the pointer's dtype."""
    lanes = Vector(pointer.dtype).lanes

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(_INTP, lanes)

    return types.intp(pointer), codegen


def _load(builder: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Load with the alignment of an element, since rows of a user's array lie anywhere."""
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=VECTOR_BYTES // vector.count)


def _store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    target = builder.bitcast(pointer, value.type.as_pointer())
    builder.store(value, target, align=VECTOR_BYTES // value.type.count)


@intrinsic
def load(typing_context, pointer, index):  # type: ignore[no-untyped-def]
    """The vector that begins ``index`` elements on."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        return _load(builder, pointer, context.get_value_type(vector))

    return vector(pointer, types.intp), codegen


@intrinsic
def store(typing_context, pointer, index, value):  # type: ignore[no-untyped-def]
    """Store a vector ``index`` elements on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        pointer = builder.gep(values[0], [values[1]])
        _store(builder, values[2], pointer)
        return context.get_dummy_value()

    return types.none(pointer, types.intp, value), codegen


@intrinsic
def splat(typing_context, pointer, value):  # type: ignore[no-untyped-def]
    """A scalar, rounded to the pointer's dtype, in every lane."""
    vector = Vector(pointer.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        number = context.cast(builder, values[1], signature.args[1], pointer.dtype)
        return _splat(builder, number, vector.lanes)

    return vector(pointer, value), codegen


@intrinsic
def keep_first(typing_context, vector, count):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes, and +0 in the others."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        lanes = vector.lanes
        positions = ir.Constant(ir.VectorType(_INTP, lanes), [ir.Constant(_INTP, lane) for lane in range(lanes)])
        kept = builder.icmp_signed("<", positions, _splat(builder, values[1], lanes))
        x = Lanes(builder, values[0])
        return builder.select(kept, x.value, x.constant(0.0))

    return vector(vector, types.intp), codegen


@intrinsic
def all_zero(typing_context, vector):  # type: ignore[no-untyped-def]
    """Whether every lane is a zero of either sign; NaN is not."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        x = Lanes(builder, values[0])
        mask = builder.fcmp_unordered("!=", x.value, x.constant(0.0))
        word = ir.IntType(vector.lanes)
        return builder.icmp_unsigned("==", builder.bitcast(mask, word), ir.Constant(word, 0))

    return types.boolean(vector), codegen


def _tile_of(pointer: types.CPointer, rows: Any, vectors: Any) -> Tile:
    return Tile(Vector(pointer.dtype), rows.literal_value, vectors.literal_value)


@intrinsic(prefer_literal=True)
def tile_zero(typing_context, pointer, rows, vectors):  # type: ignore[no-untyped-def]
    """A tile of +0; ``rows`` and ``vectors`` are literals."""
    tile = _tile_of(pointer, rows, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(pointer, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def tile_broadcast(typing_context, pointer, index, rows, vectors):  # type: ignore[no-untyped-def]
    """A tile whose rows are all the vectors that begin at ``index``."""
    tile = _tile_of(pointer, rows, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        vector = context.get_value_type(tile.vector)
        start = builder.gep(values[0], [values[1]])
        result = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for column in range(tile.vectors):
            offset = ir.Constant(_INTP, column * tile.vector.lanes)
            row_vector = _load(builder, builder.gep(start, [offset]), vector)
            for row in range(tile.rows):
                result = builder.insert_value(result, row_vector, row * tile.vectors + column)
        return result

    return tile(pointer, types.intp, rows, vectors), codegen


@intrinsic
def tile_fma(typing_context, tile, a, a_index, a_row, b, b_index):  # type: ignore[no-untyped-def]
    """Add to each row r of a tile the product of a[a_index + r a_row] and the vectors at b[b_index]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        result, a_value, a_first, row_step, b_value, b_first = values
        vector = context.get_value_type(tile.vector)
        b_start = builder.gep(b_value, [b_first])
        columns = [
            _load(builder, builder.gep(b_start, [ir.Constant(_INTP, column * tile.vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        a_pointer = builder.gep(a_value, [a_first])
        for row in range(tile.rows):
            broadcast = Lanes(builder, _splat(builder, builder.load(a_pointer), tile.vector.lanes))
            for column, right in enumerate(columns):
                position = row * tile.vectors + column
                total = Lanes(builder, builder.extract_value(result, position))
                joined = fma(broadcast, Lanes(builder, right), total)
                result = builder.insert_value(result, joined.value, position)
            a_pointer = builder.gep(a_pointer, [row_step])
        return result

    return tile(tile, a, types.intp, types.intp, b, types.intp), codegen


@intrinsic
def tile_store(typing_context, tile, pointer, index, row_step, add):  # type: ignore[no-untyped-def]
    """Store a tile's rows ``row_step`` apart, or add them to what is there."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        value, array_value, first, step, is_added = values
        vector = context.get_value_type(tile.vector)
        pointer = builder.gep(array_value, [first])
        for row in range(tile.rows):
            for column in range(tile.vectors):
                target = builder.gep(pointer, [ir.Constant(_INTP, column * tile.vector.lanes)])
                total = builder.extract_value(value, row * tile.vectors + column)
                with builder.if_else(is_added) as (yes, no):
                    with yes:
                        _store(builder, builder.fadd(_load(builder, target, vector), total), target)
                    with no:
                        _store(builder, total, target)
            pointer = builder.gep(pointer, [step])
        return context.get_dummy_value()

    return types.none(tile, pointer, types.intp, types.intp, types.boolean), codegen


@staged
def plus(a: Lanes, b: Lanes) -> Lanes:
    """a + b."""
    return a + b
