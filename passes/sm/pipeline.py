"""`sm-pipeline`: how weights run ahead of the tasks that need them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp

from ...core.errors import PlanError
from ...core.memory import STAGE_BYTES, shared_bytes
from ...core.target import target_of
from ...dialects.sm import GraphOp, SharedMemoryAttr, StreamAttr
from ...dialects.sm.expansion import IntArray, placement
from ...tasks.linear import LinearParams
from ..analysis.shared_memory import least_stages, ring_stages, scratch_bytes, streams_state
from ..base import MpkPass

KIB = 1024
NS_PER_US = 1000
FEW_ROWS = 8
"""Of a product's task: more make it load as much of activations as of weights, and memory waits for it."""
LIGHT_STAGES, HEAVY_STAGES = 6, 20
"""Of weights that an SM streams for the grid in the middle: up to the first, hand-offs take longer than memory; from
the second on it is the other way round even with many rows."""
USUAL_LIMITS = LIGHT, MANY_ROWS, HEAVY = (1, 6), (2, 6), (3, 5)
"""(stages in flight, those of a block that is behind) of such steps."""


@dataclass(frozen=True)
class Pipeline(MpkPass):
    """Split shared memory between scratch and a ring of stages, and say how tasks use the ring and how far loads run
    ahead.

    Before: `sm.grid @q "linear" ...` with a placement. After:
    ```mlir
    sm.graph @step target "h200" shared_memory <ring 13 x 16384 in_flight 3 to 5, scratch 2 x 5376> {
      sm.grid @q "linear" ... stream <keeps 4, ahead 13>
    ```
    *Scratch* gets what the largest body needs, the ring all the rest. *Release order*: a stage is live from when it is
    filled until its body has read it. Stages are filled in the order of the queue, in a task in that of the body, and
    given back in the same order, which is that in which their lives end: so a ring wastes none, and what a task may
    `keep` is the most of its stages that live at a time (`TaskKind.stages_at_once`). *Prefetch distance*: weights
    depend on no event, so while a task waits, its SM's loader goes on over the queue until the ring is full. The least
    of that over a grid's tasks is its `ahead`, in stages, caches being empty. Before the ring is full the loader stops
    only at the end of the step, at the first task of the next that streams a state: what that reads, the step writes.

    *In flight*: copies that are under way beyond what keeps memory busy (Little's law: an SM's share of bandwidth times
    the time a copy takes) only queue up in the memory system, and the stores and polls by which tasks hand over queue
    behind them. So a loader lets ``in_flight`` stages be under way, and ``most_in_flight`` while no more than that are
    under way or full: a block that is behind goes first. The less memory bounds a step, the fewer (by the stages of a
    grid in the middle, and by the rows of products, measured: docs/performance.md); 0 for no such limit. There is none
    either where loaders bring activations too (`TaskKind.fetches`): those come from the second-level cache, and nobody
    polls.

    ``ring_kib`` bounds the ring; 0 takes what scratch leaves. `sm-verify` proves that the ring goes round and that no
    more is loaded ahead than may be (rule ring), `lower-to-cuda` takes the split. Needs placements.

    Statistics: ``ring_bytes``, ``scratch_bytes``, ``shared_bytes``; ``ahead_ns``, the time in which an SM's share of
    bandwidth fills the ring, the longest wait that costs no bandwidth; ``ring_limited``, ``step_limited``: grids that
    wait with a full ring, and those that the end of the step keeps from it.
    """

    name = "sm-pipeline"
    ring_kib: int = 0
    in_flight: int | None = None
    most_in_flight: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            split = self._split(graph)
            graph.shared_memory = split
            self._streams(graph, split)
            per_us = target_of(graph.target.data).sm_bytes_per_us
            self.count("ahead_ns", round(split.ring_bytes / per_us * NS_PER_US))

    def _split(self, graph: GraphOp) -> SharedMemoryAttr:
        scratch, room = scratch_bytes(graph), ring_stages(graph)
        stages = min(room, self.ring_kib * KIB // STAGE_BYTES) if self.ring_kib else room
        least = max((2, *(grid.task_kind.stages_at_once for grid in graph.grids if grid.task_kind.streams)))
        if stages < least:
            raise PlanError(
                f"sm-pipeline: twice {scratch} bytes of scratch leave room for {room} stages of {STAGE_BYTES} bytes, "
                f"{stages} are allowed, expected at least {least}",
                advice="lower `rows`, or raise `ring_kib`",
            )
        self.count("ring_bytes", stages * STAGE_BYTES)
        self.count("scratch_bytes", scratch)
        self.count("shared_bytes", shared_bytes(stages, STAGE_BYTES, scratch))
        fetches = any(grid.task_kind.fetches for grid in graph.grids)
        limits = None if fetches else self.limits(usual_limits(graph), stages)
        return SharedMemoryAttr.of(stages, STAGE_BYTES, scratch, limits)

    def limits(self, usual: tuple[int, int], stages: int) -> tuple[int, int] | None:
        """(``in_flight``, ``most_in_flight``) of a ring of ``stages``, the ``usual`` unless options say others; None:
        no limit."""
        few, most = usual
        few = min(few if self.in_flight is None else self.in_flight, stages)
        most = min(most if self.most_in_flight is None else self.most_in_flight, stages)
        return (few, max(few, most)) if few else None

    def _streams(self, graph: GraphOp, split: SharedMemoryAttr) -> None:
        stages = split.stages.data
        first, ahead = 0, _stages_ahead(graph, stages)
        for grid in graph.grids:
            mine, first = ahead[first : first + grid.num_tasks], first + grid.num_tasks
            if not grid.task_kind.streams:
                continue
            least = int(mine.min())
            grid.stream = StreamAttr(IntAttr(grid.task_kind.stages_at_once), IntAttr(least))
            self.count("ring_limited" if least == stages else "step_limited")


def usual_limits(graph: GraphOp) -> tuple[int, int]:
    """(stages in flight, those of a block that is behind): as few as keep memory as busy as the step needs it."""
    num_sms = target_of(graph.target.data).num_sms
    weights = [total for grid in graph.grids if (total := least_stages(grid).sum())]
    stages = np.median(weights) / num_sms if weights else HEAVY_STAGES
    params = [grid.task_params for grid in graph.grids]
    many_rows = any(isinstance(one, LinearParams) and one.rows > FEW_ROWS for one in params)
    if many_rows and stages < HEAVY_STAGES:
        return MANY_ROWS
    return LIGHT if stages <= LIGHT_STAGES else HEAVY


def _stages_ahead(graph: GraphOp, stages: int) -> IntArray:
    """[tasks]: what the SM's loader fills from a task on until the ring is full, or it must wait for the next step."""
    num_sms = target_of(graph.target.data).num_sms
    sms = np.concatenate([np.zeros(0, np.int64), *(placement(grid, num_sms) for grid in graph.grids)])
    least = np.concatenate([np.zeros(0, np.int64), *map(least_stages, graph.grids)])
    stops = np.repeat([streams_state(grid) for grid in graph.grids], [grid.num_tasks for grid in graph.grids])
    ahead = np.zeros(len(sms), np.int64)
    for sm in np.unique(sms).tolist():
        queue = np.flatnonzero(sms == sm)
        stop = np.flatnonzero(stops[queue])
        next_step = least[queue[: stop[0]] if len(stop) else queue].sum()
        ahead[queue] = np.minimum(least[queue][::-1].cumsum()[::-1] + next_step, stages)
    return ahead
