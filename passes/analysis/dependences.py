"""Which tasks must run before which: exact overlap of the boxes they touch, in program order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from xdsl.ir import SSAValue

from ...core.ranks import TO_ALL, TO_SELF
from ...dialects.sm import BoxAttr, BufferOp, GraphOp
from ...dialects.sm.attributes import ints
from ...dialects.sm.expansion import IntArray, box_bounds, push_targets
from ...proof import Bounds
from ...proof.races import boxes_overlap
from ...proof.telling import FIRST_ROW, boxes_held

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Dependence:
    """``relation`` [producer tasks, consumer tasks]: true where the first must run before the second. ``polled``: only
    because the second reads of polled buffers what the first writes; ``told``, of the same shape, says where the second
    then knows that the first has done its reading (`proof.telling`). ``after_write``: the first writes what the second
    touches; else it only reads what the second writes. ``shared``: the first writes it into the memory of other ranks,
    and the second is a task of the rank to which it writes."""

    producer: int
    consumer: int
    relation: BoolArray
    polled: bool = False
    after_write: bool = True
    shared: bool = False
    told: BoolArray | None = None

    @property
    def pairs(self) -> int:
        return int(self.relation.sum())


@dataclass(frozen=True)
class Access:
    """Operand number ``operand`` of grid number ``grid`` touches a buffer."""

    grid: int
    operand: int
    writes: bool


class Dependences:
    """All dependences of a graph: read after write, write after read, write after write."""

    def __init__(self, graph: GraphOp) -> None:
        self.grids = graph.grids
        self._ranks = graph.rank_count
        self._overlaps: dict[tuple[Any, ...], BoolArray] = {}
        self._inclusions: dict[tuple[Any, ...], BoolArray] = {}
        self.edges = self._edges()

    def _edges(self) -> list[Dependence]:
        relations: dict[tuple[int, int, bool, bool, bool], BoolArray] = {}
        told: dict[tuple[int, int, bool, bool, bool], BoolArray] = {}
        for value, accesses in self._accesses().items():
            for position, later in enumerate(accesses):
                for earlier in accesses[:position]:
                    if earlier.grid == later.grid or not (earlier.writes or later.writes):
                        continue
                    relation = self._overlap(value, earlier, later)
                    if relation.any():
                        by_data = is_polled(value) and not later.writes
                        key = (earlier.grid, later.grid, by_data, earlier.writes, self._box(earlier).pushes)
                        relations[key] = relations[key] | relation if key in relations else relation
                        if key[2] and self._tells(earlier, later):
                            told[key] = told.get(key, np.False_) | self._holds(value, earlier, later)
        found = sorted(relations.items(), key=lambda item: item[0])
        return [
            Dependence(*key[:2], relation, *key[2:], _by_event(relation, told[key]) if key in told else None)
            for key, relation in found
        ]

    def _accesses(self) -> dict[SSAValue, list[Access]]:
        accesses: dict[SSAValue, list[Access]] = defaultdict(list)
        for number, grid in enumerate(self.grids):
            for operand, (value, box) in enumerate(zip(grid.data, grid.boxes, strict=True)):
                accesses[value].append(Access(number, operand, box.mode.writes))
        return {value: uses for value, uses in accesses.items() if any(use.writes for use in uses)}

    def _tells(self, earlier: Access, later: Access) -> bool:
        """Whether both operands are such that reading all of the first tells of its tasks."""
        sides = [(self.grids[a.grid], a.operand) for a in (earlier, later)]
        promised = all(grid.task_kind.operand(grid.operand_names.data[n].data).tells for grid, n in sides)
        return promised and max(along for grid, n in sides for along in ints(grid.boxes.data[n].along)) < 0

    def _holds(self, value: SSAValue, earlier: Access, later: Access) -> BoolArray:
        """[producer tasks, consumer tasks]: whether the second's box holds that of the first, the first row in it."""
        sides = [(self.grids[a.grid].extent, self.grids[a.grid].boxes.data[a.operand]) for a in (earlier, later)]
        key = (*sides[0], *sides[1], value.type)
        if key not in self._inclusions:
            first, second = (Bounds(*box_bounds(self.grids[a.grid], a.operand)) for a in (earlier, later))
            self._inclusions[key] = boxes_held(first, second) & (first.low[:, :1] == FIRST_ROW)
        return self._inclusions[key]

    def _overlap(self, value: SSAValue, earlier: Access, later: Access) -> BoolArray:
        """Layers repeat: what matters are the two boxes, the two index spaces and the buffer's shape."""
        sides = [(self.grids[a.grid].extent, self._box(a)) for a in (earlier, later)]
        key = (*sides[0], *sides[1], value.type)
        if key not in self._overlaps:
            owners = range(self._ranks if any(box.by_rank or box.pushes for _, box in sides) else 1)
            found = [self._overlap_on(owner, earlier, later) for owner in owners]
            self._overlaps[key] = np.logical_or.reduce(found)
        return self._overlaps[key]

    def _overlap_on(self, owner: int, earlier: Access, later: Access) -> BoolArray:
        """In the memory of rank ``owner``."""
        return np.logical_or.reduce(
            [
                boxes_overlap(Bounds(*first), Bounds(*second)) & reach_first[:, None] & reach_second[None, :]
                for first, reach_first in self._boxes_on(owner, earlier)
                for second, reach_second in self._boxes_on(owner, later)
            ]
        )

    def _boxes_on(self, owner: int, access: Access) -> Iterator[tuple[tuple[IntArray, IntArray], BoolArray]]:
        """Per rank that may write there, its boxes and [tasks] whether they do; of others' tasks only writes reach."""
        grid, box = self.grids[access.grid], self._box(access)
        targets = push_targets(grid, box)
        for rank in range(self._ranks) if box.pushes else (owner,):
            reach = (targets == TO_ALL) | (targets == owner) | (targets == TO_SELF)
            yield box_bounds(grid, access.operand, rank), reach

    def _box(self, access: Access) -> BoxAttr:
        return self.grids[access.grid].boxes.data[access.operand]


def _by_event(relation: BoolArray, told: BoolArray) -> BoolArray:
    """``told``, of consumers that will share an event, as they wait for the same producers, only what all are told."""
    if np.array_equal(told, relation):
        return told
    _, event = np.unique(np.packbits(relation.T, axis=1), axis=0, return_inverse=True)
    event = event.reshape(-1)
    untold = np.zeros((int(event.max()) + 1, len(relation)), np.bool_)
    np.logical_or.at(untold, event, ~told.T)
    return ~untold[event].T


def is_polled(value: SSAValue) -> bool:
    """Whether ``value`` is a buffer whose words say themselves when they are written."""
    return isinstance(value.owner, BufferOp) and value.owner.polled is not None
