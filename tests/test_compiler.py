"""What is compiled, and what a compilation leaves behind."""

from __future__ import annotations

import gc
import re
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnet.contract import RELU
from fastnet.kernels.activations import forward_span
from fastnet.kernels.jit import SHARES_PARTS, jit, jit_inline
from fastnet.kernels.memory import pointer
from fastnet.runtime import collector

pytestmark = pytest.mark.skipif(not SHARES_PARTS, reason="this Numba compiles functions in its own way")


@jit_inline
def twice(x: Any) -> Any:
    return x + x


@jit
def calls_with_a_constant(x: Any) -> Any:
    return twice(x) + twice(3) + twice(4)


@jit
def writes_relu(values: Any) -> None:
    forward_span(RELU, pointer(values), values.size, 0, 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these functions are is no part of the digest, by which others would find them."""
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))


def test_a_part_is_compiled_once_for_variables_and_constants() -> None:
    assert calls_with_a_constant(2) == 18
    assert len(twice.overloads) == 1


def test_vectors_on_the_stack_cross_no_line_of_the_cache() -> None:
    """Neither those of a kernel nor those of the loops that kernels share."""
    kernel = jit(writes_relu.py_func)
    kernel(np.zeros(16))
    (text,) = kernel.inspect_llvm().values()
    aligned = re.findall(r"^attributes (#\d+) = .*alignstack=64", text, re.MULTILINE)
    functions = re.findall(r"^define .*?@([\w.]+)\(.* (#\d+) \{$", text, re.MULTILINE)
    for name in ("writes_relu", "fastnet.span.forward"):
        assert any(name in found and attributes in aligned for found, attributes in functions)


@pytest.fixture
def first_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnet.runtime.collector._n_pauses", count())


@pytest.mark.skipif(gc.get_freeze_count() > 0, reason="this Python begins with frozen objects")
@pytest.mark.usefixtures("first_compilations")
def test_only_the_first_compilations_leave_their_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may compile thousands of kernels, and must not keep what all of them have left."""
    times, freeze = [], gc.freeze
    monkeypatch.setattr(gc, "freeze", lambda: (times.append(0), freeze()))
    kernel = jit(calls_with_a_constant.py_func)
    for x in (2, 2.0, 2j, np.float32(2.0), np.int32(2), np.int8(2)):
        assert kernel(x) == 2 * x + 14
    assert len(times) == 4
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("first_compilations")
def test_what_a_user_has_frozen_stays_frozen() -> None:
    frozen: list[list[int]] = [[]]
    gc.freeze()
    try:
        assert jit(calls_with_a_constant.py_func)(2.0) == 18.0
        assert not any(each is frozen for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is frozen for each in gc.get_objects())


def test_a_collector_that_a_user_has_stopped_stays_so() -> None:
    assert gc.isenabled()
    gc.disable()
    try:
        assert jit(calls_with_a_constant.py_func)(2.0) == 18.0
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_goes_on_after_an_error() -> None:
    def fail() -> None:
        with collector.paused():
            with collector.paused():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
