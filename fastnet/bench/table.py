"""Results as text: tables for the terminal, and figures as people read them."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fastnet.bench.results import BASELINE, OURS, OWN, Cell, Measurement, Results

#: Headings of the columns, and what they mean.
COLUMNS = {
    "peer": "who did it",
    "time": "median over the rounds, of one step, call or process",
    "±": "half the distance between the quartiles",
    "NumPy loop = 1": "how many times as fast as the notebook's NumPy",
    "best peer = 1": "how many times as fast as the fastest that is not fastnet",
    "rate": "multiplications and additions, or bytes, a second",
    "of peak": "that as a share of what this machine reached in the same rounds",
    "B/unit": "bytes allocated by one step, call or process after warm-up, but for Python's small objects",
    "first, s": "preparing and the first run, compilation included",
    "difference": "of the result from fastnet's, checked before anything was timed",
    "other work": "what the peer does otherwise",
}


def time_text(seconds: float) -> str:
    """Three digits and a unit.

    Examples
    --------
    >>> time_text(6.2e-5), time_text(1.5), time_text(8.03e-8)
    ('62.0 us', '1.50 s', '80.3 ns')
    """
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 0.9995:
            return f"{three_digits(seconds * factor)} {unit}"
    return f"{three_digits(seconds * 1e9)} ns"


def three_digits(number: float) -> str:
    """Two places at most, and commas.

    Examples
    --------
    >>> three_digits(1234.5), three_digits(0.125)
    ('1,234', '0.12')
    """
    places = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:,.{places}f}"


def ratio_text(ratio: float | None) -> str:
    """A ratio to two digits, or three above ten.

    Examples
    --------
    >>> ratio_text(134.2), ratio_text(4.51), ratio_text(0.873), ratio_text(None)
    ('134', '4.5', '0.87', '')
    """
    if ratio is None:
        return ""
    if ratio >= 9.95:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 0.995 else f"{ratio:.2g}"


def rate_text(measurement: Measurement, cell: Cell) -> str:
    """GFLOP/s or GB/s."""
    rate = measurement.rate(cell)
    if rate is None:
        return ""
    return f"{three_digits(rate / 1e9)} {'GFLOP/s' if measurement.flops else 'GB/s'}"


def cells_of(measurement: Measurement, cell: Cell) -> list[str]:
    """A row: the columns of `COLUMNS` for one cell."""
    best = measurement.best_peer
    share = measurement.share_of_peak(cell)
    return [
        cell.label,
        time_text(cell.median),
        f"{cell.spread:.0%}",
        ratio_text(measurement.speed(cell.peer, BASELINE)),
        ratio_text(measurement.speed(cell.peer, best.peer)) if best else "",
        rate_text(measurement, cell),
        f"{share:.0%}" if share is not None else "",
        f"{cell.allocated:,.0f}" if cell.allocated is not None else "",
        f"{cell.first_seconds:.2f}" if cell.first_seconds is not None else "",
        f"{cell.difference:.0e}" if cell.difference is not None else "",
        cell.note,
    ]


def filled_columns(rows: list[list[str]]) -> list[int]:
    """The columns that say something in some row."""
    return [index for index in range(len(COLUMNS)) if any(row[index] for row in rows)]


def table_of(measurement: Measurement) -> Table:
    """One measurement, fastest peer first."""
    ordered = sorted(measurement.cells, key=lambda cell: cell.median)
    rows = [cells_of(measurement, cell) for cell in ordered]
    headings = [*COLUMNS]
    headings[1], headings[7] = f"time a {measurement.unit}", f"B/{measurement.unit}"
    table = Table(title=measurement.key, title_justify="left", title_style="bold", pad_edge=False)
    shown = filled_columns(rows)
    for index in shown:
        is_text = index in (0, len(headings) - 1)
        table.add_column(headings[index], justify="left" if is_text else "right", no_wrap=index == 0)
    for cell, row in zip(ordered, rows, strict=True):
        style = "bold green" if cell.peer == OWN else "green" if cell.peer in OURS else ""
        table.add_row(*(row[index] for index in shown), style=style)
    return table


def lines_below(measurement: Measurement) -> Text:
    """Who has no figures, and why."""
    text = Text()
    for label, why in measurement.wrong.items():
        text.append(f"WRONG {label}: {why}\n", style="bold red")
    reasons: dict[str, list[str]] = {}
    for label, why in measurement.absent.items():
        reasons.setdefault(why, []).append(label)
    for why, labels in reasons.items():
        text.append(f"without {', '.join(labels)}: {why}\n", style="dim")
    return text


def curve_table(points: list[Measurement]) -> Table:
    """The points of a curve: a row for each value, a column for each peer, times of a step."""
    labels = {cell.peer: cell.label for point in points for cell in point.cells}
    axis = points[0].axis
    table = Table(title=f"scaling, {axis}, {points[0].dtype}: time of a step", title_justify="left", title_style="bold")
    table.add_column(axis, justify="right")
    for label in labels.values():
        table.add_column(label, justify="right")
    for point in points:
        fastest = min(cell.median for cell in point.cells)
        row = [f"{point.value:g}"]
        for peer in labels:
            cell = point.cell(peer)
            text = time_text(cell.median) if cell else ""
            row.append(f"[bold green]{text}[/]" if cell and cell.median == fastest else text)
        table.add_row(*row)
    return table


def curves(results: Results) -> dict[tuple[str, str], list[Measurement]]:
    """The points of each curve that have times, in order, by axis and dtype."""
    found: dict[tuple[str, str], list[Measurement]] = {}
    for one in results.measurements:
        if one.axis and one.cells:
            found.setdefault((one.axis, one.dtype), []).append(one)
    return found


def report(results: Results) -> Group:
    """Everything, to be printed on a `rich.console.Console`."""
    parts: list[Table | Text] = []
    for one in results.measurements:
        if not one.axis:
            parts += [table_of(one), lines_below(one)]
        elif one.wrong:
            parts.append(lines_below(one))
    parts += [curve_table(points) for points in curves(results).values()]
    return Group(*parts)


def print_report(results: Results) -> None:
    """Print the machine, the tables and what the columns mean."""
    console = Console()
    if not console.is_terminal:
        # In a file or a pipe nothing is gained by folding a row.
        console = Console(width=200)
    machine = results.machine
    console.print(
        f"{machine['CPU']}, {machine['cores']}; Python {machine['Python']}, numpy {machine['numpy']}, "
        f"numba {machine['numba']}, {machine['packages']}; {results.date}; {results.settings['threads']} threads",
        highlight=False,
    )
    console.print(report(results))
    meanings = "; ".join(
        f"{name}: {meaning}" for name, meaning in COLUMNS.items() if name not in ("peer", "other work")
    )
    console.print(Text(meanings, style="dim"))
