"""What documents say of a run: a row for each measurement in the README, and where others are the better choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastnet.bench.documents import markdown, write_generated
from fastnet.bench.peers import PEERS
from fastnet.bench.results import BASELINE, OURS, OWN, SPECIALIZED, Measurement, Results
from fastnet.bench.table import curves, ratio_text, time_text

#: What is written, under which name: the table of ratios, and the break-even lines.
README, README_NAME = Path("README.md"), "bench"
LIMITS, LIMITS_NAME = Path("docs/when-not-to-use.md"), "break-even"

#: Cases that are tables of their own.
_NOT_IN_README = ("kernels", "scaling", "startup")


def machine_line(results: Results) -> str:
    """Where and when it was measured."""
    machine = results.machine
    python = machine["Python"].split(",")[0].removeprefix("CPython ")
    return (
        f"{machine['CPU']}, {results.settings['threads']} threads; Python {python}, "
        f"NumPy {machine['numpy']}, Numba {machine['numba']}, {machine['packages']}; {results.date[:10]}"
        f"{'; a quick run, on few samples' if results.settings['quick'] else ''}."
    )


def readme_table(results: Results) -> str:
    """A row for each case and dtype: fastnet's time, and how many times as long each peer takes.

    A ratio below one, where fastnet is the slower, is bold.
    """
    measured = [one for one in results.measurements if one.case not in _NOT_IN_README]
    present = {cell.peer for one in measured for cell in one.cells}
    labels = {name: peer.label for name, peer in PEERS.items() if name in present and name != OWN}
    cells = [("case", "dtype", "fastnet", *labels.values())]
    for one in measured:
        own = one.cell(OWN)
        assert own is not None, one.key
        ratios = []
        for peer in labels:
            ratio = one.speed(OWN, peer)
            text = ratio_text(ratio)
            ratios.append(f"**{text}**" if ratio is not None and ratio < 1 and peer not in OURS else text)
        cells.append((one.case, one.dtype, f"{time_text(own.median)} a {one.unit}", *ratios))
    return markdown(cells, left=(0, 1))


def readme_text(results: Results) -> str:
    """What stands in the README."""
    return (
        f"{machine_line(results)}\n\n{readme_table(results)}\n\n"
        "The time of fastnet, and how many times as long others take. Where fastnet is slower the number is bold. "
        "Empty: the library cannot do it."
    )


def limits_text(results: Results) -> str:
    """Where others are faster, as `scaling` and `startup` have it."""
    lines = [machine_line(results), ""]
    lines += [f"- {line}" for line in [*_startup_lines(results), *_curve_lines(results), *_lost_lines(results)]]
    return "\n".join(lines)


def _startup_lines(results: Results) -> Iterator[str]:
    rows = {(one.title, one.dtype): one for one in results.of_case("startup")}
    for (title, dtype), one in rows.items():
        times = ", ".join(f"{cell.label} {time_text(cell.median)}" for cell in one.cells)
        yield f"**{title}**{'' if title == 'import' else f' ({dtype})'}, a whole process: {times}."
    first = rows.get(("first fit, kernels in the cache", "float64"))
    epochs = next((one for one in results.of_case("notebook") if one.dtype == "float64"), None)
    if first is None or epochs is None:
        return
    head_start = _median(first, OWN) - _median(first, BASELINE)
    gained = _median(epochs, BASELINE) - _median(epochs, OWN)
    yield (
        f"A process that trains the notebook's network and nothing else is faster with fastnet from "
        f"**{head_start / gained:,.0f} epochs** on: {time_text(head_start)} later at the start, "
        f"{time_text(gained)} gained with each."
    )


def _median(one: Measurement, peer: str) -> float:
    cell = one.cell(peer)
    assert cell is not None, f"{one.key} has no cell of {peer}"
    return cell.median


def _curve_lines(results: Results) -> Iterator[str]:
    for (axis, dtype), points in curves(results).items():
        if axis == "threads":
            yield f"**{axis}** ({dtype}): {_thread_line(points)}."
            continue
        labels = {cell.peer: cell.label for point in points for cell in point.cells if cell.peer not in OURS}
        faster = []
        for peer, label in labels.items():
            values = [
                f"{point.value:g} ({ratio_text(point.speed(OWN, peer))})"
                for point in points
                if (point.speed(OWN, peer) or 1.0) < 1.0
            ]
            if values:
                faster.append(f"{label} at {', '.join(values)}")
        span = f"{points[0].value:g} to {points[-1].value:g}"
        yield f"**{axis}** {span} ({dtype}): {'faster are ' + '; '.join(faster) if faster else 'nothing is faster'}."


def _thread_line(points: list[Measurement]) -> str:
    return ", ".join(f"{time_text(_median(point, OWN))} with {point.value:g}" for point in points)


def _lost_lines(results: Results) -> Iterator[str]:
    for one in results.measurements:
        best = one.best_peer
        if one.axis or one.case == "startup" or best is None:
            continue
        for own in filter(None, (one.cell(OWN), one.cell(SPECIALIZED))):
            ratio = one.speed(own.peer, best.peer)
            if ratio is not None and ratio < 1.0:
                what = f"**{one.case}**, {one.title} ({one.dtype})"
                yield f"{what}: {best.label} takes {ratio_text(ratio)} of the time of {own.label}."


def write_documents(results: Results, root: Path) -> list[Path]:
    """Write the figures into the documents of a checkout; return which were written.

    Raises
    ------
    OSError, ValueError
        If a document is missing, or has no markers.
    """
    write_generated(root / README, README_NAME, readme_text(results))
    write_generated(root / LIMITS, LIMITS_NAME, limits_text(results))
    return [root / README, root / LIMITS]
