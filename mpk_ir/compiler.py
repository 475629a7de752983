"""From a checkpoint, a config or a module to a `Program`: the pipeline with timing, statistics and IR per level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from .codegen.emit import emit
from .codegen.program import Program
from .core.dtype import BF16
from .core.errors import UnsupportedError
from .core.ranks import ALONE, Parallel
from .core.target import Target
from .dialects.sm.params import value_to_attr
from .frontend import ModelConfig, StepOptions, build_step, load_config
from .pass_manager import PassManager
from .passes.lower.lower_to_cuda import LowerToCuda
from .passes.tile.tile import STEP_METADATA
from .pipeline import plan_passes, tensor_passes
from .tasks.work import Load

if TYPE_CHECKING:
    from .timeline.search import Trial


@dataclass(frozen=True)
class Compilation:
    """A program and how it came about.

    ``modules``: the IR at the end of each level ("tg", "sm", "cuda"). ``seconds``: per pass, plus "import" and "emit".
    ``statistics``: pass name -> statistic -> value. ``trials``: what a search for tiles tried.
    """

    program: Program
    modules: Mapping[str, ModuleOp]
    seconds: Mapping[str, float]
    statistics: Mapping[str, Mapping[str, int]]
    trials: Sequence[Trial] = ()

    def module_text(self, level: str) -> str:
        """The IR at the end of ``level`` as text."""
        return str(self.modules[level])

    def stats(self) -> dict[str, Any]:
        """The facts `mpk compile --stats` writes."""
        events, synthesis = self.statistics["sm-fuse-events"], self.statistics["sm-synthesize-events"]
        return {
            "grids": len(self.program.grids),
            "tasks": len(self.program.tasks),
            "dependencies": synthesis["dependencies"],
            "events_unfused": synthesis["dependencies"],
            "events": events["events"],
            "signatures": len(self.program.bodies),
            "bytes": sum(buffer.bytes for buffer in self.program.buffers),
            "seconds": dict(self.seconds),
        }


PipelineChange: TypeAlias = Callable[[tuple[ModulePass, ...]], Sequence[ModulePass]]
"""The passes of a level -> those that run instead."""


def compile_module(
    module: ModuleOp,
    target: Target,
    lowering: LowerToCuda | None = None,
    search: Load | None = None,
    parallel: Parallel = ALONE,
    change: PipelineChange = tuple,
) -> Compilation:
    """Compile a module with one `tg` function; it is lowered in place. With ``search``, tiles are searched for on the
    timeline simulator under that load, instead of taken from the cost model. The program is that of each rank of
    ``parallel``, ``target`` the part of the machine that one has. ``change`` replaces the passes of each level.

    Raises MpkError subclasses: what cannot be tiled, planned or proved, with the place in the IR.
    """
    if all(isinstance(op, FuncOp) and len(op.body.block.ops) == 1 for op in module.ops):
        raise UnsupportedError("the graph computes nothing: each result is an argument or a number")
    modules, seconds, statistics = dict[str, ModuleOp](), dict[str, float](), dict[str, Mapping[str, int]]()
    lowering_passes = (lowering or LowerToCuda(),)
    trials: Sequence[Trial] = ()
    sm_passes = plan_passes(target, parallel.strategy, multicast=parallel.multicast)
    levels = (("tg", tensor_passes(parallel.ranks)), ("sm", sm_passes))
    for level, passes in (*levels, ("cuda", lowering_passes)):
        report = PassManager(change(passes), verify_each=False).run(Context(), module)
        for one in report.passes:
            seconds[one.name] = seconds.get(one.name, 0.0) + one.seconds
        statistics |= report.statistics
        if level == "tg" and search is not None:
            trials, seconds["search"] = _search(module, target, search)
        modules[level] = module.clone() if level != "cuda" else module
    begin = perf_counter()
    program = emit(module)
    return Compilation(program, modules, {**seconds, "emit": perf_counter() - begin}, statistics, trials)


def _search(module: ModuleOp, target: Target, load: Load) -> tuple[Sequence[Trial], float]:
    from .timeline.search import search_tiles

    begin = perf_counter()
    return search_tiles(module, target, load), perf_counter() - begin


def compile_model(
    path: Path, target: Target, options: StepOptions, search: Load | None = None, parallel: Parallel = ALONE
) -> Compilation:
    """Compile the step of a checkpoint folder or of a config.json alone; weights are not read.

    Raises CheckpointError or UnsupportedError for a config that cannot be compiled, and what `compile_module` raises.
    """
    return compile_step(load_config(path), target, options, search=search, parallel=parallel)


def compile_step(
    config: ModelConfig,
    target: Target,
    options: StepOptions,
    lowering: LowerToCuda | None = None,
    search: Load | None = None,
    parallel: Parallel = ALONE,
) -> Compilation:
    """Compile the step of a model; its end-of-text tokens stop a request unless ``options`` name others.

    The kernel computes in bf16 with fp32 sums: weights of another dtype are rounded when they are bound.
    """
    begin = perf_counter()
    module = step_module(config, options)
    importing = perf_counter() - begin
    result = compile_module(module, target, lowering, search, parallel)
    return replace(result, seconds={"import": importing, **result.seconds})


def step_module(config: ModelConfig, options: StepOptions) -> ModuleOp:
    """The step of a model as `compile_module` takes it, computed in bf16."""
    config = replace(config, dtype=BF16)
    options = replace(options, stop_tokens=options.stop_tokens or config.eos_tokens)
    module = build_step(config, options)
    attach_metadata(module, options, config.vocab_size)
    return module


def attach_metadata(module: ModuleOp, options: StepOptions, vocab_size: int) -> None:
    """Tell the host side what the step of ``module`` serves."""
    facts = {
        "batch": options.batch,
        "rows": options.rows,
        "max_length": options.max_length,
        "page_size": options.page_size,
        "vocab_size": vocab_size,
        "stop_tokens": options.stop_tokens,
    }
    for op in module.body.block.ops:
        if isinstance(op, FuncOp):
            op.attributes[STEP_METADATA] = DictionaryAttr({k: value_to_attr(v) for k, v in facts.items()})
