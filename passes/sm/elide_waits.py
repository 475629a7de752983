"""`sm-elide-waits`: what the schedule orders needs no event."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from ...dialects.sm import EventOp, GraphOp, GridOp
from ...dialects.sm.expansion import IntArray, event_elements
from ...dialects.sm.ops import EventUse
from ...proof import Plan
from ...proof.check import check_counts
from ...proof.order import Clock, Order
from ...proof.plan import BoolArray
from ..analysis.elements import elements_attr
from ..analysis.plan_arrays import plan_of
from ..base import MpkPass


@dataclass(frozen=True)
class ElideWaits(MpkPass):
    """Drop, task by task, every wait and every arrival that the others and the order of each SM's queue imply.

    Before: @a and @b run one task each on SM 0; 264 tasks of @c on 132 SMs signal %f, for which @d waits:
    ```mlir
    sm.grid @a ... signals (%e) [...] placement #sm.cyclic<0>
    sm.grid @b ... waits (%e) [...] placement #sm.cyclic<0>
    %f = sm.event @c->d dense<264> ...
    ```
    After: %e is gone, and the last task of @c on each SM signals for those before it: `%f = sm.event @c->d dense<132>`.

    Polled events, which cost nothing, stay, and imply nothing: they order no memory but what is polled. Only an event
    that is `after_reads` goes where polled data tells that the reading is done.

    *Waits*: a task need not wait for an event all of whose producers are over when its queue comes to it, or when its
    other waits are. *Arrivals*: of the producers of an event, one that runs before another needs no arrival of its own:
    a release covers all that its SM has seen. What happens before what is the same afterwards (the transitive reduction
    of the tasks' order), and no wait that is left is implied by the rest.

    ``waits``, ``arrivals``: which of the two to drop. Statistics: ``waits_before``, ``waits``, ``arrivals_before``,
    ``arrivals``, ``events_before``, ``events``.
    """

    name = "sm-elide-waits"
    waits: bool = True
    arrivals: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            self._elide(graph)

    def _elide(self, graph: GraphOp) -> None:
        plan = plan_of(graph)
        check_counts(plan)
        order, kinds = Order.of(plan), _Kinds.of(graph)
        memory = kinds.memory(order)
        waits, signals = plan.waits[:, :2], plan.signals
        if self.waits:
            reads = needed_waits(order.told, kinds.after_reads) if kinds.after_reads.any() else waits[:0]
            waits = np.concatenate([needed_waits(memory, kinds.data), reads, kinds.polled_of(waits)])
        awaited = np.union1d(waits[:, 1], np.array(plan.step_events, np.int64))
        signals = signals[np.isin(signals[:, 1], awaited)]
        if self.arrivals:
            signals = np.concatenate(
                [
                    needed_signals(memory, awaited[kinds.data[awaited]]),
                    needed_signals(order.told, awaited[kinds.after_reads[awaited]]),
                    kinds.polled_of(signals),
                ]
            )
        self.count("waits_before", len(plan.waits))
        self.count("waits", len(waits))
        self.count("arrivals_before", len(plan.signals))
        self.count("arrivals", len(signals))
        self.count("events_before", len(plan.event_count))
        self.count("events", len(awaited))
        _rewrite(graph, plan, waits, signals)


@dataclass(frozen=True)
class _Kinds:
    """[events] each: what an event is for. ``data``: it orders memory."""

    data: BoolArray
    polled: BoolArray
    after_reads: BoolArray

    @staticmethod
    def of(graph: GraphOp) -> _Kinds:
        marks = np.array([event.marks for event in graph.events for _ in range(event.size)], np.bool_).reshape(-1, 3)
        _, polled, after_reads = marks.T
        return _Kinds(~polled & ~after_reads, polled, after_reads)

    def polled_of(self, uses: IntArray) -> IntArray:
        return uses[self.polled[uses[:, 1]]]

    def memory(self, order: Order) -> Order:
        """The order that data may rely on: events behind reads may go where polled data says that they are done."""
        return order.only(self.data) if self.after_reads.any() else order.strong


def needed_waits(order: Order, asked: BoolArray) -> IntArray:
    """[waits, 2] of (task, event) of the events ``asked`` about ([events]): those that neither the queue nor other
    waits of the task imply.

    Of several waits of a task, those for what ends early are dropped first.
    """
    pairs = np.unique(order.plan.waits[:, :2], axis=0)
    pairs = pairs[(order.event_clock[pairs[:, 1]] > order.start[pairs[:, 0]]).any(axis=1)]
    asked = np.concatenate([asked, np.zeros(len(order.event_clock) - len(asked), np.bool_)])[pairs[:, 1]]
    needed = np.ones(len(pairs), np.bool_)
    begin, end = (np.searchsorted(pairs[:, 0], pairs[:, 0], side=side) for side in ("left", "right"))
    for first in np.flatnonzero((end > begin + 1) & (begin == np.arange(len(pairs)))).tolist():
        mine = slice(first, int(end[first]))
        if asked[mine].any():
            needed[mine] = _irreducible(order.start[pairs[first, 0]], order.event_clock[pairs[mine, 1]], asked[mine])
    return pairs[needed & asked]


def _irreducible(known: Clock, passed: Clock, asked: BoolArray) -> BoolArray:
    """[waits]: which of a task's events, with clocks ``passed`` [waits, queues], are not implied by what is ``known``
    and by the others; those not ``asked`` about stay."""
    kept = np.ones(len(passed), np.bool_)
    for number in np.argsort(passed.sum(axis=1), kind="stable").tolist():
        if asked[number]:
            kept[number] = False
            others = np.maximum(known, passed[kept].max(axis=0, initial=0))
            kept[number] = bool((passed[number] > others).any())
    return kept


def needed_signals(order: Order, awaited: IntArray) -> IntArray:
    """[signals, 2] of (task, event): of each awaited event the producers that no other producer of it runs after."""
    plan, kept = order.plan, [np.zeros((0, 2), np.int64)]
    for event in awaited.tolist():
        tasks = np.unique(np.array(plan.signallers_of[event], np.int64))
        last = np.full(plan.num_queues, -1)
        np.maximum.at(last, plan.queue[tasks], plan.position[tasks])
        tasks = tasks[plan.position[tasks] == last[plan.queue[tasks]]]
        over = order.clock[tasks][:, plan.queue[tasks]] > plan.position[tasks]  # [later, earlier]
        tasks = tasks[~over.any(axis=0)]
        kept.append(np.stack([tasks, np.full(len(tasks), event)], axis=1))
    return np.concatenate(kept)


def _rewrite(graph: GraphOp, plan: Plan, waits: IntArray, signals: IntArray) -> None:
    """Leave only ``waits`` and ``signals``; elements and events without arrivals go."""
    arrivals = np.bincount(signals[:, 1], minlength=len(plan.event_count))
    renewed, first = dict[SSAValue, _Renewed](), 0
    for event in graph.events:
        renewed[event.event] = _Renewed.of(event, first, arrivals[first : first + event.size])
        first += event.size
    roles = [np.sort(role[:, 0] * first + role[:, 1]) for role in (waits, signals)]
    for place, grid in zip(plan.grids, graph.grids, strict=True):
        tasks = (place.first + np.arange(grid.num_tasks)[:, None]) * first
        kept = [
            [renewed[use.event].use(grid, use, tasks, role) for use in uses]
            for role, uses in zip(roles, (grid.wait_uses, grid.signal_uses), strict=True)
        ]
        grid.set_events(*([use for use in uses if use is not None] for uses in kept))
    for event in [event for event in graph.events if event.event in renewed]:
        event.detach()
        event.erase()


@dataclass(frozen=True)
class _Renewed:
    """What becomes of an event tensor: another one, or None, and the new number of each element, -1 if it goes."""

    event: EventOp | None
    first: int
    number: IntArray

    @staticmethod
    def of(event: EventOp, first: int, arrivals: IntArray) -> _Renewed:
        used = arrivals > 0
        number = np.where(used, np.cumsum(used) - 1, -1)
        if not used.any():
            return _Renewed(None, first, number)
        made = EventOp(
            event.sym_name.data,
            arrivals[used].tolist(),
            step=event.step is not None,
            polled=event.polled is not None,
            after_reads=event.after_reads is not None,
            shared=event.shared is not None,
        )
        made.location = event.location
        block = event.parent
        assert block is not None
        block.insert_op_before(made, event)
        return _Renewed(made, first, number)

    def use(self, grid: GridOp, use: EventUse, tasks: IntArray, kept: IntArray) -> EventUse | None:
        """``use`` where ``kept``, sorted, holds a task of ``tasks`` [tasks, 1] plus its event; None if nowhere."""
        elements = event_elements(grid, use)
        wanted = tasks + self.first + elements
        place = np.minimum(np.searchsorted(kept, wanted), len(kept) - 1)
        keep = (elements >= 0) & (kept[place] == wanted) if len(kept) else np.zeros(elements.shape, np.bool_)
        if self.event is None or not keep.any():
            return None
        found = np.where(keep, self.number[np.maximum(elements, 0)], -1)
        if np.array_equal(found, elements):
            return EventUse(self.event.event, use.elements)
        order = np.argsort(found < 0, axis=1, kind="stable")
        packed = np.take_along_axis(found, order, axis=1)[:, : int((found >= 0).sum(axis=1).max())]
        return EventUse(self.event.event, elements_attr(grid, packed))
