"""The parts of a training step: that they are the step, how much work they are, and what is written of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastnet.bench import documents, part_tables, parts, roofline
from fastnet.bench.contest import QUICK_ROUNDS
from fastnet.bench.part_kernel import ALL, PARTS, bit_of, repeat_parts
from fastnet.bench.part_work import Work, flops_of, works_of
from fastnet.bench.results import Cell, Measurement, Results
from fastnet.bench.workloads import DTYPES, Training, get_workloads
from fastnet.contract import ERROR_SUM, LOSS_SUM
from fastnet.kernels.formulas import arithmetic, optimizers
from fastnet.kernels.network import train
from fastnet.testing.cases import BENCHMARKS, Case
from tests.support import assert_same_bits

ROOT = Path(__file__).parents[1]
#: A penalty besides, which the gradient is not to have and the step is.
SMALL = replace(BENCHMARKS["tabular"], layer_sizes=(9, 21, 17, 3), n_samples=80, batch_size=40, epochs=2, l2=0.1)


def training(name: str, dtype: str) -> Training:
    """A case of a full run, on whole batches."""
    (workload,) = get_workloads([name], [dtype])
    assert isinstance(workload, Training)
    return parts.whole_batches(workload)


def trained_by_a_block(case: Case) -> parts.Step:
    step = parts.Step(case)
    train(*step.arguments, 1)
    return step


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_parts_in_order_are_a_step(dtype: str) -> None:
    case = replace(SMALL, dtype=dtype)
    desired, together, apart = trained_by_a_block(case), parts.Step(case), parts.Step(case)
    repeat_parts(*together.arguments, together.workspace, ALL, 1)
    for part in PARTS:
        repeat_parts(*apart.arguments, apart.workspace, bit_of(part), 1)
    for step, what in ((together, "together"), (apart, "apart")):
        assert_same_bits(step.progress.gradient, desired.progress.gradient, what)
        assert_same_bits(step.network.parameter_buffer, desired.network.parameter_buffer, what)
        assert_same_bits(step.update.slots, desired.update.slots, what)
    # The loss of `train` has the penalty in it.
    assert together.progress.sums[ERROR_SUM] == desired.progress.sums[ERROR_SUM]
    assert 0 < together.progress.sums[LOSS_SUM] < desired.progress.sums[LOSS_SUM]


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_that_are_timed_leave_the_parameters(dtype: str) -> None:
    step = parts.Step(replace(SMALL, dtype=dtype))
    first = step.network.parameter_buffer.copy()
    step.repeated(ALL).run(3)
    for part in PARTS:
        step.repeated(bit_of(part)).run(50)
    assert_same_bits(step.network.parameter_buffer, first)
    magnitudes = np.abs(step.update.slots)
    assert ((magnitudes == 0) | (magnitudes >= np.finfo(dtype).smallest_normal)).all()


def test_trainings_begin_anew() -> None:
    step = parts.Step(replace(SMALL, l2=0.0))
    prepared = step.training(1)
    ends = []
    for _ in range(2):
        prepared.reset()
        prepared.run(1)
        ends.append(prepared.result())
    assert_same_bits(ends[0], ends[1])
    network, (x, y, _) = SMALL.network(), SMALL.data()
    network.fit(x, y, **replace(SMALL, l2=0.0).settings)
    assert_same_bits(ends[0], network.parameters)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", parts.CASES)
def test_work_adds_up(name: str, dtype: str) -> None:
    workload = training(name, dtype)
    case, works = workload.case, works_of(workload.case)
    assert list(works) == list(PARTS)
    assert sum(works[part].flops for part in ("forward", "backward", "gradient")) == workload.flops
    assert workload.units * case.batch_size == case.n_samples
    size, n = np.dtype(dtype).itemsize, case.batch_size
    n_parameters, batch = case.network().n_parameters, n * case.layer_sizes[0]
    hidden, outputs = n * sum(case.layer_sizes[1:-1]), n * case.layer_sizes[-1]
    below = n_parameters - case.layer_sizes[1] * case.layer_sizes[0] - sum(case.layer_sizes[1:])
    # Each array as often as it goes in or comes out of a part; three times the numbers of the rows.
    numbers = 4 * batch + (1 + 1 + 7) * n_parameters + below + 6 * hidden + (1 + 7 + 1 + 2 + 1) * outputs + 2 * n
    assert sum(work.n_bytes for work in works.values()) == size * numbers + 3 * 8 * n


def test_work_of_a_step_by_hand() -> None:
    works = works_of(replace(BENCHMARKS["digits"], layer_sizes=(3, 2, 5), batch_size=7, dtype="float32"))
    # 16 weights and 7 biases.
    assert works["forward"] == Work(2 * 7 * 16, 4 * (21 + 23 + 2 * 14 + 35))
    assert works["backward"] == Work(2 * 7 * 10, 4 * (35 + 10 + 14 + 14))
    assert works["gather"] == Work(0, 4 * 2 * 21 + 8 * 7)
    assert works["optimizer"] == Work(17 * 23, 4 * 7 * 23)


def test_formulas_are_counted() -> None:
    assert flops_of(optimizers.sgd, 3, "float64") == 2
    assert flops_of(optimizers.penalised, 4, "float64") == 3
    # Three fma, four products, a sum, a quotient and a root besides the fma of the decay.
    assert flops_of(optimizers.adam, 11, "float32") == 4 * 2 + 3 + 1 + 1 + 1
    assert flops_of(arithmetic.flush, 1, "float32") == 0
    assert flops_of(arithmetic.exp, 1, "float64") > flops_of(arithmetic.exp, 1, "float32") > 20


def test_work_of_others_is_refused() -> None:
    for case in (BENCHMARKS["regression"], BENCHMARKS["deep"], replace(BENCHMARKS["digits"], optimizer="sgd")):
        with pytest.raises(ValueError, match="relu, softmax and Adam"):
            works_of(case)


def results(cases: tuple[str, ...] = parts.CASES) -> Results:
    """Figures that are easily checked: the parts take 1, 2, 3 … us, `train` 35 and half of that with two threads."""
    measurements = []
    for case in cases:
        for dtype in DTYPES:
            times = {part: 1e-6 * (1 + position) for position, part in enumerate(PARTS)}
            times |= {part_tables.IN_TURN: 30e-6, "train, 1 thread": 35e-6, "fit, 1 thread": 40e-6}
            times |= {"train, 2 threads": 17.5e-6, "fit, 2 threads": 20e-6}
            for title, seconds in times.items():
                flops, n_bytes = (0.0, 2048.0) if title == "gather" else (4096.0 * 1024, 1024.0 * 1024)
                cells = [Cell("numba", "fastnet", [seconds, 0.9 * seconds, 1.1 * seconds])]
                peak = [5e12, 5e12 / 0.9, 5e12 / 1.1]
                measurements.append(
                    Measurement(
                        case, title, dtype, "step", flops, n_bytes if title in PARTS else 0.0, None, peak, cells
                    )
                )
    machine = {"CPU": "a CPU", "Python": "3.11, little", "numpy": "2", "numba": "0", "packages": "llvmlite 0"}
    settings = {"quick": False, "threads": 2, "rounds": 3, "bandwidth": {"L1": 2e11, "L2": 1e11, "memory": 2e10}}
    return Results("2026-11-24T12:00:00+00:00", machine, settings, measurements)


def tables(text: str) -> list[list[list[str]]]:
    """The rows of each table of a text."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    return [documents.rows(block) for block in blocks]


def test_the_tables_say_what_was_measured() -> None:
    text = part_tables.parts_text(results(("digits",)))
    steps, rows = tables(text)
    assert steps[0] == [
        *("digits", "float32", "28.0 us", "30.0 us", "35.0 us", "40.0 us", "17.5 us", "20.0 us", "2%", "2.0")
    ]
    assert [row[1] for row in rows[:9]] == [*PARTS, "rest", "**step**"]
    assert rows[0] == ["float32", "gather", "1.00 us", "3%", "", "", "2.00", "2.05", ""]
    assert rows[1] == ["float32", "forward", "2.00 us", "6%", "2,097", "42%", "1,024", "524", "4.00"]
    assert rows[7][:4] == ["float32", "rest", "7.00 us", "20%"]
    assert rows[8][:4] == ["float32", "**step**", "35.0 us", "100%"]
    assert "GB/s 200 from L1, 100 from L2, 20.0 from memory" in text
    assert "GFLOP/s 5,000 in float32, 5,000 in float64" in text


def test_documents_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    begin, end = documents.markers(part_tables.NAME)
    (tmp_path / parts.DOCUMENT).write_text(f"before\n{begin}\nstale\n{end}\nafter\n")
    monkeypatch.setattr(parts, "run", lambda quick, show: results())
    assert parts.main(["--write", str(tmp_path), "--plot", str(tmp_path / "plot.svg")]) == 0
    text = (tmp_path / parts.DOCUMENT).read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert len(tables(documents.generated(text, part_tables.NAME))) == 1 + len(parts.CASES)
    assert 1000 < (tmp_path / parts.PICTURE).stat().st_size < 150_000
    assert (tmp_path / "plot.svg").exists()
    with pytest.raises(ValueError, match="no measurements"):
        roofline.draw(replace(results(), measurements=[]))


def test_the_document_has_every_case_and_part() -> None:
    document = (ROOT / parts.DOCUMENT).read_text(encoding="utf-8")
    text = documents.generated(document, part_tables.NAME)
    steps, *by_case = tables(text)
    assert [tuple(row[:2]) for row in steps] == [(case, dtype) for case in parts.CASES for dtype in DTYPES]
    assert len(by_case) == len(parts.CASES)
    titles = [*PARTS, part_tables.REST, f"**{part_tables.STEP}**"]
    for rows in by_case:
        assert [tuple(row[:2]) for row in rows] == [(dtype, title) for dtype in DTYPES for title in titles]
        for _, title, time, share, *_ in rows:
            assert time.endswith(("ns", "us", "ms", " s"))
            assert share.endswith("%")
            # What the parts are is said above the tables.
            assert f"| {title.strip('*')} | " in document or title.startswith("**")
    assert all(f"| {part} | {what} |" in document for part, what in PARTS.items())
    assert all(word in text.splitlines()[0] for word in ("threads", "Python", "NumPy", "Numba", "20"))
    assert (ROOT / parts.PICTURE).stat().st_size < 150_000
    assert parts.PICTURE.name in document


def test_a_quick_run_measures_parts_and_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WORKING_SETS", {"L1": 1 << 14})
    found = parts.run(True, ["tabular"])
    groups = part_tables.grouped(found)
    assert list(groups) == [("tabular", dtype) for dtype in DTYPES]
    for group in groups.values():
        assert [*group][: len(PARTS)] == list(PARTS)
        assert {"parts in turn", "train, 1 thread", "fit, 1 thread"} <= set(group)
        assert all(len(one.cells[0].seconds) == len(one.peak) == QUICK_ROUNDS for one in group.values())
        assert all(0 < part_tables.seconds_of(one) < 10 for one in group.values())
    assert len(tables(part_tables.parts_text(found))) == 2
