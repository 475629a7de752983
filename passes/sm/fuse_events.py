"""`sm-fuse-events`: fewer event tensors for the same order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from ...dialects.sm import EventOp, GraphOp
from ...dialects.sm.ops import EventUse, dense_i32
from ..base import MpkPass


@dataclass(frozen=True)
class FuseEvents(MpkPass):
    """Merge event tensors that say the same, as Mirage Persistent Kernel does task by task (arXiv 2512.22219, 4.2).

    *Predecessor sets*: two event tensors signalled by the same tasks in the same way become one. Before, a norm read
    by three linears:
    ```mlir
    sm.grid @norm ... signals (%q, %k, %v) [..., ..., ...]
    sm.grid @wq ... waits (%q) [...]      // and @wk on %k, @wv on %v
    ```
    After: `@norm` signals %q alone and all three wait on it.

    *Successor sets*: two event tensors waited on by the same tasks in the same way become one; its counts are the sums.

    ``predecessors``, ``successors``: which of the two to do. Statistics: ``events_before``, ``events``: elements of all
    event tensors; ``event_tensors``, those left; ``merged_predecessor_sets``, ``merged_successor_sets``: tensors that
    became part of another.
    """

    name = "sm-fuse-events"
    predecessors: bool = True
    successors: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            before = graph.events
            self.count("events_before", sum(event.size for event in before))
            if self.predecessors:
                self.count("merged_predecessor_sets", _merge(graph, signals=True))
            if self.successors:
                self.count("merged_successor_sets", _merge(graph, signals=False))
            after = graph.events
            self.count("event_tensors", len(after))
            self.count("events", sum(event.size for event in after))


def _merge(graph: GraphOp, *, signals: bool) -> int:
    """Merge event tensors with equal signals (else equal waits); the number of tensors that went."""
    users: dict[SSAValue, list[Hashable]] = defaultdict(list)
    for number, grid in enumerate(graph.grids):
        for use in grid.signal_uses if signals else grid.wait_uses:
            users[use.event].append((number, use.elements))
    groups: dict[Hashable, list[EventOp]] = defaultdict(list)
    for event in graph.events:
        if event.step is None and users[event.event]:
            marks = (*event.marks, event.shared is not None)
            groups[(event.size, marks, tuple(users[event.event]))].append(event)
    replaced: dict[SSAValue, EventOp] = {}
    for first, *rest in groups.values():
        for event in rest:
            replaced[event.event] = first
            if not signals:
                _add_counts(first, event)
    _replace(graph, replaced)
    return len(replaced)


def _add_counts(kept: EventOp, merged: EventOp) -> None:
    kept.counts = dense_i32(kept.arrivals + merged.arrivals, (kept.size,))


def _replace(graph: GraphOp, replaced: dict[SSAValue, EventOp]) -> None:
    """Use the kept events; where both were used alike, one use remains."""

    def update(uses: list[EventUse]) -> list[EventUse]:
        renamed = (EventUse(replaced[u.event].event if u.event in replaced else u.event, u.elements) for u in uses)
        return list(dict.fromkeys(renamed))

    for grid in graph.grids:
        grid.set_events(update(grid.wait_uses), update(grid.signal_uses))
    for event in list(graph.events):
        if event.event in replaced:
            event.detach()
            event.erase()
