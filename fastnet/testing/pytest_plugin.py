"""The pytest plugin for golden trajectories, which is loaded wherever fastnet is installed.

A test takes the fixture `golden` and says what to train; the file with the recorded training is next to the
test, in the folder ``goldens``. ``pytest --golden-record`` writes the files that are missing; with ``--reason "…"``
also those that do not hold any more. Under pytest-xdist, workers report to the controller's summary.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike

    from fastnet.backends import Backend
    from fastnet.network import Network
    from fastnet.testing.golden import Golden, GoldenReport

FOLDER, SUFFIX = "goldens", ".golden"
_OUTCOMES = ("checked", "recorded", "failed")

#: The uses of goldens by the test that is running: (path, outcome).
_uses: list[tuple[str, str]] = []


def assert_trajectory(
    network: Network, X: ArrayLike, y: ArrayLike, golden: Golden | str | PathLike[str], **settings: Any
) -> GoldenReport:
    """Require that a training is the one that a golden has recorded, and goes as it did.

    The arguments are those of `fastnet.testing.golden.assert_trajectory`; nothing is ever recorded. Goldens
    that are given as files count in the summary at the end of the run.
    """
    __tracebackhide__ = True
    from fastnet.testing import golden as goldens
    from fastnet.testing.golden import Golden

    path = None if isinstance(golden, Golden) else str(Path(golden).resolve())
    with _counted(path):
        return goldens.assert_trajectory(network, X, y, golden, **settings)


@contextmanager
def _counted(path: str | None) -> Iterator[None]:
    """Count a golden as checked, or as failed if an exception leaves the block."""
    outcome = "failed"
    try:
        yield
        outcome = "checked"
    finally:
        if path is not None:
            _uses.append((path, outcome))


class GoldenFixture:
    """What the fixture `golden` is: called with a training, it requires that this goes as recorded.

    Attributes
    ----------
    folder : pathlib.Path
        Where the goldens of the test's file are.
    """

    def __init__(self, node: pytest.Item) -> None:
        self.folder = node.path.parent / FOLDER
        self._test = f"{node.path.name}::{node.nodeid.partition('::')[2]}"
        self._node_id, self._n_unnamed = node.nodeid, 0
        self._records = bool(node.config.getoption("golden_record"))
        self._reason: str | None = node.config.getoption("golden_reason")

    def path(self, name: str | None = None) -> Path:
        """The file of a name; without one, that of the test's next golden."""
        if name is not None:
            return self.folder / f"{name.removesuffix(SUFFIX)}{SUFFIX}"
        self._n_unnamed += 1
        number = f"-{self._n_unnamed}" if self._n_unnamed > 1 else ""
        return self.folder / f"{_file_name(self._test)}{number}{SUFFIX}"

    def __call__(
        self,
        network: Network,
        X: ArrayLike,
        y: ArrayLike,
        *,
        name: str | None = None,
        sample_weight: ArrayLike | None = None,
        backend: str | Backend = "numba",
        every: int | Sequence[int] = 1,
        weights_shown: int | str | Sequence[str] = 2,
        recorder: str | Backend = "exact",
        **settings: Any,
    ) -> GoldenReport:
        """Require that a training goes as recorded.

        Parameters
        ----------
        network, X, y, sample_weight, every, weights_shown, **settings
            The training, and what its golden shows, as for `fastnet.testing.golden.record`.
        name : str, optional
            Name of the golden in the folder ``goldens``; by default it comes from the test's node id.
        backend : str or Backend
            What trains.
        recorder : str or Backend
            What trains if the golden is recorded.

        Returns
        -------
        GoldenReport
            Of a replay that agrees.

        Raises
        ------
        GoldenError
            If the golden is missing, is of another training, or the training went otherwise.
        pytest.UsageError
            If the golden would have to be recorded again, and there is no ``--reason``.
        """
        __tracebackhide__ = True
        from fastnet.testing import golden as goldens

        path = self.path(name)
        training: dict[str, Any] = {"sample_weight": sample_weight, **settings}
        if self._records and not self._holds(path, network, X, y, backend, training):
            path.parent.mkdir(parents=True, exist_ok=True)
            shown: dict[str, Any] = {"every": every, "weights_shown": weights_shown}
            try:
                goldens.record(path, network, X, y, reason=self._reason, backend=recorder, **shown, **training)
                _uses.append((str(path), "recorded"))
            except ValueError:
                if self._reason is not None or not path.exists():
                    raise
                # Another worker may have recorded it since; then it holds.
                if not self._holds(path, network, X, y, backend, training):
                    _uses.append((str(path), "failed"))
                    message = f"{path} exists and does not hold: to record it again takes --reason"
                    raise pytest.UsageError(message) from None
        with _counted(str(path)):
            self._require(path)
            return goldens.assert_trajectory(network, X, y, path, backend=backend, **training)

    def check(self, name: str | None = None, backend: str | Backend = "numba", **arguments: Any) -> GoldenReport:
        """Replay a golden from its file.

        Parameters
        ----------
        name : str, optional
            Name of the golden in the folder ``goldens``, or a path with a folder; by default from the test's node id.
        backend, **arguments
            As for `fastnet.testing.golden.check`.

        Returns
        -------
        GoldenReport
            Of a replay that agrees.
        """
        __tracebackhide__ = True
        from fastnet.testing import golden as goldens

        path = Path(name) if name is not None and Path(name).parent != Path() else self.path(name)
        with _counted(str(path)):
            self._require(path)
            return goldens.check(path, backend, **arguments).require()

    def _require(self, path: Path) -> None:
        __tracebackhide__ = True
        from fastnet.testing.golden import GoldenError

        if not path.exists():
            command = f"pytest {shlex.quote(self._node_id)} --golden-record"
            raise GoldenError(f"there is no golden {path}; this records it: {command}")

    def _holds(
        self, path: Path, network: Network, X: ArrayLike, y: ArrayLike, backend: str | Backend, training: dict[str, Any]
    ) -> bool:
        """Whether the golden that there is needs no recording."""
        from fastnet.testing import golden as goldens

        if not path.exists():
            return False
        try:
            goldens.assert_trajectory(network, X, y, path, backend=backend, **training)
        except goldens.GoldenError:
            return False
        return True


def _file_name(test: str) -> str:
    """A file name for a test: its id where that is one, else what is left of it and some digits of its SHA-256.

    Examples
    --------
    >>> _file_name("test_xor.py::TestXor::test_adam")
    'test_xor-TestXor-test_adam'
    >>> _file_name("test_xor.py::test_rate[1/2]")
    'test_xor-test_rate[1_2]-cf0f3d96'
    """
    plain = test.replace(".py::", "-").replace("::", "-")
    safe = re.sub(r"[^\w.,=+\[\]-]", "_", plain)
    return safe if safe == plain else f"{safe}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> GoldenFixture:
    """Golden trajectories: ``golden(network, X, y, optimizer=…, epochs=…)`` or ``golden.check("name")``."""
    return GoldenFixture(request.node)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("fastnet", "golden trajectories of fastnet")
    group.addoption(
        "--golden-record",
        action="store_true",
        help="record goldens that are missing, and with --reason those that do not hold any more",
    )
    group.addoption(
        "--reason", dest="golden_reason", metavar="TEXT", help="why goldens are recorded again; it is kept in the files"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, and register what sums up the run."""
    reason = config.getoption("golden_reason")
    if reason is not None and not config.getoption("golden_record"):
        raise pytest.UsageError("--reason is for --golden-record")
    if reason is not None and not reason.strip():
        raise pytest.UsageError("--reason must say why")
    config.pluginmanager.register(_Summary(config), "fastnet-summary")


@dataclass
class _Folder:
    """What is known of a folder with tests that use the fixture."""

    used: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    #: Whether a test did not run, or failed: then its goldens may only seem unused.
    is_partial: bool = False


class _Summary:
    """Collects what tests report of their goldens, on workers and on the controller."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes: Counter[str] = Counter()
        self.folders: dict[str, _Folder] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        # Tests of plugins run pytest within a test.
        global _uses  # noqa: PLW0603
        before, _uses = _uses, []
        try:
            return (yield)
        finally:
            _uses = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        if "golden" in getattr(item, "fixturenames", ()) or _uses:
            # Attributes of a report travel from a worker to the controller.
            report.fastnet_folder = str(item.path.parent)
            report.fastnet_uses = list(_uses) if report.when == "teardown" else []
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not hasattr(report, "fastnet_folder"):
            return
        folder = self.folders.setdefault(report.fastnet_folder, _Folder())
        folder.modules.add(report.nodeid.partition("::")[0].rpartition("/")[2])
        folder.is_partial |= report.outcome != "passed"
        for path, outcome in report.fastnet_uses:
            self.outcomes[outcome] += 1
            folder.used.add(path)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            if "golden" in getattr(item, "fixturenames", ()):
                self.folders.setdefault(str(item.path.parent), _Folder()).is_partial = True

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, Any, Any]:
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["fastnet_partial"] = [path for path, folder in self.folders.items() if folder.is_partial]
        return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for path in getattr(node, "workeroutput", {}).get("fastnet_partial", ()):
            self.folders.setdefault(path, _Folder()).is_partial = True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        unused = self._unused()
        if not self.outcomes and not unused:
            return
        terminalreporter.section("goldens of fastnet")
        counts = ", ".join(f"{self.outcomes[outcome]} {outcome}" for outcome in _OUTCOMES)
        terminalreporter.line(f"{counts}, {len(unused)} unused")
        for path in unused:
            terminalreporter.line(f"unused: {path}")

    def _unused(self) -> list[str]:
        """Goldens that no test has used, of folders of which all tests that could have were run."""
        if any("::" in argument for argument in self.config.args):
            return []
        used = {path for folder in self.folders.values() for path in folder.used}
        unused: list[str] = []
        for path, folder in self.folders.items():
            files = {file.name for pattern in self.config.getini("python_files") for file in Path(path).glob(pattern)}
            with_goldens = {name for name in files if "golden" in (Path(path) / name).read_text(errors="replace")}
            if not folder.is_partial and with_goldens <= folder.modules:
                unused += [str(file) for file in (Path(path) / FOLDER).glob(f"*{SUFFIX}") if str(file) not in used]
        return sorted(unused)
