"""Golden files: they are read and written without a change, and what holds no golden is refused by its line."""

from __future__ import annotations

import random
import re

import pytest

from fastnet.testing.golden import check
from fastnet.testing.golden_file import GoldenFileError, from_text, to_text
from tests.recording import FILES, recorded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_are_read_and_written_without_a_change(file):
    text = file.read_text()
    assert to_text(from_text(text, file)) == text


def test_truncated_files_are_refused(tmp_path):
    text = recorded(tmp_path / "whole.golden", every=4)
    lines = text.splitlines(keepends=True)
    for n_lines in range(len(lines)):
        with pytest.raises(GoldenFileError, match=rf"cut\.golden, line {max(n_lines, 1)}: "):
            from_text("".join(lines[:n_lines]), "cut.golden")


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"\Afastnet golden, schema 1", "a,b,c", "this is no golden of fastnet"),
        (r"\Afastnet golden, schema 1", "fastnet golden, schema 2", "its schema is 2; this fastnet reads 1"),
        (r"(?m)^backend: .*\n", "", "'backend' is expected here, not 'agreement'"),
        (r"(?m)^\[data\]", "[date]", "the section 'data' is expected here, not 'date'"),
        (r"(?m)^batch_size: null", "batch_size: nil", "batch_size cannot be read"),
        ('"Adam"', '"os.system"', "optimizer cannot be read"),
        ("agreement: bits", "agreement: 1 mile; far", "agreement cannot be read"),
        (r"layer_sizes: \[2, 3, 1\]", "layer_sizes: [2, 3, 0]", "its architecture is invalid"),
        (r"(X: 3x2 [0-9a-f]*\n  )\S*", r"\g<1>0x1.5p+0", "X is damaged: it does not have the SHA-256"),
        (r"(?m)^loss: 0x1", "loss: Ox1", "loss cannot be read"),
        (r"(?m)^\[epoch 4\]", "[epoch 0]", "epochs must ascend"),
        (r"\[0, 0\]", "[0, 9]", "weights.0 has no element [0, 9]"),
    ],
)
def test_damage_is_named(tmp_path, pattern, replacement, message):
    path = tmp_path / "damaged.golden"
    text = recorded(path, every=4)
    damaged = re.sub(pattern, replacement, text, count=1)
    line = text[: re.search(pattern, text).start()].count("\n") + 1
    path.write_text(damaged)
    with pytest.raises(GoldenFileError, match=re.escape(message)) as caught:
        check(path)
    assert str(path) in str(caught.value)
    assert f"line {line}: " in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "bytes.golden"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GoldenFileError, match="it is not text"):
        check(path)


def test_nothing_else_is_raised_for_damage(tmp_path):
    """A character is lost, doubled or changed anywhere."""
    path = tmp_path / "whole.golden"
    text, source = recorded(path, every=4), random.Random(0)
    n_refused = 0
    for _ in range(400):
        at = source.randrange(len(text))
        put = source.choice(["", text[at] * 2, source.choice('x[]:#{}"\n 0-')])
        try:
            from_text(text[:at] + put + text[at + 1 :], path)
        except GoldenFileError:
            n_refused += 1
    assert n_refused > 100
