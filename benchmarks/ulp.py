"""Time and memory of checking 10^8 float32 in ULP: ``python benchmarks/ulp.py [--quick]``.

The bars are 3 s and 1 GiB beyond the inputs, for equal arrays and for ones that differ everywhere.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastnet.testing.ulp import NAN, assert_max_ulp, max_ulp

SECONDS, MEBIBYTES = 3.0, 1024.0
BLOCK = 1 << 20
#: How the second array differs, and the largest distance for n elements.
ROWS: dict[str, Callable[[int], int]] = {
    "equal": lambda n: 0,
    "one ULP everywhere": lambda n: 1,
    # Every chunk has elements that are worse than all before.
    "ever further apart": lambda n: (n - 1) // 8 + 1,
    "NaN everywhere": lambda n: NAN,
}


def make_arrays(row: str, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make them block by block, so that making them takes no more memory than checking."""
    rng = np.random.default_rng(0)
    actual, desired = np.empty((2, n), np.float32)
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        actual[block] = rng.random(block.stop - start, np.float32) + 1
        bits = actual[block].view(np.int32)
        if row == "ever further apart":
            bits = bits + np.arange(start, block.stop, dtype=np.int32) // 8 + 1
        elif row == "one ULP everywhere":
            bits = bits + 1
        desired[block] = np.nan if row == "NaN everywhere" else bits.view(np.float32)
    return actual, desired


def peak_mebibytes() -> float:
    """The largest amount of memory that this process has had."""
    # macOS counts in bytes, Linux in kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(row: str, n: int) -> None:
    """Check the result, time it, and write a line; exit if the result is wrong or a bar is missed."""
    before = peak_mebibytes()
    actual, desired = make_arrays(row, n)
    expected = ROWS[row](n)
    found = max_ulp(actual, desired)
    if found != expected:
        sys.exit(f"{row}: a distance of {found}, not {expected}")
    start = time.perf_counter()
    try:
        assert_max_ulp(actual, desired)
        failed = False
    except AssertionError:
        failed = True
    seconds = time.perf_counter() - start
    beyond = peak_mebibytes() - before - (actual.nbytes + desired.nbytes) / 2**20
    sys.stdout.write(f"{row:20}  {n:10} float32  {seconds:7.3f} s  {beyond:7.1f} MiB beyond the inputs\n")
    if failed != (expected > 0):
        sys.exit(f"{row}: assert_max_ulp is wrong")
    if n >= 10**8 and seconds > SECONDS:
        sys.exit(f"{row}: more than {SECONDS} s")
    if beyond > MEBIBYTES:
        sys.exit(f"{row}: more than {MEBIBYTES} MiB")


def main() -> int:
    """Measure every row in a process of its own, whose peak of memory is not that of another row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10^6 elements, without a bar for the time")
    parser.add_argument("--row", choices=ROWS, help="only this row, in this process")
    arguments = parser.parse_args()
    if arguments.row:
        measure(arguments.row, 10**6 if arguments.quick else 10**8)
        return 0
    quick = ["--quick"] if arguments.quick else []
    commands = [[sys.executable, __file__, "--row", row, *quick] for row in ROWS]
    statuses = [subprocess.run(command, check=False).returncode for command in commands]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
