"""Two of Numba's stages, type inference and lowering, without what they do for kernels in vain.

Together they save a sixth of a first fit.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from numba.core import cgutils, types
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.typed_passes import NopythonTypeInference
from numba.core.types.misc import unliteral

from fastnet.kernels.memory import align_stack

# Another Numba may lack what is replaced below. Then this module cannot be imported.
attrgetter("run_pass")(NopythonTypeInference)
attrgetter("resolve_function_type")(cpu_target.typing_context)
attrgetter("incref", "decref", "delvar", "alloca_lltype", "setup_function")(Lower)

#: What `_TypingContext` has found.
_signatures: dict[Any, Any] = {}
#: Which types can have references to count, as far as `KernelLower` has met them.
_counted: dict[Any, bool] = {}


class _TypingContext:
    """Numba's, but that it looks once for what a function or an operator returns for some types.

    For every sum of two integers Numba tries NumPy's rules for arrays, and explains why they do not apply. And it
    compiles a jitted function anew for each constant that is an argument.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, arguments: Any, keywords: Any) -> Any:
        """The signature of a call."""
        if isinstance(function, types.Dispatcher):
            arguments = [unliteral(argument) for argument in arguments]
        if keywords or type(function) is not types.Function:
            return self._context.resolve_function_type(function, arguments, keywords)
        key = function, tuple(arguments)
        if key not in _signatures:
            _signatures[key] = self._context.resolve_function_type(function, arguments, keywords)
        return _signatures[key]


@register_pass(mutates_CFG=True, analysis_only=False)
class KernelTypeInference(NopythonTypeInference):
    """Numba's, in a `_TypingContext`."""

    _name = "fastnet_type_inference"

    def run_pass(self, state: Any) -> bool:
        """Find the types of a function."""
        context = state.typingctx
        state.typingctx = _TypingContext(context)
        try:
            return bool(super().run_pass(state))
        finally:
            state.typingctx = context


class KernelLower(Lower):
    """Numba's, but that it counts references only where there are any to count.

    A function to which no call hands an array, and which returns none, has only borrowed its arguments: whoever calls
    it holds them until it returns. Elsewhere Numba would take tuples of pointers apart wherever they are assigned, for
    nothing.
    """

    def lower(self) -> None:
        """Emit the function."""
        calls = [call.return_type for call in self.fndesc.calltypes.values() if call is not None]
        if not any(map(self._has_references, [*calls, self.fndesc.restype])):
            # The context is this function's own; its way to memory stays.
            attrgetter("nrt")(self.context)
            self.context.enable_nrt = False
        super().lower()

    def setup_function(self, fndesc: Any) -> None:
        """Begin the function."""
        super().setup_function(fndesc)
        align_stack(self.function)

    def _has_references(self, kind: Any) -> bool:
        if kind not in _counted:
            _counted[kind] = self.context.data_model_manager[kind].contains_nrt_meminfo()
        return _counted[kind]

    def _counts(self, kind: Any) -> bool:
        return bool(self.context.enable_nrt) and self._has_references(kind)

    def incref(self, typ: Any, val: Any) -> None:
        """Count a reference."""
        if self._counts(typ):
            super().incref(typ, val)

    def decref(self, typ: Any, val: Any) -> None:
        """Drop a reference."""
        if self._counts(typ):
            super().decref(typ, val)

    def delvar(self, name: str) -> None:
        """End a variable, of which nothing is left to do where nothing is counted."""
        if self._counts(self.typeof(name)):
            super().delvar(name)

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        """Make room for a variable; what a debugger is told of it takes longer."""
        if self.context.enable_debuginfo:
            return super().alloca_lltype(name, lltype, datamodel)
        return cgutils.alloca_once(self.builder, lltype, name=name)
