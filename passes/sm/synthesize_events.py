"""`sm-synthesize-events`: from boxes to events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, DenseIntOrFPElementsAttr, ModuleOp
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...dialects.sm import EventOp, GraphOp, GridOp
from ...dialects.sm.expansion import IntArray, evaluate, task_indices
from ...dialects.sm.ops import EventUse, dense_i32
from ..analysis.dependences import BoolArray, Dependence, Dependences
from ..analysis.order import reduce_edges
from ..base import MpkPass


@dataclass(frozen=True)
class SynthesizeEvents(MpkPass):
    """Give each pair of grids whose boxes overlap an event tensor: one element per distinct set of producer tasks.

    Before: grid @a writes columns 16 i .. 16 i + 15 of %y, grid @b reads columns 32 j .. 32 j + 31 of it.
    After:
    ```mlir
    %e = sm.event @a.b dense<2> : !sm.event<2>
    sm.grid @a ... signals (%e) [affine_map<(d0) -> (d0 floordiv 2)>] ...
    sm.grid @b ... waits (%e) [affine_map<(d0) -> (d0)>] ...
    ```
    Every dependence counts: read after write, write after read, write after write, through views too. An edge that
    the other edges imply task by task is dropped (``reduce``). Reads of polled buffers get events marked `polled`.
    """

    name = "sm-synthesize-events"
    reduce: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            self._synthesize(graph)

    def _synthesize(self, graph: GraphOp) -> None:
        dependences = Dependences(graph)
        grids, edges = dependences.grids, dependences.edges
        self.count("dependencies_all", sum(edge.pairs for edge in edges))
        if self.reduce:
            edges, _ = reduce_edges(edges, len(grids))
        self.count("edges", len(edges))
        self.count("dependencies", sum(edge.pairs for edge in edges))
        waits: list[list[EventUse]] = [[] for _ in grids]
        signals: list[list[EventUse]] = [[] for _ in grids]
        for event in graph.events:
            for grid in grids:
                grid.set_events([], [])
            event.detach()
            event.erase()
        for edge in edges:
            event = self._event(graph, grids, edge, waits, signals)
            self.count("events", event.size)
        for grid, wait, signal in zip(grids, waits, signals, strict=True):
            grid.set_events(wait, signal)

    def _event(
        self,
        graph: GraphOp,
        grids: list[GridOp],
        edge: Dependence,
        waits: list[list[EventUse]],
        signals: list[list[EventUse]],
    ) -> EventOp:
        producer, consumer = grids[edge.producer], grids[edge.consumer]
        group_of_consumer, members = predecessor_sets(edge.relation)
        name = f"{producer.sym_name.data}->{consumer.sym_name.data}{'.polled' if edge.polled else ''}"
        event = EventOp(name, members.sum(axis=0).tolist(), polled=edge.polled)
        graph.body.block.insert_op_before(event, grids[0])
        waits[edge.consumer].append(EventUse(event.event, elements_attr(consumer, group_of_consumer[:, None])))
        signals[edge.producer].append(EventUse(event.event, elements_attr(producer, memberships(members))))
        return event


def predecessor_sets(relation: BoolArray) -> tuple[IntArray, BoolArray]:
    """The distinct sets of producers: ([consumers] the set each waits for, -1 if none; [producers, sets] members)."""
    packed = np.packbits(relation.T, axis=1)
    _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # number the sets by their first consumer
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group, members = rank[inverse.reshape(-1)], relation[:, first[order]]
    used = members.any(axis=0)
    renumber = np.where(used, np.cumsum(used) - 1, -1)
    return renumber[group].astype(np.int64), members[:, used]


def memberships(members: BoolArray) -> IntArray:
    """[producers, k]: the sets each producer belongs to, padded with -1."""
    width = max(1, int(members.sum(axis=1).max()))
    table = np.full((len(members), width), -1, dtype=np.int64)
    rows, columns = np.nonzero(members)
    position = np.concatenate([np.arange(n) for n in np.bincount(rows, minlength=len(members))])
    table[rows, position.astype(np.int64)] = columns
    return table


def elements_attr(grid: GridOp, elements: IntArray) -> AffineMapAttr | DenseIntOrFPElementsAttr:
    """``elements`` [tasks, k] as an affine map where one fits, else as a table."""
    if elements.shape[1] == 1 and (elements >= 0).all():
        fitted = fit_affine(grid, elements[:, 0])
        if fitted is not None:
            return AffineMapAttr(fitted)
    return dense_i32(elements, elements.shape)


def fit_affine(grid: GridOp, elements: IntArray) -> AffineMap | None:
    """A map with one result that gives ``elements``: a sum of index times or floor-divided by a constant."""
    indices, dims = task_indices(grid), len(grid.shape)
    expression: AffineExpr = AffineConstantExpr(int(elements[0]))
    origin = elements.reshape(grid.shape)
    for dim in range(dims):
        line = origin[tuple(slice(None) if d == dim else 0 for d in range(dims))] - int(elements[0])
        if not line.any():
            continue
        first = int(np.flatnonzero(line)[0])
        if int(line[first]) < 0:
            return None
        step = AffineDimExpr(dim) if first == 1 else AffineDimExpr(dim) // first
        slope = step * int(line[first]) if line[first] != 1 else step
        expression = (
            slope if isinstance(expression, AffineConstantExpr) and not expression.value else expression + slope
        )
    candidate = AffineMap(dims, 0, (expression,))
    return candidate if (evaluate(candidate, indices)[:, 0] == elements).all() else None
