"""The demo shows what it measured, and fails if a figure or a bit is off."""

from dataclasses import replace

import numpy as np
import pytest

from fastnet.bench import demo, documents
from fastnet.network import Network
from fastnet.runtime import entry_points
from fastnet.testing.notebooks import NOTEBOOK_2, NOTEBOOK_3, Notebook

BEGIN, END = documents.markers(demo.MARKED)
SHORT = (
    replace(NOTEBOOK_2, epochs=10),
    replace(NOTEBOOK_3, epochs=10, printed=NOTEBOOK_3.printed[:1]),
)


@pytest.fixture(autouse=True)
def short_notebooks(monkeypatch):
    monkeypatch.setattr(demo, "NOTEBOOKS", SHORT)
    monkeypatch.setattr(demo, "random_starts", lambda n_starts: (f"{n_starts} random starts", []))


def test_tables_picture_and_readme(tmp_path, capsys):
    picture, readme = tmp_path / "demo.png", tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert demo.main(["--quick", "--output", str(picture), "--readme", str(readme)]) == 0
    printed = capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = readme.read_text()
    assert written.startswith(f"before\n{BEGIN}\n")
    assert written.endswith(f"\n{END}\nafter\n")
    assert "old" not in written
    tables = [line for line in written.splitlines() if line.startswith("|")]
    assert tables == [line for line in printed.splitlines() if line.startswith("|")]
    assert len(tables) == len(SHORT) * (2 + len(demo.BACKENDS))
    for table in (tables[:6], tables[6:]):
        assert len({len(line) for line in table}) == 1


def test_a_wrong_figure_fails(monkeypatch, capsys):
    figure = SHORT[1].printed[0]
    other = figure[:-1] + str((int(figure[-1]) + 1) % 10)
    monkeypatch.setattr(demo, "NOTEBOOKS", [replace(SHORT[1], printed=(other,))])
    assert demo.main(["--quick"]) == 1
    wrong = capsys.readouterr().err
    assert wrong.count(f"expected {other}") == len(demo.BACKENDS)


def test_a_wrong_bit_fails(monkeypatch, tmp_path, capsys):
    fit = Notebook.fit

    def nudged(self, net, epochs, backend):
        history = fit(self, net, epochs, backend)
        if backend == "numba":
            net.weights[0][0, 0] = np.nextafter(net.weights[0][0, 0], 9.0)
        return history

    monkeypatch.setattr(Notebook, "fit", nudged)
    readme = tmp_path / "README.md"
    text = f"{BEGIN}\nold\n{END}\n"
    readme.write_text(text)
    assert demo.main(["--quick", "--readme", str(readme)]) == 1
    assert "the weights of numba and exact differ" in capsys.readouterr().err
    assert readme.read_text() == text


def test_origin_is_that_of_the_kernels_that_fit_runs():
    before = entry_points.origins()
    # Three outputs and two inputs that no other test has, so that a kernel is new to this process.
    net = Network([2, 3, 3], "elu", "tanh").initialize(seed=0)
    net.fit([[0.0, 1.0]], [[0.0, 1.0, 0.5]], epochs=1, specialize=True)
    assert demo.origin_of_kernels(before) in ("were compiled", "were loaded from the cache")
    assert demo.origin_of_kernels(entry_points.origins()) == "were in memory"
    assert len(entry_points.origins()) == len(before) + 1


def test_exact_makes_all_updates(monkeypatch):
    fit, trained = Notebook.fit, []

    def counted(self, net, epochs, backend):
        trained.append((backend, epochs))
        return fit(self, net, epochs, backend)

    monkeypatch.setattr(Notebook, "fit", counted)
    results, _ = demo.measure(replace(SHORT[1], updates_before=5), 1)
    assert results["exact"].digest == results["numba"].digest
    assert results["exact"].figures == results["numba"].figures
    assert [epochs for backend, epochs in trained if backend == "exact"] == [5, 10]


def test_outputs_outside_the_printed_range_fail(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(demo.notebooks, "outputs_of_starts", lambda n, _: np.linspace(0.2, 0.4, 3 * n).reshape(n, 3))
    _, faults = demo.random_starts(10)
    assert len(faults) == len(NOTEBOOK_2.printed)


def test_readme_without_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(ValueError, match=BEGIN):
        documents.write_generated(readme, demo.MARKED, "text")
