"""`sm-schedule`: which SM runs which task."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr

from ...core.errors import PlanError
from ...core.target import target_of
from ...dialects.sm import CyclicAttr, GraphOp
from ..base import MpkPass

CHAIN_SM = 0
"""Runs all grids of a single task."""


@dataclass(frozen=True)
class Schedule(MpkPass):
    """Deal the tasks of each grid to the SMs in turn, each grid going on where the one before it stopped.

    Before: `sm.grid @a ... over [128]`, `sm.grid @b ... over [128]`, 132 SMs. After:
    ```mlir
    sm.grid @a ... placement #sm.cyclic<0> because "dealt in turn from SM 0"
    sm.grid @b ... placement #sm.cyclic<128> because "dealt in turn from SM 128, where the grid before stopped"
    ```
    so that the four SMs without a task of @a get two of @b's share, and over a layer all SMs stream the same bytes;
    ``rotate=false`` begins each grid at SM 0.
    Grids of one task share one SM: they usually follow each other, and their hand-off is then free (``chain``).
    Each SM runs its tasks in program order. `sm-schedule-list` weighs costs instead.

    Launch is static: which SM does what stands here. Only where work depends on data does it not: tasks of a kind with
    `TaskKind.dealt_because` deal it among themselves at run time, and the grid gets that reason:
    ```mlir
    sm.grid @layers.0.mlp.experts ... over [132] placement #sm.cyclic<0> dynamic "which experts have rows is known when
    the step has chosen them" because "dealt in turn from SM 0"
    ```
    Statistics: ``chained``, grids of one task; ``dynamic``, grids that deal at run time.
    """

    name = "sm-schedule"
    chain: bool = True
    rotate: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            num_sms = target_of(graph.target.data).num_sms
            if not graph.grids:
                raise PlanError(f"sm-schedule: graph @{graph.sym_name.data} has no tasks")
            self._place(graph, num_sms)

    def _place(self, graph: GraphOp, num_sms: int) -> None:
        first, dealt = 0, False
        for grid in graph.grids:
            if self.chain and grid.num_tasks == 1 and not grid.task_kind.dealt_because:
                grid.placement = CyclicAttr(IntAttr(CHAIN_SM))
                grid.placement_reason = StringAttr(f"one task: on SM {CHAIN_SM}, where all such grids run")
                self.count("chained")
                continue
            grid.placement = CyclicAttr(IntAttr(first))
            where = ", where the grid before stopped" if dealt and self.rotate else ""
            grid.placement_reason = StringAttr(f"dealt in turn from SM {first}{where}")
            self.count("dynamic", int(grid.mark_dynamic()))
            if self.rotate:
                first, dealt = (first + grid.num_tasks) % num_sms, True
