"""`sm-poll-data`: which buffers say themselves when they are written."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.ir import SSAValue

from ...core.errors import PlanError
from ...core.memory import Space
from ...dialects.sm import BufferOp, GraphOp, GridOp
from ...tasks.base import Operand
from ..base import MpkPass


@dataclass(frozen=True)
class PollData(MpkPass):
    """Mark scratch buffers as polled where all bodies that touch them can poll.

    Before: `%y = sm.buffer @y #sm.space<scratch> : ...`, written by one "linear" grid, read by another. After:
    ```mlir
    %y = sm.buffer @y #sm.space<scratch> polled : ...
    ```
    A reader of a polled buffer loads the words it needs until none is the mark of an unwritten word: the load that
    brings the data is the wait. Against a counter that saves the producer's fence and the reader's second trip to
    memory, about 1.5 us a hand-off under load. NCCL's LL protocol does the like with a flag beside each word; here the
    flag is a value that no arithmetic yields, so that data takes no more room.

    Statistics: ``polled_buffers``.
    """

    name = "sm-poll-data"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            uses: dict[SSAValue, list[tuple[GridOp, Operand]]] = defaultdict(list)
            for grid in graph.grids:
                for value, name in zip(grid.data, grid.operand_names, strict=True):
                    uses[value].append((grid, grid.task_kind.operand(name.data)))
            for buffer in graph.buffers:
                _require_pollable(buffer, uses[buffer.buffer])
                scratch = buffer.space.data is Space.SCRATCH and buffer.counted is None
                if scratch and _can_be_polled(uses[buffer.buffer]):
                    buffer.polled = UnitAttr()
                    self.count("polled_buffers")


def _require_pollable(buffer: BufferOp, uses: list[tuple[GridOp, Operand]]) -> None:
    """Raise PlanError if other ranks write ``buffer``, which only polling can tell, and a reader cannot poll."""
    boxes = [grid.boxes.data[list(grid.data).index(buffer.buffer)] for grid, _ in uses]
    if any(box.pushes for box in boxes) and not _can_be_polled(uses):
        blind = next((grid for grid, operand in uses if not operand.polled), uses[0][0])
        raise PlanError(
            f"sm-poll-data: other ranks write @{buffer.sym_name.data}, and grid @{blind.sym_name.data} of kind "
            f"'{blind.kind.data}' cannot poll it",
            advice="kinds that poll: linear, attention, rank_sum, select",
        )


def _can_be_polled(uses: list[tuple[GridOp, Operand]]) -> bool:
    """One grid writes it, each word once a step, and whoever touches it can poll."""
    writers = [grid for grid, operand in uses if operand.access.writes]
    return len(writers) == 1 and all(operand.polled for _, operand in uses)
