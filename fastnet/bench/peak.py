"""What the machine can do at most: multiply-adds a second, and bytes a second for arrays of a given size.

Both are measured with fastnet's vector type, so that they have the instructions that its kernels have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from fastnet.contract import VECTOR_BYTES
from fastnet.kernels.jit import jit
from fastnet.kernels.memory import keep, lanes_of, load, pointer, splat, store
from fastnet.kernels.simd import Lanes, fma, plus, results, staged
from fastnet.layout import aligned_zeros
from fastnet.testing.machine import vector_instructions

#: Chains of multiply-adds that do not wait for each other. A 64-byte vector is one of 32 registers with
#: AVX-512, and two of 16 without; three instructions' latency has to be covered on two ports.
MANY, FEW = 12, 6
#: Multiply-adds in each chain of one measurement: less than a millisecond.
N_LINKS = 100_000


@staged
@results(FEW)
def _links(a: Lanes, b: Lanes, c: Lanes, d: Lanes, e: Lanes, f: Lanes, x: Lanes) -> tuple[Lanes, ...]:
    return tuple(fma(chain, x, x) for chain in (a, b, c, d, e, f))


@jit
def _many_chains(start: Any, out: Any, n_links: Any) -> None:
    data = pointer(start)
    x = load(data, 0)
    a = b = c = d = e = f = g = h = i = j = k = m = x
    for _ in range(n_links):
        a, b, c, d, e, f = _links(a, b, c, d, e, f, x)
        g, h, i, j, k, m = _links(g, h, i, j, k, m, x)
    first, second = plus(plus(plus(a, b), plus(c, d)), plus(e, f)), plus(plus(plus(g, h), plus(i, j)), plus(k, m))
    store(pointer(out), 0, plus(first, second))
    keep(start)


@jit
def _few_chains(start: Any, out: Any, n_links: Any) -> None:
    data = pointer(start)
    x = load(data, 0)
    a = b = c = d = e = f = x
    for _ in range(n_links):
        a, b, c, d, e, f = _links(a, b, c, d, e, f, x)
    store(pointer(out), 0, plus(plus(plus(a, b), plus(c, d)), plus(e, f)))
    keep(start)


_triad = staged(fma)


@jit
def _triads(target: Any, left: Any, right: Any, times: Any) -> None:
    a, b, c = pointer(target), pointer(left), pointer(right)
    factor = splat(a, 0.5)
    for _ in range(times):
        for i in range(0, target.size, lanes_of(a)):
            store(a, i, _triad(load(b, i), factor, load(c, i)))


class FlopsMeter:
    """Measures the peak of multiplications and additions on one core.

    What more cores reach together depends on when they start, and is taken as so many times that.

    Parameters
    ----------
    dtype : str
        float32 or float64.
    """

    def __init__(self, dtype: str) -> None:
        n_chains, self.kernel = (MANY, _many_chains) if "AVX-512" in vector_instructions() else (FEW, _few_chains)
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        self.arguments = (np.full(lanes, 0.5, dtype), np.empty(lanes, dtype), N_LINKS)
        self.flops = 2.0 * n_chains * lanes * N_LINKS
        self()

    def __call__(self) -> float:
        """Flops a second, once."""
        return self.flops / _seconds(lambda: self.kernel(*self.arguments))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bandwidth(n_bytes: float, rounds: int = 5) -> float:
    """Bytes a second of a = b / 2 + c, for three arrays that take so many bytes together."""
    size = max(16, int(n_bytes) // (3 * 8) // 8 * 8)
    # One after another: placed at random, loads wait in some processes for stores at the same place of another page.
    memory = aligned_zeros(3 * size, np.dtype(np.float64))
    memory[:] = 1.0
    target, left, right = memory[:size], memory[size : 2 * size], memory[2 * size :]
    times = max(1, int(2e7 // (24 * size)))
    _triads(target, left, right, times)
    spans = [_seconds(lambda: _triads(target, left, right, times)) for _ in range(rounds)]
    return 24.0 * size * times / median(spans)
