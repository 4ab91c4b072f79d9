"""The plugin, in runs of pytest of its own: with one process and with two."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What is imported here is not imported anew, as other classes, by each run within this process.
import fastnet.kernels.network
import fastnet.testing.faults
import fastnet.testing.golden  # noqa: F401
from fastnet.testing import golden_file, pytest_plugin

pytest_plugins = ["pytester"]

HEADER = """
import pytest
import fastnet
from fastnet.testing.faults import FAULTS
from fastnet.testing.pytest_plugin import assert_trajectory

X, y = [[0.5, 1.0], [1.0, -1.0], [2.0, 0.25]], [1.0, 0.0, 1.0]

def network(seed=1):
    return fastnet.Network([2, 3, 1], "tanh").initialize(seed=seed)

"""
TESTS = """
@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_rate(golden, rate):
    golden(network(), X, y, optimizer=fastnet.SGD(rate), epochs=6, every=2, backend="exact")

def test_named(golden):
    golden(network(), X, y, optimizer="adam", epochs=3, name="adam")
    golden.check("adam")
    assert_trajectory(network(), X, y, golden.path("adam"), optimizer="adam", epochs=3)
"""
FILES = ["adam.golden", "test_goldens-test_rate[0.1].golden", "test_goldens-test_rate[0.2].golden"]


@pytest.fixture
def run(pytester):
    """Runs the tests that were made, in this process or, with -n, in others."""
    pytester.makeini("[pytest]\nfilterwarnings = error")

    def run(*arguments):
        in_process = "-n" not in arguments
        # Hypothesis would be imported anew, for a second, by each run within this process.
        return (pytester.runpytest_inprocess if in_process else pytester.runpytest_subprocess)(
            "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments
        )

    return run


def make(pytester, tests, name="test_goldens"):
    pytester.makepyfile(**{name: HEADER + tests})


def summary(result):
    """The line of the summary with the counts."""
    return next((line for line in result.outlines if " checked, " in line), None)


def files(pytester):
    return sorted(path.name for path in (pytester.path / "goldens").iterdir())


def test_goldens_are_recorded_and_checked(pytester, run):
    make(pytester, TESTS)
    missing = run()
    missing.assert_outcomes(failed=3)
    assert summary(missing) == "0 checked, 0 recorded, 3 failed, 0 unused"
    missing.stdout.fnmatch_lines(["*there is no golden *this records it: pytest *test_named* --golden-record"])
    assert not (pytester.path / "goldens").exists()

    recorded = run("--golden-record")
    recorded.assert_outcomes(passed=3)
    assert summary(recorded) == "5 checked, 3 recorded, 0 failed, 0 unused"
    assert files(pytester) == FILES
    texts = [(pytester.path / "goldens" / name).read_text() for name in FILES]

    again = run("--golden-record")
    assert summary(again) == "5 checked, 0 recorded, 0 failed, 0 unused"
    assert texts == [(pytester.path / "goldens" / name).read_text() for name in FILES]


def test_workers_report_to_the_controller(pytester, run):
    """Eight tests on two workers share a golden, and each has one of its own."""
    make(
        pytester,
        """
@pytest.mark.parametrize("number", range(8))
def test_shared(golden, number):
    golden(network(), X, y, optimizer="adam", epochs=20, name="shared", backend="exact")
    golden(network(number), X, y, optimizer="adam", epochs=2, backend="exact")
""",
    )
    recorded = run("--golden-record", "-n", "2")
    recorded.assert_outcomes(passed=8)
    n_recorded = int(summary(recorded).split(", ")[1].split()[0])
    # Both workers may have found that the shared one is missing.
    assert n_recorded in (9, 10)
    assert summary(recorded) == f"16 checked, {n_recorded} recorded, 0 failed, 0 unused"
    assert len(files(pytester)) == 9
    assert len(golden_file.read(pytester.path / "goldens" / "shared.golden").entries) == 20

    (pytester.path / "goldens" / "old.golden").touch()
    make(pytester, "def test_less(golden): pass\n", "test_less")
    checked = run("-n", "2")
    assert summary(checked) == "16 checked, 0 recorded, 0 failed, 1 unused"
    checked.stdout.fnmatch_lines(["unused: *old.golden"])
    assert summary(run("-n", "2", "-k", "shared")) == "16 checked, 0 recorded, 0 failed, 0 unused"


def test_recording_again_takes_a_reason(pytester, run):
    make(pytester, TESTS)
    run("--golden-record").assert_outcomes(passed=3)
    make(pytester, TESTS.replace("network()", "network(seed=2)"))
    refused = run("--golden-record")
    refused.assert_outcomes(failed=3)
    refused.stdout.fnmatch_lines(["*UsageError: *exists and does not hold: to record it again takes --reason*"])
    again = run("--golden-record", "--reason", "another start")
    again.assert_outcomes(passed=3)
    assert summary(again) == "5 checked, 3 recorded, 0 failed, 0 unused"
    written = golden_file.read(pytester.path / "goldens" / FILES[0]).recordings
    assert [one.reason for one in written] == ["first recording", "another start"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reason", "x"), "--reason is for --golden-record"),
        (("--golden-record", "--reason", " "), "must say why"),
    ],
)
def test_options_are_checked(pytester, run, options, message):
    make(pytester, TESTS)
    result = run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])


def test_unused_goldens_are_named(pytester, run):
    make(pytester, TESTS)
    run("--golden-record").assert_outcomes(passed=3)
    (pytester.path / "goldens" / "old.golden").touch()
    result = run()
    assert summary(result) == "5 checked, 0 recorded, 0 failed, 1 unused"
    result.stdout.fnmatch_lines(["unused: *old.golden"])
    # Others than those of all tests say nothing of what is unused.
    for selection in (("-k", "named"), ("test_goldens.py::test_named",)):
        assert summary(run(*selection)) == "3 checked, 0 recorded, 0 failed, 0 unused"
    make(pytester, TESTS.replace("test_named", "test_also_named"), "test_others")
    assert summary(run("test_goldens.py")) == "5 checked, 0 recorded, 0 failed, 0 unused"


def test_failing_tests_say_nothing_of_unused_goldens(pytester, run):
    make(pytester, TESTS)
    run("--golden-record").assert_outcomes(passed=3)
    make(pytester, TESTS.replace("golden.check", "assert False; golden.check"))
    assert summary(run()) == "3 checked, 0 recorded, 0 failed, 0 unused"


FAULTY = """
def test_fault(golden):
    case, backend = FAULTS["NAME"].case, BACKEND
    x, targets, weight = case.data()
    golden(case.network(), x, targets, sample_weight=weight, backend=backend, every=2, **case.settings)
"""


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("flipped_sum", "epoch 0, batch 0*layer 1, weight_gradient[[]*"),
        ("fused_multiply_add", "epoch 0, batch 0*layer 1, weight_gradient[[]*"),
        ("libm_exp", "epoch 0, batch 0*layer 2, outputs[[]*"),
        ("dropped_row", "epoch 0, batch 2*loss[[]*"),
        ("adam_step_count", "epoch 0, batch 0*layer 1, weights[[]*"),
    ],
)
def test_planted_faults_are_found(pytester, run, fault, where):
    make(pytester, FAULTY.replace("NAME", fault).replace("BACKEND", '"numba"'))
    run("--golden-record").assert_outcomes(passed=1)
    make(pytester, FAULTY.replace("NAME", fault).replace("BACKEND", f'FAULTS["{fault}"].backend()'))
    failed = run()
    failed.assert_outcomes(failed=1)
    epoch_and_batch, array = where.split("*")[:2]
    failed.stdout.fnmatch_lines([f"*parts from exact in {epoch_and_batch}*", f"*first in: {array}*"])
    assert summary(failed) == "0 checked, 0 recorded, 1 failed, 0 unused"


def test_names_of_files(pytester, run):
    make(
        pytester,
        """
class TestAll:
    @pytest.mark.parametrize("name", ["a/b", "a:b", "ä"])
    def test_ids(self, golden, name):
        for seed in range(2):
            golden(network(seed), X, y, epochs=1)
""",
        "test_ids",
    )
    run("--golden-record").assert_outcomes(passed=3)
    names = files(pytester)
    assert len(names) == 6
    assert all(name.startswith("test_ids-TestAll-test_ids[") for name in names)
    assert not set('/\\:*?"<>|') & set("".join(names))
    run().assert_outcomes(passed=3)


def test_paths_with_folders(pytester, run):
    make(
        pytester,
        """
def test_path(golden, tmp_path):
    from fastnet.testing.golden import record
    record(tmp_path / "other.golden", network(), X, y, epochs=2)
    assert golden.check(tmp_path / "other.golden", "exact").passed
    with pytest.raises(AssertionError, match="there is no golden"):
        golden.check("other")
""",
    )
    assert summary(run()) == "1 checked, 0 recorded, 1 failed, 0 unused"


def test_runs_without_goldens_have_no_summary(pytester, run):
    pytester.makepyfile("def test_nothing(): pass")
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*goldens of fastnet*")


def test_nothing_heavy_is_imported_at_the_start():
    code = (
        "import sys, fastnet.testing.pytest_plugin; "
        "print([name for name in ('numba', 'llvmlite', 'scipy', 'fastnet.testing.golden') if name in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"


def test_plugin_is_an_entry_point(pytestconfig):
    assert pytestconfig.pluginmanager.get_plugin("fastnet") is pytest_plugin
