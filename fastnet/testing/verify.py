"""The equality ladder on this machine: run the rungs, report them, and compare the reports of two machines."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

from fastnet.backends import Backend
from fastnet.testing.machine import describe_machine
from fastnet.testing.other_cpus import start_children, stop_children
from fastnet.testing.rung_context import Context, Figures, Findings
from fastnet.testing.rungs import RUNGS, names_of

#: Version of the JSON files; one that reads them knows this one only.
SCHEMA = 1
#: Failures that are printed of a rung.
_SHOWN = 3


@dataclass(frozen=True)
class Rung:
    """The outcome of one rung.

    Attributes
    ----------
    name, title : str
        Its name in `fastnet.testing.rungs.RUNGS`, and what it asserts.
    failures : tuple of str
        What went wrong; the first one says what parted first.
    figures : dict
        What was measured.
    digests : dict
        SHA-256 of results by name.
    skipped : str
        Why it was not made, or "".
    seconds : float
        How long it took.
    """

    name: str
    title: str
    failures: tuple[str, ...]
    figures: Figures
    digests: dict[str, str]
    skipped: str
    seconds: float

    @property
    def status(self) -> str:
        """One of "pass", "FAIL" and "skip"."""
        return "FAIL" if self.failures else "skip" if self.skipped else "pass"


@dataclass(frozen=True)
class Report:
    """The outcomes of all rungs that were run, and the machine they were run on.

    Examples
    --------
    >>> report = verify(rungs=["threads"])
    >>> report.passed, [rung.name for rung in report.rungs]
    (True, ['threads'])
    """

    rungs: tuple[Rung, ...]
    machine: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether no rung failed."""
        return not any(rung.failures for rung in self.rungs)

    @property
    def seconds(self) -> float:
        """How long all of them took."""
        return sum(rung.seconds for rung in self.rungs)

    @property
    def digests(self) -> dict[str, str]:
        """All digests, by rung and name."""
        return {f"{rung.name}: {name}": value for rung in self.rungs for name, value in rung.digests.items()}

    def __str__(self) -> str:
        width = max((len(rung.name) for rung in self.rungs), default=0)
        lines = [f"{'rung':{width}}  result  seconds  figures"]
        for rung in self.rungs:
            figures = rung.skipped or ", ".join(f"{name} {_number(value)}" for name, value in _brief(rung).items())
            lines.append(f"{rung.name:{width}}  {rung.status:6}  {rung.seconds:7.1f}  {figures}")
        for rung in self.rungs:
            lines += [line for failure in rung.failures[:_SHOWN] for line in _indented(rung.name, failure)]
            if len(rung.failures) > _SHOWN:
                lines.append(f"{rung.name}: {len(rung.failures) - _SHOWN} more")
        n_failed = sum(rung.status == "FAIL" for rung in self.rungs)
        outcome = "all rungs hold" if self.passed else f"{n_failed} of {len(self.rungs)} rungs FAILED"
        lines += ["", f"{outcome}, {self.seconds:.1f} s", "", "machine"]
        label = max(map(len, self.machine), default=0)
        for name, value in self.machine.items():
            first, *others = wrap(value, 120 - label - 4, break_long_words=False) or [""]
            lines += [f"  {name:{label}}  {first}", *(" " * (label + 4) + other for other in others)]
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write the report as JSON."""
        content = {
            "schema": SCHEMA,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "rungs": [{"status": rung.status, **asdict(rung)} for rung in self.rungs],
            "machine": self.machine,
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_report(path: str | Path) -> Report:
    """A report that `Report.write` has written.

    Raises
    ------
    ValueError
        If the file is none, or of another schema.
    """
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema == SCHEMA:
            names = Rung.__dataclass_fields__
            rungs = [Rung(**{name: rung[name] for name in names}) for rung in content["rungs"]]
            return Report(tuple(replace(rung, failures=tuple(rung.failures)) for rung in rungs), content["machine"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a report of `python -m fastnet verify --json`: {error!r}") from None
    raise ValueError(f"{path} must be a report of schema {SCHEMA}; got {schema!r}")


def verify(
    backend: str | Backend = "numba",
    *,
    rungs: Iterable[str] | None = None,
    exhaustive: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Run the equality ladder on this machine.

    Parameters
    ----------
    backend : str or Backend
        What is judged. The rungs that call the kernels one by one, and those in other processes, are for "numba".
    rungs : iterable of str, optional
        Names in `fastnet.testing.rungs.RUNGS`; all of them by default.
    exhaustive : bool
        Whether to take much larger samples, all float32 numbers among them: hours.
    progress : callable, optional
        Is told what is being done, a line at a time.

    Returns
    -------
    Report
        It can be printed.

    Examples
    --------
    >>> verify(rungs=["release"]).passed
    True
    """
    names = names_of(rungs)
    context = Context(backend, exhaustive)
    outcomes = []
    try:
        if "cpus" in names:
            start_children(context)
        for position, name in enumerate(names, 1):
            if progress is not None:
                context.progress = partial(_tell, progress, f"[{position}/{len(names)}] {name}")
            outcomes.append(_run(name, context))
    finally:
        stop_children(context)
    return Report(tuple(outcomes), describe_machine())


def _run(name: str, context: Context) -> Rung:
    start = time.perf_counter()
    context.progress("begins")
    with warnings.catch_warnings():
        # A fit that Ctrl-C has stopped returns with a warning; what it leaves would count as a fault.
        warnings.filterwarnings("error", "training was interrupted", RuntimeWarning)
        try:
            findings = RUNGS[name](context)
        except RuntimeWarning as warning:
            raise KeyboardInterrupt(str(warning)) from None
        except FloatingPointError as error:
            findings = Findings([str(error)])
    title = (RUNGS[name].__doc__ or "").partition("\n")[0]
    failures, seconds = tuple(findings.failures), time.perf_counter() - start
    return Rung(name, title, failures, findings.figures, findings.digests, findings.skipped, seconds)


def _tell(progress: Callable[[str], None], place: str, text: str) -> None:
    progress(f"{place}: {text}")


def compare_reports(mine: Report, other: Report) -> tuple[bool, str]:
    """Whether two machines have the same digests, and what differs between them.

    Digests that only one report has are named, and count for nothing; but some must be in both.
    """
    a, b = mine.digests, other.digests
    common = [name for name in a if name in b]
    parted = [name for name in common if a[name] != b[name]]
    lines = [f"{len(common) - len(parted)} of {len(common)} digests are the same on both machines"]
    lines += [f"  differs: {name}" for name in parted]
    for where, those, others in (("here", a, b), ("there", b, a)):
        n_odd = Counter(name.partition(":")[0] for name in those if name not in others)
        lines += [f"  only {where}: {n} of {rung}" for rung, n in n_odd.items()]
    lines += _differences("the machines differ in", mine.machine, other.machine)
    return bool(common) and not parted, "\n".join(lines)


def _differences(title: str, mine: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*mine, *other]):
        here, there = (words.get(name, "not set") for words in (mine, other))
        if here == there:
            continue
        if name.endswith("features"):
            # Lists of words: what only one has says more than both.
            only_here, only_there = (sorted(set(a.split()) - set(b.split())) for a, b in ((here, there), (there, here)))
            here, there = (" ".join(words) or "nothing more" for words in (only_here, only_there))
        lines.append(f"  {name}: here {here}; there {there}")
    return [title, *lines] if lines else ["the machines' descriptions are the same"]


def _brief(rung: Rung) -> Figures:
    """The figures of a line: of many errors the largest alone."""
    errors = {name: value for name, value in rung.figures.items() if name.endswith((" float32 ULP", " float64 ULP"))}
    if not errors:
        return rung.figures
    worst = max(errors, key=lambda name: float(errors[name]))
    others = {name: value for name, value in rung.figures.items() if name not in errors}
    return {**others, "largest error:": f"{worst.removesuffix(' ULP')} {errors[worst]} ULP"}


def _number(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _indented(name: str, failure: str) -> list[str]:
    first, *others = failure.splitlines()
    return ["", f"{name}: {first}", *(f"    {line}" for line in others)]
