"""How a training step spends its time, part by part, and where each part stands against the machine's limits.

python -m fastnet.bench.parts --write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.bench import roofline, timing
from fastnet.bench.contest import LONGEST, QUICK_ROUNDS, ROUNDS
from fastnet.bench.documents import write_generated
from fastnet.bench.part_kernel import ALL, PARTS, bit_of, repeat_parts
from fastnet.bench.part_tables import FIT, IN_TURN, NAME, TRAIN, parts_text, with_threads
from fastnet.bench.part_work import works_of
from fastnet.bench.peak import FlopsMeter, bandwidth
from fastnet.bench.peers import PEERS
from fastnet.bench.results import OWN, Cell, Measurement, Results
from fastnet.bench.workloads import Prepared, Training, get_workloads
from fastnet.contract import N_SUMS, STOP_EPOCH, Objective, Progress, Samples, Update
from fastnet.layout import aligned_zeros
from fastnet.losses import get_loss
from fastnet.runtime.entry_points import entry_point
from fastnet.runtime.threads import Trainer, make_workspace
from fastnet.samples import check_samples
from fastnet.testing.cases import Case
from fastnet.testing.machine import describe_machine
from fastnet.threads import cores, usable_cores

#: The cases: small, deep, many inputs, and more weights than a second-level cache holds.
CASES = ("digits", "tabular", "mnist-like", "mnist-wide")
#: Bytes that three arrays take together where a bandwidth is measured; in memory, more than any cache of a desktop.
WORKING_SETS = {"L1": 1 << 14, "L2": 1 << 18, "memory": 1 << 28}
#: What is written.
DOCUMENT, PICTURE = Path("docs/performance.md"), Path("docs/performance.png")


class Step:
    """The arguments of `fastnet.kernels.network.train` for a case, made as `Network.fit` makes them.

    Parameters
    ----------
    case : Case
        Shuffled, without weights, and with whole batches of one block.

    Attributes
    ----------
    arguments : tuple
        Layout, parameters, samples, objective, update and progress.
    workspace : array
        The memory of the parts.
    """

    def __init__(self, case: Case) -> None:
        self.network, self.epochs = case.network(), case.epochs
        optimizer = case.settings["optimizer"]
        loss, parameter = get_loss(case.loss)
        x, y, _ = case.data()
        source = np.random.RandomState(case.seed)
        order = np.stack([source.permutation(case.n_samples) for _ in range(case.epochs)])
        samples: Samples = check_samples(self.network, x, y, loss, None)._replace(order=order)
        batch_size = case.batch_size or case.n_samples
        objective = Objective(loss, parameter, case.reduction == "mean", case.l2, batch_size)
        buffer = self.network.parameter_buffer
        slots = optimizer.initial_slots(buffer.size, buffer.dtype)
        rates = optimizer.rates(0, case.epochs)
        self.update = Update(optimizer.kind, optimizer.settings, slots, np.ones(2), rates)
        gradient = aligned_zeros(buffer.size, buffer.dtype)
        curves = np.zeros((2, case.epochs))
        self.progress = Progress(np.zeros(5, np.int64), np.zeros(N_SUMS), gradient, curves[0], curves[1])
        self.arguments = (self.network.layout, buffer, samples, objective, self.update, self.progress)
        train_together = entry_point("train_together", buffer.dtype.name)
        self.workspace = make_workspace(train_together, self.arguments, 1)
        self._changed = (buffer, slots, self.update.powers)
        self._first = [array.copy() for array in self._changed]
        self.reset()

    def reset(self) -> None:
        """Go back to the first parameters and the first epoch."""
        for array, values in zip(self._changed, self._first, strict=True):
            array[...] = values
        self._rewind()

    def _rewind(self) -> None:
        self.progress.cursor[:], self.progress.sums[:] = 0, 0.0
        self.progress.cursor[STOP_EPOCH] = self.epochs

    def training(self, n_threads: int) -> Prepared:
        """All epochs in one call of what trains in `Network.fit`, with the real learning rate."""
        train = Trainer(lambda: n_threads, cores, *self.arguments)
        samples, objective = self.arguments[2], self.arguments[3]
        n_blocks = self.epochs * len(samples.x) // objective.batch_size

        def run(times: int) -> None:
            for _ in range(times):
                self._rewind()
                train(*self.arguments, n_blocks)

        return Prepared(run, self.reset, lambda: self.network.parameters)

    def repeated(self, parts: int) -> Prepared:
        """Some parts by their bits, on what training has left; `repeat_parts` says why the learning rate is 0."""
        *before, update, progress = self.arguments
        arguments = (*before, update._replace(learning_rates=np.zeros(1)), progress, self.workspace, parts)
        return Prepared(lambda times: repeat_parts(*arguments, times), lambda: None, lambda: self.progress.gradient)


def whole_batches(workload: Training) -> Training:
    """The training on as many samples as fill batches: then all steps are alike."""
    case = replace(workload.case, dtype=workload.dtype)
    batch_size = case.batch_size or case.n_samples
    return replace(workload, case=replace(case, n_samples=case.n_samples // batch_size * batch_size))


def measure(workload: Training, rounds: int) -> list[Measurement]:
    """Time the parts of a training's step, and the whole step.

    Parameters
    ----------
    workload : Training
        A training of whole batches.
    rounds : int
        How often each is timed, in turn with the others.

    Returns
    -------
    list of Measurement
        One for each part, by its name, and for each of the wholes; seconds are those of one step.
    """
    case, steps = workload.case, workload.units * workload.runs
    works, n_threads = works_of(case), usable_cores()
    step = Step(case)
    prepared = {name: step.repeated(bit_of(name)) for name in PARTS} | {IN_TURN: step.repeated(ALL)}
    # What one part leaves to another is then in the workspace.
    prepared[IN_TURN].run(1)
    times = {name: timing.calls_in_a_turn(one) for name, one in prepared.items()}
    steps_in_a_run, threads_of = dict.fromkeys(prepared, 1), dict.fromkeys(prepared, 1)
    for threads in sorted({1, n_threads}):
        train, fit = with_threads(TRAIN, threads), with_threads(FIT, threads)
        prepared[train] = step.training(threads)
        prepared[fit] = replace(workload, threads=threads).prepare(PEERS[OWN])
        times |= {train: 1, fit: workload.runs}
        steps_in_a_run |= {train: steps, fit: workload.units}
        threads_of |= {train: threads, fit: threads}
    meter, peaks = FlopsMeter(workload.dtype), list[float]()
    taken = timing.interleave(prepared, times, rounds, LONGEST, lambda: peaks.append(meter()))
    measurements = []
    for name, seconds in taken.items():
        n_bytes = works[name].n_bytes if name in works else 0
        flops = works[name].flops if name in works else workload.flops
        cell = Cell(OWN, PEERS[OWN].label, [s / steps_in_a_run[name] for s in seconds])
        measurements.append(
            Measurement(
                workload.name,
                name,
                workload.dtype,
                workload.unit,
                float(flops),
                float(n_bytes),
                peak=[threads_of[name] * peak for peak in peaks],
                cells=[cell],
            )
        )
    return measurements


def run(quick: bool, cases: Sequence[str] = CASES, show: Callable[[str], Any] = lambda key: None) -> Results:
    """Measure the cases in both dtypes, and the machine's bandwidths.

    Parameters
    ----------
    quick : bool
        Whether to do it on fewer samples and in fewer rounds.
    cases : sequence of str
        Names of cases that `works_of` knows the work of.
    show : callable
        Told what is measured next.
    """
    machine = describe_machine()
    rounds = QUICK_ROUNDS if quick else ROUNDS
    settings: dict[str, Any] = {"quick": quick, "threads": usable_cores(), "rounds": rounds}
    settings["bandwidth"] = {level: bandwidth(n_bytes) for level, n_bytes in WORKING_SETS.items()}
    results = Results(
        datetime.now(UTC).isoformat(timespec="seconds"),
        machine | {"packages": f"llvmlite {machine['llvmlite']}"},
        settings,
    )
    for workload in get_workloads(cases, quick=quick):
        assert isinstance(workload, Training)
        show(workload.key)
        results.measurements.extend(measure(whole_batches(workload), rounds))
    return results


def write_documents(results: Results, root: Path) -> list[Path]:
    """Write the tables and the picture into the documents of a checkout; return which were written.

    Raises
    ------
    OSError, ValueError
        If the document is missing, or has no markers.
    """
    write_generated(root / DOCUMENT, NAME, parts_text(results))
    roofline.save(results, root / PICTURE)
    return [root / DOCUMENT, root / PICTURE]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments of the command line.

    Returns
    -------
    int
        0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.bench.parts", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, epochs and rounds: to see that it works")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the parts under the roofs (.png, .svg, .pdf)")
    parser.add_argument(
        "--write",
        metavar="FOLDER",
        type=Path,
        nargs="?",
        const=Path(),
        help=f"write {DOCUMENT} and {PICTURE} of this checkout",
    )
    options = parser.parse_args(arguments)
    results = run(options.quick, show=lambda key: sys.stderr.write(f"{key}\n"))
    sys.stdout.write(f"{parts_text(results)}\n")
    written = [options.plot] if options.plot else []
    if options.plot:
        roofline.save(results, options.plot)
    if options.write is not None:
        written += write_documents(results, options.write)
    for path in written:
        sys.stdout.write(f"written: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
