"""Numba's compilations among the files of `fastnet.runtime.files`.

`KernelCache` takes the place of Numba's cache, from which it differs in four things. A file is known by all that its
code depends on, whereas Numba's index can be written by two processes at once, after which a function is called with
the code of another dtype. A file that is damaged is compiled anew. Nothing is written before something is compiled, so
a folder that was filled by someone else may be read-only. And Numba's compiler is not set up only to load machine code,
which takes 0.2 s, most of them for SciPy.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from numba import types
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

from fastnet.kernels.lending import is_lendable, lend, outline
from fastnet.runtime import files, loader


class KernelCache:
    """The compilations of a function on disk; what a Numba dispatcher calls of its cache.

    Parameters
    ----------
    function : callable
        The function, before it is compiled.
    digest : str
        Of `fastnet.runtime.digest`.
    variant_of : callable, optional
        Of kernels that the runtime loads: the variant that it knows a signature's compilation by, or None.
    """

    def __init__(
        self, function: Callable[..., Any], digest: str, variant_of: Callable[[Any], str | None] | None = None
    ) -> None:
        self._digest = digest
        self._begun = 0.0
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._function = function
        self._variant_of = variant_of

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(files.cache_folder(self._digest))

    def enable(self) -> None:
        """Do nothing: it always is."""

    def flush(self) -> None:
        """Do nothing: a file whose code is out of date has another name."""

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compilation for a signature, or None."""
        key = self._key(signature)
        path = files.file_of(self._digest, key)
        found = files.read(path, key)
        self._begun = time.perf_counter()
        if found is None:
            return None
        header, payload = found
        try:
            size = header["code_bytes"]
            (name, kind, (_, outlined)), *others = pickle.loads(payload[size:])  # noqa: S301
            rtsys.initialize(target_context)
            result = CompileResult._rebuild(target_context, (name, kind, (payload[:size], outlined)), *others)
        except Exception:  # noqa: BLE001 - whatever is wrong with a file, the function can be compiled
            return None
        files.note_use(path)
        files.note_use(path.parent)
        if is_lendable(self._function, result.library):
            lend(self._function, signature, result)
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compilation; where that is impossible, warn once."""
        if result.library.has_dynamic_globals:
            return
        key, seconds = self._key(signature), time.perf_counter() - self._begun
        is_lent = is_lendable(self._function, result.library)
        header = {**key, "seconds": round(seconds, 3), **self._entry(signature, result)}
        if is_lent:
            result.library._shared_module = outline(result.library)
        try:
            (name, kind, (code, outlined)), *others = result._reduce()
        finally:
            # In any case: callers that link an outline would have functions that do nothing.
            if is_lent:
                lend(self._function, signature, result)
        payload = code + dumps(((name, kind, (b"", outlined)), *others))
        try:
            files.write(files.file_of(self._digest, key), {**header, "code_bytes": len(code)}, payload)
        except OSError as error:
            files.warn_once(
                f"{self.cache_path} cannot be written ({error}); set FASTNET_CACHE_DIR to a writable folder"
            )

    def _variant(self, signature: Any) -> str | None:
        return None if self._variant_of is None else self._variant_of(normalize_signature(signature)[0])

    def _key(self, signature: Any) -> dict[str, str]:
        """What tells compilations of a digest apart."""
        variant, target = self._variant(signature), loader.target()
        if variant is not None:
            return files.key_of(self._name, variant, target)
        return files.key_of(self._name, describe(normalize_signature(signature)), target, self._code)

    def _entry(self, signature: Any, result: Any) -> dict[str, Any]:
        """What the runtime has to know to load a compilation."""
        if self._variant(signature) is None:
            return {}
        module = result.library._final_module
        declared = [
            one.name for kind in (module.functions, module.global_variables) for one in kind if one.is_declaration
        ]
        # Where the CPU has no fma, LLVM calls the C library's.
        externals = {"fma", "fmaf"} | {name for name in declared if not name.startswith("llvm.")}
        return {"symbol": result.fndesc.llvm_cpython_wrapper_name, "externals": sorted(externals)}

    @cached_property
    def _code(self) -> str:
        """Digest of what functions of one name may differ in."""
        code = hashlib.sha256(self._function.__code__.co_code)
        if self._function.__closure__:
            code.update(dumps(tuple(cell.cell_contents for cell in self._function.__closure__)))
        if not self._name.startswith("fastnet.kernels."):
            # The digest of the folder does not know its source.
            code.update(Path(self._function.__code__.co_filename).read_bytes())
        return code.hexdigest()


def describe(part: Any) -> str:
    """A text that is the same for equal types or CPUs only, where names leave out whether arrays can be written to."""
    if isinstance(part, types.Type):
        return f"{type(part).__name__}[{describe(part.key)}]"
    if isinstance(part, tuple):
        return f"({', '.join(map(describe, part))})"
    if isinstance(part, type):
        return f"{part.__module__}.{part.__qualname__}"
    return repr(part)
