"""Bytes that a workload allocates: counted by the C library's own tracing, in a process of its own.

glibc writes a line for each allocation between two calls of its `mtrace` and `muntrace`, whoever makes it: NumPy,
Numba, PyTorch, XLA. Python keeps objects of up to 512 bytes in pools, which are not counted. Without glibc's
debugging library nothing is counted.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

_LIBRARY = "libc_malloc_debug.so.0"
#: "@ caller + address size" is an allocation, and so is what ">" says of a reallocation.
_ALLOCATION = re.compile(rb"^@ \S+ [+>] \S+ (0x[0-9a-f]+)$", re.MULTILINE)


class Tracer:
    """Counts bytes in a process that was started with `environment`.

    Parameters
    ----------
    quiet : float
        Seconds for other threads to come to rest: those that allocate when tracing ends can crash.
    """

    def __init__(self, quiet: float = 0.02) -> None:
        self.quiet = quiet
        library = ctypes.CDLL(_LIBRARY)
        # The C library has functions of these names too, which do nothing; a version tells them apart.
        find = ctypes.CDLL(None).dlvsym
        find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
        self.start, self.stop = (
            ctypes.CFUNCTYPE(None)(find(library._handle, name, b"GLIBC_2.2.5")) for name in (b"mtrace", b"muntrace")
        )
        self.path = Path(os.environ["MALLOC_TRACE"])

    def count(self, call: Callable[[], Any]) -> int:
        """Bytes that a call allocates."""
        self.start()
        try:
            call()
        finally:
            n_bytes = self.stopped()
        return n_bytes

    def stopped(self) -> int:
        """Stop, and count the bytes since `start` was called."""
        time.sleep(self.quiet)
        self.stop()
        return sum(int(size, 16) for size in _ALLOCATION.findall(self.path.read_bytes()))


def environment(trace: str) -> dict[str, str]:
    """The environment of a process whose allocations are written to a file."""
    return {**os.environ, "LD_PRELOAD": _LIBRARY, "MALLOC_TRACE": trace}


def is_available() -> bool:
    """Whether allocations can be counted on this machine."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return hasattr(ctypes.CDLL(None), "dlvsym")


def count_allocations(
    peers: Sequence[str], cases: Sequence[str] | None, dtypes: Sequence[str], quick: bool
) -> dict[str, float]:
    """Count for every peer and workload; each peer has a process of its own.

    Parameters
    ----------
    peers, dtypes : sequence of str
        Names.
    cases : sequence of str or None
        Names; None means all. Those that are made of other cases or of processes are not counted.
    quick : bool
        Whether on fewer samples.

    Returns
    -------
    dict of str to float
        Bytes of a unit by "key of the measurement: peer". Empty where they cannot be counted.
    """
    counted: dict[str, float] = {}
    if not is_available():
        return counted
    for peer in peers:
        with tempfile.TemporaryDirectory(prefix="fastnet-bench-") as folder:
            ran = subprocess.run(
                [sys.executable, "-m", "fastnet.bench.allocations", json.dumps([peer, cases, list(dtypes), quick])],
                env=environment(str(Path(folder) / "trace")),
                capture_output=True,
                text=True,
                check=False,
            )
        # The C library's tracing ends some processes whose threads allocate while it starts or stops.
        for line in ran.stdout.splitlines():
            key, _, n_bytes = line.rpartition("\t")
            counted[key] = float(n_bytes)
    return counted


def main(request: str) -> None:
    """Count, and print a line for each workload."""
    from fastnet.bench.peers import PEERS
    from fastnet.bench.peers.base import UnsupportedError
    from fastnet.bench.workloads import Training, case_names, get_workloads

    name, cases, dtypes, quick = json.loads(request)
    peer, tracer = PEERS[name], Tracer()
    if peer.absence():
        return
    if cases is not None:
        cases = [case for case in cases if case in case_names()]
    # A step allocates as much in short trainings; a line for each allocation of PyTorch's takes minutes in long ones.
    short = {one.key: one for one in get_workloads(cases, dtypes, quick=True) if isinstance(one, Training)}
    for one in get_workloads(cases, dtypes, quick):
        workload = short.get(one.key, one)
        try:
            own, _ = workload.variant(peer)
            prepared = own.prepare(peer)
        except UnsupportedError:
            continue
        # Twice the work less once the work: what a call allocates for itself is in neither.
        once = 1 if workload.units > 1 else 10
        prepared.run(2 * once)
        counts = []
        for times in (once, 2 * once):
            prepared.reset()
            counts.append(tracer.count(partial(prepared.run, times)))
        n_bytes = max(0.0, (counts[1] - counts[0]) / (once * workload.units))
        sys.stdout.write(f"{workload.key}: {peer.name}\t{n_bytes}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
