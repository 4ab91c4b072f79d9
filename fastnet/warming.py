"""Compiling, or loading, all kernels that trainings and predictions need, before they are needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from fastnet.network import Network
from fastnet.validation import check_dtype

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

DTYPES = ("float32", "float64")


def warmup(dtype: DTypeLike | None = None) -> None:
    """Compile the kernels that `Network.fit` and `Network.predict` need, or load them from the cache.

    One compilation for each dtype serves all architectures, losses, optimizers and numbers of threads. Without a
    warm-up, the first fit and the first prediction compile what they need.

    Parameters
    ----------
    dtype : dtype-like, optional
        float32 or float64; None means both.

    Raises
    ------
    TypeError, ValueError
        If `dtype` is another one.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.warmup("float32")
    """
    dtypes = DTYPES if dtype is None else (check_dtype("dtype", dtype).name,)
    for name in dtypes:
        for _, run in _tasks(name):
            run()


def _tasks(dtype: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What uses every kernel there is, by public methods: names, and functions that do it."""
    small, wide = (Network([n, n, 1], dtype=dtype).initialize(seed=0) for n in (3, 128))
    x, y = np.zeros((4, 3), dtype), np.zeros((4, 1), dtype)
    many, targets = np.zeros((4096, 128), dtype), np.zeros((4096, 1), dtype)
    yield "fit", partial(small.fit, x, y, epochs=1, specialize=False)
    yield "fit, shuffled", partial(small.fit, x, y, epochs=1, batch_size=2, shuffle=True, seed=0, specialize=False)
    yield "fit, with threads", partial(wide.fit, many, targets, epochs=1, batch_size=1024)
    yield "orders", _load_orders
    yield "predict", partial(small.predict, x)
    yield "predict, many rows", partial(wide.predict, many)


def _load_orders() -> None:
    # `fit` does it where it pays, for which a first one is too short.
    from fastnet.runtime import orders

    orders.kernel()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m fastnet warmup``."""
    parser.add_argument("--dtype", choices=(*DTYPES, "both"), default="both")


def main(options: argparse.Namespace) -> int:
    """Warm up, and say what took how long and where it is kept.

    Returns
    -------
    int
        0; 1 if the kernels could not be kept.
    """
    start = time.perf_counter()
    kept = _kept_kernels()
    for dtype in DTYPES if options.dtype == "both" else (options.dtype,):
        for name, run in _tasks(dtype):
            sys.stdout.write(f"{dtype}  {name:18}")
            sys.stdout.flush()
            begun = time.perf_counter()
            run()
            before, kept = kept, _kept_kernels()
            compiled = [f"{name} {seconds:.1f} s" for file, (name, seconds) in kept.items() if file not in before]
            sys.stdout.write(f"{time.perf_counter() - begun:7.2f} s  {', '.join(compiled)}".rstrip() + "\n")
    sys.stdout.write(f"{time.perf_counter() - start:.1f} s in all\n")
    if not kept:
        sys.stdout.write("the kernels could not be kept\n")
        return 1
    sys.stdout.write(f"{len(kept)} compiled kernels are in {next(iter(kept)).parent}\n")
    return 0


def _kept_kernels() -> dict[Path, tuple[str, float]]:
    """The files of the cache: which function each one holds, and how long that took to compile."""
    from fastnet.runtime import digest, files

    sources = digest.loaded_digest()
    found = files.entries(files.cache_folder(sources)) if sources is not None else ()
    return {path: (entry["function"].rpartition(".")[2], entry["seconds"]) for path, entry in found}
