"""The digests that a release is published with, so that machines can be compared without the reference."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PATH = Path(__file__).with_name("release.txt")
SCHEMA = 1
_HEADER = """\
# SHA-256 of what the trainings of fastnet.testing.cases leave behind, by which `python -m fastnet verify` knows this
# release. Written by: python -m fastnet verify --write-release --reason "…"
"""


@dataclass(frozen=True)
class Release:
    """What the file says.

    Attributes
    ----------
    versions : dict
        With which packages it was written.
    reasons : tuple of str
        Why, each time, with the date.
    digests : dict
        By the name of the training.
    """

    versions: dict[str, str]
    reasons: tuple[str, ...]
    digests: dict[str, str]

    def __str__(self) -> str:
        lines = [f"schema {SCHEMA}", *(f"version {name} {value}" for name, value in self.versions.items())]
        lines += [f"reason {reason}" for reason in self.reasons]
        lines += [f"digest {name} {value}" for name, value in self.digests.items()]
        return _HEADER + "\n".join(lines) + "\n"


def read_release(path: Path = PATH) -> Release:
    """The digests of this release.

    Raises
    ------
    ValueError
        If the file is of another schema.

    Examples
    --------
    >>> "notebook" in read_release().digests
    True
    """
    fields: dict[str, list[str]] = {"schema": [], "version": [], "reason": [], "digest": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            kind, _, rest = line.partition(" ")
            fields[kind].append(rest)
    if fields["schema"] != [str(SCHEMA)]:
        raise ValueError(f"{path} must be of schema {SCHEMA}; got {', '.join(fields['schema']) or 'none'}")
    versions, digests = (dict(entry.rsplit(" ", 1) for entry in fields[kind]) for kind in ("version", "digest"))
    return Release(versions, tuple(fields["reason"]), digests)


def write_release(digests: Mapping[str, str], reason: str, path: Path = PATH) -> None:
    """Write the file anew; the reasons of former times are kept.

    Raises
    ------
    ValueError
        If the reason is empty or of several lines.
    """
    if not reason.strip() or len(reason.splitlines()) > 1:
        raise ValueError(f"reason must be a line of text; got {reason!r}")
    former = read_release(path).reasons if path.exists() else ()
    versions = {name: version(name) for name in ("fastnet", "numpy", "numba", "llvmlite")}
    today = dt.datetime.now(dt.UTC).date().isoformat()
    release = Release(versions, (*former, f"{today} {reason.strip()}"), dict(digests))
    path.write_text(str(release), encoding="utf-8")
