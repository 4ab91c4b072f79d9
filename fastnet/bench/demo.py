"""Train the notebooks' networks on every backend, check the figures and the bits, and show the times.

    python -m fastnet.bench.demo --output demo.png

The exit status is 1 if a figure of a notebook is not reproduced, or if numba has other bits than exact.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fastnet.bench.documents import markdown, write_generated
from fastnet.network import Network
from fastnet.runtime import entry_points
from fastnet.testing import notebooks
from fastnet.testing.notebooks import NOTEBOOK_2, NOTEBOOKS, Notebook

LOOP = "the notebook's loop"
FAST_BACKENDS = ("numpy", "numba")
BACKENDS = (LOOP, "numpy", "exact", "numba")
#: Epochs by which exact is timed, which takes milliseconds for each.
EXACT_EPOCHS = 100
#: Seconds of a run in which it matters what is in the caches when it begins.
SHORT_SECONDS = 0.1
#: The name under which `--readme` writes.
MARKED = "demo"


@dataclass(frozen=True, eq=False)
class Result:
    """What a backend did on a notebook."""

    #: Of the first call in this process; the kernels', for nothing else has to be loaded or compiled.
    first_seconds: float | None
    #: Of so many epochs.
    seconds: float
    epochs: int
    figures: list[float]
    parameters: NDArray[np.floating]
    #: The error of each epoch; the notebook's loop keeps none.
    curve: NDArray[np.floating] | None

    @property
    def nanoseconds(self) -> float:
        """The time of an epoch."""
        return self.seconds / self.epochs * 1e9

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of the weights and biases."""
        return hashlib.sha256(self.parameters.tobytes()).hexdigest()[:16]


def prepare(notebook: Notebook, start: Network, backend: str) -> Callable[[], object]:
    """A call that trains a copy of a network for the notebook's epochs; on exact for `EXACT_EPOCHS`."""
    if backend == LOOP:
        weights, biases = notebooks.arrays(start)
        return lambda: notebook.loop(notebook.x, notebook.y, weights, biases, notebook.epochs)
    net = start.copy()
    if backend == "exact":
        # One after the other, and not as `Notebook.fit` does it.
        return lambda: net.fit(notebook.x, notebook.y, **notebook.settings, epochs=EXACT_EPOCHS, backend=backend)
    return lambda: notebook.fit(net, notebook.epochs, backend)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(notebook: Notebook, repeats: int) -> tuple[dict[str, Result], str]:
    """Train a notebook's network on each backend.

    Parameters
    ----------
    notebook : Notebook
        What to train.
    repeats : int
        Of how many runs the time is the median. The backends take turns, the first run in a turn not
        counted if it is short; exact is timed once.

    Returns
    -------
    results : dict of str to Result
        The results by backend.
    origin : str
        Where the kernels of the first call came from.
    """
    net = notebook.network()
    before = entry_points.origins()
    first_seconds = seconds(prepare(notebook, net, "numba"))
    origin = origin_of_kernels(before)

    starts = {backend: net.copy() for backend in BACKENDS}
    if notebook.updates_before:
        notebook.run_loop(starts[LOOP], notebook.updates_before)
        for backend in BACKENDS[1:]:
            notebook.fit(starts[backend], notebook.updates_before, backend)

    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(repeats):
        for backend in (LOOP, *FAST_BACKENDS):
            taken = seconds(prepare(notebook, starts[backend], backend))
            if taken < SHORT_SECONDS:
                # What ran before has filled the caches.
                taken = seconds(prepare(notebook, starts[backend], backend))
            times[backend].append(taken)
    times["exact"].append(seconds(prepare(notebook, starts["exact"], "exact")))

    results = {}
    for backend, trained in starts.items():
        if backend == LOOP:
            figures, curve = notebook.run_loop(trained, notebook.epochs), None
        else:
            figures, curve = notebook.run(trained, backend)
        results[backend] = Result(
            first_seconds=first_seconds if backend == "numba" else None,
            seconds=median(times[backend]),
            epochs=EXACT_EPOCHS if backend == "exact" else notebook.epochs,
            figures=figures,
            parameters=trained.parameters,
            curve=curve,
        )
    return results, origin


def expected_figures(notebook: Notebook, results: dict[str, Result]) -> list[float]:
    """The printed figures, or where they came from unknown weights those of the notebook's loop."""
    return [float(figure) for figure in notebook.printed] if notebook.seeded else results[LOOP].figures


def table(notebook: Notebook, results: dict[str, Result]) -> str:
    """The results as an aligned Markdown table."""
    expected = expected_figures(notebook, results)
    exact, loop = results["exact"], results[LOOP]
    cells = [
        (
            "backend",
            "first call, s",
            "seconds",
            "ns an epoch",
            "speed, loop = 1",
            "largest difference",
            "bits equal to exact",
            "SHA-256 of the weights",
        )
    ]
    for backend, result in results.items():
        cells.append(
            (
                backend,
                f"{result.first_seconds:.4f}" if result.first_seconds is not None else "",
                f"{result.seconds:.6f}" if result.epochs == notebook.epochs else "",
                f"{result.nanoseconds:,.0f}",
                ratio(loop, result),
                f"{largest_difference(result.figures, expected):.1e}",
                "yes" if result.digest == exact.digest else "no",
                result.digest,
            )
        )
    return markdown(cells, left=(0, 6, 7))


def ratio(slow: Result, fast: Result) -> str:
    """How many times as fast one is as the other, to two digits or more."""
    times = slow.nanoseconds / fast.nanoseconds
    return f"{times:,.0f}" if times >= 10 else f"{times:#.2g}"


def largest_difference(figures: Sequence[float], expected: Sequence[float]) -> float:
    """The largest absolute difference."""
    return float(np.max(np.abs(np.subtract(figures, expected))))


def faults(notebook: Notebook, results: dict[str, Result]) -> list[str]:
    """What is not as it has to be."""
    expected = [notebook.show(figure) for figure in expected_figures(notebook, results)]
    found = []
    for backend, result in results.items():
        figures = [notebook.show(figure) for figure in result.figures]
        if figures != expected:
            found.append(f"{notebook.name}: {backend} gives {', '.join(figures)}, expected {', '.join(expected)}")
    if results["numba"].parameters.tobytes() != results["exact"].parameters.tobytes():
        found.append(f"{notebook.name}: the weights of numba and exact differ")
    if not np.array_equal(results["numba"].curve, results["exact"].curve):  # type: ignore[arg-type]
        found.append(f"{notebook.name}: the errors of numba and exact differ")
    return found


def random_starts(n_starts: int) -> tuple[str, list[str]]:
    """Train notebook 2, whose weights were not seeded, from many random starts.

    Returns
    -------
    text : str
        Where the outputs lie.
    faults : list of str
        What is not as the notebook has it.
    """
    outputs = notebooks.outputs_of_starts(n_starts, "numba")
    low, high = np.percentile(outputs, [5, 95], axis=0)
    ranges = ", ".join(f"{a:.4f} to {b:.4f}" for a, b in zip(low, high, strict=True))
    text = (
        f"From {n_starts} random starts (numba), 5 % to 95 % of the outputs lie in {ranges}; "
        f"the notebook printed {', '.join(NOTEBOOK_2.printed)}."
    )
    found = []
    for i, printed in enumerate(NOTEBOOK_2.printed):
        if not low[i] <= float(printed) <= high[i]:
            found.append(f"{NOTEBOOK_2.name}: {printed} lies outside {low[i]:.4f} to {high[i]:.4f}")
    return text, found


def machine() -> str:
    """What the times were taken on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return (
        f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"NumPy {version('numpy')}, Numba {version('numba')}."
    )


def origin_of_kernels(before: Container[tuple[str, str]]) -> str:
    """Where the kernels of a first call came from, by those that were in memory before it."""
    found = {origin for kernel, origin in entry_points.origins().items() if kernel not in before}
    if not found:
        return "were in memory"
    return "were compiled" if "compiled" in found else "were loaded from the cache"


def draw(path: Path, measured: Sequence[tuple[Notebook, dict[str, Result]]]) -> None:
    """Draw the error over the epochs and the time of an epoch."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Wide lines lie under narrow ones, for the curves fall on each other.
    styles = {
        "numpy": {"color": "#9ecae1", "linewidth": 7.0},
        "exact": {"color": "#08519c", "linewidth": 3.0},
        "numba": {"color": "#fd8d3c", "linewidth": 1.2, "linestyle": (0, (4, 3))},
    }
    colors = {LOOP: "#969696"} | {backend: style["color"] for backend, style in styles.items()}
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 8.5), layout="constrained")
        figure.suptitle("Three notebooks on every backend", fontsize=16)
        grid = figure.add_gridspec(2, len(measured), height_ratios=(1, 1.15))

        for i, (notebook, results) in enumerate(measured):
            axes = figure.add_subplot(grid[0, i])
            for backend, style in styles.items():
                axes.plot(results[backend].curve, label=backend, **style)  # type: ignore[arg-type]
            if notebook.report_every:
                epochs = np.arange(0, notebook.epochs, notebook.report_every)
                figures = [float(printed) for printed in notebook.printed]
                axes.plot(epochs, figures, "o", color="black", markerfacecolor="white", label="printed")
            axes.set(xlabel="epoch", yscale="log")
            axes.set_title(f"{notebook.name}\n{notebook.title}", fontsize=10)
            axes.grid(visible=True, which="both", color="#eeeeee")
            if i == 0:
                axes.set_ylabel("mean absolute error")
        axes.legend(frameon=False)

        axes = figure.add_subplot(grid[1, :])
        height = 0.84 / len(BACKENDS)
        for j, backend in enumerate(BACKENDS):
            rows = [results[backend] for _, results in measured]
            times = [row.nanoseconds for row in rows]
            labels = [
                f"{backend}: {row.nanoseconds:,.0f} ns" + ("" if backend == LOOP else f", {ratio(results[LOOP], row)}x")
                for row, (_, results) in zip(rows, measured, strict=True)
            ]
            at = np.arange(len(measured)) + (j - (len(BACKENDS) - 1) / 2) * height
            bars = axes.barh(at, times, 0.9 * height, color=colors[backend])
            axes.bar_label(bars, labels, padding=4)
        every_time = [result.nanoseconds for _, results in measured for result in results.values()]
        axes.set(xscale="log", xlim=(min(every_time) / 2, max(every_time) * 10))
        axes.set_xlabel("ns an epoch; multiples are of the speed of the notebook's loop")
        axes.set_yticks(np.arange(len(measured)), [notebook.name for notebook, _ in measured])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
        figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments of the command line.

    Returns
    -------
    int
        0 if everything is as it has to be, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.bench.demo", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="time fewer runs, train fewer random starts",
    )
    parser.add_argument("--output", type=Path, metavar="PNG", help="draw the results")
    parser.add_argument(
        "--readme", type=Path, nargs="?", const=Path("README.md"), metavar="FILE", help="write the tables into a README"
    )
    options = parser.parse_args(arguments)
    repeats, n_starts = (1, 200) if options.quick else (11, 1000)

    texts: list[str] = []

    def show(text: str) -> None:
        texts.append(text)
        print(text, end="\n\n", flush=True)

    show(machine())
    measured, found = [], []
    for notebook in NOTEBOOKS:
        results, origin = measure(notebook, repeats)
        measured.append((notebook, results))
        found += faults(notebook, results)
        versus = (
            "the printed figures" if notebook.seeded else "the loop's figures, for the printed ones were not seeded"
        )
        show(
            f"**{notebook.name}**: {notebook.title}; {notebook.epochs:,} epochs. "
            f"Differences are to {versus}; the kernels {origin} at the first call."
        )
        show(table(notebook, results))
        if not notebook.seeded:
            text, missed = random_starts(n_starts)
            show(text)
            found += missed

    if options.output:
        draw(options.output, measured)
        print(f"Drawn: {options.output}")
    if options.readme and not found:
        write_generated(options.readme, MARKED, "\n\n".join(texts))
    for fault in found:
        print(f"Wrong: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
