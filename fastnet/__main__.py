"""The command line: `python -m fastnet verify`, `bench`, `warmup` and `info`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import fastnet

_CLEAR_LINE = "\r\x1b[K"


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="check that this machine gives fastnet's bits",
        description="Run the equality ladder on this machine: kernels, functions, gradients, trainings, notebooks, the "
        "release's digests, other CPUs and thread counts. The exit code is 0 if all rungs hold.",
    )
    parser.add_argument("--only", metavar="RUNG", action="append", help="run this rung only; can be given again")
    parser.add_argument("--json", metavar="FILE", help="write the report, with digests of all results")
    parser.add_argument("--against", metavar="OTHER", help="compare digests with another machine's report")
    parser.add_argument(
        "--exhaustive", action="store_true", help="much larger samples, all of float32 among them: takes some two hours"
    )
    parser.add_argument("--write-release", action="store_true", help="write the digests that a release is known by")
    parser.add_argument("--reason", help="why they are written anew; it is kept with them")
    parser.set_defaults(run=_verify, usage_error=parser.error)


def _verify(arguments: argparse.Namespace) -> int:
    from fastnet.testing import release, rung_context, rungs, verify

    if arguments.write_release != bool(arguments.reason):
        arguments.usage_error("--write-release and --reason go together")
    if arguments.write_release and arguments.only:
        arguments.usage_error("--write-release takes all rungs to hold, so it does not go with --only")
    try:
        other = verify.read_report(arguments.against) if arguments.against else None
        wanted = arguments.only
        if arguments.write_release:
            # What is to be written need not agree with what was written before.
            wanted = [name for name in rungs.RUNGS if name != "release"]
        report = verify.verify(rungs=wanted, exhaustive=arguments.exhaustive, progress=_progress())
    except (OSError, ValueError) as error:
        arguments.usage_error(str(error))
    if sys.stderr.isatty():
        sys.stderr.write(_CLEAR_LINE)
    sys.stdout.write(f"{report}\n")
    same = True
    if arguments.json:
        report.write(arguments.json)
    if other is not None:
        same, text = verify.compare_reports(report, other)
        sys.stdout.write(f"\n{text}\n")
    if arguments.write_release and report.passed:
        digests = rungs.release_digests(rung_context.Context("numba"))
        release.write_release(digests, arguments.reason)
        sys.stdout.write(f"\nwritten: {release.PATH}\n")
    return 0 if report.passed and same else 1


def _progress() -> Callable[[str], None]:
    """Shows what is being done: in one line of a terminal, else a line for each rung."""
    shown = ""

    def show(text: str) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            sys.stderr.write(f"{_CLEAR_LINE}{text[:100]}")
        elif text.partition(":")[0] != shown:
            shown = text.partition(":")[0]
            sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()

    return show


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``bench``."""
    from fastnet.bench import command

    parser = commands.add_parser(
        "bench",
        help="measure fastnet beside NumPy and other libraries",
        description="Measure fastnet and the libraries that are installed on the same data, weights and batches. Every "
        "result is checked before it is timed, and all take turns. docs/benchmarks.md says how.",
    )
    command.add_arguments(parser)
    parser.set_defaults(run=lambda arguments: command.main(arguments, parser.error))


def _add_warmup(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``warmup``."""
    from fastnet import warming

    parser = commands.add_parser(
        "warmup",
        help="compile all kernels into the cache",
        description="Compile the kernels that fit and predict need, or load them from the cache, and say how long each "
        "took. The exit code is 1 if they could not be kept.",
    )
    warming.add_arguments(parser)
    parser.set_defaults(run=warming.main)


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``info``."""
    from fastnet import information

    parser = commands.add_parser(
        "info",
        help="describe versions, CPU, threads and cache",
        description="Describe versions, the CPU as LLVM sees it, threads, and the cache of compiled kernels.",
    )
    information.add_arguments(parser)
    parser.set_defaults(run=information.main)


#: A function for each command, in the order of the help text.
COMMANDS = (_add_verify, _add_bench, _add_warmup, _add_info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastnet", description="Small dense neural networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastnet {fastnet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command")
    for add in COMMANDS:
        add(commands)
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
