"""Networks in files: `.safetensors`, and `.npz` where only NumPy is installed.

Both hold the arrays `weights.0`, `biases.0`, `weights.1`, … and four strings: `format`
("fastnet"), `schema_version`, `architecture` (the arguments of `Network`, as JSON) and `sha256`,
the digest of the architecture's string and then the arrays' little-endian bytes, sorted by name. It
finds damage; files of other programs may go without it. Nothing that a file holds is ever executed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.layout import check_architecture

#: Version of the files that this module writes, and the newest that it reads.
SCHEMA_VERSION = 1
_ARGUMENTS = ("layer_sizes", "activation", "output_activation", "bias", "dtype")
_STRINGS = ("format", "schema_version", "architecture", "sha256")

Arrays = Mapping[str, NDArray[Any]]
Strings = Mapping[str, str]


class InvalidFileError(ValueError):
    """A file that does not hold a network: truncated, damaged, foreign, or of a newer version.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> print(InvalidFileError("digits.npz", "weights.1 is missing"))
    digits.npz holds no network that can be read: weights.1 is missing
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)} holds no network that can be read: {reason}")


def write(
    path: str | os.PathLike[str],
    architecture: Mapping[str, Any],
    weights: Sequence[NDArray[np.floating]],
    biases: Sequence[NDArray[np.floating]],
) -> None:
    """Write a network to a file, which appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        Name of the file, which ends in .safetensors or .npz; an existing one is replaced.
    architecture : mapping
        The arguments of `Network`, in types that JSON has.
    weights : sequence of numpy.ndarray, shapes (in, out)
        Weights of each layer.
    biases : sequence of numpy.ndarray, shapes (out,)
        Biases of each layer; empty without biases.

    Raises
    ------
    ValueError
        If the name ends in something else.
    ImportError
        If a .safetensors file is asked for and safetensors is not installed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from fastnet.network import Network
    >>> Network([2, 1]).save("linear.npz")  # doctest: +SKIP
    """
    # Through a link, as any other way of writing would go.
    target = Path(path).resolve()
    encode = _ENCODERS[_check_suffix(path)]
    named = _named(weights, biases)
    text = json.dumps(dict(architecture))
    strings = {
        "format": "fastnet",
        "schema_version": str(SCHEMA_VERSION),
        "architecture": text,
        "sha256": _digest(text, named),
    }
    data = encode(strings, named)
    temporary = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[NDArray[np.floating]], list[NDArray[np.floating]]]:
    """Read a network from a file.

    Parameters
    ----------
    path : str or path-like
        Name of the file, which ends in .safetensors or .npz.

    Returns
    -------
    architecture : dict
        Arguments for `Network`, checked.
    weights : list of numpy.ndarray, shapes (in, out)
        Weights of each layer.
    biases : list of numpy.ndarray, shapes (out,)
        Biases of each layer; empty without biases.

    Raises
    ------
    InvalidFileError
        If the file is truncated, damaged, foreign or of a newer version, or its arrays do not
        fit its architecture.
    ValueError
        If the name ends in something else.
    ImportError
        If it is a .safetensors file and safetensors is not installed.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from fastnet.network import Network
    >>> Network.load("linear.npz")  # doctest: +SKIP
    <Network 2 -> 1 identity, float64, 3 parameters>
    """
    decode = _DECODERS[_check_suffix(path)]
    data = Path(path).read_bytes()
    try:
        return _check_contents(*decode(data))
    except ImportError:
        raise
    except _ContentError as error:
        raise InvalidFileError(path, str(error)) from None
    # The decoders of a damaged file raise whatever they stumble over.
    except Exception as error:
        raise InvalidFileError(path, f"{error} ({type(error).__name__})") from error


class _ContentError(Exception):
    """What is wrong with a file whose container could be read."""


def _check_suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _ENCODERS:
        raise ValueError(f"path must end in {' or '.join(_ENCODERS)}; got {os.fspath(path)!r}")
    return suffix


def _named(weights: Sequence[NDArray[Any]], biases: Sequence[NDArray[Any]]) -> Arrays:
    named = {f"weights.{i}": array for i, array in enumerate(weights)}
    named |= {f"biases.{i}": array for i, array in enumerate(biases)}
    return {name: np.ascontiguousarray(array) for name, array in named.items()}


def _digest(architecture: str, arrays: Arrays) -> str:
    import hashlib

    digest = hashlib.sha256(architecture.encode())
    for name in sorted(arrays):
        digest.update(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _check_contents(
    strings: Strings, arrays: Arrays
) -> tuple[dict[str, Any], list[NDArray[np.floating]], list[NDArray[np.floating]]]:
    if strings.get("format") != "fastnet":
        raise _ContentError("it is not marked as a file of fastnet")
    version = strings.get("schema_version", "")
    if version != str(SCHEMA_VERSION):
        newer = version.isdecimal() and int(version) > SCHEMA_VERSION
        hint = ", from a newer fastnet" if newer else ""
        raise _ContentError(f"its schema version is {version!r}{hint}; this fastnet reads {SCHEMA_VERSION}")
    try:
        architecture = json.loads(strings["architecture"])
        if not isinstance(architecture, dict) or sorted(architecture) != sorted(_ARGUMENTS):
            raise ValueError(f"it must be a JSON object of {', '.join(_ARGUMENTS)}")
        sizes, _, bias, dtype = check_architecture(**architecture)
    except KeyError:
        raise _ContentError("it has no architecture") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise _ContentError(f"its architecture is invalid: {error}") from None
    shapes: dict[str, tuple[int, ...]] = {f"weights.{i}": shape for i, shape in enumerate(pairwise(sizes))}
    if bias:
        shapes |= {f"biases.{i}": (size,) for i, size in enumerate(sizes[1:])}
    for name in sorted(shapes.keys() | arrays.keys()):
        if name not in arrays:
            raise _ContentError(f"{name} is missing")
        if name not in shapes:
            raise _ContentError(f"{name} does not belong to its architecture")
        array = arrays[name]
        if array.shape != shapes[name] or array.dtype.newbyteorder("=") != dtype:
            raise _ContentError(
                f"{name} must have shape {shapes[name]} and dtype {dtype}; it has {array.shape} and {array.dtype}"
            )
    if "sha256" in strings and strings["sha256"] != _digest(strings["architecture"], arrays):
        raise _ContentError("its contents are damaged: they do not have the SHA-256 digest that it states")
    n_layers = len(sizes) - 1
    weights = [arrays[f"weights.{i}"] for i in range(n_layers)]
    return architecture, weights, [arrays[f"biases.{i}"] for i in range(n_layers if bias else 0)]


def _encode_npz(strings: Strings, arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    members: dict[str, Any] = {**{name: np.array(text) for name, text in strings.items()}, **arrays}
    np.savez(stream, **members)
    return stream.getvalue()


def _decode_npz(data: bytes) -> tuple[Strings, Arrays]:
    import zipfile

    # What is compressed could unpack to any size; `numpy.savez` stores arrays as they are.
    with zipfile.ZipFile(io.BytesIO(data)) as container:
        if any(member.compress_type != zipfile.ZIP_STORED for member in container.infolist()):
            raise _ContentError("its arrays are compressed")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        members = {name: archive[name] for name in archive.files}
    strings = {name: str(members.pop(name)) for name in _STRINGS if name in members}
    return strings, members


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the package safetensors: pip install 'fastnet[interop]'; .npz needs nothing"
        ) from error
    return safetensors


def _encode_safetensors(strings: Strings, arrays: Arrays) -> bytes:
    data: bytes = _safetensors().numpy.save(dict(arrays), metadata=dict(strings))
    return data


def _decode_safetensors(data: bytes) -> tuple[Strings, Arrays]:
    # `deserialize` checks the header, but does not return the metadata in it.
    tensors = _safetensors().deserialize(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    dtypes = {"F32": "<f4", "F64": "<f8"}
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in dtypes:
            raise _ContentError(f"{name} must have dtype F32 or F64; it has {tensor['dtype']}")
        arrays[name] = np.frombuffer(tensor["data"], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
    return header.get("__metadata__", {}), arrays


_ENCODERS: dict[str, Callable[[Strings, Arrays], bytes]] = {
    ".safetensors": _encode_safetensors,
    ".npz": _encode_npz,
}
_DECODERS: dict[str, Callable[[bytes], tuple[Strings, Arrays]]] = {
    ".safetensors": _decode_safetensors,
    ".npz": _decode_npz,
}
