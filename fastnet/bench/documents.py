"""Figures in documents: Markdown that a program writes between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markers(name: str) -> tuple[str, str]:
    """The lines between which a document holds what is generated under a name.

    Examples
    --------
    >>> markers("demo")
    ('<!-- demo:begin -->', '<!-- demo:end -->')
    """
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def generated(text: str, name: str) -> str:
    """What stands between the markers of a name.

    Raises
    ------
    ValueError
        If the text has no such markers.
    """
    begin, end = markers(name)
    _, found_begin, rest = text.partition(begin)
    inside, found_end, _ = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no lines {begin} and {end}")
    return inside.strip("\n")


def write_generated(path: Path, name: str, text: str) -> None:
    """Put a text between the markers of a name.

    Raises
    ------
    OSError
        If the file cannot be read or written.
    ValueError
        If it has no such markers.
    """
    document = path.read_text(encoding="utf-8")
    try:
        generated(document, name)
    except ValueError as error:
        raise ValueError(f"{path} has {error}") from None
    begin, end = markers(name)
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def markdown(cells: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """An aligned Markdown table of cells, whose first row is the header and whose columns `left` are flush left."""
    columns = range(len(cells[0]))
    widths = [max(len(row[i]) for row in cells) for i in columns]
    lines = [
        "| " + " | ".join(row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i]) for i in columns) + " |"
        for row in cells
    ]
    rule = "| " + " | ".join("-" * widths[i] if i in left else "-" * (widths[i] - 1) + ":" for i in columns) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def rows(table: str) -> list[list[str]]:
    """The cells of the rows of a Markdown table, without the header and its rule.

    Examples
    --------
    >>> rows(markdown([("case", "time"), ("digits", "62 us")], left=(0,)))
    [['digits', '62 us']]
    """
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
