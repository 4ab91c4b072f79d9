"""How kernels are compiled: helpers as parts of the kernel that calls them, and the whole of it once.

Numba optimises every jitted function by itself, emits its machine code, and does both again for
every caller that it is linked into. Helpers four calls deep went through LLVM ten times: 5.5 of the 8.6 s
of a first fit. A part is lowered and handed to its caller as it is, so that LLVM sees it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from types import FunctionType
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    AnnotateTypes,
    InlineOverloads,
    NativeLowering,
    NopythonRewrites,
    NopythonTypeInference,
)
from numba.core.untyped_passes import (
    FindLiterallyCalls,
    InlineClosureLikes,
    InlineInlinables,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    WithLifting,
)

from fastnet.kernels.stages import KernelLower, KernelTypeInference
from fastnet.kernels.wrapping import add_filling_wrapper, add_wrapper
from fastnet.runtime import collector

# Another Numba may lack what is used or replaced below. Then this module cannot be imported.
attrgetter("run_pass")(NativeLowering)
attrgetter("define_pipelines", "compile_extra")(CompilerBase)
attrgetter(
    *("add_ir_module", "_optimize_functions", "finalize", "_get_module_for_linking"),
    *("_codegen", "_codegen._data_layout", "_codegen._module_pass_manager", "_linking_libraries", "_finalized"),
    *("_optimize_final_module", "_final_module", "enable_object_caching"),
)(cpu_target.target_context.codegen().create_library("fastnet"))

#: Passes for what no part has: closures, with, array expressions, types as literals, code to be inlined before types
#: are known; and for what nobody reads. Without them a first fit takes 0.9 of the time.
_LEFT_OUT = {
    AnnotateTypes,
    FindLiterallyCalls,
    InlineClosureLikes,
    InlineInlinables,
    InlineOverloads,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    NativeLowering,
    NopythonRewrites,
    NopythonTypeInference,
    WithLifting,
}


class _Part(JITCodeLibrary):
    """Code that is linked into other code, and never optimised or run by itself."""

    #: Whether it stays a function, and is not to become a part of its callers.
    is_called = False

    def add_ir_module(self, ir_module: Any) -> None:
        """Take the code over, with the attributes of a function that is called."""
        for function in ir_module.functions:
            if self.is_called and not (function.is_declaration or function.linkage):
                function.attributes.add("noinline")
                function.attributes.add("optsize")
        super().add_ir_module(ir_module)

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        """Leave the code as it is; what it calls is linked where the whole is."""
        if hasattr(self, "_reload_init"):
            for library in self._linking_libraries:
                self._reload_init.update(library._reload_init)
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """The code of the part and of all that it calls, for a function that is no part itself."""
        module = self._own_code().clone()
        for library in self._below({self}):
            code = library._own_code() if isinstance(library, _Part) else library._get_module_for_linking()
            module.link_in(code, preserve=True)
        return module

    def _own_code(self) -> Any:
        return super()._get_module_for_linking()

    def _below(self, seen: set[Any]) -> Iterator[Any]:
        """The libraries that this part calls, and those that they call, each once."""
        for library in self._linking_libraries:
            if library not in seen:
                seen.add(library)
                yield library
                if isinstance(library, _Part):
                    yield from library._below(seen)


class _Kernel(JITCodeLibrary):
    """The code of a kernel with that of all its parts, which LLVM optimises once.

    Numba does it twice, so that more of its reference counts cancel out. Kernels have next to none, and a first fit
    takes 0.9 of the time. Without LLVM's vectorisers, or with fewer of its passes (-O2), it took as long.
    """

    def _optimize_final_module(self) -> None:
        made = self._codegen._module_pass_manager()
        # Numba 0.61 has no builder, which later ones hand to the passes.
        passes, *builder = made if isinstance(made, tuple) else (made,)
        passes.run(self._final_module, *builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(NativeLowering):
    """Numba's lowering, to a `_Kernel`."""

    _name = "fastnet_kernel_lowering"
    lowering_class = KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = _Kernel(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        super().run_pass(state)
        return True


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


#: `_call` with room for the frames of all that it calls. Python takes memory for frames by 16 KB, and gives them back
#: when they are empty: calls beyond the end of such a piece did so 36000 times in a compilation, and 90000 times where
#: the caller was some calls deeper, for 0.4 and 0.8 s. A frame that is larger gets more, of which half is for others.
_call_with_room = FunctionType(_call.__code__.replace(co_stacksize=1 << 15), globals())


class KernelCompiler(CompilerBase):
    """Numba's pipeline with `_KernelLowering`."""

    def compile_extra(self, func: Any) -> Any:
        """Compile a function."""
        with collector.paused():
            return _call_with_room(super().compile_extra, func)

    lowering: type[NativeLowering] = _KernelLowering

    def define_pipelines(self) -> list[PassManager]:
        """The one pipeline."""
        return [_pipeline(self.state, self.lowering, {NativeLowering, NopythonTypeInference})]


def _with(add: Callable[[Any, Any, Any], None]) -> type[KernelCompiler]:
    """`KernelCompiler` of what Python calls by a wrapper of fastnet's."""

    class Lower(KernelLower):
        def create_cpython_wrapper(self, release_gil: bool = False) -> None:
            add(self.context, self.library, self.fndesc)

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(_KernelLowering):
        _name = f"fastnet_lowering_{add.__name__}"
        lowering_class = Lower

    class Compiler(KernelCompiler):
        lowering = Lowering

    return Compiler


#: Of what the runtime loads, and of what fills memory.
EntryCompiler, FillingCompiler = _with(add_wrapper), _with(add_filling_wrapper)


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):
    """Numba's lowering, without the machine code."""

    _name = "fastnet_part_lowering"
    lowering_class = KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.is_called = not state.flags.forceinline
        state.flags.no_compile = True
        super().run_pass(state)
        # Numba finds the code of a call by a built-in function, which stands for it in Python: one for each part.
        key = [state.func_id.func_qualname].copy
        state["cr"] = state["cr"]._replace(cfunc=key)
        state.targetctx.insert_user_function(key, state["cr"].fndesc, [state.library])
        return True


class PartCompiler(CompilerBase):
    """Numba's pipeline with `_PartLowering`, and without what parts do not need."""

    def define_pipelines(self) -> list[PassManager]:
        """The one pipeline."""
        return [_pipeline(self.state, _PartLowering, _LEFT_OUT)]


def _pipeline(state: Any, lowering: type[NativeLowering], left_out: set[Any]) -> PassManager:
    """Numba's, with another lowering and type inference, and without some of its passes."""
    pipeline = DefaultPassBuilder.define_nopython_pipeline(state)
    pipeline.add_pass_after(KernelTypeInference, NopythonTypeInference)
    pipeline.add_pass_after(lowering, NativeLowering)
    pipeline.passes = [entry for entry in pipeline.passes if entry[0] not in left_out]
    # Numba looks over the whole function after each pass; without that a first fit takes 0.95 of the time.
    pipeline._ENFORCING = False
    pipeline.finalize()
    return pipeline
