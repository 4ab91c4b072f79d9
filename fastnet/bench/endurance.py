"""Whether training stays as it begins: the time of late steps beside that of early ones, and what steps allocate.

A unit that is dead and an input that is always zero, of which the digits have many, let an optimizer's moments decay
towards the subnormals, where arithmetic is slow; and memory that is taken in each step is time that grows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastnet.backends import Backend, load_backend
from fastnet.bench import timing
from fastnet.bench.allocations import Tracer, environment
from fastnet.testing.cases import BENCHMARKS, Case

#: Steps before late ones, in one measurement and before early ones, and before those whose allocations are counted.
LATE, AT_ONCE, WARM_UP = 10_000, 100, 20
#: Steps whose allocations are counted.
COUNTED = 1000


def one_step_an_epoch(dtype: str) -> Case:
    """One batch of the digits."""
    case = BENCHMARKS["digits"]
    return replace(case, dtype=dtype, n_samples=case.batch_size or case.n_samples, epochs=AT_ONCE)


def late_step_ratio(dtype: str, rounds: int = 5) -> float:
    """The time of a step after `LATE` steps, by that of a step among the second hundred.

    Two networks take turns, both of which go on with what a fit before has left.
    """
    case = one_step_an_epoch(dtype)
    x, y, _ = case.data()
    early, late = case.network(), case.network()
    early.fit(x, y, **case.settings)
    late.fit(x, y, **case.settings | {"epochs": LATE})
    taken: dict[str, list[float]] = {"early": [], "late": []}
    for _ in range(rounds):
        for name, network in (("early", early.copy()), ("late", late)):
            start = timing.clock()
            network.fit(x, y, **case.settings)
            taken[name].append(timing.clock() - start)
    return timing.median_ratio(taken["late"], taken["early"])


def allocated_bytes(dtype: str) -> int | None:
    """Bytes that `COUNTED` steps allocate after warm-up, in a process of its own; None where nothing counts.

    What `fit` does between two calls of the kernels, some 25 times a second, is not counted: it keeps the state of the
    source of orders, for an interrupt.
    """
    with tempfile.TemporaryDirectory(prefix="fastnet-bench-") as folder:
        ran = subprocess.run(
            [sys.executable, "-m", "fastnet.bench.endurance", dtype],
            env=environment(str(Path(folder) / "trace")),
            capture_output=True,
            text=True,
            check=False,
        )
    return int(ran.stdout) if ran.returncode == 0 else None


def main(dtype: str) -> None:
    """Train, and print what the kernels allocate in some steps in the middle."""
    # One thread has nobody to wait for: `fit` would take the time for the kernels', and call them for a step at a time.
    tracer, n_bytes, n_steps = Tracer(quiet=0.0), 0, 0

    def trainer(*arguments: Any) -> Callable[..., int]:
        assert numba.trainer is not None
        train = numba.trainer(*arguments)

        def counted(*records_and_blocks: Any) -> int:
            nonlocal n_bytes, n_steps
            *records, n_blocks = records_and_blocks
            n_steps += n_blocks
            if n_steps <= WARM_UP:
                return train(*records, n_blocks)
            # What a call itself allocates, Numba's note of each array, is not the steps'.
            n_bytes -= tracer.count(lambda: train(*records, 0))
            tracer.start()
            status = train(*records, n_blocks)
            n_bytes += tracer.stopped()
            return status

        return counted

    numba = load_backend("numba")
    backend = Backend(numba.forward, numba.train, is_compiled=True, trainer=trainer)
    case = one_step_an_epoch(dtype)
    network, (x, y, _) = case.network(), case.data()
    for epochs in (WARM_UP, COUNTED):
        network.fit(x, y, **case.settings | {"epochs": epochs}, threads=1, backend=backend)
    assert n_steps == WARM_UP + COUNTED
    sys.stdout.write(f"{n_bytes}\n")


if __name__ == "__main__":
    main(sys.argv[1])
