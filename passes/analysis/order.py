"""What runs before what: facts between grids, sound and cheap, and exact paths between tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

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
class _Order:
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


class _Orders:
    """Three orders, each part of the next: of memory, by events with a counter (``strong``); of the end of reading, to
    which polled data adds what it tells (``told``); of all events (``full``). Without polled data they are one."""

    def __init__(self, num_grids: int, *, polled: bool) -> None:
        self.full = _Order(GridOrder(num_grids), TaskPaths())
        self.strong, self.told = (
            (_Order(GridOrder(num_grids), TaskPaths()) for _ in range(2)) if polled else (self.full, self.full)
        )

    def implies(self, edge: Dependence) -> bool:
        """Whether the order that ``edge`` needs holds already."""
        if edge.polled:
            return self.full.implies(edge)
        return (self.strong if edge.after_write else self.told).implies(edge)

    def add(self, edge: Dependence, *, implied: bool) -> None:
        """Record ``edge`` wherever it counts. An order between a read and a write is none of memory: it may be kept
        by polled data (`sm-elide-waits`)."""
        if edge.polled:
            self.full.add(edge, implied=implied)
            if edge.told is not None and edge.told.any() and not implied:
                self.told.add(replace(edge, relation=edge.told), implied=False)
            return
        self.full.add(edge, implied=implied)
        if self.told is not self.full:
            self.told.add(edge, implied=implied)
            if edge.after_write:
                self.strong.add(edge, implied=implied)


def reduce_edges(edges: list[Dependence], num_grids: int) -> tuple[list[Dependence], GridOrder]:
    """``edges`` without those that the rest implies task by task, and the order of memory between grids.

    Into each consumer the nearest producers come first, so each edge meets all that could imply it. What holds between
    whole grids decides most edges; the rest is decided by paths between tasks.
    """
    orders = _Orders(num_grids, polled=any(edge.polled for edge in edges))
    kept: list[Dependence] = []
    by_consumer: dict[int, list[Dependence]] = {}
    for edge in edges:
        by_consumer.setdefault(edge.consumer, []).append(edge)
    for consumer in sorted(by_consumer):
        for edge in sorted(by_consumer[consumer], key=lambda e: (-e.producer, not e.polled)):
            implied = orders.implies(edge)
            orders.add(edge, implied=implied)
            if not implied:
                kept.append(edge)
    return kept, orders.strong.grids
