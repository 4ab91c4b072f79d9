"""The scripts of examples/ print what the notebooks print, and the others what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnet.testing import notebooks
from fastnet.testing.notebooks import NOTEBOOK_1, NOTEBOOK_2, NOTEBOOK_3

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(script: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def integers(printed: str) -> str:
    """What an array of floats with these integers prints."""
    rows = [row.strip(" []").split() for row in printed.splitlines()]
    return str(np.array(rows, dtype=float))


def test_notebook_1():
    output = output_of("notebook_1.py")
    for weights in notebooks.PRINTED_WEIGHTS:
        assert weights in output
    lines = [line for line in output.splitlines() if line.startswith("Error at Epoch")]
    assert lines == [f"Error at Epoch {1000 * i}: is  {error}" for i, error in enumerate(NOTEBOOK_1.printed)]
    assert output.endswith(f"Final Error:  {NOTEBOOK_1.printed[-1]}\n")


def test_notebook_2():
    product, gram, elementwise = map(integers, (*notebooks.PRINTED_PRODUCTS, notebooks.PRINTED_ELEMENTWISE))
    before = [product, gram, notebooks.PRINTED_PSEUDO_INVERSE, str(np.eye(2)), notebooks.PRINTED_PROJECTION]
    output = output_of("notebook_2.py")
    matrices, network = output[: output.index(elementwise)], output[output.rindex(elementwise) + len(elementwise) :]
    assert matrices == "\n".join(before) + "\n"
    outputs = [float(number) for number in re.findall(r"\d+\.\d+", network)][: len(NOTEBOOK_2.printed)]
    for value, (low, high) in zip(outputs, notebooks.OUTPUT_RANGES, strict=True):
        assert value == pytest.approx((low + high) / 2, abs=2 * (high - low))


def test_notebook_3():
    assert output_of("notebook_3.py") == "".join(f"Error: {error}\n" for error in NOTEBOOK_3.printed)


def test_control_loop():
    """The pendulum comes to rest upright, and goes the same way in a jitted loop and in Python."""
    rows = re.findall(r": (\d+) calls, .* us each, angle (\S+), speed (\S+)", output_of("control_loop.py", "40000"))
    (calls, *long), (few, *compiled), (same, *in_python) = np.array(rows, dtype=float)
    assert (calls, few, same) == (40_000, 400, 400)
    assert long == pytest.approx([0, 0], abs=0.05)
    assert compiled == pytest.approx(in_python, rel=1e-6)
    assert compiled != pytest.approx([0, 0], abs=0.05)


def test_every_notebook_has_an_example():
    assert sorted(path.name for path in EXAMPLES.glob("notebook_*.py")) == [
        f"notebook_{i}.py" for i in range(1, len(notebooks.NOTEBOOKS) + 1)
    ]
