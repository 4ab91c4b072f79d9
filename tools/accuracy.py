"""Measure the errors of the elementary functions and write them into docs/accuracy.md.

::

    python -m tools.accuracy                        # all rows of the table: a quarter of an hour on one core
    python -m tools.accuracy exp --dtype float32    # one row

float32 functions are measured on all their inputs, float64 functions on about 25 million: over the whole
range, where the results cross from binade to binade, and around the largest errors that were found.
The limits are the table's own; this script leaves them as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools import true_values

Array = NDArray[np.floating]

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
DTYPES: dict[str, type[np.floating]] = {"float32": np.float32, "float64": np.float64}
#: Inputs that are measured together; the arrays of a chunk stay in the cache.
CHUNK = 1 << 14
#: Inputs of the default tests, and of a sweep.
SAMPLE = 5_000
SWEEP = 1 << 24
#: Rounds of search around the largest errors, the steps from each, the numbers kept for the next round,
#: and how many of them may come from one chunk, so that the search is not around a single number.
ROUNDS, STEPS, KEPT, KEPT_OF_CHUNK = 8, 4096, 256, 4


class Domain(NamedTuple):
    """Where a float64 function's results vary, and the input where a result is near 2^(j / 2) or a reduction ends."""

    low: float
    high: float
    border: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _half_ln2(j: NDArray[np.float64]) -> NDArray[np.float64]:
    return j * (0.5 * float(np.log(2)))


DOMAINS = {
    "exp": Domain(-746, 710, _half_ln2),
    "expm1": Domain(-40, 710, _half_ln2),
    "log": Domain(5e-324, float(np.finfo(float).max), lambda j: np.exp2(np.clip(0.5 * j, -1074, 1023.5))),
    "sigmoid": Domain(-746, 40, _half_ln2),
    "tanh": Domain(-20, 20, lambda j: _half_ln2(j) / 2),
    "softplus": Domain(-746, 40, _half_ln2),
    "normal_cdf": Domain(-39, 9, lambda j: np.sign(j) * np.sqrt(2 * _half_ln2(np.abs(j)))),
    "normal_density": Domain(-39, 39, lambda j: np.sign(j) * np.sqrt(2 * _half_ln2(np.abs(j)))),
}


class Row(NamedTuple):
    """A line of the table."""

    function: str
    dtype: str
    #: In units in the last place, as the errors are; infinite where nothing is promised.
    limit: float
    #: The largest error as printed, and the input where it occurs.
    error: str
    x: float
    n_inputs: int

    def __str__(self) -> str:
        limit = f"{self.limit:g}" if np.isfinite(self.limit) else "none"
        decimal = str(DTYPES[self.dtype](self.x))
        cells = (self.function, self.dtype, limit, self.error, f"`{self.x.hex()}`", decimal, f"{self.n_inputs:,}")
        return f"| {' | '.join(cells)} |"


def parse_row(line: str) -> Row | None:
    """The row that a line of the page is, or None."""
    cells = [cell.strip(" `") for cell in line.strip().strip("|").split("|")]
    if len(cells) != 7 or cells[0] not in DOMAINS:
        return None
    function, dtype, limit, error, x, _, n_inputs = cells
    bound = np.inf if limit == "none" else float(limit)
    return Row(function, dtype, bound, error, float.fromhex(x), int(n_inputs.replace(",", "")))


def read_table() -> list[Row]:
    """The rows of docs/accuracy.md."""
    rows = map(parse_row, PAGE.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row is not None]


def float64_inputs(name: str, n: int, seed: int) -> NDArray[np.float64]:
    """About ``n`` inputs from the whole domain of a function, many of them where errors are large."""
    low, high, border = DOMAINS[name]
    rng = np.random.default_rng(seed)
    n //= 5
    top = int(np.frexp(max(-low, high))[1])
    exponents = np.ldexp(rng.uniform(0.5, 1, n) * rng.choice([-1, 1], n), rng.integers(-1074, top + 1, n))
    half_steps = (rng.integers(-2150, 2150, n) >> rng.integers(0, 10, n)).astype(np.float64)
    borders = border(half_steps) * (1 + rng.uniform(-1, 1, n) * np.exp2(-rng.integers(8, 54, n)))
    parts = [
        rng.uniform(low, high, n),
        rng.uniform(max(low, -40), min(high, 40), n),
        rng.uniform(max(low, -2.5), min(high, 2.5), n),
        np.abs(exponents) if low > 0 else exponents,
        borders,
    ]
    x = np.concatenate(parts)
    return x[(x >= low) & (x <= high)]


def errors(name: str, x: Array, evaluate: Callable[[Array], Array]) -> NDArray[np.float64]:
    """The errors of ``evaluate`` as the function ``name``, by pairs (float64) or by float64 (float32)."""
    actual = evaluate(x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        if actual.dtype == np.float32:
            return true_values.errors_by_float64(actual.astype(np.float32), true_values.BY_FLOAT64[name](wide))
        return true_values.errors_by_pairs(actual.astype(np.float64), true_values.BY_PAIRS[name](wide))


def _chunks(x: Array) -> Iterator[Array]:
    return (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))


def all_float32() -> Iterator[Array]:
    """Every bit pattern, in chunks."""
    for start in range(0, 1 << 32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)


def _largest(name: str, chunks: Iterable[Array], evaluate: Callable[[Array], Array]) -> tuple[int, Array]:
    """How many inputs there were, and the `KEPT` with the largest errors, the largest first."""
    n_inputs = 0
    found, at = np.zeros(0), np.zeros(0)
    for x in chunks:
        n_inputs += x.size
        error = errors(name, x, evaluate)
        if len(found) < KEPT or error.max() > found[-1]:
            new = np.argsort(-error, kind="stable")[:KEPT_OF_CHUNK]
            found, at = np.concatenate([found, error[new]]), np.concatenate([at, x[new]])
            order = np.argsort(-found, kind="stable")[:KEPT]
            found, at = found[order], at[order]
    return n_inputs, at.astype(x.dtype)


def _near(x: Array, seed: int) -> Iterator[NDArray[np.float64]]:
    """For each of ``x``, numbers near it: from its neighbours to a thousandth away."""
    rng = np.random.default_rng(seed)
    for bits in x.view(np.int64):
        distances = np.exp2(rng.uniform(0, 43, STEPS)).astype(np.int64) * rng.choice([-1, 1], STEPS)
        yield (bits + np.append(distances, 0)).view(np.float64)


def measure(name: str, dtype: str, evaluate: Callable[[Array], Array]) -> tuple[str, float, int]:
    """The largest error of a function as it is printed, the input where it occurs, and the number of inputs."""
    if dtype == "float32":
        n_inputs, at = _largest(name, all_float32(), evaluate)
    else:
        # The sample of the default tests comes first: no error found there can be above the table's.
        inputs = np.concatenate([float64_inputs(name, SAMPLE, 0), float64_inputs(name, SWEEP, 1)])
        n_inputs, at = _largest(name, _chunks(inputs), evaluate)
        for seed in range(ROUNDS):
            n_near, at = _largest(name, _near(at, seed), evaluate)
            n_inputs += n_near
    candidates = zip(at.tolist(), evaluate(at).tolist(), strict=True)
    error, x = max((true_values.error_by_mpmath(name, x, actual, DTYPES[dtype]), x) for x, actual in candidates)
    return f"{error:.4f}", x, n_inputs


def main() -> None:
    from fastnet.kernels import arithmetic

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("functions", nargs="*", metavar="function", help=f"of {', '.join(DOMAINS)}; default: all")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    arguments = parser.parse_args()
    unknown = set(arguments.functions) - set(DOMAINS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for row in read_table():
        if row.function in (arguments.functions or DOMAINS) and row.dtype in (arguments.dtype or DTYPES):
            error, x, n_inputs = measure(row.function, row.dtype, getattr(arithmetic, row.function))
            new = row._replace(error=error, x=x, n_inputs=n_inputs)
            print(new, flush=True)
            lines = PAGE.read_text(encoding="utf-8").splitlines()
            lines = [str(new) if parse_row(line) == row else line for line in lines]
            PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
