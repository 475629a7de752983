"""`sm-plan-memory`: where in the arena each scratch buffer lives."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.ir import SSAValue

from ...core.memory import Space
from ...dialects.sm import GraphOp
from ..analysis.dependences import Dependences
from ..analysis.memory import size_bytes
from ..analysis.order import GridOrder, reduce_edges
from ..base import MpkPass

ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class PlanMemory(MpkPass):
    """Give scratch buffers their place in one arena; two share memory only if the order keeps them apart.

    Polled buffers come first, each with memory of its own, and twice: what tells a written word from an unwritten one
    must last from step to step.

    Before: `%a = sm.buffer @a #sm.space<scratch> : ...`. After: `... offset 4096`, and `arena_bytes` on the graph.

    A buffer may take over memory when every task that touched the old buffer runs before every task that touches the
    new one, whatever the interleaving; being earlier in program order is not enough. With ``reuse=false`` every
    buffer has memory of its own.
    """

    name = "sm-plan-memory"
    reuse: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            dependences = Dependences(graph)
            _, order = reduce_edges(dependences.edges, len(dependences.grids))
            self._plan(graph, order)

    def _plan(self, graph: GraphOp, order: GridOrder) -> None:
        users = _users(graph)
        scratch = [b for b in graph.buffers if b.space.data is Space.SCRATCH]
        polled_bytes = 0
        for buffer in [b for b in scratch if b.polled is not None]:
            buffer.offset = IntegerAttr(polled_bytes, i64)
            polled_bytes += _aligned(size_bytes(buffer))
        graph.polled_bytes = IntegerAttr(polled_bytes, i64)
        slots: list[_Slot] = [_Slot(0, 2 * polled_bytes, [], closed=True)]
        wanted = 0
        for buffer in [b for b in scratch if b.polled is None]:
            size, grids = _aligned(size_bytes(buffer)), users[buffer.buffer]
            wanted += size
            fitting = [s for s in slots if self.reuse and s.size_bytes >= size and s.free_before(grids, order)]
            slot = min(fitting, key=lambda s: s.size_bytes, default=None)
            if slot is None:
                slot = _Slot(slots[-1].offset_bytes + slots[-1].size_bytes, size, [])
                slots.append(slot)
            slot.grids = grids
            buffer.offset = IntegerAttr(slot.offset_bytes, i64)
        arena = slots[-1].offset_bytes + slots[-1].size_bytes
        graph.arena_bytes = IntegerAttr(arena, i64)
        self.count("polled_bytes", polled_bytes)
        self.count("scratch_bytes", wanted)
        self.count("arena_bytes", arena)


@dataclass
class _Slot:
    """A piece of the arena and the grids that touch its latest tenant."""

    offset_bytes: int
    size_bytes: int
    grids: list[int]
    closed: bool = False

    def free_before(self, grids: list[int], order: GridOrder) -> bool:
        return not self.closed and all(bool(order.all_before[old, new]) for old in self.grids for new in grids)


def _users(graph: GraphOp) -> dict[SSAValue, list[int]]:
    users: dict[SSAValue, list[int]] = defaultdict(list)
    for number, grid in enumerate(graph.grids):
        for value in dict.fromkeys(grid.data):
            users[value].append(number)
    return users


def _aligned(size: int) -> int:
    """``size`` rounded up to whole alignment units."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
