"""`sm-schedule-list`: list scheduling of tasks on SMs by their cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr
from xdsl.ir import SSAValue

from ...core.errors import PlanError
from ...core.memory import STAGE_BYTES
from ...core.target import Target, target_of
from ...dialects.sm import CyclicAttr, GraphOp, GridOp
from ...dialects.sm.ops import dense_i32
from ...tasks.work import Load
from ..analysis.costs import TaskCosts, load_of
from ..analysis.shared_memory import ring_stages
from ..base import MpkPass

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
NS_PER_US = 1000


@dataclass(frozen=True)
class ScheduleList(MpkPass):
    """Give each task, in program order, the SM on which it ends first (list scheduling, Graham 1966).

    Before: `sm.grid @a ... over [128]`. After, where no rule in a few words says the same:
    ```mlir
    sm.grid @a ... placement dense<"0x..."> because "earliest end: 128 SMs, 1 task each, within 12 us"
    ```
    The estimate for an SM: its loader streams the weights of its tasks one after another at its share of bandwidth, a
    ring ahead of the SM's consumers at most; a task ends when its weights are there and its SM has worked through it,
    which begins when the SM is free and the grids that the task waits for have ended. ``context``: positions in each
    request's cache, which decide what attention costs; the graph's metadata say how many requests there are. Grids that
    deal their work at run time are `dynamic`, as of `sm-schedule`. Each SM runs its tasks in program order, as
    with `sm-schedule`, so a plan stays free of deadlock.

    Statistics: ``estimated_ns``, when the last task ends; ``tables``, grids whose placement is no rule;
    ``dynamic``, grids that deal at run time.
    """

    name = "sm-schedule-list"
    context: int = 512

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            if not graph.grids:
                raise PlanError(f"sm-schedule-list: graph @{graph.sym_name.data} has no tasks")
            target = target_of(graph.target.data)
            ring_us = ring_stages(graph) * STAGE_BYTES / target.sm_bytes_per_us
            machine = _Machine(target, load_of(graph, self.context), ring_us)
            for grid in graph.grids:
                self._place(grid, machine)
            self.count("estimated_ns", round(max(machine.free_us) * NS_PER_US))

    def _place(self, grid: GridOp, machine: _Machine) -> None:
        sms = machine.place(grid)
        used, most = len(np.unique(sms)), int(np.bincount(sms).max())
        in_turn = (sms[0] + np.arange(len(sms))) % machine.target.num_sms
        rule = CyclicAttr(IntAttr(int(sms[0])))
        grid.placement = rule if (sms == in_turn).all() else dense_i32(sms, sms.shape)
        where = "one SM" if used == 1 else f"{used} SMs"
        tasks = "1 task each" if most == 1 else f"at most {most} tasks each"
        ends = f"within {machine.took_us(grid):.0f} us"
        grid.placement_reason = StringAttr(f"earliest end: {where}, {tasks}, {ends}")
        self.count("dynamic", int(grid.mark_dynamic()))
        self.count("tables", int(not (sms == in_turn).all()))


@dataclass
class _Machine:
    """What is known of every SM while tasks are placed; all times are microseconds since the step began. ``ring_us``:
    how long an SM's share of bandwidth takes to fill its ring."""

    target: Target
    load: Load
    ring_us: float
    ended_us: dict[GridOp, float] = field(default_factory=dict[GridOp, float])
    signallers: dict[SSAValue, list[GridOp]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.costs = TaskCosts(self.target, self.load)
        self.free_us = np.zeros(self.target.num_sms)
        self.loaded_us = np.zeros(self.target.num_sms)

    def place(self, grid: GridOp) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[tasks]: the SM of each task of ``grid``, which comes next in program order."""
        stream_us, work_us = self.costs.of(grid)
        ready = self._ready_us(grid)
        sms = np.empty(grid.num_tasks, np.int64)
        ended = 0.0
        for task in range(grid.num_tasks):
            begin = np.maximum(self.loaded_us, self.free_us - self.ring_us)
            loaded = begin + stream_us[task]
            end = np.maximum(loaded, np.maximum(self.free_us, ready) + work_us[task])
            sm = int(np.lexsort((self.free_us, self.loaded_us, end))[0])
            sms[task], self.free_us[sm], self.loaded_us[sm] = sm, end[sm], loaded[sm]
            ended = max(ended, float(end[sm]))
        self.ended_us[grid] = ended
        for event in grid.signals:
            self.signallers[event].append(grid)
        return sms

    def took_us(self, grid: GridOp) -> float:
        """From when all that a placed ``grid`` waits for has ended."""
        return self.ended_us[grid] - self._ready_us(grid)

    def _ready_us(self, grid: GridOp) -> float:
        producers = [one for event in grid.waits for one in self.signallers[event] if one is not grid]
        handoff = self.target.costs.handoff_loaded_us
        return max((self.ended_us[one] + handoff for one in producers), default=0.0)
