"""``python -m fastnet warmup`` and ``info``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet
from fastnet import information, warming
from fastnet.__main__ import main
from fastnet.kernels import jit
from fastnet.runtime import digest

#: All that trainings and predictions of a dtype may need.
USES = """
import sys
import numpy as np
import fastnet
from fastnet import threads as settings
from fastnet.runtime import entry_points, threads
from fastnet.testing.cases import OPTIMIZERS, Case, covering_cases
dtype = sys.argv[1]
settings.usable_cores = lambda: 3
threads.WORK_PER_THREAD = 1
for case in covering_cases().values():
    if case.dtype == dtype:
        case.train("numba")
for optimizer in OPTIMIZERS:
    Case(dtype=dtype, optimizer=optimizer).train("numba")
net = fastnet.Network([784, 100, 10], dtype=dtype).initialize(seed=0)
x, y = np.random.default_rng(0).random((6000, 784)), np.zeros((6000, 10))
x.flags.writeable = False
net.fit(x, y, epochs=1, batch_size=128, shuffle=True, seed=1, optimizer="sgd")
net.fit(np.asfortranarray(x), y.tolist(), epochs=1, report_every=1, loss=fastnet.Huber(), threads=2)
net.fit_output_layer(x, y)
for rows in (x, x.astype(dtype), x[:1], x[:20, ::-1]):
    net.predict(rows)
net.predict(x, out=np.empty((6000, 10), dtype), threads=2)
fastnet.Network([784, 3, 10], dtype=dtype).initialize(seed=1).fit_output_layer(x, y)
print(*sorted({name for name, _ in entry_points.origins()}), *set(entry_points.origins().values()))
print("numba" in sys.modules)
"""


def run(folder: Path, *arguments: str) -> str:
    """What a process prints whose cache is in a folder."""
    environment = {**os.environ, "FASTNET_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error", *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_nothing_is_compiled_after_a_warmup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(tmp_path, "-m", "fastnet", "warmup", "--dtype", "float32").splitlines()
    (folder,) = tmp_path.iterdir()
    kept = sorted(folder.iterdir())
    assert re.fullmatch(r"float32  fit  .* s  .*train_together \d+\.\d s.*", printed[0])
    assert printed[-1] == f"{len(kept)} compiled kernels are in {folder}"
    assert run(tmp_path, "-c", USES, "float32") == "finite forward_finite train_together loaded\nFalse\n"
    assert sorted(folder.iterdir()) == kept
    again = run(tmp_path, "-m", "fastnet", "warmup", "--dtype", "float32").splitlines()
    assert all(re.fullmatch(r"float32  .* +\d+\.\d\d s", line) for line in again[:-2])
    assert again[-1] == printed[-1]

    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    assert main(["info", "--json"]) == 0
    cached = json.loads(capsys.readouterr().out)["kernel_cache"]
    sizes = [path.stat().st_size for path in kept]
    assert (cached["folder"], cached["files"], cached["bytes"]) == (str(folder), len(sizes), sum(sizes))
    assert cached["digest"] == jit.DIGEST
    assert cached["writable"]
    assert cached["others"] == []
    assert cached["kernels"]["fastnet.kernels.network.train_together"] == 1
    assert sum(cached["kernels"].values()) == len(sizes)
    assert main(["info"]) == 0
    assert "1 x fastnet.kernels.network.train_together\n" in capsys.readouterr().out


def test_warmup_says_when_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(warming, "_tasks", lambda dtype: iter([("nothing", lambda: None)]))
    assert main(["warmup"]) == 1
    assert capsys.readouterr().out.endswith("the kernels could not be kept\n")
    monkeypatch.setattr(digest, "loaded_digest", lambda: None)
    assert main(["warmup"]) == 1


def test_warmup_of_a_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(warming, "_tasks", lambda dtype: iter([("task", lambda: done.append(dtype))]))
    fastnet.warmup()
    fastnet.warmup("f8")
    assert done == ["float32", "float64", "float64"]
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'; got 'int8'"):
        fastnet.warmup("int8")


def test_info_lists_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path))
    other = tmp_path / f"kernels-{0:016x}"
    other.mkdir()
    (other / "a.kernel").write_bytes(b"no header")
    assert main(["info"]) == 0
    assert f"other version  {other}: 1 files, 0.0 MB, last used " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [other]


def test_info_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTNET_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert main(["info"]) == 0
    assert "0 files, 0.0 MB; it cannot be written" in capsys.readouterr().out
    monkeypatch.setattr(jit, "DIGEST", None)
    monkeypatch.setattr(jit, "SHARES_PARTS", False)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "cache          none\n" in printed
    assert "takes longer" in printed


def test_info_sees_the_cpu_that_is_compiled_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", "nehalem")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+sse4.2")
    described = json.loads(run(tmp_path, "-m", "fastnet", "info", "--json"))
    assert described["cpu"]["llvm_name"] == "nehalem"
    assert described["cpu"]["features"] == ["sse4.2"]
    assert described["kernels"]["tile"] == {
        "rows": 2,
        "vectors": 1,
        "few_rows": 1,
        "terms": 1,
        "packed_terms": 0,
    }
    assert described["kernels"]["lanes"] == {"float32": 16, "float64": 8}
    assert described["versions"]["fastnet"] == fastnet.__version__
    assert described["threads"]["usable_cores"] == information.threads.usable_cores()
