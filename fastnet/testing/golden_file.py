"""Goldens as text that a person can review and diff.

A file is UTF-8 text of sections, in this order. A line holds ``key: value``; lines that begin with two spaces
belong to the key above them. What follows two spaces and ``#`` is for the reader, written anew each time.

=========================== ==========================================================================
``fastnet golden, schema 1`` the first line
``[recordings]``             a line for each time the file was written: date | author | reason
``[environment]``            versions and CPU of the last recording (other keys where it is from elsewhere)
``[training]``               the arguments of `fastnet.Network` and of `fastnet.Network.fit` as JSON (an object
                             of fastnet as ``{"its class": {its settings}}``); ``backend``, which trained;
                             ``agreement``: ``bits``, or how far a replay may be off, and why
``[data]``                   the initial parameters, X, y and sample_weight if there are any, as the shape and
                             SHA-256; of small arrays the numbers follow, a row to a line, in hexadecimal
``[epoch N]``                for each recorded epoch, counted from 0: ``loss`` as `History.loss_curve` has it;
                             SHA-256 of the bits of all ``parameters`` and of the optimizer's ``slots`` after
                             the epoch's steps; for each of these arrays the first 8 digits of its own
                             SHA-256, under which stand the elements that are shown
``[end]``                    the last line: without it the file is truncated
=========================== ==========================================================================

Digests are of the little-endian bytes of arrays without padding, in the order of the file.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastnet.layout import check_architecture
from fastnet.losses import Huber, Quantile
from fastnet.optimizers import SGD, Adam, AdamW, RMSprop, Rprop
from fastnet.schedules import CosineDecay, InverseScaling, StepDecay
from fastnet.testing.golden_records import SETTINGS, ArrayEntry, Bound, Entry, Golden, Index, Recording, Stored, digest

#: Version of the files that this module writes, and the newest that it reads.
SCHEMA = 1
_TITLE = "fastnet golden, schema "
_ARCHITECTURE = ("layer_sizes", "activation", "output_activation", "bias", "dtype")
_CLASSES = {
    cls.__name__: cls
    for cls in (SGD, Adam, AdamW, RMSprop, Rprop, InverseScaling, StepDecay, CosineDecay, Huber, Quantile)
}

T = TypeVar("T")


class GoldenFileError(ValueError):
    """A file that holds no golden: truncated, damaged, foreign, or of a newer schema.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    line : int
        Number of the line, from 1.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> print(GoldenFileError("xor.golden", 7, "backend is missing"))
    xor.golden, line 7: backend is missing
    """

    def __init__(self, path: str | os.PathLike[str], line: int, reason: str) -> None:
        super().__init__(f"{os.fspath(path)}, line {line}: {reason}")


def write(path: str | os.PathLike[str], golden: Golden) -> None:
    """Write a golden to a file, which appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        Name of the file; an existing one is replaced.
    golden : Golden
        What to write.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(to_text(golden))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> Golden:
    """Read a golden from a file.

    Parameters
    ----------
    path : str or path-like
        Name of the file.

    Returns
    -------
    Golden
        What it holds, to the last bit.

    Raises
    ------
    GoldenFileError
        If the file holds no golden.
    OSError
        If it cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise GoldenFileError(path, 1, f"it is not text: {error}") from None
    return from_text(text, path)


def to_text(golden: Golden) -> str:
    """The text of a golden, which the module describes."""
    lines = [f"{_TITLE}{SCHEMA}", "", "[recordings]"]
    for recording in golden.recordings:
        parts = (recording.date, recording.author, recording.reason)
        lines.append(" | ".join(" ".join(part.replace("|", "/").split()) for part in parts))
    lines += ["", "[environment]", *(f"{key}: {_one_line(value)}" for key, value in golden.environment.items())]
    lines += ["", "[training]"]
    lines += [f"{key}: {json.dumps(golden.architecture[key])}" for key in _ARCHITECTURE]
    lines += [f"{key}: {json.dumps(_to_json(golden.settings[key]))}" for key in SETTINGS]
    lines += [f"backend: {_one_line(golden.backend)}", "agreement: bits" if golden.bound is None else ""]
    if golden.bound is not None:
        lines[-1] = f"agreement: {golden.bound.size!r} {golden.bound.kind}; {_one_line(golden.bound.because)}"
    lines += ["", "[data]"]
    for name, stored in golden.data.items():
        lines.append(f"{name}: {_shape_text(stored.shape)} {stored.digest}")
        if stored.numbers is not None:
            width = stored.shape[-1]
            rows = (stored.numbers[low : low + width] for low in range(0, len(stored.numbers), width))
            lines += ["  " + " ".join(number.hex() for number in row) for row in rows]
    for entry in golden.entries:
        lines += ["", f"[epoch {entry.epoch}]", f"loss: {_number_text(entry.loss)}", f"parameters: {entry.parameters}"]
        lines += [f"slots: {entry.slots}"] if entry.slots else []
        for name, array in entry.arrays.items():
            lines.append(f"{name}: {array.digest}")
            lines += [f"  {index_text(index)} {_number_text(number)}" for index, number in array.shown.items()]
    return "\n".join([*lines, "", "[end]", ""])


def index_text(index: Index) -> str:
    """An index as it is written in Python.

    Examples
    --------
    >>> index_text((0, 1))
    '[0, 1]'
    """
    return f"[{', '.join(map(str, index))}]"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shape_text(shape: Index) -> str:
    return "x".join(map(str, shape))


def _number_text(number: float) -> str:
    return f"{number.hex()}  # {number:.9g}"


def _to_json(value: Any) -> Any:
    if type(value).__name__ in _CLASSES:
        settings = {part.name: _to_json(getattr(value, part.name)) for part in fields(value)}
        return {type(value).__name__: settings}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, settings),) = value.items()
        return _CLASSES[name](**{key: _from_json(part) for key, part in settings.items()})
    return value


class _ContentError(Exception):
    """What is wrong with a line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class _Item:
    """A line, and those that belong to it."""

    line: int
    key: str
    value: str
    below: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Section:
    line: int
    name: str
    items: list[_Item] = field(default_factory=list)

    def take(self, key: str) -> _Item:
        """The next item, which has to have this key."""
        if not self.items or self.items[0].key != key:
            found = f", not {self.items[0].key!r}" if self.items else ""
            raise _ContentError(self.items[0].line if self.items else self.line, f"{key!r} is expected here{found}")
        return self.items.pop(0)


def from_text(text: str, path: str | os.PathLike[str]) -> Golden:
    """Read a golden from its text.

    Parameters
    ----------
    text : str
        What `to_text` gives.
    path : str or path-like
        Where it is from, for messages.

    Returns
    -------
    Golden
        What it holds.

    Raises
    ------
    GoldenFileError
        If it is no golden.
    """
    try:
        return _golden(_sections(text))
    except _ContentError as error:
        raise GoldenFileError(path, error.line, str(error)) from None


def _sections(text: str) -> list[_Section]:
    lines = text.splitlines()
    title = lines[0] if lines else ""
    version = title.removeprefix(_TITLE)
    if version == title or not version.isdecimal():
        raise _ContentError(1, "this is no golden of fastnet")
    if int(version) != SCHEMA:
        raise _ContentError(1, f"its schema is {version}; this fastnet reads {SCHEMA}")
    sections: list[_Section] = []
    for number, line in enumerate(lines[1:], start=2):
        if line.startswith("[") and line.endswith("]"):
            sections.append(_Section(number, line[1:-1]))
        elif line.startswith("  ") and sections and sections[-1].items:
            sections[-1].items[-1].below.append((number, line[2:]))
        elif line and sections:
            key, separator, value = line.partition(": ")
            if sections[-1].name == "recordings":
                key, value = "", line
            elif not separator:
                raise _ContentError(number, f"'key: value' is expected, not {line[:40]!r}")
            sections[-1].items.append(_Item(number, key, value))
        elif line:
            raise _ContentError(number, f"a section is expected, not {line[:40]!r}")
    if not sections or sections[-1].name != "end":
        raise _ContentError(len(lines), "the file is truncated: its last line has to be [end]")
    return sections


def _golden(sections: Sequence[_Section]) -> Golden:
    names = ("recordings", "environment", "training", "data")
    for section, name in zip(sections, (*names, "epoch"), strict=False):
        if section.name.partition(" ")[0] != name:
            raise _ContentError(section.line, f"the section {name!r} is expected here, not {section.name!r}")
    recordings, environment, training, data, *epochs, end = sections
    items = [training.take(key) for key in _ARCHITECTURE]
    architecture = {item.key: _value(item, json.loads) for item in items}
    try:
        sizes, _, bias, dtype = check_architecture(**architecture)
    except (TypeError, ValueError) as error:
        raise _ContentError(items[0].line, f"its architecture is invalid: {error}") from None
    settings = {key: _value(training.take(key), lambda text: _from_json(json.loads(text))) for key in SETTINGS}
    backend, bound = training.take("backend").value, _value(training.take("agreement"), _bound)
    shapes: dict[str, Index] = {}
    for index, shape in enumerate(pairwise(sizes)):
        shapes[f"weights.{index}"] = shape
        if bias:
            shapes[f"biases.{index}"] = shape[1:]
    stored = {}
    for name in (*shapes, "X", "y"):
        stored[name] = _stored(data.take(name), dtype)
        if name in shapes and stored[name].shape != shapes[name]:
            raise _ContentError(data.line, f"{name} must have the shape {shapes[name]}; it has {stored[name].shape}")
    if data.items:
        stored["sample_weight"] = _stored(data.take("sample_weight"), dtype)
    entries = tuple(_entry(section, shapes) for section in epochs)
    for section, earlier, later in zip(epochs[1:], entries, entries[1:], strict=False):
        if later.epoch <= earlier.epoch:
            raise _ContentError(section.line, "epochs must ascend")
    for section in (training, data, end):
        if section.items:
            raise _ContentError(section.items[0].line, f"{section.items[0].key!r} does not belong here")
    if not entries:
        raise _ContentError(end.line, "there is no recorded epoch")
    return Golden(
        tuple(_value(item, _recording) for item in recordings.items),
        {item.key: item.value for item in environment.items},
        architecture,
        settings,
        backend,
        bound,
        stored,
        entries,
    )


def _value(item: _Item, convert: Callable[[str], T]) -> T:
    # What a converter of a damaged line raises depends on where it stumbles.
    try:
        return convert(item.value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise _ContentError(item.line, f"{item.key or 'this line'} cannot be read: {error}") from None


def _recording(line: str) -> Recording:
    date, author, reason = line.split(" | ")
    return Recording(date, author, reason)


def _bound(text: str) -> Bound | None:
    if text == "bits":
        return None
    numbers, _, because = text.partition("; ")
    size, kind = numbers.split()
    return Bound(float(size), kind, because)


def _number(text: str) -> float:
    return float.fromhex(text.partition("  #")[0])


def _sha256(text: str, n_digits: int = 64) -> str:
    if len(text) != n_digits or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{n_digits} hexadecimal digits are expected")
    return text


def _stored(item: _Item, dtype: np.dtype[Any]) -> Stored:
    def head(text: str) -> tuple[Index, str]:
        shape, sha256 = text.split()
        return tuple(int(size) for size in shape.split("x")), _sha256(sha256)

    shape, sha256 = _value(item, head)
    if not item.below:
        return Stored(shape, sha256, None)
    numbers: list[float] = []
    for line, text in item.below:
        numbers += _value(_Item(line, item.key, text), lambda row: [float.fromhex(number) for number in row.split()])
    if len(numbers) != prod(shape):
        raise _ContentError(item.line, f"{item.key} must have {prod(shape)} numbers; it has {len(numbers)}")
    if digest([np.array(numbers, dtype)]) != sha256:
        raise _ContentError(item.line, f"{item.key} is damaged: it does not have the SHA-256 that is stated")
    return Stored(shape, sha256, tuple(numbers))


def _entry(section: _Section, shapes: Mapping[str, Index]) -> Entry:
    epoch = _value(_Item(section.line, section.name, section.name.removeprefix("epoch ")), int)
    loss, parameters = _value(section.take("loss"), _number), _value(section.take("parameters"), _sha256)
    has_slots = bool(section.items) and section.items[0].key == "slots"
    slots = _value(section.take("slots"), _sha256) if has_slots else ""
    arrays = {}
    for item in section.items:
        # A slot has the shape of its parameters: "velocity of weights.0".
        shape = shapes.get(item.key.rpartition(" of ")[2])
        if shape is None:
            raise _ContentError(item.line, f"{item.key!r} is no array of the network")
        shown: dict[Index, float] = {}
        for line, text in item.below:
            index, number = _value(_Item(line, item.key, text), _element)
            if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
                raise _ContentError(line, f"{item.key} has no element {index_text(index)}")
            shown[index] = number
        arrays[item.key] = ArrayEntry(_value(item, lambda text: _sha256(text, 8)), shown)
    missing = [name for name in shapes if name not in arrays]
    if missing:
        raise _ContentError(section.line, f"{missing[0]} is missing")
    return Entry(epoch, loss, parameters, slots, arrays)


def _element(text: str) -> tuple[Index, float]:
    index, _, number = text.partition("] ")
    return tuple(int(part) for part in index.removeprefix("[").split(",")), _number(number)
