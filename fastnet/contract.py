"""What the reference and the kernels agree on: names and their codes, sizes, and the records they exchange.

Nothing is computed here. `docs/design.md`, section 2, says what the numbers are for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Names of the activations; the position of a name is its code.
ACTIVATIONS = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "softplus",
    "elu",
    "silu",
    "gelu",
    "exponential",
    "softmax",
)
(IDENTITY, SIGMOID, TANH, RELU, LEAKY_RELU, SOFTPLUS, ELU, SILU, GELU, EXPONENTIAL, SOFTMAX) = range(11)
#: Activations that only an output layer may have.
OUTPUT_ONLY = ("exponential", "softmax")
#: Slope of leaky_relu below zero, as PyTorch has it. ELU's alpha is 1.
NEGATIVE_SLOPE = 0.01

#: Names of the losses; the position of a name is its code.
LOSSES = (
    "squared_error",
    "binary_cross_entropy",
    "cross_entropy",
    "poisson",
    "absolute_error",
    "huber",
    "quantile",
)
(SQUARED_ERROR, BINARY_CROSS_ENTROPY, CROSS_ENTROPY, POISSON, ABSOLUTE_ERROR, HUBER, QUANTILE) = range(7)
#: Pairs of output activation and loss whose delta is a - y, and whose loss is computed from z;
#: the kernels number them from MATCHED on.
MATCHED = len(LOSSES)
MATCHED_ACTIVATION = {BINARY_CROSS_ENTROPY: SIGMOID, CROSS_ENTROPY: SOFTMAX, POISSON: EXPONENTIAL}

#: Codes of the optimizers; AdamW is Adam with decoupled weight decay.
(SGD, ADAM, RMSPROP, RPROP) = range(4)

#: Columns of a layout, the int64 table with one row for each layer. Offsets count elements of the
#: parameter buffer; a row of weights takes STRIDE elements, of which the first N_OUTPUTS are used.
#: BIAS is -1 in a layer without bias.
(N_INPUTS, N_OUTPUTS, STRIDE, WEIGHTS, BIAS, ACTIVATION) = range(6)
LAYOUT_COLUMNS = 6

#: Bytes of a vector, and the alignment of rows in a parameter buffer, on every CPU.
VECTOR_BYTES = 64
#: Rows of a batch whose gradient and loss are summed together before they join the total.
BLOCK_ROWS = 256


class Format(NamedTuple):
    """Facts about a floating-point format that the elementary functions are built on."""

    #: Bits of the stored significand, where the exponent field begins.
    significand_bits: int
    #: Exponent field of 1.0.
    bias: int
    #: 1.5 * 2^significand_bits: adding it rounds to an integer, held in the low bits.
    round_to_integer: float
    #: exp is 0 below the first and infinite above the second.
    exp_low: float
    exp_high: float
    #: sigmoid(x), and -expm1(-x), are 1 from here on.
    saturation: float
    #: sigmoid scales its powers of two by 2^this, so that the smallest stays normal.
    sigmoid_shift: int
    #: Magnitudes below this one become +0 in optimizer states and deltas.
    flush_below: float
    #: Smallest normal number, and the power of two that lifts a subnormal to a normal.
    smallest_normal: float
    subnormal_shift: int
    #: Bits of sqrt(1/2): log's significands lie in [sqrt(1/2), sqrt(2)).
    sqrt_half_bits: int
    #: Distance from 1 to the next number; probabilities are kept this far from 0 and 1.
    epsilon: float


FLOAT32_FORMAT = Format(
    significand_bits=23,
    bias=127,
    round_to_integer=1.5 * 2.0**23,
    exp_low=-104.0,
    exp_high=89.0,
    saturation=20.0,
    sigmoid_shift=26,
    flush_below=2.0**-100,
    smallest_normal=2.0**-126,
    subnormal_shift=25,
    sqrt_half_bits=0x3F3504F3,
    epsilon=2.0**-23,
)
FLOAT64_FORMAT = Format(
    significand_bits=52,
    bias=1023,
    round_to_integer=1.5 * 2.0**52,
    exp_low=-746.0,
    exp_high=710.0,
    saturation=40.0,
    sigmoid_shift=56,
    flush_below=2.0**-900,
    smallest_normal=2.0**-1022,
    subnormal_shift=54,
    sqrt_half_bits=0x3FE6A09E667F3BCD,
    epsilon=2.0**-52,
)


class Samples(NamedTuple):
    """What a network is trained on."""

    #: (n_samples, n_inputs), C-contiguous.
    x: NDArray[np.floating]
    #: (n_samples, n_outputs), C-contiguous.
    y: NDArray[np.floating]
    #: (n_samples,) factors of the samples' losses.
    weight: NDArray[np.floating]
    #: (n_epochs, n_samples): the order of the rows in each epoch from the cursor's FIRST_ORDERED_EPOCH
    #: on; with no rows the samples are taken as they stand.
    order: NDArray[np.int64]


class Objective(NamedTuple):
    """What is minimised: the reduction of the losses plus l2 / 2 times the squared weights."""

    #: Code of the loss, and its parameter (Huber's delta, the quantile; else 0).
    loss: int
    parameter: float
    #: Whether loss, penalty and gradient are divided by the sum of a batch's sample weights.
    mean: bool
    l2: float
    batch_size: int


class Update(NamedTuple):
    """An optimizer: its settings, and its state, which a step changes in place."""

    #: Code of the optimizer.
    kind: int
    #: The numbers of its settings, in the order of `fastnet.optimizers`.
    settings: NDArray[np.float64]
    #: (n_slots, size of the parameter buffer): momenta and the like, in the network's dtype.
    slots: NDArray[np.floating]
    #: Running powers of beta_1 and beta_2.
    powers: NDArray[np.float64]
    #: The rate of each epoch of this fit.
    learning_rates: NDArray[np.float64]


class Progress(NamedTuple):
    """How far a fit has come; `train` moves it on."""

    #: int64: see the positions below.
    cursor: NDArray[np.int64]
    #: float64 sums over the present epoch: see the positions below.
    sums: NDArray[np.float64]
    #: The gradient of the present batch, laid out like the parameters.
    gradient: NDArray[np.floating]
    #: One entry for each epoch of this fit.
    loss_curve: NDArray[np.float64]
    mean_absolute_error: NDArray[np.float64]


class Execution(NamedTuple):
    """How a fit is to be carried out: nothing of it changes a bit."""

    #: The most threads; None means as many as are allowed.
    threads: int | None
    #: Whether to compile for the network alone: True, False, or "auto", where that pays.
    specialize: bool | str
    n_epochs: int
    #: Whether the samples will have an order in each epoch.
    ordered: bool


#: Positions in `Progress.cursor`: the epoch, its next batch's first row, the batch's next row,
#: the epoch to stop before, and the epoch of the first row of `Samples.order`.
(EPOCH, BATCH_START, NEXT_ROW, STOP_EPOCH, FIRST_ORDERED_EPOCH) = range(5)
N_POSITIONS = 5
#: Positions in `Progress.sums`: the losses, the absolute errors, the sample weights of the epoch,
#: and of the present batch the sample weights.
(LOSS_SUM, ERROR_SUM, WEIGHT_SUM, BATCH_WEIGHT) = range(4)
N_SUMS = 4
#: What `train` returns: the stop epoch is reached, the blocks are used up, or a number is not finite.
(FINISHED, PAUSED, NOT_FINITE) = range(3)

#: Positions in `Update.settings`, for each optimizer. Adam's weight decay is 0; AdamW's need not be.
(SGD_MOMENTUM, SGD_NESTEROV) = range(2)
(ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON, ADAM_WEIGHT_DECAY) = range(4)
(RMSPROP_RHO, RMSPROP_MOMENTUM, RMSPROP_EPSILON) = range(3)
(RPROP_ETA_MINUS, RPROP_ETA_PLUS, RPROP_STEP_MIN, RPROP_STEP_MAX) = range(4)
#: For each optimizer how many settings it has, and the least number of its slots.
N_SETTINGS, LEAST_SLOTS = (2, 4, 3, 4), (0, 2, 1, 2)
