"""`sm-verify`: is the plan free of deadlock and races?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from ...core.errors import VerificationError
from ...core.target import target_of
from ...dialects.sm import EventOp, GraphOp
from ...dialects.sm.expansion import IntArray, event_elements, placement, task_indices
from ..analysis.dependences import Dependence, Dependences, self_overlap
from ..base import MpkPass


@dataclass(frozen=True)
class Verify(MpkPass):
    """Check a plan, task by task; the IR is left as it is.

    1. Counting: every event element receives in a step exactly the arrivals that its count says.
    2. No deadlock: events together with the order of each SM's queue have no cycle.
    3. No race: of two tasks that touch the same element of a buffer, one a write, one happens before the other, by
       events and queue order; so every dependence of the boxes is enforced.

    Raises VerificationError that names the rule and the tasks. Before and after: the same IR.
    """

    name = "sm-verify"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            plan = _Plan(graph)
            plan.check_counts()
            order = plan.topological_order()
            plan.check_races(plan.happens_before(order))
            self.count("tasks", len(plan.sm))


class _Plan:
    """A graph's tasks by number, in program order."""

    def __init__(self, graph: GraphOp) -> None:
        self.graph, self.grids = graph, graph.grids
        self.first = np.cumsum([0, *(grid.num_tasks for grid in self.grids)])
        num_sms = target_of(graph.target.data).num_sms
        self.sm = np.concatenate([placement(grid, num_sms) for grid in self.grids])
        self.signalled: dict[SSAValue, list[IntArray]] = defaultdict(list)  # per event: [n, 2] (element, task)
        self.awaited: dict[SSAValue, list[IntArray]] = defaultdict(list)
        for number, grid in enumerate(self.grids):
            for uses, table in ((grid.signal_uses, self.signalled), (grid.wait_uses, self.awaited)):
                for use in uses:
                    table[use.event].append(self._pairs(number, event_elements(grid, use)))

    def _pairs(self, number: int, elements: IntArray) -> IntArray:
        rows, columns = np.nonzero(elements >= 0)
        return np.stack([elements[rows, columns], rows + self.first[number]], axis=1)

    def task_name(self, task: int) -> str:
        number = int(np.searchsorted(self.first, task, side="right")) - 1
        index = task_indices(self.grids[number])[task - int(self.first[number])].tolist()
        return f"@{self.grids[number].sym_name.data}{index} on SM {int(self.sm[task])}"

    def check_counts(self) -> None:
        for event in self.graph.events:
            expected = event.arrivals
            pairs = _joined(self.signalled[event.event])
            found = np.bincount(pairs[:, 0], minlength=event.size)
            if len(found) > event.size or (found != expected).any():
                element = (
                    int(np.flatnonzero(found[: event.size] != expected)[0])
                    if len(found) == event.size
                    else len(found) - 1
                )
                count = int(expected[element]) if element < event.size else 0
                raise VerificationError(
                    f"sm-verify, counting: event @{event.sym_name.data}[{element}] is said to receive {count} "
                    f"arrivals a step, its signals give {int(found[element])}"
                )
            awaited = _joined(self.awaited[event.event])
            if len(awaited) and int(awaited[:, 0].max()) >= event.size:
                raise VerificationError(
                    f"sm-verify, counting: {self.task_name(int(awaited[awaited[:, 0].argmax(), 1]))} waits on element "
                    f"{int(awaited[:, 0].max())} of event @{event.sym_name.data}, which has {event.size}"
                )

    def _event_edges(self, event: EventOp) -> dict[int, tuple[IntArray, IntArray]]:
        """Per element: the tasks that signal it, the tasks that wait on it."""
        signals, waits = _joined(self.signalled[event.event]), _joined(self.awaited[event.event])
        return {
            element: (signals[signals[:, 0] == element, 1], waits[waits[:, 0] == element, 1])
            for element in range(event.size)
        }

    def topological_order(self) -> IntArray:
        """Tasks in an order that all events and queues allow; VerificationError with the cycle if there is none."""
        queues = [np.flatnonzero(self.sm == sm) for sm in range(int(self.sm.max()) + 1)]
        missing: dict[int, int] = defaultdict(int)
        waiters: dict[tuple[SSAValue, int], tuple[int, IntArray]] = {}
        signals_of: dict[int, list[tuple[SSAValue, int]]] = defaultdict(list)
        for event in self.graph.events:
            for element, (signals, waits) in self._event_edges(event).items():
                waiters[event.event, element] = (len(signals), waits)
                for task in waits.tolist():
                    missing[task] += 1
                for task in signals.tolist():
                    signals_of[task].append((event.event, element))
        arrived: dict[tuple[SSAValue, int], int] = defaultdict(int)
        position, order = [0] * len(queues), []
        ready = list(range(len(queues)))
        while ready:
            sm = ready.pop()
            while position[sm] < len(queues[sm]) and missing[int(queues[sm][position[sm]])] == 0:
                task = int(queues[sm][position[sm]])
                position[sm] += 1
                order.append(task)
                for key in signals_of[task]:
                    arrived[key] += 1
                    if arrived[key] == waiters[key][0]:
                        for waiting in waiters[key][1].tolist():
                            missing[waiting] -= 1
                            ready.append(int(self.sm[waiting]))
        if len(order) < len(self.sm):
            self._raise_deadlock(queues, position)
        return np.array(order)

    def _raise_deadlock(self, queues: list[IntArray], position: list[int]) -> None:
        heads = [int(queue[p]) for queue, p in zip(queues, position, strict=True) if p < len(queue)]
        names = "; ".join(self.task_name(task) for task in heads[:4])
        raise VerificationError(
            f"sm-verify, deadlock: {len(heads)} SMs wait for ever, {names}{' ...' if len(heads) > 4 else ''}",
            advice="an SM runs its tasks in program order: a task waits for one behind another waiting task",
        )

    def happens_before(self, order: IntArray) -> IntArray:
        """[tasks, SMs]: how many tasks of each SM's queue are sure to be over when a task starts (a vector clock)."""
        num_sms = int(self.sm.max()) + 1
        slot = np.zeros(len(self.sm), np.int32)
        for sm in range(num_sms):
            mine = np.flatnonzero(self.sm == sm)
            slot[mine] = np.arange(len(mine))
        clock = np.zeros((len(self.sm), num_sms), np.int64)
        running = np.zeros((num_sms, num_sms), np.int64)
        elements: dict[int, list[tuple[SSAValue, int]]] = defaultdict(list)
        signals: dict[int, list[tuple[SSAValue, int]]] = defaultdict(list)
        for table, pairs_of in ((elements, self.awaited), (signals, self.signalled)):
            for event, parts in pairs_of.items():
                for element, task in _joined(parts).tolist():
                    table[task].append((event, element))
        event_clock: dict[tuple[SSAValue, int], IntArray] = {}
        for task in order.tolist():
            sm = int(self.sm[task])
            for key in elements[task]:
                np.maximum(running[sm], event_clock[key], out=running[sm])
            clock[task] = running[sm]
            running[sm, sm] = slot[task] + 1
            for key in signals[task]:
                if key in event_clock:
                    np.maximum(event_clock[key], running[sm], out=event_clock[key])
                else:
                    event_clock[key] = running[sm].copy()
        self.slot = slot
        return clock

    def check_races(self, clock: IntArray) -> None:
        dependences = Dependences(self.graph)
        for edge in dependences.edges:
            self._check_edge(edge, clock)
        for number, grid in enumerate(self.grids):
            for operand, box in enumerate(grid.boxes):
                if box.mode.writes and (pairs := self_overlap(grid, operand)).any():
                    a, b = np.argwhere(pairs)[0] + self.first[number]
                    self._raise_race(int(a), int(b), f"operand {grid.operand_names.data[operand].data}")

    def _check_edge(self, edge: Dependence, clock: IntArray) -> None:
        a, b = np.nonzero(edge.relation)
        a, b = a + self.first[edge.producer], b + self.first[edge.consumer]
        unordered = clock[b, self.sm[a]] <= self.slot[a]
        if unordered.any():
            worst = int(np.flatnonzero(unordered)[0])
            self._raise_race(int(a[worst]), int(b[worst]), "a buffer that one of them writes")

    def _raise_race(self, a: int, b: int, what: str) -> None:
        raise VerificationError(
            f"sm-verify, race: nothing orders {self.task_name(a)} and {self.task_name(b)}, which both touch {what}"
        )


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
