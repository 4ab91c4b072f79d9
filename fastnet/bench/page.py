"""A run as one page of HTML that needs nothing else."""

from __future__ import annotations

from html import escape

from fastnet.bench import plot
from fastnet.bench.results import OURS, OWN, Measurement, Results
from fastnet.bench.table import COLUMNS, cells_of, curves, filled_columns, time_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin: 2em 0 .3em; } h3 { font-size: 1em; margin: 1.2em 0 .3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9em; }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; white-space: normal; }
th { border-bottom: 2px solid #999; font-weight: 600; }
tr.own { background: #fff1e4; font-weight: 600; } tr.ours { background: #fff8ef; } td.best { background: #e9f7e6; }
.wrong { color: #b00020; font-weight: 600; } .note { color: #666; font-size: .85em; }
svg { width: 100%; height: auto; }
dt { font-weight: 600; float: left; clear: left; width: 9em; } dd { margin-left: 9em; }
"""


def html(results: Results) -> str:
    """The machine, the pictures and all tables."""
    facts = results.machine | {"date": results.date} | {key: str(value) for key, value in results.settings.items()}
    parts = [
        "<h1>fastnet, measured</h1>",
        "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items()) + "</dl>",
        plot.svg(results),
        "<h2>What the columns mean</h2>",
        "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in COLUMNS.items()) + "</dl>",
    ]
    case = ""
    for one in results.measurements:
        if one.axis:
            continue
        if one.case != case:
            case = one.case
            parts.append(f"<h2>{escape(case)}</h2>")
        parts += [f"<h3>{escape(one.title)}, {one.dtype}</h3>", _table(one)]
    for (axis, dtype), points in curves(results).items():
        parts += [f"<h2>scaling by {escape(axis)}, {dtype}: time of a step</h2>", _curve(points)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>fastnet, measured</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _row(cells: list[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)


def _table(one: Measurement) -> str:
    ordered = sorted(one.cells, key=lambda cell: cell.median)
    rows = [cells_of(one, cell) for cell in ordered]
    shown = filled_columns(rows)
    headings = [*COLUMNS]
    headings[1] = f"time a {one.unit}"
    lines = [f"<tr>{_row([headings[index] for index in shown], 'th')}</tr>"]
    for cell, row in zip(ordered, rows, strict=True):
        kind = "own" if cell.peer == OWN else "ours" if cell.peer in OURS else ""
        lines.append(f'<tr class="{kind}">{_row([row[index] for index in shown])}</tr>')
    text = f"<table>{''.join(lines)}</table>"
    for label, why in one.wrong.items():
        text += f'<p class="wrong">{escape(label)}: {escape(why)}</p>'
    if one.absent:
        reasons = "; ".join(f"{label}: {why}" for label, why in one.absent.items())
        text += f'<p class="note">Without {escape(reasons)}</p>'
    return text


def _curve(points: list[Measurement]) -> str:
    labels = {cell.peer: cell.label for point in points for cell in point.cells}
    lines = [f"<tr>{_row([points[0].axis, *labels.values()], 'th')}</tr>"]
    for point in points:
        fastest = min(cell.median for cell in point.cells)
        cells = ""
        for peer in labels:
            cell = point.cell(peer)
            best = ' class="best"' if cell and cell.median == fastest else ""
            cells += f"<td{best}>{time_text(cell.median) if cell else ''}</td>"
        lines.append(f"<tr><td>{point.value:g}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
