"""How much work the parts of a step are at least: multiplications and additions, and bytes in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.kernels.formulas import arithmetic, optimizers
from fastnet.kernels.simd import Lanes
from fastnet.testing.cases import Case

#: Arguments of `fastnet.kernels.formulas.optimizers.adam`, and of `penalised`.
_ADAM, _PENALISED = 11, 4
#: Bytes of a row's number.
_INDEX = 8


@dataclass(frozen=True)
class Work:
    """What a part does in a step.

    Attributes
    ----------
    flops : int
        Multiplications, additions, divisions and square roots; an fma is two.
    n_bytes : int
        Its inputs, read once, and its outputs, written once, wherever they lie.
    """

    flops: int
    n_bytes: int


def works_of(case: Case) -> dict[str, Work]:
    """The work of each part of `fastnet.bench.part_kernel.PARTS`, for a whole batch.

    Padding is not counted. The products' flops are those of `fastnet.bench.workloads.Training`; others are counted
    in the formulas that the kernels are made of.

    Parameters
    ----------
    case : Case
        A classifier with relu, softmax, biases and Adam, and batches of one block.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    known = case.loss == "cross_entropy" and case.activation == "relu" and case.output_activation == "softmax"
    if not known or type(case.settings["optimizer"]).__name__ != "Adam" or case.batch_size is None:
        raise ValueError(f"the work is known of classifiers with relu, softmax and Adam; got {case}")
    n, (n_inputs, *units) = case.batch_size, case.layer_sizes
    hidden, outputs = n * sum(units[:-1]), n * units[-1]
    products = [a * b for a, b in pairwise(case.layer_sizes)]
    n_parameters = sum(products) + sum(units)
    batch = n * n_inputs
    exp, log = flops_of(arithmetic.exp, 1, case.dtype), flops_of(arithmetic.log, 1, case.dtype)
    adam = flops_of(optimizers.adam, _ADAM, case.dtype) + flops_of(optimizers.penalised, _PENALISED, case.dtype)
    numbers = {
        "gather": (0, 2 * batch),
        # Written are the inputs and the outputs of the activations, and of the last layer the inputs.
        "forward": (2 * n * sum(products), batch + n_parameters + 2 * hidden + outputs),
        # An output is shifted, summed, divided, and its logarithm taken; the loss is one product, the delta a
        # difference and a product. Read are the inputs, the targets and the weights; written are the outputs, their
        # logarithms, the losses, the distances and the deltas.
        "output": (outputs * (exp + 7) + n * log, 7 * outputs + n),
        # Read are the outputs of the activations, the deltas of the last layer and the weights above the first layer.
        "backward": (2 * n * sum(products[1:]), outputs + sum(products[1:]) + 2 * hidden),
        "sums": (3 * outputs, 2 * outputs + n),
        "gradient": (2 * n * sum(products), batch + hidden + hidden + outputs + n_parameters),
        # Read are parameters, gradient and two moments; the gradient is not written.
        "optimizer": (n_parameters * adam, 7 * n_parameters),
    }
    size = np.dtype(case.dtype).itemsize
    indices = {"gather", "output", "sums"}
    return {
        part: Work(flops, size * n_numbers + (_INDEX * n if part in indices else 0))
        for part, (flops, n_numbers) in numbers.items()
    }


def flops_of(formula: Callable[..., Any], n_arguments: int, dtype: str) -> int:
    """Multiplications, additions, divisions and square roots of a formula in one lane; an fma is two.

    Parameters
    ----------
    formula : callable
        Of `fastnet.kernels.formulas`, on `fastnet.kernels.simd.Lanes`.
    n_arguments : int
        How many it takes.
    dtype : str
        float32 or float64.

    Examples
    --------
    >>> flops_of(optimizers.sgd, 3, "float32")
    2
    """
    from llvmlite import ir

    # Of vectors some CPUs have instructions that do several operations.
    number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [number] * n_arguments), "formula")
    block = function.append_basic_block()
    builder = ir.IRBuilder(block)
    formula(*(Lanes(builder, argument) for argument in function.args))
    counted = {"fadd": 1, "fsub": 1, "fmul": 1, "fdiv": 1, "llvm.fma": 2, "llvm.sqrt": 1}
    total = 0
    for instruction in block.instructions:
        name = instruction.callee.name.rpartition(".")[0] if instruction.opname == "call" else instruction.opname
        total += counted.get(name, 0)
    return total
