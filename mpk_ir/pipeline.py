"""The compiler on one page: every pass in order, with the reason where the order matters."""

from __future__ import annotations

from xdsl.passes import ModulePass

from .core.target import Target
from .passes.lower.lower_to_cuda import LowerToCuda
from .passes.sm.elide_waits import ElideWaits
from .passes.sm.fuse_chains import FuseChains
from .passes.sm.fuse_events import FuseEvents
from .passes.sm.normalize_events import NormalizeEvents
from .passes.sm.overlap_comm import OverlapComm
from .passes.sm.panel_rows import PanelRows
from .passes.sm.pipeline import Pipeline
from .passes.sm.plan_memory import PlanMemory
from .passes.sm.poll_data import PollData
from .passes.sm.schedule import Schedule
from .passes.sm.synthesize_events import SynthesizeEvents
from .passes.sm.verify import Verify
from .passes.tg.canonicalize import TgCanonicalize
from .passes.tg.fuse import TgFuse
from .passes.tg.hoist_rows import TgHoistRows
from .passes.tg.merge_linears import TgMergeLinears
from .passes.tg.raise_ops import TgRaise
from .passes.tg.shard import TgShard
from .passes.tile.tile import Tile


def tensor_passes(ranks: int = 1) -> tuple[ModulePass, ...]:
    """Tg -> tg: fewer ops, each reading its weights once; on ``ranks`` GPUs its part of them."""
    return (
        TgCanonicalize(),  # first: the others match what is left when reshapes and casts are gone
        TgRaise(),  # before merging and fusion, which know norms and gates, not what PyTorch makes of them
        *([TgShard(tp=ranks)] if ranks > 1 else []),  # before merging: a part of q, k and v is not one of their join
        TgHoistRows(),  # before merging and fusion: a linear of few rows fuses more than one of many
        TgMergeLinears(),  # before fusion: it looks for plain linears that share an operand
        TgFuse(),
        TgCanonicalize(),  # the slices that merging left and fusion took over are dead now
    )


def plan_passes(target: Target, strategy: str = "auto", *, multicast: bool = False) -> tuple[ModulePass, ...]:
    """Tg -> sm: task grids, what orders them, where and when they run. The options are of `sm-overlap-comm`."""
    return (
        Tile(target=target.name),
        OverlapComm(strategy, multicast),  # before polling: it decides which values are waited for as a whole
        PollData(),  # before events: what is polled needs none of the kernel's counters
        PanelRows(),  # after overlap: what other ranks write lies row by row
        SynthesizeEvents(),
        FuseEvents(),  # before normalization: fewer events need fewer joins
        NormalizeEvents(),  # before scheduling: a join is a task that needs an SM
        Schedule(),
        FuseChains(),  # after scheduling, of which it moves what gains by it; before waits that it makes needless go
        ElideWaits(),  # after scheduling: the order of a queue makes events superfluous
        Pipeline(),  # after all that moves tasks: a queue's order is that in which its loader runs ahead
        PlanMemory(),  # reuse needs the order that the events give, nothing of the placement
        Verify(),  # last: it proves the plan that will run
    )


def lowering_passes() -> tuple[ModulePass, ...]:
    """Sm -> cuda."""
    return (LowerToCuda(),)


def pipeline(target: Target, ranks: int = 1) -> tuple[ModulePass, ...]:
    """All passes from an imported tensor graph to CUDA for ``target``, on each of ``ranks``."""
    return (*tensor_passes(ranks), *plan_passes(target), *lowering_passes())
