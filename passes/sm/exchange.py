"""What `sm-overlap-comm` rewrites: a `push` with what surrounds it, and the forms that it may take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr, IntegerAttr, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineMap, AffineSymExpr

from ...core.memory import Space
from ...core.target import target_of
from ...dialects.sm import BoxAttr, BufferOp, BufferType, GraphOp, GridOp
from ...dialects.sm.attributes import ALL_RANKS, NO_RANK, int_array, ints
from ...dialects.sm.expansion import box_bounds, rank_step
from ...dialects.sm.ops import GridOperand
from ...tasks.rank_sum import RankSum, RankSumParams
from ...tasks.work import communication_costs

VECTOR = 8
"""Columns that a task of `rank_sum` adds at once."""


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
        if not _polls(producer, operand):
            return f"a task of kind '{producer.kind.data}' cannot write to other ranks"
        tile, piece = ints(_box(producer, operand).sizes)[-1], self.landing.shape[-1]
        if self.scatters and piece % tile:
            return f"tiles of {tile} columns do not divide the {piece} of a rank"
        low, high = box_bounds(producer, operand)
        cut = ((high - low) != ints(_box(producer, operand).sizes)).any(axis=0)
        if cut[np.array(self.partial.shape) != self.landing.shape].any():  # else it is cut where it lands, too
            return f"the tiles of @{producer.sym_name.data} do not divide {list(self.partial.shape)}"
        return None

    @property
    def scatters(self) -> bool:
        """Whether each column goes to one rank, not to all."""
        return _box(self.push, operand_of(self.push, "y")).to != ALL_RANKS

    @property
    def sum(self) -> GridOp | None:
        """The `rank_sum` that alone reads what is pushed."""
        readers = [grid for grid, number in uses_of(self.graph, self.landing.buffer) if _box(grid, number).mode.reads]
        return readers[0] if len(readers) == 1 and readers[0].kind.data == RankSum.name else None

    @property
    def costs_us(self) -> dict[str, float]:
        """Per strategy what the exchange takes for the rows that are active in a decode step, in microseconds."""
        batch = self.graph.metadata.data.get("batch")
        rows, columns = self.partial.shape
        rows = batch.value.data if isinstance(batch, IntegerAttr) else rows
        target = target_of(self.graph.target.data)
        costs = communication_costs(target, self.graph.rank_count, 2 * rows * columns)
        return {"push": costs.one_shot_us, "two-shot": costs.two_shot_us, "multicast": costs.multicast_us}

    def push_tiles(self, to: Attribute, reason: str) -> None:
        """The producer writes where ``push`` wrote, ``to`` all ranks or to the owners; ``push`` and the value it read
        are gone."""
        producer, operand = self.producers[0]
        steps = rank_step(self.push, operand_of(self.push, "y"))
        rows, piece = self.partial.shape[0], self.landing.shape[-1]
        self.move_before_producer(self.landing)

        def pushed(box: BoxAttr) -> BoxAttr:
            return to_owner(box, rows, piece) if self.scatters else _by_rank(box, steps, to)

        replace(producer, with_operand(producer, operand, self.landing.buffer, pushed))
        self.drop_push()
        for grid, number in uses_of(self.graph, self.landing.buffer):
            if _box(grid, number).mode.reads:
                grid.reason = StringAttr(reason)
                _let_readers_poll(grid)

    def move_before_producer(self, buffer: BufferOp) -> None:
        buffer.detach()
        self.graph.body.block.insert_op_before(buffer, self.producers[0][0])

    def drop_push(self) -> None:
        """Erase ``push`` and the value that it read."""
        _erase(self.push)
        _erase(self.partial)


@dataclass(frozen=True)
class TwoShot:
    """An ``exchange`` as a sum of ``piece`` columns by each rank, in tasks of ``columns``, and its distribution."""

    exchange: Exchange
    sum: GridOp
    piece: int
    columns: int

    @staticmethod
    def of(exchange: Exchange) -> tuple[TwoShot | None, str]:
        """The form, or why there is none."""
        if exchange.sum is None:
            return None, "nothing is summed"
        if exchange.scatters:
            return None, "each rank wants a piece"
        ranks, (_, total) = exchange.graph.rank_count, exchange.partial.shape
        producer, operand = exchange.producers[0]
        tile = ints(_box(producer, operand).sizes)[1]
        piece, rest = divmod(total, ranks)
        y = exchange.sum.data[operand_of(exchange.sum, "y")].owner
        if rest or piece % tile or piece % VECTOR:
            return None, f"{total} columns are no {ranks} pieces of whole tiles of {tile}"
        if not isinstance(y, BufferOp) or y.space.data is not Space.SCRATCH or y.shape != exchange.partial.shape:
            return None, "the sum lies in memory that other ranks do not reach"
        if not all(_polls(*use) for use in uses_of(exchange.graph, y.buffer) if _box(*use).mode.reads):
            return None, "not all readers of the sum can poll"
        wanted = min(piece, ints(_box(exchange.sum, 0).sizes)[1])
        columns = next(c for c in range(wanted, piece + 1) if piece % c == 0 and c % VECTOR == 0)
        return TwoShot(exchange, exchange.sum, piece, columns), ""

    def apply(self, reason: str) -> None:
        """Rewrite producer and sum."""
        exchange, piece = self.exchange, self.piece
        rows, slot_rows = exchange.partial.shape[0], exchange.landing.shape[0]
        kind = BufferType(int_array((slot_rows, piece)), exchange.landing.element_type)
        slots = BufferOp(exchange.landing.sym_name.data, Space.SCRATCH, kind)
        exchange.graph.body.block.insert_op_before(slots, exchange.producers[0][0])
        producer, operand = exchange.producers[0]
        replace(producer, with_operand(producer, operand, slots.buffer, lambda box: to_owner(box, rows, piece)))
        replace(self.sum, self._sum_of_piece(slots.buffer, reason))
        _erase(exchange.push)
        _erase(exchange.partial)
        _erase(exchange.landing)

    def _sum_of_piece(self, slots: SSAValue, reason: str) -> GridOp:
        old, params = self.sum, self.sum.task_params
        assert isinstance(params, RankSumParams)
        column, rank = AffineDimExpr(0) * self.columns, AffineSymExpr(0)
        mine = AffineMap(1, 1, (AffineConstantExpr(0), column + rank * self.piece))
        operands: list[GridOperand] = []
        for name, value, box in zip((n.data for n in old.operand_names), old.data, old.boxes, strict=True):
            access, rows = box.mode, ints(box.sizes)[0]
            if name == "slots":
                local = AffineMap(1, 0, (AffineConstantExpr(0), column))
                operands.append(GridOperand(name, slots, BoxAttr.of(access, local, (rows, self.columns))))
            elif name in ("residual", "y"):
                to = ALL_RANKS if name == "y" else NO_RANK
                operands.append(GridOperand(name, value, BoxAttr.of(access, mine, (rows, self.columns), to=to)))
            else:
                operands.append(GridOperand(name, value, box))
        params = dataclasses.replace(params, columns=self.columns, total=self.piece)
        grid = GridOp(old.sym_name.data, old.task_kind, params, [self.piece // self.columns], operands)
        grid.reason = StringAttr(reason)
        _let_readers_poll(grid)
        return grid


def _box(grid: GridOp, operand: int) -> BoxAttr:
    return grid.boxes.data[operand]


def _polls(grid: GridOp, operand: int) -> bool:
    """Whether the tasks of ``grid`` can poll an operand, or write it for others to poll."""
    return grid.task_kind.operand(grid.operand_names.data[operand].data).polled


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


def to_owner(box: BoxAttr, rows: int, piece: int) -> BoxAttr:
    """``box`` sent to the rank that has its columns, ``piece`` of them: into the ``rows`` of the rank that writes."""
    row, column = box.offset.data.results
    dims = box.offset.data.num_dims
    offset = AffineMap(dims, 1, (row + AffineSymExpr(0) * rows, column % piece))
    to = AffineMap(dims, 0, (column // piece,))
    return BoxAttr(box.access, AffineMapAttr(offset), box.sizes, box.along, AffineMapAttr(to))


def _by_rank(box: BoxAttr, steps: tuple[int, ...], to: Attribute) -> BoxAttr:
    """``box`` moved by ``steps`` a rank, sent ``to`` all."""
    old, rank = box.offset.data, AffineSymExpr(0)
    exprs = tuple(e + rank * step if step else e for e, step in zip(old.results, steps, strict=True))
    return BoxAttr(box.access, AffineMapAttr(AffineMap(old.num_dims, 1, exprs)), box.sizes, box.along, to)


def _let_readers_poll(reader: GridOp) -> None:
    """What ``reader`` writes need not be waited for as a whole any more."""
    for value, box in zip(reader.data, reader.boxes, strict=True):
        if box.mode.writes and isinstance(value.owner, BufferOp):
            value.owner.counted = None


def replace(old: GridOp, new: GridOp) -> None:
    """Put ``new`` where ``old`` was."""
    block = old.parent
    assert block is not None
    block.insert_op_before(new, old)
    _erase(old)


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()
