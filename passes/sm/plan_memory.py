"""`sm-plan-memory`: where in the arena each scratch buffer lives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.ir import SSAValue

from ...core.memory import Space
from ...dialects.sm import BufferOp, GraphOp
from ...dialects.sm.expansion import IntArray
from ..analysis.dependences import BoolArray, Dependences
from ..analysis.memory import size_bytes
from ..analysis.order import GridOrder, reduce_edges
from ..base import MpkPass

ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class PlanMemory(MpkPass):
    """Give scratch buffers their place in one arena; two share memory only if the order keeps them apart.

    Polled buffers come first, each with memory of its own, and twice: what tells a written word from an unwritten one
    must last from step to step. So they grow with the number of layers, where others need the memory of about one
    (docs/decisions/0006-polled-data.md).

    Before: `%a = sm.buffer @a #sm.space<scratch> : ...`. After: `... offset 4096`, and `arena_bytes` on the graph.

    A buffer may take over memory when every task that touched the old buffer runs before every task that touches the
    new one, whatever the interleaving; being earlier in program order is not enough. Each buffer gets the lowest
    address where no buffer lies that may be in use at the same time, larger ones first or in program order, whichever
    needs less. With ``reuse=false`` every buffer has memory of its own.

    Statistics: ``scratch_bytes`` of all buffers, polled ones twice; ``arena_bytes`` of the plan, its peak;
    ``together_bytes``, the most found in buffers that may all be in use at once: no plan can need less;
    ``polled_bytes``, the part of each that is polled.
    """

    name = "sm-plan-memory"
    reuse: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            dependences = Dependences(graph)
            _, order = reduce_edges(dependences.edges, len(dependences.grids))
            self._plan(graph, order)

    def _plan(self, graph: GraphOp, order: GridOrder) -> None:
        scratch = [b for b in graph.buffers if b.space.data is Space.SCRATCH]
        polled_bytes = 0
        for buffer in [b for b in scratch if b.polled is not None]:
            buffer.offset = IntegerAttr(polled_bytes, i64)
            polled_bytes += _aligned(size_bytes(buffer))
        graph.polled_bytes = IntegerAttr(polled_bytes, i64)
        buffers = [b for b in scratch if b.polled is None]
        sizes = np.array([_aligned(size_bytes(buffer)) for buffer in buffers], np.int64)
        users = _users(graph, buffers)
        apart = _kept_apart(users, order) if self.reuse else np.zeros((len(buffers), len(buffers)), np.bool_)
        orders = (np.argsort(-sizes, kind="stable"), np.arange(len(sizes)))
        offsets = min((_offsets(sizes, apart, order) for order in orders), key=lambda found: _arena(found, sizes))
        for buffer, offset in zip(buffers, offsets.tolist(), strict=True):
            buffer.offset = IntegerAttr(2 * polled_bytes + offset, i64)
        arena = 2 * polled_bytes + _arena(offsets, sizes)
        graph.arena_bytes = IntegerAttr(arena, i64)
        self.count("polled_bytes", 2 * polled_bytes)
        self.count("scratch_bytes", 2 * polled_bytes + int(sizes.sum()))
        self.count("arena_bytes", arena)
        self.count("together_bytes", 2 * polled_bytes + _together_bytes(sizes, apart))


def _users(graph: GraphOp, buffers: list[BufferOp]) -> BoolArray:
    """[buffers, grids]: whether the grid touches the buffer."""
    grids = graph.grids
    number: dict[SSAValue, int] = {buffer.buffer: row for row, buffer in enumerate(buffers)}
    users = np.zeros((len(buffers), len(grids)), np.bool_)
    for column, grid in enumerate(grids):
        for value in grid.data:
            if value in number:
                users[number[value], column] = True
    return users


def _kept_apart(users: BoolArray, order: GridOrder) -> BoolArray:
    """[buffers, buffers]: whether all tasks that touch one run before all that touch the other, either way round."""
    counts = users.astype(np.float32)  # exact below 2**24, and multiplied by BLAS
    not_after = counts @ (~order.all_before).astype(np.float32) > 0  # [buffers, grids]: some user need not be before
    before = not_after.astype(np.float32) @ counts.T == 0
    return before | before.T


def _offsets(sizes: IntArray, apart: BoolArray, order: IntArray) -> IntArray:
    """[buffers]: the lowest free address of each, placed in ``order``."""
    offsets = np.zeros(len(sizes), np.int64)
    placed: list[int] = []
    for buffer in order.tolist():
        taken = sorted((int(offsets[other]), int(sizes[other])) for other in placed if not apart[buffer, other])
        lowest = 0
        for begin, size in taken:
            if begin - lowest >= sizes[buffer]:
                break
            lowest = max(lowest, begin + size)
        offsets[buffer] = lowest
        placed.append(buffer)
    return offsets


def _together_bytes(sizes: IntArray, apart: BoolArray) -> int:
    """The greatest set of buffers found of which no two are kept apart: around each buffer, larger ones first."""
    found = 0
    by_size = np.argsort(-sizes, kind="stable")
    for seed in range(len(sizes)):
        chosen = [seed]
        for other in by_size[~apart[seed, by_size]].tolist():
            if other != seed and not apart[other, chosen].any():
                chosen.append(other)
        found = max(found, int(sizes[chosen].sum()))
    return found


def _arena(offsets: IntArray, sizes: IntArray) -> int:
    return int((offsets + sizes).max(initial=0))


def _aligned(size: int) -> int:
    """``size`` rounded up to whole alignment units."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
