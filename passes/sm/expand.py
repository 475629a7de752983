"""`sm-expand`: grids as single tasks, for teaching and for small cases."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, ModuleOp
from xdsl.ir.affine import AffineConstantExpr, AffineMap

from ...core.errors import PlanError
from ...core.target import target_of
from ...dialects.sm import BoxAttr, GraphOp, GridOp
from ...dialects.sm.attributes import NO_RANK, int_array, ints
from ...dialects.sm.expansion import box_bounds, event_elements, placement
from ...dialects.sm.ops import EventUse, GridOperand, dense_i32
from ..base import MpkPass


@dataclass(frozen=True)
class Expand(MpkPass):
    """Replace each grid by one grid per task, its boxes and event elements now constants.

    Before: `sm.grid @a "linear" {...} over [2] ... boxes [#sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]`. After:
    ```mlir
    sm.grid @"a[0]" "linear" {...} over [1] ... boxes [#sm.box<write, (d0) -> (0, 0), [8, 16]>] ...
    sm.grid @"a[1]" "linear" {...} over [1] ... boxes [#sm.box<write, (d0) -> (0, 16), [8, 16]>] ...
    ```
    An op costs far more than a row of a table, so graphs of more than ``limit`` tasks are refused. The expanded graph
    is for reading: task kinds compute with their index, and parts that are disjoint only at run time now overlap.
    Statistics: ``tasks``.
    """

    name = "sm-expand"
    limit: int = 4096

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            total = sum(grid.num_tasks for grid in graph.grids)
            if graph.rank_count > 1:
                raise PlanError(f"sm-expand: graph @{graph.sym_name.data} is for {graph.rank_count} ranks, expected 1")
            if total > self.limit:
                raise PlanError(
                    f"sm-expand: graph @{graph.sym_name.data} has {total} tasks, the limit is {self.limit}",
                    advice="compile fewer layers, or raise `limit`",
                )
            for grid in graph.grids:
                self._expand(graph, grid)

    def _expand(self, graph: GraphOp, grid: GridOp) -> None:
        sms = placement(grid, target_of(graph.target.data).num_sms)
        lows = [box_bounds(grid, operand)[0] for operand in range(len(grid.data))]
        for task in range(grid.num_tasks):
            boxes = [_fixed(box, low[task].tolist()) for box, low in zip(grid.boxes, lows, strict=True)]
            names = [name.data for name in grid.operand_names]
            operands = [GridOperand(*parts) for parts in zip(names, grid.data, boxes, strict=True)]
            name = f"{grid.sym_name.data}[{task}]"
            single = GridOp(name, grid.task_kind, grid.task_params, [1], operands)
            single.set_events(_uses(grid, grid.wait_uses, task), _uses(grid, grid.signal_uses, task))
            single.placement = dense_i32([int(sms[task])], (1,))
            graph.body.block.insert_op_before(single, grid)
            self.count("tasks")
        grid.detach()
        grid.erase()


def _fixed(box: BoxAttr, low: list[int]) -> BoxAttr:
    """The box of one task. What ``along`` kept apart at run time overlaps now."""
    offset = AffineMap(1, 0, tuple(AffineConstantExpr(value) for value in low))
    return BoxAttr(box.access, AffineMapAttr(offset), box.sizes, int_array([-1] * len(ints(box.sizes))), NO_RANK)


def _uses(grid: GridOp, uses: list[EventUse], task: int) -> list[EventUse]:
    rows = ((use, event_elements(grid, use)[task : task + 1]) for use in uses)
    return [EventUse(use.event, dense_i32(row, row.shape)) for use, row in rows if (row >= 0).any()]
