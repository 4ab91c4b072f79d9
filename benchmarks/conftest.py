"""Options of the pytest-benchmark suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="fewer samples and epochs")
