"""What runs before what: facts between grids, sound and cheap, and exact paths between tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .dependences import BoolArray, Dependence


class GridOrder:
    """Three relations between grids A and B, closed under composition.

    ``all_before``: every task of A runs before every task of B. ``each_after``: every task of B runs after some task
    of A. ``each_before``: every task of A runs before some task of B.

    all(A, B) follows from all(A, C) and each_after(C, B), or from each_before(A, C) and all(C, B).
    """

    def __init__(self, num_grids: int) -> None:
        shape = (num_grids, num_grids)
        self.all_before: BoolArray = np.zeros(shape, dtype=np.bool_)
        self.each_after: BoolArray = np.zeros(shape, dtype=np.bool_)
        self.each_before: BoolArray = np.zeros(shape, dtype=np.bool_)

    def implies(self, edge: Dependence) -> bool:
        """Whether the edges added so far already order all its pairs."""
        return bool(self.all_before[edge.producer, edge.consumer])

    def add(self, edges: Iterable[Dependence], consumer: int) -> None:
        """Add the edges into ``consumer``; consumers must come in program order."""
        for edge in edges:
            relation, a = edge.relation, edge.producer
            full, after, before = relation.all(), relation.any(axis=0).all(), relation.any(axis=1).all()
            if after:
                self.each_after[:, consumer] |= self.each_after[:, a]
                self.each_after[a, consumer] = True
                self.all_before[:, consumer] |= self.all_before[:, a]
            if full:
                self.all_before[a, consumer] = True
                self.all_before[:, consumer] |= self.each_before[:, a]
            if before:
                self.each_before[:, consumer] |= self.each_before[:, a]
                self.each_before[a, consumer] = True


class TaskPaths:
    """Which tasks of one grid have a path of edges to which of another, exactly."""

    def __init__(self) -> None:
        self._into: dict[int, list[Dependence]] = defaultdict(list)

    def add(self, edge: Dependence) -> None:
        self._into[edge.consumer].append(edge)

    def imply(self, edge: Dependence) -> bool:
        """Whether for each of its pairs there is a path of the edges added so far."""
        between = {p.producer for p in self._into[edge.consumer] if p.producer > edge.producer}
        if not between:
            return False
        reached: dict[int, BoolArray] = {}
        for grid in range(edge.producer + 1, edge.consumer + 1):
            parts = [
                step.relation if step.producer == edge.producer else _composed(reached[step.producer], step.relation)
                for step in self._into[grid]
                if step.producer == edge.producer or step.producer in reached
            ]
            if parts:
                reached[grid] = np.logical_or.reduce(parts)
        path = reached.get(edge.consumer)
        return path is not None and bool((path | ~edge.relation).all())


def _composed(first: BoolArray, second: BoolArray) -> BoolArray:
    """[n, k] of [n, m] and [m, k]: true where some middle task links the two."""
    return (first.astype(np.float32) @ second.astype(np.float32)) > 0


@dataclass(frozen=True)
class _Orders:
    """What edges give so far: between whole grids, and task by task."""

    grids: GridOrder
    paths: TaskPaths

    def implies(self, edge: Dependence) -> bool:
        """Whether all pairs of ``edge`` are ordered."""
        return self.grids.implies(edge) or self.paths.imply(edge)

    def add(self, edge: Dependence, *, implied: bool) -> None:
        """Edges must come by consumer, in program order; what is ``implied`` by paths adds none."""
        if not self.grids.implies(edge):
            self.grids.add([edge], edge.consumer)
            if not implied:
                self.paths.add(edge)


def reduce_edges(edges: list[Dependence], num_grids: int) -> tuple[list[Dependence], GridOrder]:
    """``edges`` without those that the rest implies task by task, and the order that events with a counter give.

    Into each consumer the nearest producers come first, so each edge meets all that could imply it. What holds between
    whole grids decides most edges; the rest is decided by paths between tasks. A polled edge makes sure that the polled
    words are there, and that the producer has read what it reads: it implies polled edges, and edges from a read to a
    write.
    """
    strong, full = (_Orders(GridOrder(num_grids), TaskPaths()) for _ in range(2))
    kept: list[Dependence] = []
    by_consumer: dict[int, list[Dependence]] = {}
    for edge in edges:
        by_consumer.setdefault(edge.consumer, []).append(edge)
    for consumer in sorted(by_consumer):
        for edge in sorted(by_consumer[consumer], key=lambda e: -e.producer):
            by_data = edge.polled or not edge.after_write
            implied = (full if by_data else strong).implies(edge)
            full.add(edge, implied=implied)
            if not edge.polled and not (implied and by_data):
                strong.add(edge, implied=implied)
            if not implied:
                kept.append(edge)
    return kept, strong.grids
