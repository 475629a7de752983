"""What runs before what, grid by grid: sound facts that compose, used to drop edges and to reuse memory."""

from __future__ import annotations

from collections.abc import Iterable

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


def reduce_edges(edges: list[Dependence], num_grids: int) -> tuple[list[Dependence], GridOrder]:
    """``edges`` without those that the rest implies, and the order that those through events give.

    Into each consumer the nearest producers come first: a far edge is usually implied by a near one. A polled edge
    makes sure that the polled words are there, and that the producer has read what it reads: it implies polled edges,
    and edges from a read to a write.
    """
    order, with_polled = GridOrder(num_grids), GridOrder(num_grids)
    kept: list[Dependence] = []
    by_consumer: dict[int, list[Dependence]] = {}
    for edge in edges:
        by_consumer.setdefault(edge.consumer, []).append(edge)
    for consumer in sorted(by_consumer):
        for edge in sorted(by_consumer[consumer], key=lambda e: -e.producer):
            if (with_polled if edge.polled or not edge.after_write else order).implies(edge):
                continue
            kept.append(edge)
            with_polled.add([edge], consumer)
            if not edge.polled:
                order.add([edge], consumer)
    return kept, order
