"""The roofline of a training step: what its parts reach, under what the machine could."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet.bench.part_kernel import PARTS
from fastnet.bench.part_tables import grouped, peaks_of, seconds_of
from fastnet.bench.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A colour for each part that calculates, and a marker for each case in turn.
COLORS = {
    "forward": "#1f78b4",
    "output": "#b15928",
    "backward": "#33a02c",
    "sums": "#969696",
    "gradient": "#d95f02",
    "optimizer": "#6a3d9a",
}
MARKERS = "osD^vP*X"
#: Room beside and below the points, for what is written along the roofs, and above them.
_BELOW, _ABOVE = 0.35, 2.0


def draw(results: Results) -> Figure:
    """Draw a panel for each dtype: GFLOP/s of each part by the flops for each byte that it moves at least.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    peaks = peaks_of(results)
    if not peaks:
        raise ValueError("there are no measurements to draw")
    cases = list(dict.fromkeys(one.case for one in results.measurements))
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4 * len(peaks) + 1.6, 5.6), layout="constrained")
        figure.suptitle("The parts of a training step on one core, and what the core can do", fontsize=15)
        figure.supxlabel(
            f"{results.machine['CPU']}, {results.date[:10]}", fontsize=9, color="#666666", x=0.01, ha="left"
        )
        panels = figure.subplots(1, len(peaks), squeeze=False, sharex=True, sharey=True)[0]
        points = _points(results)
        low, high = _limits([intensity for *_, intensity, _ in points])
        bottom, _ = _limits([rate for *_, rate in points])
        for axes, (dtype, peak) in zip(panels, peaks.items(), strict=True):
            _draw_roofs(axes, peak, results.settings["bandwidth"], low, high)
            for case, kind, part, intensity, rate in points:
                if kind == dtype:
                    marker = MARKERS[cases.index(case) % len(MARKERS)]
                    axes.plot(intensity, rate, marker, ms=9, color=COLORS[part], mec="white", mew=0.8)
            axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, _ABOVE * max(peaks.values()) / 1e9))
            axes.set_xlabel("flops for each byte moved at least")
            axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
            axes.yaxis.set_major_formatter(lambda number, _: f"{number:g}")
            axes.set_title(dtype, fontsize=12)
            axes.grid(visible=True, color="#eeeeee")
            axes.set_axisbelow(True)
        panels[0].set_ylabel("GFLOP/s")
        figure.legend(handles=_handles(cases), loc="outside right center", frameon=False)
    return figure


def _points(results: Results) -> list[tuple[str, str, str, float, float]]:
    """Case, dtype, part, flops a byte and GFLOP/s of what calculates."""
    return [
        (case, dtype, part, one.flops / one.n_bytes, one.flops / seconds_of(one) / 1e9)
        for (case, dtype), group in grouped(results).items()
        for part in PARTS
        if (one := group[part]).flops
    ]


def _limits(numbers: list[float]) -> tuple[float, float]:
    return _BELOW * min(numbers), _ABOVE * max(numbers)


def _draw_roofs(axes: Any, peak: float, bandwidths: dict[str, float], low: float, high: float) -> None:
    """The peak, and for each place of the data the line that its bandwidth allows, up to the peak."""
    for level, speed in bandwidths.items():
        ridge = peak / speed
        ends = np.array([low, min(ridge, high)])
        axes.plot(ends, ends * speed / 1e9, color="#bbbbbb", lw=1.5, zorder=1)
        start = 1.15 * low
        # Turned into the direction of the line, whose slope this is.
        axes.text(
            start,
            1.1 * start * speed / 1e9,
            f"{level} {speed / 1e9:,.0f} GB/s",
            fontsize=9,
            color="#666666",
            rotation=np.degrees(np.arctan(speed / 1e9)),
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
    axes.plot([peak / max(bandwidths.values()), high], [peak / 1e9] * 2, color="#444444", lw=2, zorder=1)
    axes.annotate(
        f"peak {peak / 1e9:,.0f} GFLOP/s",
        (peak / max(bandwidths.values()), peak / 1e9),
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=9,
        color="#444444",
    )


def _handles(cases: list[str]) -> list[Any]:
    """What the colours and the markers mean."""
    from matplotlib.lines import Line2D

    def handle(label: str, marker: str, color: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, ms=9, color=color, label=label)

    parts = [handle(part, "s", color) for part, color in COLORS.items()]
    return (
        parts
        + [Line2D([], [], ls="", label=" ")]
        + [handle(c, MARKERS[i % len(MARKERS)], "#444444") for i, c in enumerate(cases)]
    )


def save(results: Results, path: str | PathLike[str]) -> None:
    """Draw into a file, whose ending says the format."""
    draw(results).savefig(path, dpi=110)
