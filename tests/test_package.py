"""What importing fastnet loads, which module may import which, where flags stand, and what the README says."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import fastnet
from fastnet.bench import demo, documents
from fastnet.testing import notebooks

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastnet"
SOURCES = {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: The parts of the package that each part may import; parts not named in a row are above it.
BASE = {"contract", "coefficients", "validation", "layout", "initialization"}
SETTINGS = {"losses", "optimizers", "schedules"}
ENGINE = (
    BASE
    | SETTINGS
    | {"backends", "history", "interruption", "network", "orders", "prediction", "samples", "threads"}
    | {"training", "warming"}
)
EVERYTHING = ENGINE | {"persistence", "ensemble", "estimators", "reference", "runtime", "kernels", "__init__"}
MAY_IMPORT = {
    "contract": set(),
    "coefficients": set(),
    "seeding": set(),
    "validation": {"contract"},
    "layout": {"contract", "validation"},
    "initialization": BASE,
    "losses": BASE,
    "schedules": BASE,
    "optimizers": BASE | {"schedules"},
    "reference": {"contract", "coefficients", "reference"},
    "runtime": {"contract", "runtime"},
    "kernels": {"contract", "coefficients", "runtime", "kernels"},
    "persistence": BASE,
    "network": BASE | SETTINGS | {"persistence"},
    "samples": BASE | SETTINGS | {"network"},
    "history": set(),
    "threads": {"validation"},
    "backends": BASE | {"threads"},
    "orders": {"validation"},
    "interruption": set(),
    "prediction": BASE | {"backends", "network", "samples", "threads"},
    "training": BASE
    | SETTINGS
    | {"backends", "history", "interruption", "network", "orders", "prediction", "samples", "threads"},
    "warming": BASE | {"network"},
    "ensemble": ENGINE,
    "estimators": ENGINE,
    "testing": EVERYTHING | {"testing"},
    "information": EVERYTHING | {"testing"},
    "bench": EVERYTHING | {"testing", "bench"},
    "__init__": ENGINE | {"warming", "persistence", "ensemble", "estimators"},
    "__main__": EVERYTHING | {"testing", "bench", "information"},
}
#: What may be imported inside a function besides, when it is needed.
MAY_IMPORT_LAZILY = {
    "validation": {"seeding"},
    "network": {"prediction", "training"},
    "backends": {"reference", "runtime", "kernels"},
    "runtime": {"kernels"},
    "warming": {"runtime"},
    "ensemble": {"reference", "kernels"},
    "__init__": {"kernels", "reference"},
}
#: What is not NumPy or the standard library, where modules may import it at their top.
#: By part, or by module.
THIRD_PARTY = {
    "kernels": {"numba", "llvmlite"},
    "runtime": {"llvmlite"},
    "estimators": {"sklearn"},
    "fastnet/testing/pytest_plugin": {"pytest"},
    "fastnet/bench/table": {"rich"},
}
FLAGS = {"fastmath", "nopython", "cache", "parallel", "nogil", "error_model", "boundscheck", "inline", "forceobj"}
COMPILERS = {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "jit_module"}


def part_of(module: str) -> str:
    """``fastnet.kernels.formulas.losses`` belongs to ``kernels``."""
    return [*module.split("."), "__init__"][1]


def imports(tree: ast.Module, package: str) -> Iterator[tuple[str, bool]]:
    """Every module that is imported, and whether that happens inside a function.

    Imports for type checkers are left out.
    """

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                # `from fastnet import contract` imports a module, `from fastnet.contract import X` a name.
                yield (f"fastnet.{alias.name}" if node.module == package else node.module), lazy
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy)

    yield from walk(tree, False)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_import_loads_no_compiler_and_no_optional_package():
    code = "import sys, fastnet; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "fastnet" in loaded
    unwanted = {"numba", "llvmlite", "sklearn", "scipy", "matplotlib", "safetensors", "tqdm", "onnx", "joblib"}
    assert not loaded & unwanted


def test_import_leaves_what_only_trainings_need():
    code = """
import sys, fastnet
later = {"fastnet.optimizers", "fastnet.schedules", "fastnet.losses", "fastnet.history", "fastnet.warming"}
assert not later & set(sys.modules)
from fastnet import *
assert later <= set(sys.modules)
assert fastnet.optimizers.SGD is SGD is fastnet.SGD
assert set(fastnet.__all__) < set(dir(fastnet))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'fastnet' has no attribute 'Sgd'"):
        fastnet.Sgd  # noqa: B018


def test_kernels_without_a_compiler_are_refused():
    code = "import numpy as np, fastnet; fastnet.Network.from_arrays([[[2.0]]]).predict([[1.0]], backend={!r})"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", code.format("numba")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "NUMBA_DISABLE_JIT" in ran.stderr.splitlines()[-1]
    subprocess.run([sys.executable, "-c", code.format("exact")], env=environment, check=True)


def test_version_is_that_of_the_distribution():
    assert fastnet.__version__ == version("fastnet")


def test_public_names_exist():
    assert fastnet.__all__
    for name in fastnet.__all__:
        assert hasattr(fastnet, name), name


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_one_way(module):
    part = part_of(module.replace("/", "."))
    allowed = MAY_IMPORT[part]
    lazily = allowed | MAY_IMPORT_LAZILY.get(part, set())
    for imported, lazy in imports(parsed(SOURCES[module]), "fastnet"):
        if imported.partition(".")[0] == "fastnet":
            assert part_of(imported) in (lazily if lazy else allowed), imported


@pytest.mark.parametrize("module", SOURCES)
def test_third_party_imports(module):
    part = part_of(module.replace("/", "."))
    known = sys.stdlib_module_names | {"numpy", "fastnet"} | THIRD_PARTY.get(part, THIRD_PARTY.get(module, set()))
    for imported, lazy in imports(parsed(SOURCES[module]), "fastnet"):
        name = imported.partition(".")[0]
        if not lazy:
            assert name in known, imported
        if part in ("reference", "network", "prediction", "training"):
            assert name not in ("numba", "llvmlite"), imported
        if part == "runtime":
            assert name != "numba", imported


def test_the_walk_sees_imports():
    source = """
from fastnet import contract
from fastnet.kernels.jit import jit
def f():
    import numba.core
if TYPE_CHECKING:
    import scipy
"""
    assert list(imports(ast.parse(source), "fastnet")) == [
        ("fastnet.contract", False),
        ("fastnet.kernels.jit", False),
        ("numba.core", True),
    ]


def compile_options(tree: ast.Module) -> Iterator[str]:
    """Every place that states a compile option or calls one of Numba's compilers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.arg for keyword in node.keywords if keyword.arg in FLAGS)
        elif isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and key.value in FLAGS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "numba":
            yield from (alias.name for alias in node.names if alias.name in COMPILERS)
        elif isinstance(node, ast.Attribute) and node.attr in COMPILERS and ast.unparse(node.value) == "numba":
            yield node.attr


@pytest.mark.parametrize("module", SOURCES)
def test_compile_options_stand_in_one_file(module):
    found = list(compile_options(parsed(SOURCES[module])))
    if module == "fastnet/kernels/jit":
        assert {"fastmath", "nopython", "jit"} <= set(found)
    else:
        assert found == []


def test_fast_math_is_off():
    from fastnet.kernels import jit

    assert jit.OPTIONS["fastmath"] is False


def test_readme_example(capsys):
    code, printed = re.search(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    assert code.count("\n") <= 10
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == printed


def test_readme_has_the_table_of_every_notebook():
    written = documents.generated(README, demo.MARKED)
    parts = written.split("**Notebook ")[1:]
    assert len(parts) == len(notebooks.NOTEBOOKS)
    for notebook, part in zip(notebooks.NOTEBOOKS, parts, strict=True):
        assert notebook.title in part
        rows = {cells[1]: cells for line in part.splitlines() if len(cells := [c.strip() for c in line.split("|")]) > 2}
        assert set(demo.BACKENDS) <= set(rows)
        # The last columns: bits equal to exact, and the digest.
        assert rows["numba"][-3] == "yes"
        assert rows["numba"][-2] == rows["exact"][-2]


def test_typing_marker():
    assert (PACKAGE / "py.typed").exists()
