"""`sm-overlap-comm`: a collective begins with the first tile of its producer and ends with the last of its readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineMap, AffineSymExpr

from ...core.errors import PlanError
from ...dialects.sm import BoxAttr, BufferOp, GraphOp, GridOp
from ...dialects.sm.attributes import ints
from ...dialects.sm.expansion import box_bounds, rank_step
from ...dialects.sm.ops import GridOperand
from ...tasks.push import Push
from ..base import MpkPass

STRATEGIES = ("push", "off")


@dataclass(frozen=True)
class OverlapComm(MpkPass):
    """Let the tasks that compute a value write it to other ranks tile by tile, and readers poll for what they need.

    Before, as `tile` makes it: the tasks of @sum.push wait for all of @down and write its result to all ranks:
    ```mlir
    sm.grid @down "linear" ... ["x", "weight", "y"](..., %partial) boxes [..., #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
    sm.grid @sum.push "push" ... ["x", "y"](%partial, %slots)
      boxes [#sm.box<read, (d0) -> (0, 0), [8, 4096]>, #sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 64), [8, 64] to all>]
    sm.grid @sum "rank_sum" ... (%slots, %y)        // %y counted: who reads it waits for all of it
    ```
    After ``strategy=push``, one-shot: @sum.push is gone, a task of @sum begins when its columns are there from all ranks,
    and a reader of %y when what it reads is there, while the weights of the next tasks stream:
    ```mlir
    sm.grid @down "linear" ... (..., %slots) boxes [..., #sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 32), [8, 32] to all>]
    sm.grid @sum "rank_sum" ... (%slots, %y)
    ```
    ``strategy=off`` leaves it as it is, to see what overlap is worth. The sums are the same, in the same order.

    Statistics: ``pushed``, values that their producer sends itself; ``waiting``, those that wait for a push.
    """

    name = "sm-overlap-comm"
    strategy: str = "push"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.strategy not in STRATEGIES:
            raise PlanError(
                f"sm-overlap-comm: strategy: found '{self.strategy}', expected one of {', '.join(STRATEGIES)}"
            )
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            for push in [grid for grid in graph.grids if grid.kind.data == Push.name]:
                self._overlap(graph, push)

    def _overlap(self, graph: GraphOp, push: GridOp) -> None:
        if self.strategy == "off":
            self.count("waiting")
            return
        exchange = Exchange.of(graph, push)
        problem = exchange.problem
        if problem is not None:
            push.reason = StringAttr(f"waits for all of its operand: {problem}")
            self.count("waiting")
            return
        exchange.push_tiles()
        self.count("pushed")


@dataclass(frozen=True)
class Exchange:
    """One ``push`` with what surrounds it. ``problem``: why the producer cannot send its tiles itself, if it cannot."""

    graph: GraphOp
    push: GridOp
    partial: BufferOp
    landing: BufferOp
    producers: list[tuple[GridOp, int]]
    readers: list[tuple[GridOp, int]]

    @staticmethod
    def of(graph: GraphOp, push: GridOp) -> Exchange:
        partial, landing = (push.data[operand_of(push, name)].owner for name in ("x", "y"))
        assert isinstance(partial, BufferOp)
        assert isinstance(landing, BufferOp)
        uses = uses_of(graph, partial.buffer)
        written = [use for use in uses if _box(*use).mode.writes]
        return Exchange(graph, push, partial, landing, written, [use for use in uses if use not in written])

    @property
    def problem(self) -> str | None:
        if len(self.readers) > 1:
            return f"@{self.partial.sym_name.data} has another reader"
        if len(self.producers) != 1:
            return f"{len(self.producers)} grids write @{self.partial.sym_name.data}"
        producer, operand = self.producers[0]
        if not producer.task_kind.operand(producer.operand_names.data[operand].data).polled:
            return f"a task of kind '{producer.kind.data}' cannot write to other ranks"
        low, high = box_bounds(producer, operand)
        if ((high - low) != ints(_box(producer, operand).sizes)).any():
            return f"the tiles of @{producer.sym_name.data} do not divide {list(self.partial.shape)}"
        return None

    def push_tiles(self) -> None:
        """The producer writes where ``push`` wrote; ``push`` and the value it read are gone."""
        producer, operand = self.producers[0]
        target = _box(self.push, operand_of(self.push, "y"))
        steps = rank_step(self.push, operand_of(self.push, "y"))
        self.landing.detach()
        self.graph.body.block.insert_op_before(self.landing, producer)
        moved = with_operand(producer, operand, self.landing.buffer, lambda box: _by_rank(box, steps, target))
        _replace(producer, moved)
        _erase(self.push)
        _erase(self.partial)
        for grid, number in uses_of(self.graph, self.landing.buffer):
            if _box(grid, number).mode.reads:
                _let_readers_poll(grid)


def _box(grid: GridOp, operand: int) -> BoxAttr:
    return grid.boxes.data[operand]


def operand_of(grid: GridOp, name: str) -> int:
    """The place of the operand called ``name``."""
    return [one.data for one in grid.operand_names].index(name)


def uses_of(graph: GraphOp, buffer: SSAValue) -> list[tuple[GridOp, int]]:
    """(grid, operand) of all that touches ``buffer``, in program order."""
    return [(grid, number) for grid in graph.grids for number, value in enumerate(grid.data) if value is buffer]


def with_operand(grid: GridOp, operand: int, buffer: SSAValue, change: Callable[[BoxAttr], BoxAttr]) -> GridOp:
    """A copy of ``grid``, without events, in which one operand is ``buffer`` and its box changed."""
    rows = zip((name.data for name in grid.operand_names), grid.data, grid.boxes, strict=True)
    operands = [GridOperand(*row) for row in rows]
    operands[operand] = GridOperand(operands[operand].name, buffer, change(operands[operand].box))
    copy = GridOp(grid.sym_name.data, grid.task_kind, grid.task_params, grid.shape, operands)
    copy.reason = grid.reason
    return copy


def _by_rank(box: BoxAttr, steps: tuple[int, ...], target: BoxAttr) -> BoxAttr:
    """``box`` moved by ``steps`` a rank, sent where ``target`` is sent."""
    old, rank = box.offset.data, AffineSymExpr(0)
    exprs = tuple(e + rank * step if step else e for e, step in zip(old.results, steps, strict=True))
    return BoxAttr(box.access, AffineMapAttr(AffineMap(old.num_dims, 1, exprs)), box.sizes, box.along, target.to)


def _let_readers_poll(reader: GridOp) -> None:
    """What ``reader`` writes need not be waited for as a whole any more."""
    for value, box in zip(reader.data, reader.boxes, strict=True):
        if box.mode.writes and isinstance(value.owner, BufferOp):
            value.owner.counted = None


def _replace(old: GridOp, new: GridOp) -> None:
    block = old.parent
    assert block is not None
    block.insert_op_before(new, old)
    _erase(old)


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()
