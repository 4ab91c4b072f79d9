"""`python -m fastnet bench`: its options, and what they do."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnet.bench.workloads import DTYPES

#: What libraries read when they are loaded, to say how many threads they start.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
#: Set in the process that has been limited.
_LIMITED = "FASTNET_BENCH_THREADS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cases", metavar="CASE", nargs="*", help="names of cases; without any, all of them")
    parser.add_argument("--list", action="store_true", help="list cases and peers, and which peers are there")
    parser.add_argument("--peers", metavar="NAMES", help="comma-separated; fastnet and the NumPy loop always take part")
    parser.add_argument("--dtype", choices=(*DTYPES, "both"), default="both")
    parser.add_argument("--threads", metavar="N", type=int, help="give the process, and so every library, N cores only")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer samples, epochs and rounds, and allocations of fastnet only: to see that it works",
    )
    parser.add_argument(
        "--no-allocations", action="store_true", help="do not count allocations, which takes processes of their own"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures")
    parser.add_argument("--from", dest="source", metavar="FILE", type=Path, help="measure nothing: take such a file")
    parser.add_argument(
        "--compare",
        metavar="OLD",
        type=Path,
        help="say what is slower than in such a file; the exit code is 3 if any is",
    )
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw bars and curves (.png, .svg, .pdf)")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write one page that needs nothing else")
    parser.add_argument(
        "--readme",
        metavar="FOLDER",
        type=Path,
        nargs="?",
        const=Path(),
        help="write the figures into README.md and docs/when-not-to-use.md of this checkout",
    )


def main(options: argparse.Namespace, usage_error: Callable[[str], Any]) -> int:
    """Run it.

    Returns
    -------
    int
        0; 1 if a peer's result was wrong; 3 if `--compare` found something slower; 130 if Ctrl-C ended it early.
    """
    if importlib.util.find_spec("rich") is None:
        usage_error("the benchmarks need rich: pip install fastnet[bench]")
    from fastnet.bench import comparison, page, plot, runner, summary, table
    from fastnet.bench.results import read_results

    if options.list:
        _print_list(runner.CASES)
        return 0
    if options.threads is not None and os.environ.get(_LIMITED) != str(options.threads):
        return _run_limited(options.threads, usage_error)
    dtypes = DTYPES if options.dtype == "both" else (options.dtype,)
    peers = options.peers.split(",") if options.peers else None
    try:
        old = read_results(options.compare) if options.compare else None
        if options.source:
            results = read_results(options.source)
        else:
            with _progress() as show:
                results = runner.run(
                    options.cases or None,
                    peers,
                    dtypes,
                    quick=options.quick,
                    threads=options.threads,
                    allocations=not options.no_allocations,
                    show=show,
                )
        changes = comparison.compare(old, results) if old is not None else []
    except (OSError, ValueError) as error:
        usage_error(str(error))
    if options.json:
        results.write(options.json)
    table.print_report(results)
    if options.plot:
        plot.save(results, options.plot)
    if options.html:
        options.html.write_text(page.html(results), encoding="utf-8")
    slower = [change for change in changes if change.is_slower]
    for change in slower or changes:
        sys.stdout.write(f"{change}\n")
    for wrong in results.wrong:
        sys.stderr.write(f"Wrong: {wrong}\n")
    if results.wrong:
        return 1
    if results.settings.get("interrupted"):
        sys.stderr.write("Interrupted: what is reported are the rounds until then.\n")
        return 130
    if options.readme is not None:
        for path in summary.write_documents(results, options.readme):
            sys.stdout.write(f"written: {path}\n")
    return 3 if slower else 0


def _print_list(cases: tuple[str, ...]) -> None:
    from fastnet.bench.peers import PEERS

    sys.stdout.write(f"cases: {', '.join(cases)}\n")
    for name, peer in PEERS.items():
        sys.stdout.write(f"{name:15}{peer.absence() or 'is there'}\n")


def _run_limited(threads: int, usage_error: Callable[[str], Any]) -> int:
    """Run the same command in a process that has so many cores: libraries read that when they are loaded."""
    if not hasattr(os, "sched_setaffinity"):
        usage_error("--threads needs a system on which a process can be given fewer cores, as Linux is")
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        usage_error(f"--threads must be from 1 to {len(cores)}, the cores of this process; got {threads}")
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {_LIMITED: str(threads)}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores[:threads]))
    try:
        command = [sys.executable, "-m", "fastnet", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that tells which workload is measured; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, done: int, total: int) -> None:
            bar.update(task, description=text[:70], completed=done, total=total)

        yield show
