"""The cache of compiled kernels: when it is used, shared, damaged, read-only, out of date or too large."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from fastnet import Network, information
from fastnet.contract import Samples
from fastnet.kernels import cache
from fastnet.kernels.arithmetic import fma
from fastnet.kernels.jit import jit
from fastnet.reference import exact
from fastnet.runtime import digest, files

ROOT = Path(__file__).parents[1]
#: A kernel that compiles in a moment; prints its result's bits, and how often it was loaded and compiled.
CODE = """
import sys
import numpy as np
from fastnet.kernels.arithmetic import fma
x = np.linspace(-3, 3, 7, dtype=sys.argv[1] if len(sys.argv) > 1 else "float64")
result, stats = fma(x, x, x / 3), fma.stats
print(result.tobytes().hex(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def start(folder: Path, *arguments: str, code: str = CODE, path: Path = ROOT) -> subprocess.Popen[str]:
    """A process whose cache is in a folder; what it warns of ends it."""
    environment = {**os.environ, "FASTNET_CACHE_DIR": str(folder), "PYTHONPATH": str(path)}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.Popen(
        command, cwd=path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error[-2000:]
    return out


def bits(dtype: str = "float64") -> str:
    x = np.linspace(-3, 3, 7, dtype=dtype)
    result: str = exact.fma(x, x, x / 3).tobytes().hex()
    return result


LOADED, COMPILED = f"{bits()} 1 0\n", f"{bits()} 0 1\n"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the kernel."""
    folder = tmp_path_factory.mktemp("cache")
    assert output(start(folder)) == COMPILED
    return folder


@pytest.fixture
def own(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the cache of this process."""
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copytree(filled, tmp_path / "cache"))


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("kernels-*/*")
    return path


def test_another_process_loads_what_one_has_compiled(filled: Path) -> None:
    """It writes nothing, so that a container's image may hold the cache; its code can do what compiled code can."""
    code = """
import pathlib
def refused(*_, **__):
    raise AssertionError("written")
for name in ("mkdir", "touch", "write_bytes", "replace", "unlink"):
    setattr(pathlib.Path, name, refused)
"""
    uses = """
# The compiler would import it, where it is installed: half of what a first fit took.
assert not {"scipy.linalg", "numba.np.arraymath"} & set(sys.modules)
import numba
try:
    fma(x, x, x[:2].copy())
except ValueError as error:
    print(error)
print(numba.njit(lambda x: fma(x, x, x / 3).sum())(x) == result.sum())
"""
    before = only_file(filled).read_bytes()
    assert (
        output(start(filled, code=code + CODE + uses))
        == f"{LOADED}a, b and c must be of one shape; got (7,), (7,) and (2,)\nTrue\n"
    )
    assert only_file(filled).read_bytes() == before


def test_processes_may_start_together(tmp_path: Path) -> None:
    """With Numba's cache, one of them could leave the code of a dtype under the name of the other."""
    dtypes = ["float64", "float32"] * 2
    processes = [start(tmp_path, dtype) for dtype in dtypes]
    for dtype, process in zip(dtypes, processes, strict=True):
        assert output(process).split()[0] == bits(dtype)
    assert len(list(tmp_path.glob("kernels-*/*"))) == 2


def test_an_edited_helper_is_compiled_anew(tmp_path: Path) -> None:
    """Numba's own cache looks at the file of the kernel only."""
    package = tmp_path / "fastnet"
    shutil.copytree(ROOT / "fastnet", package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "cache"
    assert output(start(folder, path=tmp_path)) == COMPILED
    path = package / "kernels" / "simd.py"
    source, helper = path.read_text(encoding="utf-8"), '_call("fma", a, b, c)'
    assert source.count(helper) == 1
    path.write_text(source.replace(helper, '_call("fma", a, b, a)'), encoding="utf-8")
    x = np.linspace(-3, 3, 7)
    assert output(start(folder, path=tmp_path)) == f"{exact.fma(x, x, x).tobytes().hex()} 0 1\n"
    assert len(list(folder.iterdir())) == 2


def test_another_cpu_has_code_of_its_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", "nehalem")
    assert output(start(own)) == COMPILED
    assert len(list(own.glob("kernels-*/*"))) == 2


def test_settings_of_numba_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digests = [digest.source_digest()]
    monkeypatch.setattr(numba.config, "LOOP_VECTORIZE", 7)
    digests.append(digest.source_digest())
    monkeypatch.setenv("NUMBA_OPT", "1")
    digests.append(digest.source_digest())
    monkeypatch.chdir(tmp_path)
    assert digest.source_digest() == digests[-1]
    (tmp_path / ".numba_config.yaml").write_text("opt: 2")
    digests.append(digest.source_digest())
    assert len(set(digests)) == 4


def test_the_digest_is_the_same_without_numba() -> None:
    code = "from fastnet.runtime import digest; import sys; print(digest.source_digest(), 'numba' in sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [digest.source_digest(), "False"]


def test_another_numba_takes_longer_and_gives_the_same_bits(tmp_path: Path) -> None:
    """One that lacks a name that parts need. It calls by its own wrappers, which the runtime cannot load."""
    code = """
import numba.core.compiler_machinery
del numba.core.compiler_machinery.register_pass
import numpy as np
import fastnet
from fastnet.kernels import jit, linear
from fastnet.runtime.entry_points import origins
assert not jit.SHARES_PARTS
x = np.random.default_rng(0).standard_normal((5, 7))
print(linear.matmul(x, x.T.copy()).tobytes().hex())
network = fastnet.Network([7, 1], dtype="float64").initialize(seed=0)
network.fit(x, x[:, 0], epochs=3, specialize=True)
print(network.parameters.tobytes().hex())
assert [name for name, _ in origins()] == ["train"]
"""
    x = np.random.default_rng(0).standard_normal((5, 7))
    network = Network([7, 1], dtype="float64").initialize(seed=0)
    network.fit(x, x[:, 0], epochs=3, backend="exact")
    desired = [exact.matmul(x, x.T.copy()), network.parameters]
    for _ in range(2):
        assert output(start(tmp_path, code=code)).split() == [array.tobytes().hex() for array in desired]


def test_a_numba_whose_compilations_cannot_be_kept(tmp_path: Path) -> None:
    code = """
import warnings
import numba.core.compiler
result = numba.core.compiler.CompileResult
del numba.core.compiler.CompileResult
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastnet.kernels.jit
numba.core.compiler.CompileResult = result
assert "cannot keep them with numba" in str(caught[0].message) and len(caught) == 1, caught
"""
    assert output(start(tmp_path, code=code + CODE)) == COMPILED
    assert list(tmp_path.iterdir()) == []


def called_anew(dtype: str = "float64") -> str:
    """What a process prints, of a kernel that this process knows nothing of yet."""
    files.note_use.cache_clear()
    kernel = jit(fma.py_func)
    x = np.linspace(-3, 3, 7, dtype=dtype)
    result, stats = kernel(x, x, x / 3), kernel.stats
    return f"{result.tobytes().hex()} {sum(stats.cache_hits.values())} {sum(stats.cache_misses.values())}\n"


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "one bit", "another function's", "no pickle"])
def test_a_damaged_file_is_compiled_anew(own: Path, damage: str) -> None:
    path = only_file(own)
    data = path.read_bytes()
    header, _, payload = data.partition(b"\n")
    path.unlink()
    if damage == "another function's":
        known = json.loads(header) | {"function": "fastnet.kernels.arithmetic.exp"}
        path.write_bytes(json.dumps(known).encode() + b"\n" + payload)
    elif damage == "no pickle":
        known = json.loads(header) | {"checksum": zlib.crc32(b"foreign")}
        path.write_bytes(json.dumps(known).encode() + b"\nforeign")
    elif damage != "missing":
        flipped = bytes([payload[0] ^ 1])
        path.write_bytes({"empty": b"", "cut": data[:-7], "one bit": header + b"\n" + flipped + payload[1:]}[damage])
    assert called_anew() == COMPILED
    assert called_anew() == LOADED


def test_a_folder_that_cannot_be_written_is_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is a file refuses even the superuser."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("FASTNET_CACHE_DIR", str(place))
        files.warn_once.cache_clear()
        with pytest.warns(RuntimeWarning, match="anew in every process, because .* cannot be written") as caught:
            assert [called_anew(), called_anew("float32")] == [COMPILED, f"{bits('float32')} 0 1\n"]
        assert len(caught) == 1
        assert "set FASTNET_CACHE_DIR to a writable folder" in str(caught[0].message)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "replace", replace)
    files.warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="no space left"):
        assert called_anew() == COMPILED
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to this user")
def test_a_folder_that_can_only_be_read_is_used(own: Path) -> None:
    folder = only_file(own).parent
    folder.chmod(0o500)
    try:
        assert called_anew() == LOADED
    finally:
        folder.chmod(0o700)


def make_folder(root: Path, number: int, days: float, n_bytes: int = 10) -> Path:
    """A folder that was last used so many days ago."""
    folder = root / f"kernels-{number:016x}"
    folder.mkdir()
    (folder / "a.kernel").write_bytes(bytes(n_bytes))
    used = time.time() - days * 86400
    os.utime(folder, (used, used))
    return folder


def test_folders_that_are_not_used_are_removed(tmp_path: Path) -> None:
    kept = make_folder(tmp_path, 0, 100)
    folders = [make_folder(tmp_path, number, number) for number in range(1, 12)]
    foreign = tmp_path / "somebody-elses"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    files.remove_unused(tmp_path, kept)
    assert kept.exists()
    assert foreign.exists()
    assert [folder.exists() for folder in folders] == [True] * 8 + [False] * 3


def test_old_folders_are_removed(tmp_path: Path) -> None:
    kept, old, recent = (make_folder(tmp_path, number, days) for number, days in enumerate((0, 61, 59)))
    files.remove_unused(tmp_path, kept)
    assert [folder.exists() for folder in (kept, old, recent)] == [True, False, True]


def test_folders_have_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 25)
    kept, *others = (make_folder(tmp_path, number, number, 10) for number in range(5))
    files.remove_unused(tmp_path, kept)
    assert [folder.exists() for folder in (kept, *others)] == [True, True, True, False, False]


def test_a_folder_has_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_FILES", 3)
    for number in range(5):
        path = tmp_path / "kernels-0123456789abcdef" / f"{number}.kernel"
        files.write(path, {}, b"code")
        os.utime(path, (number, number))
    assert sorted(path.name for path in path.parent.iterdir()) == ["2.kernel", "3.kernel", "4.kernel"]


def test_a_file_that_vanishes_hides_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that another process has written is renamed between the look at the folder and the look at the file."""
    folder = make_folder(tmp_path, 0, 0)
    (folder / "0.tmp").write_bytes(b"")
    stat = Path.stat

    def vanishing(path: Path, **how: Any) -> os.stat_result:
        if path.suffix == ".tmp":
            raise FileNotFoundError(path)
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert files.files(folder) == [(folder / "a.kernel", 10)]
    assert files.files(tmp_path / "missing") == []


def test_a_folder_that_cannot_be_removed_stays(tmp_path: Path) -> None:
    kept, old = (make_folder(tmp_path, number, 100) for number in range(2))
    (old / "folder").mkdir()
    files.remove_unused(tmp_path, kept)
    assert old.exists()


def test_a_new_folder_removes_old_ones_and_use_keeps_them(own: Path) -> None:
    (present,) = own.iterdir()
    (kernel,) = present.iterdir()
    for used in (kernel, present):
        os.utime(used, (0, 0))
    old = make_folder(own, 0, 100)
    assert called_anew() == LOADED
    for used in (kernel, present):
        assert time.time() - used.stat().st_mtime < 100
    assert old.exists()
    shutil.rmtree(present)
    assert called_anew() == COMPILED
    assert not old.exists()


def test_the_folder_is_a_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    assert files.cache_root() == tmp_path
    monkeypatch.delenv("FASTNET_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_root() == tmp_path / "fastnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_root() == tmp_path / ".cache" / "fastnet"

    def expanduser(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    assert files.cache_root() == Path(os.devnull) / "fastnet"
    assert not information._can_write(files.cache_root())


def test_keys_tell_apart_what_names_do_not() -> None:
    def sample(array: Any) -> Any:
        return types.NamedTuple([array] * 4, Samples)

    writable = types.Array(types.float64, 2, "C")
    read_only = types.Array(types.float64, 2, "C", readonly=True)
    assert sample(writable) != sample(read_only)
    assert cache.describe(sample(writable)) != cache.describe(sample(read_only))
    assert cache.describe(sample(writable)) == cache.describe(sample(types.Array(types.float64, 2, "C")))


def test_functions_of_one_name_are_told_apart() -> None:
    def add(n: int) -> Any:
        return lambda x: x + n

    def code(function: Any, module: str = "fastnet.kernels.linear") -> str:
        function.__module__ = module
        return cache.KernelCache(function, "")._code

    assert code(add(1)) == code(add(1))
    assert len({code(add(1)), code(add(2)), code(lambda x: x), code(add(1), __name__)}) == 4
