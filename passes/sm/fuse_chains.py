"""`sm-fuse-chains`: tiles that follow each other share an SM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr

from ...core.target import Target, target_of
from ...dialects.sm import CyclicAttr, GraphOp, GridOp
from ...dialects.sm.expansion import IntArray
from ...dialects.sm.ops import dense_i32
from ...proof import Plan
from ..analysis.costs import FloatArray, TaskCosts, load_of
from ..analysis.plan_arrays import plan_of
from ..base import MpkPass

NS_PER_US = 1000


@dataclass(frozen=True)
class FuseChains(MpkPass):
    """Run a tile right behind the tiles that make what it reads, on their SM, where that costs less than a hand-off.

    Before, with 132 SMs: a norm over 64 rows, then a map over the same 64 rows,
    ```mlir
    sm.grid @norm ... over [64] signals (%e) [(d0) -> (d0)] placement #sm.cyclic<0>
    sm.grid @map ... over [64] waits (%e) [(d0) -> (d0)] placement #sm.cyclic<64>
    ```
    After: `sm.grid @map ... placement #sm.cyclic<0> because "in chains behind @norm: ..."`. Each task of @map waits for
    a task of its own SM only, which the order of the queue implies: `sm-elide-waits` then drops %e.

    A grid is placed so if, of each of its tasks, all producers run on one SM: one tile each, or several that came there
    by chains of their own. What it gains is the hand-off; what it may cost is balance: some SMs get more of its tasks
    than if they are dealt in turn. Polled data comes by memory in any case, so who waits for some stays where it is.
    ``context``: positions in each request's cache, by which attention is weighed.

    Needs a placement and events. Fused decoders poll nearly all data, so it is graphs of general kinds that gain.
    Statistics: ``chained_grids``, ``chained_tasks``; ``too_uneven``, grids that could be
    chained but lose more than they gain; ``gained_ns``, by the cost model, over the step.
    """

    name = "sm-fuse-chains"
    context: int = 512

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            self._fuse(graph)

    def _fuse(self, graph: GraphOp) -> None:
        plan, target = plan_of(graph), target_of(graph.target.data)
        sms, events = plan.queue.copy(), _EventSms(plan)
        costs = TaskCosts(target, load_of(graph, self.context))
        for place, grid in zip(plan.grids, graph.grids, strict=True):
            mine = slice(place.first, place.end)
            behind = events.of_producers(mine)
            if behind is not None and not grid.task_kind.dealt_because and not np.array_equal(behind, sms[mine]):
                gain_us = target.handoff_loaded_us - (
                    _longest_us(costs, grid, behind, target) - _longest_us(costs, grid, sms[mine], target)
                )
                if gain_us > 0:
                    sms[mine] = behind
                    _place(grid, behind, target, f"in chains behind {events.producers(mine)}: {gain_us:.1f} us less")
                    self.count("chained_grids")
                    self.count("chained_tasks", len(behind))
                    self.count("gained_ns", round(gain_us * NS_PER_US))
                else:
                    self.count("too_uneven")
            events.arrive(mine, sms)


class _EventSms:
    """On which SMs the producers of each event run, as far as they are placed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._low = np.full(len(plan.event_count), np.iinfo(np.int64).max)
        self._high = np.full(len(plan.event_count), -1)
        both = plan.waits[:, :2], plan.signals
        self._waits, self._signals = (uses[np.argsort(uses[:, 0], kind="stable")] for uses in both)

    def _of(self, uses: IntArray, tasks: slice) -> IntArray:
        begin, end = np.searchsorted(uses[:, 0], [tasks.start, tasks.stop])
        return uses[begin:end]

    def of_producers(self, tasks: slice) -> IntArray | None:
        """[tasks]: the one SM where all that a task waits for runs; None if a task has none or several, or polls."""
        waits = self._of(self._waits, tasks)
        if self._plan.event_polled[waits[:, 1]].any():
            return None
        low = np.full(tasks.stop - tasks.start, np.iinfo(np.int64).max)
        high = np.full(len(low), -1)
        np.minimum.at(low, waits[:, 0] - tasks.start, self._low[waits[:, 1]])
        np.maximum.at(high, waits[:, 0] - tasks.start, self._high[waits[:, 1]])
        return low if (low == high).all() else None

    def producers(self, tasks: slice) -> str:
        """The grids that these wait for, by name."""
        events = self._of(self._waits, tasks)[:, 1]
        signallers = np.unique(self._signals[np.isin(self._signals[:, 1], events), 0])
        names = dict.fromkeys(f"@{self._plan.task(task).grid}" for task in signallers.tolist())
        return " and ".join(names)

    def arrive(self, tasks: slice, sms: IntArray) -> None:
        """Tasks are placed on ``sms`` ([all tasks])."""
        signals = self._of(self._signals, tasks)
        np.minimum.at(self._low, signals[:, 1], sms[signals[:, 0]])
        np.maximum.at(self._high, signals[:, 1], sms[signals[:, 0]])


def _longest_us(costs: TaskCosts, grid: GridOp, sms: IntArray, target: Target) -> float:
    """Time of the SM that has most of the grid to do."""
    stream_us, work_us = costs.of(grid)
    spent: FloatArray = np.zeros(target.num_sms)
    np.add.at(spent, sms, np.maximum(stream_us, work_us))
    return float(spent.max())


def _place(grid: GridOp, sms: IntArray, target: Target, reason: str) -> None:
    in_turn = (sms[0] + np.arange(len(sms))) % target.num_sms
    grid.placement = CyclicAttr(IntAttr(int(sms[0]))) if (sms == in_turn).all() else dense_i32(sms, sms.shape)
    grid.placement_reason = StringAttr(reason)
