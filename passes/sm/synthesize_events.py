"""`sm-synthesize-events`: from boxes to events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from ...dialects.sm import EventOp, GraphOp, GridOp
from ...dialects.sm.ops import EventUse
from ..analysis.dependences import BoolArray, Dependence, Dependences
from ..analysis.elements import elements_attr, memberships, predecessor_sets
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
    the other edges imply task by task is dropped (``reduce``). Reads of polled buffers get events marked `polled`,
    beside them writes behind reads get events marked `after_reads`; reads of what other ranks write events marked
    `shared`. The end of the step of several ranks is shared too.

    Statistics: ``dependencies_all``, pairs of tasks of which one must run first, and of them ``dependencies``, those of
    the ``edges`` between grids that are kept; ``events``, elements of all event tensors.
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
        polled = any(edge.polled for edge in edges)
        for edge in edges:
            # without polled data all events order the same, so none is marked
            group_of_consumer, members = predecessor_sets(edge.relation)
            event = _event(grids, edge, members, after_reads=polled and not edge.polled and not edge.after_write)
            graph.body.block.insert_op_before(event, grids[0])
            wait = elements_attr(grids[edge.consumer], group_of_consumer[:, None])
            waits[edge.consumer].append(EventUse(event.event, wait))
            signal = elements_attr(grids[edge.producer], memberships(members))
            signals[edge.producer].append(EventUse(event.event, signal))
            self.count("events", event.size)
        self._step_event(graph, edges, signals)
        for grid, wait, signal in zip(grids, waits, signals, strict=True):
            grid.set_events(wait, signal)

    def _step_event(self, graph: GraphOp, edges: list[Dependence], signals: list[list[EventUse]]) -> None:
        """The end of the step: every grid that no other waits for signals it with all its tasks.

        A task with a successor of its own may still be the last of its grid to matter, so a grid counts as
        followed only if each of its tasks is.
        """
        grids = graph.grids
        followed = [np.zeros(grid.num_tasks, dtype=np.bool_) for grid in grids]
        for edge in edges:
            followed[edge.producer] |= edge.relation.any(axis=1)
        last = [number for number, done in enumerate(followed) if not done.all()]
        total = sum(int((~followed[number]).sum()) for number in last)
        event = EventOp("step", [total], step=True, shared=graph.rank_count > 1)
        graph.body.block.insert_op_before(event, grids[0])
        for number in last:
            element = np.where(followed[number], -1, 0)[:, None]
            signals[number].append(EventUse(event.event, elements_attr(grids[number], element)))


def _event(grids: list[GridOp], edge: Dependence, members: BoolArray, *, after_reads: bool) -> EventOp:
    """An event tensor with an element for each distinct set of producers of ``edge``, ``members`` [producers, sets]."""
    suffix = ".polled" if edge.polled else ".reads" if after_reads else ""
    suffix += ".shared" if edge.shared else ""
    name = f"{grids[edge.producer].sym_name.data}->{grids[edge.consumer].sym_name.data}{suffix}"
    return EventOp(name, members.sum(axis=0).tolist(), polled=edge.polled, after_reads=after_reads, shared=edge.shared)
