"""Records the goldens of the project with the exact reference; those of PyTorch are `write_torch_golden`'s.

    python -m tests.data.record_goldens [--reason TEXT] [NAME ...]

Without names, only those that are missing are recorded. To record one again, name it and give the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastnet.optimizers import SGD
from fastnet.testing import golden
from fastnet.testing.cases import OPTIMIZERS, Case
from fastnet.testing.notebooks import NOTEBOOKS, Notebook

FOLDER = Path(__file__).parent


def record_notebook(path: Path, notebook: Notebook, **why: Any) -> None:
    """The whole run, of which every thousandth epoch is shown."""
    optimizer = SGD(learning_rate=notebook.learning_rate)
    golden.record(
        path,
        notebook.network(),
        notebook.x,
        notebook.y,
        every=1000,
        optimizer=optimizer,
        epochs=notebook.epochs,
        reduction="sum",
        **why,
    )


def record_case(path: Path, case: Case, **why: Any) -> None:
    x, y, weight = case.data()
    golden.record(path, case.network(), x, y, sample_weight=weight, every=5, **case.settings, **why)


def goldens() -> dict[str, Callable[..., None]]:
    """What records each golden, by name."""
    recorders: dict[str, Callable[..., None]] = {
        f"notebook_{number}": partial(record_notebook, notebook=notebook)
        for number, notebook in enumerate(NOTEBOOKS, 1)
    }
    for optimizer in OPTIMIZERS:
        for dtype in ("float32", "float64"):
            # Batches of 4, 4 and 3 rows in random orders, a penalty and weights: what the optimizers may meet.
            case = Case((3, 5, 4, 2), "tanh", "sigmoid", "binary_cross_entropy", optimizer, dtype, epochs=20)
            options = {"l2": 0.01, "shuffle": True, "weighted": True, "seed": 7}
            recorders[f"{optimizer}-{dtype}"] = partial(record_case, case=Case(**vars(case) | options))
    return recorders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which goldens to record again")
    parser.add_argument("--reason", help="why; it is kept in the files")
    parser.add_argument("--author")
    arguments = parser.parse_args()
    recorders = goldens()
    missing = [name for name in recorders if not (FOLDER / f"{name}.golden").exists()]
    for name in arguments.names or missing:
        recorders[name](FOLDER / f"{name}.golden", reason=arguments.reason, author=arguments.author)


if __name__ == "__main__":
    main()
