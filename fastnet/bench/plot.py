"""Pictures of a run: bars for each case, and the curves of `scaling`."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING, Any

from fastnet.bench.results import OURS, OWN, Measurement, Results
from fastnet.bench.table import curves, ratio_text, time_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: One colour for each peer in all pictures; fastnet's stands out.
COLORS = {
    "numba": "#d95f02",
    "numba-specialized": "#7f2704",
    "numpy-loop": "#969696",
    "numpy": "#fdbf6f",
    "scikit-learn": "#1f78b4",
    "pytorch": "#6a3d9a",
    "torch.compile": "#cab2d6",
    "jax": "#33a02c",
    "fann": "#b15928",
    "c": "#737373",
    "c-fast-math": "#252525",
    "onnxruntime": "#a6cee3",
}
_COLUMNS = 4


def draw(results: Results) -> Figure:
    """Draw bars for the cases and curves for `scaling`.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    bars = [one for one in results.measurements if not one.axis and one.cells]
    lines = curves(results)
    n_panels = len(bars) + len(lines)
    if not n_panels:
        raise ValueError("there are no measurements to draw")
    n_rows = -(-n_panels // _COLUMNS)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(5.2 * min(n_panels, _COLUMNS), 3.0 * n_rows + 0.8), layout="constrained")
        figure.suptitle(
            f"fastnet {results.machine['fastnet']}: {results.machine['CPU']}, {results.date[:10]}", fontsize=13
        )
        grid = figure.subplots(n_rows, min(n_panels, _COLUMNS), squeeze=False).ravel()
        for axes, one in zip(grid, bars, strict=False):
            _draw_bars(axes, one)
        for axes, points in zip(grid[len(bars) :], lines.values(), strict=False):
            _draw_curve(axes, points)
        for axes in grid[n_panels:]:
            axes.remove()
    return figure


def _draw_bars(axes: Any, one: Measurement) -> None:
    cells = sorted(one.cells, key=lambda cell: cell.median)
    bars = axes.barh(
        [cell.label for cell in cells],
        [cell.median for cell in cells],
        xerr=[cell.spread * cell.median for cell in cells],
        color=[COLORS[cell.peer] for cell in cells],
        error_kw={"elinewidth": 0.8},
    )
    texts = []
    for cell in cells:
        ratio = one.speed(OWN, cell.peer)
        more = "" if cell.peer == OWN or ratio is None else f" ({ratio_text(ratio)}x)"
        texts.append(f"{time_text(cell.median)}{more}")
    axes.bar_label(bars, texts, padding=4)
    axes.set(xscale="log", xlim=(cells[0].median / 2, cells[-1].median * 12))
    axes.set_title(f"{one.case}, {one.dtype}\n{one.title}", fontsize=8)
    axes.set_xlabel(f"time of a {one.unit}")
    axes.xaxis.set_major_formatter(lambda seconds, _: time_text(seconds).replace(".00", "").replace(".0", ""))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", color="#eeeeee")
    axes.set_axisbelow(True)


def _draw_curve(axes: Any, points: list[Measurement]) -> None:
    labels = {cell.peer: cell.label for point in points for cell in point.cells}
    for peer, label in labels.items():
        found = [(point.value, cell.median) for point in points if (cell := point.cell(peer)) is not None]
        width = 2.4 if peer == OWN else 1.2
        style = "--" if peer in OURS and peer != OWN else "-"
        axes.plot(*zip(*found, strict=True), style, marker="o", ms=3, lw=width, color=COLORS[peer], label=label)
    axes.set(xscale="log", yscale="log", xlabel=points[0].axis)
    axes.set_title(f"time of a step by {points[0].axis}, {points[0].dtype}", fontsize=8)
    axes.set_xticks([point.value for point in points], [f"{point.value:g}" for point in points])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda seconds, _: time_text(seconds).replace(".00", "").replace(".0", ""))
    axes.grid(visible=True, color="#eeeeee")
    axes.legend(frameon=False, fontsize=7)


def save(results: Results, path: str | PathLike[str]) -> None:
    """Draw into a file, whose ending says the format."""
    draw(results).savefig(path, dpi=110)


def svg(results: Results) -> str:
    """The drawing as an element to be put into HTML."""
    buffer = BytesIO()
    draw(results).savefig(buffer, format="svg")
    text = buffer.getvalue().decode("utf-8")
    return text[text.index("<svg") :]
