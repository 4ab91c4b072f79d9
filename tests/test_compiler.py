"""What is compiled, and what a compilation leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from fastnet.kernels.jit import SHARES_PARTS, jit, jit_inline

pytestmark = pytest.mark.skipif(not SHARES_PARTS, reason="this Numba compiles functions in its own way")


@jit_inline
def twice(x: Any) -> Any:
    return x + x


@jit
def calls_with_a_constant(x: Any) -> Any:
    return twice(x) + twice(3) + twice(4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these functions are is no part of the digest, by which others would find them."""
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))


def test_a_part_is_compiled_once_for_variables_and_constants() -> None:
    assert calls_with_a_constant(2) == 18
    assert len(twice.overloads) == 1


def test_what_a_user_has_frozen_stays_frozen() -> None:
    frozen: list[list[int]] = [[]]
    gc.freeze()
    try:
        assert jit(calls_with_a_constant.py_func)(2.0) == 18.0
        assert gc.isenabled()
        assert not any(each is frozen for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is frozen for each in gc.get_objects())
