"""Formulas over spans of memory: where a code chooses the formula, a loop for each code.

A branch for each vector inside one loop took 3 ns of a relu's 4 on some machines. The loops are emitted whole and
shared by all that calls them, like the tiles of `fastnet.kernels.tiles`. Lanes run across the elements.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.kernels.memory import align_stack, load_vector, store_vector
from fastnet.kernels.simd import INTP, Lanes, Vector
from fastnet.kernels.tiles import shared_function


def spanned(formula: Callable[..., Lanes], codes: Iterable[int]) -> Any:
    """Make a formula, whose first argument is a code, callable from jitted code on whole vectors in memory.

    The function takes the code, a pointer, the number of elements, and positions: of the results, and of the formula's
    other arguments. A code that is none of ``codes`` stands for the last one.
    """
    every_code = tuple(codes)
    names = [f"source_{number}" for number in range(len(inspect.signature(formula).parameters) - 1)]

    def emit(typing_context: Any, code: types.Type, data: types.Type, size: types.Type, *places: types.Type) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            vector = context.get_value_type(Vector(data.dtype))
            which, base, length, *positions = values
            pointers = [builder.gep(base, [position]) for position in positions]
            builder.call(_loops(builder.module, vector, formula, every_code, len(names)), [which, length, *pointers])
            return context.get_dummy_value()

        return types.none(types.intp, data, types.intp, *[types.intp] * (1 + len(names))), codegen

    parameters = ["typing_context", "code", "data", "size", "target", *names]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    emit.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in parameters])  # type: ignore[attr-defined]
    emit.__name__, emit.__module__ = formula.__name__, formula.__module__
    function = intrinsic(emit)
    function.formula_of_span = formula
    return function


def _loops(
    module: ir.Module, vector: ir.VectorType, formula: Callable[..., Lanes], codes: tuple[int, ...], n_sources: int
) -> ir.Function:
    pointer = vector.element.as_pointer()
    name = f"fastnet.span.{formula.__name__}.{vector.count}"
    function, is_new = shared_function(module, name, [INTP, INTP, *[pointer] * (1 + n_sources)])
    if not is_new:
        return function
    # Constants of some formulas do not fit into the registers.
    align_stack(function)
    code, size, *pointers = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    end = function.append_basic_block("end")
    blocks = {key: function.append_basic_block(f"span.{key}") for key in codes}
    chosen = function.append_basic_block("chosen")
    builder.cbranch(builder.icmp_signed(">", size, ir.Constant(INTP, 0)), chosen, end)
    builder.position_at_end(chosen)
    branch = builder.switch(code, blocks[codes[-1]])
    for key, block in blocks.items():
        if key != codes[-1]:
            branch.add_case(ir.Constant(INTP, key), block)
        builder.position_at_end(block)
        index = builder.phi(INTP)
        index.add_incoming(ir.Constant(INTP, 0), chosen)
        target, *sources = (builder.gep(start, [index]) for start in pointers)
        arguments = [Lanes(builder, load_vector(builder, source, vector)) for source in sources]
        store_vector(builder, formula(key, *arguments).value, target)
        following = builder.add(index, ir.Constant(INTP, vector.count))
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, size), block, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function
