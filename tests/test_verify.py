"""The equality ladder: it holds here, every planted fault is found where it is, and reports can be compared."""

from __future__ import annotations

import io
import json
import platform
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import __main__, kernels
from fastnet.network import Network
from fastnet.reference import activations, exact, network
from fastnet.testing import accuracy, calls, other_cpus, release, rung_context, rungs
from fastnet.testing.cases import NOTEBOOK, Case, covering_cases
from fastnet.testing.faults import FAULTS, reference_backend, variant
from fastnet.testing.rung_context import Context, Findings, digest, first_parting
from fastnet.testing.verify import Report, Rung, compare_reports, read_report, verify
from tools import true_values, verification_values
from tools.accuracy import read_table

COMMAND = [sys.executable, "-m", "fastnet"]


@pytest.fixture(scope="module")
def trained() -> Context:
    """One whose trainings by the exact reference several tests share; float32 alone, for every fault shows in it."""
    context = Context("numba")
    context.cases = {name: case for name, case in context.cases.items() if case.dtype == "float32"}
    return context


def findings(name: str, backend: Any = "numba") -> Findings:
    return rungs.RUNGS[name](Context(backend))


# --- the whole ladder ---


def test_command_holds_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rungs but that of other CPUs, which `tests/test_cpus.py` climbs.

    The report that is written is one that the same machine agrees with.
    """
    monkeypatch.setattr(other_cpus, "reason_without_children", lambda _: "left to others")
    path = tmp_path / "report.json"
    assert __main__.main(["verify", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    report = read_report(path)
    assert report.passed
    assert [rung.name for rung in report.rungs] == list(rungs.RUNGS)
    assert [rung.name for rung in report.rungs if rung.status == "skip"] == ["cpus"]
    for rung in report.rungs:
        assert f"\n{rung.name} " in printed.out
        assert f"] {rung.name}\n" in printed.err
    assert "all rungs hold" in printed.out
    assert f"fastnet                  {fastnet.__version__}\n" in printed.out
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert content["passed"] is True

    assert __main__.main(["verify", "--only", "trainings", "--against", str(path)]) == 0
    n_cases = len(covering_cases())
    printed = capsys.readouterr()
    assert f"{n_cases} of {n_cases} digests are the same on both machines\n" in printed.out
    assert "the machines' descriptions are the same\n" in printed.out


def test_failure_gives_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    published = release.read_release()
    other = replace(published, digests={**published.digests, "relu-float32": "0" * 64})
    monkeypatch.setattr(rungs, "read_release", lambda: other)
    assert __main__.main(["verify", "--only", "release"]) == 1
    printed = capsys.readouterr().out
    assert "\nrelease  FAIL " in printed
    assert "\nrelease: relu-float32: not the release's digest; exact has another, too\n" in printed
    assert "1 of 1 rungs FAILED" in printed


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 0
    assert "verify" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"fastnet {fastnet.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "nothing"],
        ["--against", "missing.json"],
        ["--write-release"],
        ["--reason", "none"],
        ["--write-release", "--reason", "some", "--only", "threads"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["verify", *arguments])
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not those of POSIX")
def test_interrupt_ends_it() -> None:
    # A child of a shell's background job would inherit that SIGINT is ignored.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "import runpy, sys; sys.argv = ['fastnet', 'verify']; runpy.run_module('fastnet', run_name='__main__')"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "[1/9] functions\n"
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (printed, errors) == ("", "\ninterrupted\n")


def test_interrupted_training_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Context) -> Findings:
        warnings.warn("training was interrupted after 1 of 2 epochs", RuntimeWarning, stacklevel=1)
        return Findings()

    monkeypatch.setitem(rungs.RUNGS, "trainings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(rungs=["trainings"])


# --- planted faults ---

#: The layer that a fault shows in first: from the output layer (0) downwards, or None where the array has no layer.
FROM_THE_TOP = {"flipped_sum": 1, "fused_multiply_add": 1, "libm_exp": 0, "dropped_row": None}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name: str, trained: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the trainings, in the first epoch; the first failure names batch, layer and array."""
    fault = FAULTS[name]
    monkeypatch.setattr(rung_context, "covering_cases", lambda: trained.cases)
    monkeypatch.setattr(Context, "desired", trained.desired)
    report = verify(fault.backend(), rungs=["trainings"])
    assert not report.passed
    failure = report.rungs[0].failures[0]
    case, _, message = failure.partition(": ")
    assert f"in epoch 0, batch {fault.batch} " in message
    array = fault.array.partition(".")[0]
    n_layers = len(trained.cases[case].layer_sizes) - 1
    layer = 1 if name == "adam_step_count" else FROM_THE_TOP[name]
    if name != "adam_step_count" and layer is not None:
        layer = n_layers - layer
    where = f"layer {layer}, {array}[" if layer is not None else f"{array}["
    assert f"\nfirst in: {where}" in message
    assert message in str(report).replace("\n    ", "\n")


@pytest.mark.parametrize("name", FAULTS)
def test_parting_is_named(name: str) -> None:
    """In the fault's own case, where it is known what parts first."""
    fault = FAULTS[name]
    actual, desired = fault.case.train(fault.backend()), fault.case.train("exact")
    message = first_parting(fault.case, fault.backend(), actual, desired)
    array, _, layer = fault.array.partition(".")
    assert f"in epoch 0, batch {fault.batch} " in message
    assert f"first in: {f'layer {int(layer) + 1}, ' if layer else ''}{array}[" in message


def test_function_that_parts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def twins(name: str) -> tuple[Any, Any]:
        kernel, reference = calls.twins(name)

        def exp(x: Any) -> Any:
            y = kernel(x)
            if y.ndim == 1:
                y[9] = np.nextafter(y[9], y.dtype.type(np.inf))
            return y

        return (exp, reference) if name == "exact.exp" else (kernel, reference)

    monkeypatch.setattr(rungs, "twins", twins)
    monkeypatch.setattr(rungs, "CALLS", {name: calls.CALLS[name] for name in ("exact.exp", "exact.log")})
    found = findings("functions")
    assert [failure.partition(": ")[0] for failure in found.failures] == ["exact.exp float32", "exact.exp float64"]
    assert "result[9]: " in found.failures[0]
    assert "1 ULP apart" in found.failures[0]
    assert found.figures["largest ULP"] == 1


@pytest.mark.parametrize("dtype", calls.DTYPES)
def test_inaccurate_function_is_named(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exp(x: Any) -> Any:
        y = exact.exp(x)
        return y if x.dtype != dtype else np.nextafter(np.nextafter(y, y.dtype.type(2)), y.dtype.type(2))

    monkeypatch.setattr(kernels, "exp", exp)
    failures = findings("accuracy").failures
    assert len(failures) == 1
    assert failures[0].startswith(f"exp {dtype}: ")


def test_wrong_gradient_is_named() -> None:
    """Slopes of hidden layers that are wrong by a ten-thousandth."""

    def backward(activation: int, error: Any, z: Any, a: Any, arithmetic: Any) -> Any:
        return activations.backward(activation, error, z, a, arithmetic) * (1 + 1e-4)

    backend = reference_backend(variant(network, activations=variant(activations, backward=backward)))
    failures = findings("gradients", backend).failures
    assert failures
    # An output that has no matching loss has a slope, too.
    named = [failure for failure in failures if "squared_error" not in failure]
    assert named
    assert all(": epoch 0, layer 1, " in failure or ": epoch 0, layer 2, " in failure for failure in named)


def test_notebooks_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy prints the figures, but not by the bits of the exact reference."""
    monkeypatch.setattr(rungs, "NOTEBOOKS", rungs.NOTEBOOKS[1:2])
    found = findings("notebooks", "numpy")
    (failure,) = found.failures
    assert failure.startswith("Notebook 2: numpy parts from exact in epoch ")


def test_figures_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rungs.NOTEBOOKS[0]
    printed = (*first.printed[:2], "0.007558", *first.printed[3:])
    monkeypatch.setattr(rungs, "NOTEBOOKS", (replace(first, printed=printed),))
    assert findings("notebooks").failures == ["Notebook 1: epoch 2000: prints 0.00755821099357, not 0.007558"]


def test_threads_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Network.fit

    def fit_otherwise(self: Network, *arguments: Any, threads: int | None = None, **settings: Any) -> Any:
        history = fit(self, *arguments, threads=threads, **settings)
        if threads == 2:
            self.weights[1][0, 0] = np.nextafter(self.weights[1][0, 0], self.dtype.type(np.inf))
        return history

    monkeypatch.setattr(Network, "fit", fit_otherwise)
    failures = findings("threads").failures
    assert failures
    assert all(" with threads=2: layer 2, weights[0, 0]: " in failure for failure in failures)


# --- other CPUs ---


def test_cpus_are_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be handed" in findings("cpus", FAULTS["dropped_row"].backend()).skipped
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in findings("cpus").skipped


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"instructions": ["AVX-512", "FMA"], "trainings": 0, "failures": []}, "LLVM compiles for AVX-512, FMA"),
        ({"instructions": ["AVX", "FMA"], "trainings": 1, "failures": ["relu: it parts"]}, "relu: it parts"),
        (None, "the process ended with 1"),
    ],
)
def test_what_a_process_says_is_judged(
    report: Any, message: str, trained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"print({json.dumps(report)!r})" if report else "raise SystemExit(1)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    monkeypatch.setattr(trained, "children", {"AVX2": process})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    failures = other_cpus.check_cpus(trained).failures
    assert len(failures) == 1
    assert failures[0].startswith(f"haswell: {message}")


@pytest.mark.parametrize("is_wrong", [False, True], ids=["of other digests", "of other bits"])
def test_a_process_says_where_trainings_part(
    is_wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose digests are not those that it is told: here one, which exact does not have, either, or the kernels."""
    train, cases = Case.train, dict(list(covering_cases().items())[:2])
    desired = {name: digest(case.train("exact")) for name, case in cases.items()}
    name, case = cases.popitem()

    def train_otherwise(self: Case, backend: Any, **how: Any) -> Any:
        arrays = train(self, backend, **how)
        if (self, backend) == (case, "numba"):
            arrays["predictions"][0, 0] *= -1.0
        return arrays

    if is_wrong:
        monkeypatch.setattr(Case, "train", train_otherwise)
    else:
        desired[name] = "0" * 64
    monkeypatch.setattr(other_cpus, "covering_cases", lambda: {**cases, name: case})
    monkeypatch.setattr(other_cpus, "small_cases", dict)
    notebook = digest(NOTEBOOK.train("numba"))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**desired, "notebook": notebook})))
    other_cpus.main_of_child()
    report = json.loads(capsys.readouterr().out)
    assert report["trainings"] == len(desired) + 1
    (failure,) = report["failures"]
    why = "in lockstep it does not part, but at the end predictions[0, 0]" if is_wrong else "exact has the same bits as"
    assert failure.startswith(f"{name}: {why}")


# --- true values ---


def test_true_values_are_those_of_the_script() -> None:
    assert verification_values.PATH.read_text(encoding="utf-8") == verification_values.table()


@pytest.mark.parametrize("name", accuracy.IN_FLOAT64)
def test_errors_are_those_of_mpmath(name: str) -> None:
    """Of results that are up to four numbers off.

    The table has six decimals, beside which the rounding of errors up to 5 in float64 is less than 2^-20.
    """
    rng = np.random.RandomState(0)
    x, rounded, rest = accuracy.read_true_values()[name]
    x, rounded, rest = (column[np.isfinite(rounded)] for column in (x, rounded, rest))
    wrong = rounded.copy()
    for _ in range(4):
        wrong = np.where(rng.random_sample(x.size) < 0.5, np.nextafter(wrong, 2.0), wrong)
    errors = accuracy.float64_errors(wrong, rounded, rest)
    for argument, result, error in zip(x.tolist(), wrong.tolist(), errors.tolist(), strict=True):
        desired = true_values.error_by_mpmath(name, argument, result, np.float64)
        assert abs(error - desired) <= accuracy.HALF_DIGIT * (1 + 2.0**-20)

    x32 = x[np.abs(x) < 80].astype(np.float32)
    x32 = x32[x32 > 0] if name == "log" else x32
    results = getattr(exact, name)(x32)
    errors = accuracy.float32_errors(results, accuracy.IN_FLOAT64[name](x32.astype(np.float64)))
    for argument, result, error in zip(x32.tolist(), results.tolist(), errors.tolist(), strict=True):
        assert abs(error - true_values.error_by_mpmath(name, argument, result, np.float32)) <= 2.0**-20


def test_limits_are_the_documented_ones() -> None:
    documented = {row.function: row.limit for row in read_table() if np.isfinite(row.limit)}
    assert documented == accuracy.LIMITS


# --- reports ---


def report_of(digests: dict[str, str], **machine: str) -> Report:
    return Report((Rung("trainings", "", (), {}, digests, "", 0.5),), {"CPU": "one", **machine})


def test_reports_that_differ() -> None:
    mine = report_of({"relu": "1", "tanh": "2"}, features="avx avx2")
    other = report_of({"relu": "1", "tanh": "3", "elu": "4"}, features="avx fma", NUMBA_OPT="0")
    same, text = compare_reports(mine, other)
    assert not same
    assert text.splitlines() == [
        "1 of 2 digests are the same on both machines",
        "  differs: trainings: tanh",
        "  only there: 1 of trainings",
        "the machines differ in",
        "  features: here avx2; there fma",
        "  NUMBA_OPT: here not set; there 0",
    ]
    assert not compare_reports(report_of({"relu": "1"}), report_of({"tanh": "1"}))[0]


def test_report_survives_a_file(tmp_path: Path) -> None:
    report = replace(report_of({"relu": "1"}), machine={"CPU": "one"})
    report.write(tmp_path / "a.json")
    assert read_report(tmp_path / "a.json") == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "rungs": [{}], "machine": {}}'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json must be a report"):
        read_report(tmp_path / "a.json")


def test_digest_sees_every_bit() -> None:
    one = {"x": np.array([0.0, np.nan, 1.0])}
    assert digest(one) == digest({"x": np.array([0.0, -np.nan, 1.0]).astype(">f8")})
    for other in (np.array([-0.0, np.nan, 1.0]), np.array([0.0, np.nan, 1.0], np.float32), one["x"][:, None]):
        assert digest(one) != digest({"x": other})
    assert digest(one) != digest({"y": one["x"]})


# --- the release's digests ---


def test_release_keeps_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "release.txt"
    release.write_release({"a case": "ab"}, "first", path)
    release.write_release({"a case": "cd"}, "second", path)
    written = release.read_release(path)
    assert written.digests == {"a case": "cd"}
    assert [reason.partition(" ")[2] for reason in written.reasons] == ["first", "second"]
    assert str(written) == path.read_text(encoding="utf-8")
    for reason in ("", " ", "two\nlines"):
        with pytest.raises(ValueError, match="reason must be a line"):
            release.write_release({}, reason, path)
    path.write_text("schema 7\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must be of schema 1; got 7"):
        release.read_release(path)


def test_command_writes_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all other rungs hold, of which one is left here."""
    written: list[Any] = []
    monkeypatch.setattr(release, "write_release", lambda *arguments: written.append(arguments))
    for name in set(rungs.RUNGS) - {"threads"}:
        monkeypatch.delitem(rungs.RUNGS, name)
    arguments = ["verify", "--write-release", "--reason", "a test"]
    assert __main__.main(arguments) == 0
    assert written == [(release.read_release().digests, "a test")]
    monkeypatch.setitem(rungs.RUNGS, "threads", lambda _: Findings(["it fails"]))
    assert __main__.main(arguments) == 1
    assert len(written) == 1


def test_release_says_whether_exact_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of hidden sigmoid units is wrong, which shows in one training for each dtype, but not at once in the
    notebook's, whose updates are small.
    """
    short = replace(NOTEBOOK, epochs=10)
    published = release.read_release()
    digests = {**published.digests, "notebook": digest(short.train("exact"))}
    monkeypatch.setattr(rungs, "NOTEBOOK", short)
    monkeypatch.setattr(rungs, "read_release", lambda: replace(published, digests=digests))
    assert findings("release").failures == []
    assert findings("release", FAULTS["fused_multiply_add"].backend()).failures == [
        f"{name}: not the release's digest; exact has it" for name in ("sigmoid-float32", "sigmoid-float64")
    ]
