"""Results in files, tables, pages, pictures and documents; and what is slower than before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastnet.__main__ import main
from fastnet.bench import comparison, contest, documents, page, plot, runner, summary, table
from fastnet.bench.peers import PEERS
from fastnet.bench.results import FORMAT, Cell, Measurement, Results, read_results
from fastnet.bench.workloads import get_workloads

ROOT = Path(__file__).parents[1]


def measurement(case: str = "digits", dtype: str = "float32", axis: str = "", value: float = 0.0) -> Measurement:
    """Figures that are easily checked: fastnet takes 1 us, the NumPy loop 4, JAX half of one."""
    cells = [
        Cell("numba", "fastnet", [1e-6, 1.1e-6, 0.9e-6], 0.5, None, 0.0),
        Cell("numpy-loop", "NumPy loop", [4e-6, 4.4e-6, 3.6e-6], 0.1, 1e-7, 1000.0),
        Cell("jax", "JAX", [0.5e-6, 0.5e-6, 0.6e-6], 1.2, 2e-7, None, "other epochs"),
    ]
    return Measurement(
        case,
        f"{axis} {value:g}" if axis else "64-100-10",
        dtype,
        "step",
        flops=1e6,
        bound=1e-3,
        peak=[2e12, 2.2e12, 1.8e12],
        cells=cells,
        absent={"FANN": "has no relu"},
        axis=axis,
        value=value,
    )


def results(*more: Measurement) -> Results:
    machine = {"CPU": "a CPU", "cores": "2", "Python": "3.11, little", "numpy": "2", "numba": "0", "fastnet": "0"}
    settings = {"quick": True, "threads": 2, "rounds": 3}
    return Results("2026-11-24T12:00:00+00:00", machine | {"packages": "jax 0.10"}, settings, list(more))


def test_statistics_of_a_cell() -> None:
    one = measurement()
    own, loop = one.cell("numba"), one.cell("numpy-loop")
    assert own is not None
    assert loop is not None
    assert own.median == 1e-6
    assert own.spread == pytest.approx(0.05)
    assert one.best_peer is one.cell("jax")
    assert one.speed("numba", "numpy-loop") == pytest.approx(4.0)
    assert one.speed("numba", "torch") is None
    assert one.rate(own) == pytest.approx(1e12)
    # Round by round: 1e12 of 2e12, 0.909e12 of 2.2e12, 1.111e12 of 1.8e12.
    assert one.share_of_peak(own) == pytest.approx(0.5)
    assert replace(one, peak=[]).share_of_peak(own) is None
    assert replace(own, seconds=[1.0]).spread == 0.0


def test_files_keep_everything(tmp_path: Path) -> None:
    before = results(measurement(), measurement("scaling", axis="width", value=4))
    before.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", f'{{"format": {FORMAT}}}', '{"format": 0}', f'{{"format": {FORMAT}, "measurements": [1]}}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="other.json"):
        read_results(path)


def test_the_table_says_who_is_faster_and_who_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_report(results(measurement(), measurement("scaling", axis="width", value=4)))
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    # The fastest first; columns: peer, time, spread, to NumPy, to the best, rate, of peak, bytes, first, difference.
    assert [row[0] for row in rows[:3]] == ["JAX", "fastnet", "NumPy loop"]
    assert rows[1][:9] == ["fastnet", "1.00 us", "5%", "4.0", "0.5", "1,000 GFLOP/s", "50%", "0", "0.50"]
    assert rows[0][-2:] == ["2e-07", "other epochs"]
    assert "without FANN: has no relu" in printed
    assert rows[3] == ["4", "1.00 us", "4.00 us", "500 ns"]


def test_a_wrong_result_is_in_every_report(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = replace(measurement(), wrong={"JAX": "its result is 1.0 from fastnet's, more than 0.1"})
    found = results(wrong)
    assert found.wrong == ["digits, 64-100-10, float32: JAX: its result is 1.0 from fastnet's, more than 0.1"]
    table.print_report(found)
    assert "WRONG JAX" in capsys.readouterr().out
    assert 'class="wrong"' in page.html(found)


def test_the_page_needs_nothing_else() -> None:
    text = page.html(results(measurement(), measurement("scaling", axis="width", value=4)))
    assert text.startswith("<!doctype html>")
    assert "<svg" in text
    assert "<td>1.00 us</td>" in text
    # Names of formats and namespaces are the only addresses.
    loaded = [part.split('"')[0] for part in text.split("http")[1:] if 'src="http' in text]
    assert loaded == []
    for forbidden in ("<script", "<link", "@import", "src="):
        assert forbidden not in text


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures(tmp_path: Path, ending: str) -> None:
    points = [measurement("scaling", axis="width", value=value) for value in (4, 8)]
    path = tmp_path / f"plot.{ending}"
    plot.save(results(measurement(), *points), path)
    assert path.stat().st_size > 1000
    with pytest.raises(ValueError, match="no measurements"):
        plot.draw(results())


def test_every_peer_has_a_colour() -> None:
    assert set(plot.COLORS) == set(PEERS)


# What is slower than before


def a_run(factor: float, peers: dict[str, float], times: Callable[[], np.ndarray]) -> Results:
    """Three cases on peers of some speed, with the times of a cell's rounds; fastnet takes a factor more on digits."""
    measurements = []
    for case in ("notebook", "digits", "tabular"):
        cells = []
        for peer, base in peers.items():
            slowed = factor if (peer, case) == ("numba", "digits") else 1.0
            cells.append(Cell(peer, peer, list(base * slowed * times())))
        measurements.append(Measurement(case, "", "float32", "step", cells=cells))
    return results(*measurements)


def noisy(factor: float, seed: int, drift: float = 1.0, scatter: float = 0.0) -> Results:
    """A run on a machine of some speed, of whose rounds a tenth is disturbed.

    The machine is slower for one cell than for another by a standard deviation of ``scatter``.
    """
    rng = np.random.default_rng(seed)

    def times() -> np.ndarray:
        disturbed = 1.0 + 0.5 * rng.random(11) * (rng.random(11) < 0.1)
        return drift * rng.lognormal(0.0, scatter) * disturbed * rng.lognormal(0.0, 0.02, 11)

    return a_run(factor, {"numba": 1.0, "numpy-loop": 5.0, "jax": 2.0, "scikit-learn": 8.0}, times)


def two_speeds(factor: float, seed: int, share: float) -> Results:
    """A run on a machine that is slower by 1.6 for a share of the rounds."""
    rng = np.random.default_rng(seed)

    def times() -> np.ndarray:
        return np.where(rng.random(99) < share, 1.6, 1.0) * rng.lognormal(0.0, 0.05, 99)

    return a_run(factor, {"numba": 1.0, "numpy-loop": 5.0}, times)


def slower(old: Results, new: Results) -> list[str]:
    return [change.key for change in comparison.compare(old, new) if change.is_slower]


@pytest.mark.parametrize("drift", [1.0, 1.5])
def test_a_slow_down_is_found_where_it_is(drift: float) -> None:
    for seed in range(20):
        assert slower(noisy(1.0, seed), noisy(1.2, 100 + seed, drift)) == ["digits, , float32"]


@pytest.mark.parametrize("drift", [0.7, 1.0, 1.5])
def test_noise_and_a_slower_machine_are_not_slow_downs(drift: float) -> None:
    for seed in range(50):
        assert slower(noisy(1.0, seed), noisy(1.0, 200 + seed, drift)) == []


@pytest.mark.parametrize("share", [0.5, 0.6, 0.8])
def test_a_machine_of_two_speeds_makes_no_slow_downs(share: float) -> None:
    for seed in range(50):
        assert slower(two_speeds(1.0, seed, share), two_speeds(1.0, 500 + seed, share)) == []


def test_a_slow_down_is_found_on_a_machine_of_two_speeds() -> None:
    for seed in range(50):
        assert slower(two_speeds(1.0, seed, 0.8), two_speeds(1.2, 500 + seed, 0.8)) == ["digits, , float32"]


def test_what_varies_as_much_as_the_peers_do_is_hardly_a_slow_down() -> None:
    found = [slower(noisy(1.0, seed, scatter=0.1), noisy(1.0, 300 + seed, scatter=0.1)) for seed in range(100)]
    # Beyond three standard deviations lies 0.1 % of a normal distribution; from the quartiles of nine values one is
    # known to a half, and beyond 1.5 lie 7 %. Without regard to the peers it would be a quarter.
    assert sum(map(len, found)) <= 0.07 * 3 * len(found)


def test_runs_that_cannot_be_compared() -> None:
    one = results(measurement())
    with pytest.raises(ValueError, match="different machines: a CPU and another"):
        comparison.compare(one, replace(one, machine=one.machine | {"CPU": "another"}))
    with pytest.raises(ValueError, match="differ in quick: True and False"):
        comparison.compare(one, replace(one, settings=one.settings | {"quick": False}))
    with pytest.raises(ValueError, match="no measurement in common"):
        comparison.compare(one, results())


# Documents


def test_readme_has_every_case_in_the_form_of_the_generator() -> None:
    text = documents.generated((ROOT / "README.md").read_text(encoding="utf-8"), summary.README_NAME)
    rows = documents.rows(text)
    heading = next(line for line in text.splitlines() if line.startswith("|"))
    labels = [cell.strip() for cell in heading.strip("|").split("|")]
    assert labels[:3] == ["case", "dtype", "fastnet"]
    assert set(labels[3:]) == {peer.label for name, peer in PEERS.items() if name != "numba"}
    measured = [w for w in get_workloads(None) if w.name not in summary._NOT_IN_README]
    assert [tuple(row[:2]) for row in rows] == [(w.name, w.dtype) for w in measured]
    for row, workload in zip(rows, measured, strict=True):
        assert row[2].endswith(f"a {workload.unit}")
        for label, cell in zip(labels[3:], row[3:], strict=True):
            is_faster = bool(cell) and float(cell.strip("*").replace(",", "")) < 1
            assert cell.startswith("**") == (is_faster and not label.startswith("fastnet")), (row[:2], label)
    # Where, with what and when.
    assert all(word in text.splitlines()[0] for word in ("threads", "Python", "NumPy", "Numba", "20"))


def test_limits_name_every_curve_and_process() -> None:
    text = documents.generated((ROOT / summary.LIMITS).read_text(encoding="utf-8"), summary.LIMITS_NAME)
    for word in ("import", "first fit", "epochs", "width", "depth", "batch", "threads"):
        assert f"**{word}" in text or word in text, word


def test_documents_are_written_between_their_markers(tmp_path: Path) -> None:
    points = [measurement("scaling", axis="width", value=value) for value in (4, 8)]
    (tmp_path / "docs").mkdir()
    for path, name in ((summary.README, summary.README_NAME), (summary.LIMITS, summary.LIMITS_NAME)):
        begin, end = documents.markers(name)
        (tmp_path / path).write_text(f"before\n{begin}\nstale\n{end}\nafter\n")
    summary.write_documents(results(measurement(), *points), tmp_path)
    readme, limits = ((tmp_path / path).read_text() for path in (summary.README, summary.LIMITS))
    for text in (readme, limits):
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "stale" not in text
    assert documents.rows(documents.generated(readme, summary.README_NAME)) == [
        ["digits", "float32", "1.00 us a step", "4.0", "**0.5**"]
    ]
    assert "faster are JAX at 4 (0.5), 8 (0.5)" in limits
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="README.md has no lines"):
        summary.write_documents(results(measurement()), tmp_path)


# The command


def test_the_command_measures_writes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, page_path, picture = tmp_path / "a.json", tmp_path / "a.html", tmp_path / "a.png"
    command = ["bench", "--quick", "--no-allocations", "--dtype", "float64", "--peers", "numpy", "notebook"]
    assert main([*command, "--json", str(first), "--html", str(page_path), "--plot", str(picture)]) == 0
    assert "NumPy loop" in capsys.readouterr().out
    found = read_results(first)
    assert [one.key for one in found.measurements] == ["notebook, 3-4-1, sigmoid, 4 samples, float64"]
    assert [cell.peer for cell in found.measurements[0].cells] == ["numba", "numpy-loop", "numpy"]
    assert all(len(cell.seconds) == contest.QUICK_ROUNDS for cell in found.measurements[0].cells)
    assert page_path.exists()
    assert picture.exists()

    # The same figures again are not slower; a file in which fastnet took half the time says that they are.
    assert main(["bench", "--from", str(first), "--compare", str(first)]) == 0
    assert "not slower" in capsys.readouterr().out
    faster = json.loads(first.read_text())
    cell = faster["measurements"][0]["cells"][0]
    cell["seconds"] = [min(cell["seconds"]) / 4] * len(cell["seconds"])
    (tmp_path / "b.json").write_text(json.dumps(faster))
    assert main(["bench", "--from", str(first), "--compare", str(tmp_path / "b.json")]) == 3
    assert "SLOWER: notebook" in capsys.readouterr().out


def test_a_wrong_result_ends_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    results(replace(measurement(), wrong={"JAX": "off"})).write(path)
    assert main(["bench", "--from", str(path)]) == 1
    assert "Wrong: digits, 64-100-10, float32: JAX: off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuchcase"], "case must be one of 'notebook'.*got 'nosuchcase'"),
        (["--peers", "nosuchpeer", "notebook"], "peers must be one of 'numba'.*got 'nosuchpeer'"),
        (["--compare", "nosuchfile.json", "notebook"], "nosuchfile.json"),
        (["--threads", "0", "notebook"], "--threads must be from 1 to"),
        (["--dtype", "float16", "notebook"], "invalid choice: 'float16'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(["bench", *arguments])
    assert exit_status.value.code == 2
    # The text is folded to the terminal's width.
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_cases_and_peers_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*runner.CASES, *PEERS))


def test_every_case_has_workloads_in_both_dtypes() -> None:
    for case in runner.CASES:
        for quick in (True, False):
            dtypes = {workload.dtype for workload in runner.workloads_of([case], ["float32", "float64"], quick)}
            assert dtypes == {"float32", "float64"}, case
