"""What is measured: trainings and predictions of the registry's cases, and single operations.

A workload prepares itself for a peer (`Prepared`), so that nothing but the work is timed, and says how much
arithmetic it is and how far results may lie apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from fastnet.bench.peers.base import Array, Peer, Problem, UnsupportedError
from fastnet.testing.cases import BENCHMARKS, Case
from fastnet.validation import check_choice

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Prepared:
    """A workload that a peer is ready to do.

    Attributes
    ----------
    run : callable
        Does it so many times: what is timed.
    reset : callable
        Goes back to the start, before each timing.
    result : callable
        The numbers that are compared, after a run.
    """

    run: Callable[[int], None]
    reset: Callable[[], None]
    result: Callable[[], Array]


@dataclass(frozen=True)
class Workload(ABC):
    """Something to measure, in one dtype.

    Attributes
    ----------
    name, title : str
        The name on the command line, and what it is in a few words.
    dtype : str
        float32 or float64.
    axis, value : str, float
        For the points of a curve: what changes, and its value.
    most_rounds : int or None
        The most rounds that it is worth; None means no limit. Without rounds its time is that of the checked run.
    """

    name: str
    title: str
    dtype: str
    axis: str = field(default="", kw_only=True)
    value: float = field(default=0.0, kw_only=True)
    most_rounds: int | None = field(default=None, kw_only=True)

    #: What a time is given for.
    unit: ClassVar[str]
    #: Largest distance between two results, by dtype. The distances of correct results are in `docs/benchmarks.md`.
    bounds: ClassVar[dict[str, float]]

    @property
    def key(self) -> str:
        """What tells it from other workloads."""
        return f"{self.name}, {self.title}, {self.dtype}"

    @property
    def bound(self) -> float:
        """The largest distance between two results."""
        return self.bounds[self.dtype]

    @property
    @abstractmethod
    def flops(self) -> float:
        """Multiplications and additions of a unit, where that measures it; else 0."""

    @property
    def n_bytes(self) -> float:
        """Bytes read and written by a unit, where that measures it; else 0."""
        return 0.0

    @property
    def units(self) -> int:
        """Units in one run."""
        return 1

    @property
    def runs(self) -> int | None:
        """How many runs are timed at once; None: as many as make the time long enough."""
        return None

    @property
    def checked_runs(self) -> int:
        """After how many runs results are compared."""
        return 1

    @abstractmethod
    def variant(self, peer: Peer) -> tuple[Workload, str]:
        """What a peer does in place of this, and what is other about it: see `Peer.variant`."""

    @abstractmethod
    def prepare(self, peer: Peer) -> Prepared:
        """Make a peer ready, or raise `UnsupportedError`."""

    @abstractmethod
    def distance(self, actual: Array, desired: Array) -> float:
        """How far a result lies from fastnet's."""


@dataclass(frozen=True)
class Training(Workload):
    """Whole epochs of a case, from its first parameters.

    Attributes
    ----------
    case : Case
        The training.
    threads : int or None
        How many threads fastnet may use; no other peer takes part then.
    """

    case: Case
    threads: int | None = None

    unit: ClassVar[str] = "step"
    bounds: ClassVar[dict[str, float]] = {"float32": 5e-3, "float64": 1e-4}

    @property
    def flops(self) -> float:
        """Two for each weight and sample, forward, for the gradient, and but for the first layer backward."""
        products = [a * b for a, b in pairwise(self.case.layer_sizes)]
        return 2.0 * self.case.n_samples * (3 * sum(products) - products[0]) / self.units

    @property
    def units(self) -> int:
        """Batches in an epoch."""
        return -(-self.case.n_samples // (self.case.batch_size or self.case.n_samples))

    @property
    def runs(self) -> int:
        """The epochs of the case."""
        return self.case.epochs

    @property
    def checked_runs(self) -> int:
        """One epoch; a few of those that are one step: longer trainings amplify what is rounded differently."""
        return 1 if self.units > 1 else min(20, self.case.epochs)

    def variant(self, peer: Peer) -> tuple[Training, str]:
        case, note = peer.variant(self.case)
        return replace(self, case=case), note

    def prepare(self, peer: Peer) -> Prepared:
        if self.threads is not None and peer.name != "numba":
            raise UnsupportedError("takes the threads of the process")
        peer.warm_up(self.dtype)
        training = peer.training(self.problem())
        return Prepared(training.run, training.reset, training.parameters)

    def problem(self) -> Problem:
        """The arrays of the case."""
        return Problem(replace(self.case, dtype=self.dtype), self.threads)

    def distance(self, actual: Array, desired: Array) -> float:
        """The difference of the parameters, as a share of how far training moved them.

        A learning rate that is off by one per cent shows as 0.01.
        """
        first = self.problem().network.parameters.astype(np.float64)
        moved = np.linalg.norm(desired - first)
        return float(np.linalg.norm(actual.astype(np.float64) - desired) / moved)


@dataclass(frozen=True)
class Prediction(Workload):
    """The outputs of a case's network for the first rows of its data."""

    case: Case
    n_rows: int

    unit: ClassVar[str] = "call"
    bounds: ClassVar[dict[str, float]] = {"float32": 1e-5, "float64": 1e-13}

    @property
    def flops(self) -> float:
        """Two for each weight and row."""
        return 2.0 * self.n_rows * sum(a * b for a, b in pairwise(self.case.layer_sizes))

    def variant(self, peer: Peer) -> tuple[Prediction, str]:
        case, note = peer.variant(self.case)
        return replace(self, case=case), note

    def prepare(self, peer: Peer) -> Prepared:
        problem = Problem(replace(self.case, dtype=self.dtype))
        return repeated(peer.prediction(problem, self.n_rows))

    def distance(self, actual: Array, desired: Array) -> float:
        """The largest difference of two outputs, as a share of the largest output."""
        return relative_to_largest(actual, desired)


def repeated(*calls: Callable[[], Any]) -> Prepared:
    """A call that starts from the same state every time; several that do the same share the times."""
    last: list[Array] = []

    def run(times: int) -> None:
        for number, call in enumerate(calls):
            share = (times + number) // len(calls)
            for _ in range(share):
                latest = call()
        last[:] = [latest]

    return Prepared(run, lambda: None, lambda: np.array(last[0]))


#: Where arrays lie within a page decides how fast short operations are: a result that lies as far into its page as the
#: argument makes loads wait for stores (tanh of 2048 elements: 1.4 to 2.1 us), and a process has one such placement for
#: all its rounds. So an operation on arrays of at most so many bytes is timed on so many placements alike.
PLACEMENTS, PLACED_BYTES = 8, 1 << 16
_PAGE = 4096


def placed(arrays: tuple[Array, ...], number: int) -> tuple[Array, ...]:
    """Copies of arrays, each in another part of its page; another number shifts all."""
    copies = []
    for position, array in enumerate(arrays):
        memory = np.empty(array.nbytes + 2 * _PAGE, np.uint8)
        start = -memory.__array_interface__["data"][0] % _PAGE
        # Whole cache lines, which is how vectors like it.
        start += (number * _PAGE // PLACEMENTS + position * _PAGE // (2 * PLACEMENTS)) % _PAGE
        copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copies.append(copy)
    return tuple(copies)


def relative_to_largest(actual: Array, desired: Array) -> float:
    """The largest difference, as a share of the largest of the desired numbers."""
    if actual.shape != desired.shape:
        return float("inf")
    return float(np.max(np.abs(actual.astype(np.float64) - desired)) / np.max(np.abs(desired)))


@dataclass(frozen=True)
class Operation(Workload):
    """One operation on arrays, alone.

    Attributes
    ----------
    operation : str
        What `Peer.operation` is asked for.
    shape : tuple of int
        For matmul (rows, inner size, columns), else (size,).
    """

    operation: str
    shape: tuple[int, ...]

    unit: ClassVar[str] = "call"
    bounds: ClassVar[dict[str, float]] = {"float32": 1e-4, "float64": 1e-9}

    @property
    def flops(self) -> float:
        """Two for each term of a product."""
        return 2.0 * np.prod(self.shape) if self.operation == "matmul" else 0.0

    @property
    def n_bytes(self) -> float:
        """A function reads and writes an array; Adam reads four and writes three."""
        arrays = {"matmul": 0, "adam": 7}.get(self.operation, 2)
        return float(arrays * self.shape[0] * np.dtype(self.dtype).itemsize)

    def arrays(self) -> tuple[Array, ...]:
        """The arguments."""
        rng = np.random.default_rng(0)
        if self.operation == "matmul":
            m, k, n = self.shape
            shapes: list[tuple[int, ...]] = [(m, k), (k, n)]
        else:
            shapes = [self.shape] * (4 if self.operation == "adam" else 1)
        arrays = [rng.standard_normal(shape).astype(self.dtype) for shape in shapes]
        if self.operation == "adam":
            # Moments as training leaves them.
            arrays[2:] = 0.1 * arrays[2], arrays[3] ** 2
        return tuple(arrays)

    def variant(self, peer: Peer) -> tuple[Operation, str]:
        return self, ""

    def prepare(self, peer: Peer) -> Prepared:
        arrays = self.arrays()
        n_placements = PLACEMENTS if max(array.nbytes for array in arrays) <= PLACED_BYTES else 1
        return repeated(*(peer.operation(self.operation, placed(arrays, number)) for number in range(n_placements)))

    def distance(self, actual: Array, desired: Array) -> float:
        """The largest difference of two elements, as a share of the largest."""
        return relative_to_largest(actual, desired)


def _training(name: str, title: str, **changes: Any) -> list[Workload]:
    case = replace(BENCHMARKS[name], **changes)
    return [Training(name, title, dtype, case) for dtype in DTYPES]


def _prediction(name: str, n_rows: int) -> list[Workload]:
    title = f"{n_rows} {'row' if n_rows == 1 else 'rows'} through 64-100-10"
    case = replace(BENCHMARKS["digits"], n_samples=max(n_rows, 200), dataset="classes")
    return [Prediction(name, title, dtype, case, n_rows) for dtype in DTYPES]


#: (rows, inner size, columns) of the products in digits, mnist-like and mnist-wide, and square ones.
MATMUL_SHAPES = ((64, 64, 64), (200, 64, 100), (128, 784, 128), (256, 784, 512), (784, 784, 784))
#: Elements that stay in the first-level cache, read and written.
N_ELEMENTS = 2048
#: Parameters of a network whose moments fit into the second-level cache. Beyond it, where pages lie in memory made a
#: difference of 19 % between runs.
N_PARAMETERS = 1 << 14


def _operations(quick: bool) -> list[Workload]:
    workloads: list[Workload] = []
    for dtype in DTYPES:
        for shape in MATMUL_SHAPES[:3] if quick else MATMUL_SHAPES:
            title = f"matmul {shape[0]} x {shape[1]} x {shape[2]}"
            workloads.append(Operation("kernels", title, dtype, "matmul", shape))
        for function in ("exp", "sigmoid", "tanh"):
            title = f"{function} of {N_ELEMENTS} elements"
            workloads.append(Operation("kernels", title, dtype, function, (N_ELEMENTS,)))
        title = f"a step of Adam for {N_PARAMETERS} parameters"
        workloads.append(Operation("kernels", title, dtype, "adam", (N_PARAMETERS,)))
    return workloads


def _all_workloads(quick: bool) -> dict[str, list[Workload]]:
    """The workloads of every case; quick ones do the same on fewer samples and for fewer epochs."""

    def samples(n_samples: int) -> dict[str, int]:
        return {"n_samples": n_samples, "epochs": 1} if quick else {}

    few = {"epochs": 501} if quick else {}
    return {
        "notebook": _training("notebook", "3-4-1, sigmoid, 4 samples", **few),
        "notebook-bias": _training("notebook-bias", "4-3-1, sigmoid, biases, 3 samples", **few),
        "digits": _training("digits", "64-100-10, batch 200, softmax, Adam", **samples(997)),
        "tabular": _training("tabular", "8-64-64-2, batch 256, softmax, Adam", **samples(2600)),
        "mnist-like": _training("mnist-like", "784-128-10, batch 128, softmax, Adam", **samples(1290)),
        "mnist-wide": _training("mnist-wide", "784-512-10, batch 256, softmax, Adam", **samples(768)),
        "regression": _training("regression", "16-32-32-1, batch 256, squared error, Adam", **samples(2600)),
        "deep": _training("deep", "8 layers of 64, batch 256, tanh, softmax, Adam", **samples(1024)),
        "predict-one": _prediction("predict-one", 1),
        "predict-many": _prediction("predict-many", 3_600 if quick else 36_000),
        "kernels": _operations(quick),
    }


def get_workloads(cases: Sequence[str] | None, dtypes: Sequence[str] = DTYPES, quick: bool = False) -> list[Workload]:
    """The workloads of cases.

    Parameters
    ----------
    cases : sequence of str or None
        Names of cases; None means all.
    dtypes : sequence of str
        The dtypes.
    quick : bool
        Whether to do the same on fewer samples and for fewer epochs.

    Raises
    ------
    ValueError
        If there is no case of some name.

    Examples
    --------
    >>> [workload.key for workload in get_workloads(["digits"], ["float32"])]
    ['digits, 64-100-10, batch 200, softmax, Adam, float32']
    """
    known = _all_workloads(quick)
    names = known if cases is None else [check_choice("case", name, tuple(known)) for name in cases]
    return [workload for name in names for workload in known[name] if workload.dtype in dtypes]


def case_names() -> tuple[str, ...]:
    """The names of all cases that are workloads."""
    return tuple(_all_workloads(quick=True))
