"""The tables of `python -m fastnet.bench.parts`: the whole step of each case, then its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from fastnet.bench.documents import markdown
from fastnet.bench.part_kernel import PARTS
from fastnet.bench.results import Measurement, Results
from fastnet.bench.summary import machine_line
from fastnet.bench.table import ratio_text, three_digits, time_text
from fastnet.bench.timing import median_ratio
from fastnet.bench.workloads import DTYPES, get_workloads

#: The name under which the document holds the tables.
NAME = "parts"
#: Wholes: the parts one after another by one function, `train` alone, and `Network.fit`.
IN_TURN, TRAIN, FIT = "parts in turn", "train", "fit"
#: Rows below the parts: what `train` takes beside them, and all of it.
REST, STEP = "rest", "step"


def with_threads(whole: str, threads: int) -> str:
    """The title of a whole.

    Examples
    --------
    >>> with_threads("fit", 2)
    'fit, 2 threads'
    """
    return f"{whole}, {threads} {'thread' if threads == 1 else 'threads'}"


def _rounds(one: Measurement) -> list[float]:
    return one.cells[0].seconds


def seconds_of(one: Measurement) -> float:
    """The median time of a step."""
    return one.cells[0].median


def rest_of(group: Mapping[str, Measurement]) -> list[float]:
    """What `train` takes beside the parts, in each round."""
    rounds = zip(*(_rounds(group[title]) for title in (with_threads(TRAIN, 1), *PARTS)), strict=True)
    return [whole - sum(parts) for whole, *parts in rounds]


def grouped(results: Results) -> dict[tuple[str, str], dict[str, Measurement]]:
    """The measurements by case and dtype, then by what was measured."""
    found: dict[tuple[str, str], dict[str, Measurement]] = {}
    for one in results.measurements:
        found.setdefault((one.case, one.dtype), {})[one.title] = one
    return found


def step_table(results: Results) -> str:
    """A row for each case and dtype: the time of a step, from the sum of its parts to `Network.fit`."""
    groups = grouped(results)
    wholes = [title for title in next(iter(groups.values())) if title not in PARTS]
    cells = [("case", "dtype", "sum of the parts", *wholes, "of peak, 1 thread", "gained by threads")]
    for (case, dtype), group in groups.items():
        parts = median(map(sum, zip(*(_rounds(group[part]) for part in PARTS), strict=True)))
        train, threads = group[with_threads(TRAIN, 1)], results.settings["threads"]
        cells.append(
            (
                case,
                dtype,
                time_text(parts),
                *(time_text(seconds_of(group[whole])) for whole in wholes),
                _share(train),
                ratio_text(median_ratio(_rounds(train), _rounds(group[with_threads(TRAIN, threads)]))),
            )
        )
    return markdown(cells, left=(0, 1))


def part_table(results: Results, case: str) -> str:
    """A row for each part of a case's step, in each dtype."""
    heading = ("dtype", "part", "time", "of the step", "GFLOP/s", "of peak", "KiB", "GB/s", "flops a byte")
    cells: list[tuple[str, ...]] = [heading]
    for dtype in DTYPES:
        group = grouped(results).get((case, dtype))
        if group is None:
            continue
        whole = group[with_threads(TRAIN, 1)]
        cells += [_part_row(group[part], whole) for part in PARTS]
        rest = rest_of(group)
        time = f"{'-' if median(rest) < 0 else ''}{time_text(abs(median(rest)))}"
        cells.append((dtype, REST, time, f"{median_ratio(rest, _rounds(whole)):.0%}", *[""] * 5))
        cells.append((dtype, f"**{STEP}**", *_part_row(whole, whole)[2:]))
    return markdown(cells, left=(0, 1))


def _part_row(one: Measurement, whole: Measurement) -> tuple[str, ...]:
    seconds = seconds_of(one)
    return (
        one.dtype,
        one.title,
        time_text(seconds),
        f"{median_ratio(_rounds(one), _rounds(whole)):.0%}",
        three_digits(one.flops / seconds / 1e9) if one.flops else "",
        _share(one),
        three_digits(one.n_bytes / 1024) if one.n_bytes else "",
        three_digits(one.n_bytes / seconds / 1e9) if one.n_bytes else "",
        three_digits(one.flops / one.n_bytes) if one.flops and one.n_bytes else "",
    )


def _share(one: Measurement) -> str:
    """The share of the peak, where there is arithmetic."""
    share = one.share_of_peak(one.cells[0]) if one.flops else None
    return "" if share is None else f"{share:.0%}"


def limits_line(results: Results) -> str:
    """What the machine reaches at most: flops on one core, and bytes by where they lie."""
    peaks = ", ".join(f"{three_digits(peak / 1e9)} in {dtype}" for dtype, peak in peaks_of(results).items())
    speeds = ", ".join(
        f"{three_digits(speed / 1e9)} from {level}" for level, speed in results.settings["bandwidth"].items()
    )
    return f"At most, on one core: GFLOP/s {peaks}; GB/s {speeds}."


def peaks_of(results: Results) -> dict[str, float]:
    """The median peak of one core, by dtype."""
    found: dict[str, list[float]] = {}
    for one in results.measurements:
        if one.title == IN_TURN:
            found.setdefault(one.dtype, []).extend(one.peak)
    return {dtype: median(peaks) for dtype, peaks in found.items()}


def parts_text(results: Results) -> str:
    """What stands in the document."""
    return "\n\n".join(_paragraphs(results))


def _paragraphs(results: Results) -> Iterator[str]:
    yield machine_line(results)
    yield limits_line(results)
    yield step_table(results)
    titles = {workload.name: workload.title for workload in get_workloads(None)}
    for case in dict.fromkeys(case for case, _ in grouped(results)):
        yield f"**{case}**: {titles[case]}, one thread"
        yield part_table(results, case)
