"""`sm-normalize-events`: no task waits on or signals more events than a task record holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, ModuleOp
from xdsl.ir.affine import AffineMap

from ...core.errors import PlanError
from ...dialects.sm import EventOp, GraphOp, GridOp
from ...dialects.sm.expansion import IntArray, event_elements
from ...dialects.sm.ops import EventUse, dense_i32
from ...tasks.join import Join, JoinParams
from ..base import MpkPass


@dataclass(frozen=True)
class NormalizeEvents(MpkPass):
    """Relay surplus waits and signals through `join` tasks, so that every fork and join is legal.

    Before, with ``limit=2``: `sm.grid @c ... waits (%e0, %e1, %e2) [...]`. After:
    ```mlir
    sm.grid @c.join "join" {} over [tasks of c] ... waits (%e0, %e1) [...] signals (%r) [identity]
    sm.grid @c ... waits (%r, %e2) [identity, ...]
    ```
    Signals are relayed likewise, by a join behind the producer. A join costs one hand-off.

    ``limit``: the most events that a task record holds, of waits and of signals. Statistics: ``joins``, the tasks
    added; ``most_uses_before``, ``most_uses``: the most events that one task waits for or signals.
    """

    name = "sm-normalize-events"
    limit: int = 4

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.limit < 2:
            raise PlanError(f"sm-normalize-events: expected a limit of at least 2, found {self.limit}")
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            self.count("most_uses_before", _most_uses(graph))
            for grid in graph.grids:
                while _width(grid, grid.wait_uses) > self.limit:
                    self._relay_waits(graph, grid)
                while _width(grid, grid.signal_uses) > self.limit:
                    self._relay_signals(graph, grid)
            self.count("most_uses", _most_uses(graph))

    def _relay_waits(self, graph: GraphOp, grid: GridOp) -> None:
        chosen, rest = _split(grid, grid.wait_uses, self.limit)
        join, relay = self._join(graph, grid)
        graph.body.block.insert_op_before(join, grid)
        join.set_events(chosen, [_identity(relay, grid)])
        grid.set_events([_identity(relay, grid), *rest], grid.signal_uses)

    def _relay_signals(self, graph: GraphOp, grid: GridOp) -> None:
        chosen, rest = _split(grid, grid.signal_uses, self.limit)
        join, relay = self._join(graph, grid)
        graph.body.block.insert_op_after(join, grid)
        join.set_events([_identity(relay, grid)], chosen)
        grid.set_events(grid.wait_uses, [_identity(relay, grid), *rest])

    def _join(self, graph: GraphOp, grid: GridOp) -> tuple[GridOp, EventOp]:
        taken = {op.sym_name.data for op in (*graph.grids, *graph.events)}
        base = f"{grid.sym_name.data}.join"
        name = next(n for n in (base, *(f"{base}.{i}" for i in range(2, 1000))) if n not in taken)
        join = GridOp(name, Join(), JoinParams(), [grid.num_tasks], [])
        relay = EventOp(f"{name}.relay", [1] * grid.num_tasks)
        graph.body.block.insert_op_before(relay, graph.grids[0])
        self.count("joins", grid.num_tasks)
        return join, relay


def _width(grid: GridOp, uses: list[EventUse]) -> int:
    """The most events that one task uses."""
    if not uses:
        return 0
    return int(sum((event_elements(grid, use) >= 0).sum(axis=1) for use in uses).max())  # type: ignore[union-attr]


def _most_uses(graph: GraphOp) -> int:
    widths = [_width(grid, uses) for grid in graph.grids for uses in (grid.wait_uses, grid.signal_uses)]
    return max(widths, default=0)


def _columns(grid: GridOp, uses: list[EventUse]) -> list[tuple[EventUse, IntArray]]:
    return [(use, column) for use in uses for column in event_elements(grid, use).T]


def _split(grid: GridOp, uses: list[EventUse], limit: int) -> tuple[list[EventUse], list[EventUse]]:
    """The first ``limit`` columns of elements, for the join's flat index space, and the rest for the grid."""
    columns = _columns(grid, uses)
    tables = [EventUse(use.event, dense_i32(column[:, None], (len(column), 1))) for use, column in columns]
    return tables[:limit], tables[limit:]


def _identity(relay: EventOp, grid: GridOp) -> EventUse:
    if len(grid.shape) == 1:
        return EventUse(relay.event, AffineMapAttr(AffineMap.identity(1)))
    return EventUse(relay.event, dense_i32(np.arange(grid.num_tasks)[:, None], (grid.num_tasks, 1)))
