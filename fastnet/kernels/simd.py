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
from functools import cache, partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from fastnet.contract import VECTOR_BYTES

INT32 = ir.IntType(32)
INTP = ir.IntType(64)


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

    def __bool__(self) -> bool:
        raise TypeError("what is known only when the code runs cannot decide which code is emitted")

    def equals(self, other: Lanes | float) -> Lanes:
        """``self == other`` per lane; false for NaN."""
        return self._with(self.builder.fcmp_ordered("==", self.value, self.like(other)))

    def differs(self, other: Lanes | float) -> Lanes:
        """``self != other`` per lane; true for NaN."""
        return self._with(self.builder.fcmp_unordered("!=", self.value, self.like(other)))

    def bits(self) -> Lanes:
        """The same bits as integers."""
        return self._with(self.builder.bitcast(self.value, self.shaped(ir.IntType(self.width))))

    def floats(self) -> Lanes:
        """The same bits as floating-point numbers."""
        element = ir.FloatType() if self.width == 32 else ir.DoubleType()
        return self._with(self.builder.bitcast(self.value, self.shaped(element)))

    def integer_add(self, other: Lanes | int) -> Lanes:
        """Sum of integers, modulo 2^width."""
        return self._with(self.builder.add(self.value, self.like(other)))

    def integer_sub(self, other: Lanes | int) -> Lanes:
        """Difference of integers, modulo 2^width."""
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
    count = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    operands = [first.value, *(first.like(other) for other in others)]
    signature = ir.FunctionType(kind, [kind] * len(operands))
    function = cgutils.get_or_insert_function(first.builder.module, signature, f"llvm.{name}.{count}f{first.width}")
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


#: x86's comparisons to a vector of all or no bits, by bits and count of the lanes; and the one that is "not less".
_COMPARISONS = {(32, 4): "sse.cmp.ps", (64, 2): "sse2.cmp.pd", (32, 8): "avx.cmp.ps.256", (64, 4): "avx.cmp.pd.256"}
_NOT_LESS = 5


@cache
def _has_avx512() -> bool:
    """Whether there is AVX-512, for registers of any length; LLVM then puts what it compares into mask registers."""
    return "+avx512vl" in cpu_target.target_context.codegen().magic_tuple()[2]


def zero_below(x: Lanes, limit: float) -> Lanes:
    """x, or +0 where its magnitude is below a limit; NaN stays NaN.

    From a mask register a result takes some cycles longer than from a vector, which an epoch of a small network
    waits for twice (3-4-1: 300 us for 5001 epochs instead of 306).
    """
    magnitude, kind = absolute(x), x.value.type
    comparison = _COMPARISONS.get((x.width, kind.count)) if isinstance(kind, ir.VectorType) else None
    if comparison is None or not _has_avx512():
        return select(magnitude < limit, 0.0, x)
    code = ir.IntType(8)
    signature = ir.FunctionType(kind, [kind, kind, code])
    function = cgutils.get_or_insert_function(x.builder.module, signature, f"llvm.x86.{comparison}")
    kept = Lanes(x.builder, x.builder.call(function, [magnitude.value, x.constant(limit), code(_NOT_LESS)]))
    return (x.bits() & kept.bits()).floats()


def is_narrow(x: Lanes) -> bool:
    """Whether x is a vector shorter than a `Vector`: of a small network, in which all else waits for the result."""
    kind = x.value.type
    return isinstance(kind, ir.VectorType) and kind.count * x.width < 8 * VECTOR_BYTES


def has_scaling(x: Lanes) -> bool:
    """Whether the CPU has `scale_by_power` for values like x."""
    kind = x.value.type
    return _has_avx512() and isinstance(kind, ir.VectorType) and kind.count * x.width in (128, 256, 512)


def scale_by_power(x: Lanes, exponent: Lanes) -> Lanes:
    """x times 2 to the power of an integer, rounded once: IEEE 754's scaleB.

    On Zen 4 it does not take the ports of multiplications: with it exp took 0.81 (float32) and 0.86 of the time.
    """
    kind, mask = x.value.type, ir.IntType(max(8, x.value.type.count))
    bits = kind.count * x.width
    # In all lanes; of 512 bits also with the mode of rounding that the CPU is in.
    options = [ir.Constant(kind, ir.Undefined), mask(-1), *([INT32(4)] if bits == 512 else [])]
    arguments = [x.value, exponent.value, *options]
    signature = ir.FunctionType(kind, [argument.type for argument in arguments])
    name = f"llvm.x86.avx512.mask.scalef.p{'s' if x.width == 32 else 'd'}.{bits}"
    function = cgutils.get_or_insert_function(x.builder.module, signature, name)
    return Lanes(x.builder, x.builder.call(function, arguments))


def in_turn(formula: Callable[[Lanes], Lanes], *vectors: Lanes) -> tuple[Lanes, ...]:
    """The formula of some vectors, with an instruction of each in turn.

    A core looks only so far ahead for what does not wait. With four vectors, which takes AVX-512's 32 registers, exp,
    sigmoid and tanh of arrays take 0.89 to 0.94 of the time.
    """
    block, streams, values = vectors[0].builder.block, [], []
    first = begin = len(block.instructions)
    for x in vectors:
        values.append(formula(x))
        assert x.builder.block is block, "a formula has no branches"
        streams.append(block.instructions[begin:])
        begin = len(block.instructions)
    if _has_avx512():
        block.instructions[first:] = [one for turn in zip(*streams, strict=True) for one in turn]
    return tuple(values)


def switch(builder: ir.IRBuilder, code: ir.Value | int, cases: Mapping[int, Callable[[], Lanes]]) -> Lanes:
    """The value of the case whose key is ``code``: a branch, so that only one case is computed.

    The last case serves every other code. A code that is known leaves no branch.
    """
    if isinstance(code, int):
        return cases.get(code, cases[[*cases][-1]])()
    (value,) = switch_all(builder, code, {key: partial(_only, case) for key, case in cases.items()})
    return value


def _only(case: Callable[[], Lanes]) -> tuple[Lanes]:
    return (case(),)


def switch_all(
    builder: ir.IRBuilder, code: ir.Value, cases: Mapping[int, Callable[[], tuple[Lanes, ...]]]
) -> tuple[Lanes, ...]:
    """`switch` of cases with several values."""
    done = builder.append_basic_block("switch.done")
    blocks = {key: builder.append_basic_block(f"switch.{key}") for key in cases}
    branch = builder.switch(code, blocks[[*cases][-1]])
    incoming = []
    for key, block in blocks.items():
        branch.add_case(ir.Constant(code.type, key), block)
        builder.position_at_end(block)
        incoming.append((cases[key](), builder.block))
        builder.branch(done)
    builder.position_at_end(done)
    phis = [builder.phi(lanes.value.type) for lanes in incoming[0][0]]
    for values, block in incoming:
        for phi, lanes in zip(phis, values, strict=True):
            phi.add_incoming(lanes.value, block)
    return tuple(Lanes(builder, phi) for phi in phis)


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
        return Lanes(builder, broadcast(builder, value, target.lanes))
    return Lanes(builder, value)


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector of ``lanes`` times one scalar."""
    kind = ir.VectorType(value.type, lanes)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT32, 0))
    zeros = ir.Constant(ir.VectorType(INT32, lanes), [ir.Constant(INT32, 0)] * lanes)
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


@staged
def plus(a: Lanes, b: Lanes) -> Lanes:
    """a + b."""
    return a + b
