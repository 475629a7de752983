"""`sm-verify`: is the plan free of deadlock and races?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, SSAValue

from ...core.errors import VerificationError
from ...core.target import target_of
from ...dialects.sm import EventOp, GraphOp
from ...dialects.sm.expansion import IntArray, box_bounds, buffer_shape, event_elements, placement, task_indices
from ..analysis.dependences import Dependence, Dependences, conflicts_inside
from ..analysis.memory import size_bytes, uncovered_reads
from ..base import MpkPass


@dataclass(frozen=True)
class Verify(MpkPass):
    """Check a plan, task by task; the IR is left as it is.

    0. Bounds: every box begins inside its buffer.
    1. Counting: every event element receives in a step exactly the arrivals that its count says.
    2. No deadlock: events together with the order of each SM's queue have no cycle.
    3. No race: of two tasks that touch the same element of a buffer, one a write, one happens before the other, by
       events and queue order; so every dependence of the boxes is enforced. Polled events count for reads of polled
       buffers, and where the first task reads and the second writes: a task publishes after its reads.
    4. Coverage: what a task reads of a scratch or output buffer, grids before it write.
    5. Memory: scratch buffers lie inside the arena, and of two that share bytes all tasks of one run before all tasks
       of the other.

    Raises VerificationError that names the rule and the tasks. Before and after: the same IR.
    """

    name = "sm-verify"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            plan = _Plan(graph)
            plan.check_bounds()
            plan.check_counts()
            order = plan.topological_order()
            clock = plan.happens_before(order, polled=False)
            plan.check_races(clock, plan.happens_before(order, polled=True))
            plan.check_coverage()
            plan.check_memory(clock)
            self.count("tasks", len(plan.sm))


class _Plan:
    """A graph's tasks by number, in program order."""

    def __init__(self, graph: GraphOp) -> None:
        self.graph, self.grids = graph, graph.grids
        self.first = np.cumsum([0, *(grid.num_tasks for grid in self.grids)])
        num_sms = target_of(graph.target.data).num_sms
        self.sm = np.concatenate([placement(grid, num_sms) for grid in self.grids])
        self.slot = _slots(self.sm)
        self.signalled: dict[SSAValue, list[IntArray]] = defaultdict(list)  # per event: [n, 2] (element, task)
        self.awaited: dict[SSAValue, list[IntArray]] = defaultdict(list)
        self.users: dict[SSAValue, list[int]] = defaultdict(list)  # per buffer: grid numbers
        for number, grid in enumerate(self.grids):
            for value in dict.fromkeys(grid.data):
                self.users[value].append(number)
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

    def check_bounds(self) -> None:
        seen: set[tuple[Attribute, ...]] = set()
        for number, grid in enumerate(self.grids):
            for operand, (value, box) in enumerate(zip(grid.data, grid.boxes.data, strict=True)):
                key = (grid.extent, box, value.type)
                if key in seen:  # layers repeat
                    continue
                seen.add(key)
                low, high = box_bounds(grid, operand)
                outside = ((low < 0) | (high <= low)).any(axis=1)
                if outside.any():
                    task = int(outside.argmax())
                    raise VerificationError(
                        f"sm-verify, bounds: {self.task_name(int(self.first[number]) + task)} touches by operand "
                        f"{grid.operand_names.data[operand].data} a box at {low[task].tolist()}, which is outside a "
                        f"buffer of shape {list(buffer_shape(value))}"
                    )

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

    def happens_before(self, order: IntArray, *, polled: bool) -> IntArray:
        """[tasks, SMs]: how many tasks of each SM's queue are sure to be over when a task starts (a vector clock); with
        or without what polled events tell."""
        num_sms = int(self.sm.max()) + 1
        clock = np.zeros((len(self.sm), num_sms), np.int64)
        running = np.zeros((num_sms, num_sms), np.int64)
        elements: dict[int, list[tuple[SSAValue, int]]] = defaultdict(list)
        signals: dict[int, list[tuple[SSAValue, int]]] = defaultdict(list)
        for table, pairs_of in ((elements, self.awaited), (signals, self.signalled)):
            for event, parts in pairs_of.items():
                if not polled and _is_polled_event(event):
                    continue
                for element, task in _joined(parts).tolist():
                    table[task].append((event, element))
        event_clock: dict[tuple[SSAValue, int], IntArray] = {}
        for task in order.tolist():
            sm = int(self.sm[task])
            for key in elements[task]:
                np.maximum(running[sm], event_clock[key], out=running[sm])
            clock[task] = running[sm]
            running[sm, sm] = self.slot[task] + 1
            for key in signals[task]:
                if key in event_clock:
                    np.maximum(event_clock[key], running[sm], out=event_clock[key])
                else:
                    event_clock[key] = running[sm].copy()
        return clock

    def check_races(self, clock: IntArray, with_polled: IntArray) -> None:
        edges = Dependences(self.graph).edges
        # the first consumer and its nearest producer: most likely what is broken, the rest follows from it
        for edge in sorted(edges, key=lambda e: (e.consumer, -e.producer)):
            self._check_edge(edge, with_polled if edge.polled or not edge.after_write else clock)
        for number, grid in enumerate(self.grids):
            for one, other, pairs in conflicts_inside(grid):
                a, b = np.argwhere(pairs)[0] + self.first[number]
                names = dict.fromkeys(grid.operand_names.data[operand].data for operand in (one, other))
                self._raise_race(int(a), int(b), f"operand {' and '.join(names)}")

    def _check_edge(self, edge: Dependence, clock: IntArray) -> None:
        a, b = np.nonzero(edge.relation)
        a, b = a + self.first[edge.producer], b + self.first[edge.consumer]
        unordered = clock[b, self.sm[a]] <= self.slot[a]
        if unordered.any():
            worst = int(np.flatnonzero(unordered)[0])
            self._raise_race(int(a[worst]), int(b[worst]), "a buffer that one of them writes")

    def check_coverage(self) -> None:
        for read in uncovered_reads(self.graph):
            grid = self.grids[read.grid]
            raise VerificationError(
                f"sm-verify, coverage: {self.task_name(int(self.first[read.grid]) + read.task)} reads by operand "
                f"{grid.operand_names.data[read.operand].data} elements of buffer @{read.buffer.sym_name.data} that no "
                "grid before it writes"
            )

    def check_memory(self, clock: IntArray) -> None:
        copy = self.graph.polled_bytes.value.data if self.graph.polled_bytes is not None else 0
        placed = [
            (buffer, buffer.offset.value.data + second * copy)
            for buffer in self.graph.buffers
            if buffer.offset is not None
            for second in range(2 if buffer.polled is not None else 1)
        ]
        begin = np.array([offset for _, offset in placed], np.int64)
        end = begin + np.array([size_bytes(buffer) for buffer, _ in placed], np.int64)
        arena = self.graph.arena_bytes.value.data if self.graph.arena_bytes is not None else 0
        if outside := np.flatnonzero((begin < 0) | (end > arena)).tolist():
            raise VerificationError(
                f"sm-verify, memory: buffer @{placed[outside[0]][0].sym_name.data} is at bytes {begin[outside[0]]} to "
                f"{end[outside[0]]} of an arena of {arena}"
            )
        spans = [self._span(buffer.buffer, clock) for buffer, _ in placed]
        for a, b in np.argwhere(np.triu((begin[:, None] < end) & (begin < end[:, None]), 1)).tolist():
            (a_ready, a_over), (b_ready, b_over) = spans[a], spans[b]
            polled = any(placed[one][0].polled is not None for one in (a, b))  # in use from step to step
            if polled or not ((b_ready >= a_over).all() or (a_ready >= b_over).all()):
                names = " and ".join(f"@{placed[one][0].sym_name.data}" for one in (a, b))
                raise VerificationError(f"sm-verify, memory: buffers {names} share bytes while both are in use")

    def _span(self, buffer: SSAValue, clock: IntArray) -> tuple[IntArray, IntArray]:
        """([SMs], [SMs]): how far each queue is for sure when the first task that touches ``buffer`` starts, and how
        far it must be for the last one to be over."""
        tasks = np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(*self.first[n : n + 2]) for n in self.users[buffer])]
        )
        over = np.zeros(clock.shape[1], np.int64)
        np.maximum.at(over, self.sm[tasks], self.slot[tasks] + 1)
        return clock[tasks].min(axis=0, initial=len(self.sm)), over

    def _raise_race(self, a: int, b: int, what: str) -> None:
        raise VerificationError(
            f"sm-verify, race: nothing orders {self.task_name(a)} and {self.task_name(b)}, which both touch {what}"
        )


def _is_polled_event(value: SSAValue) -> bool:
    return isinstance(value.owner, EventOp) and value.owner.polled is not None


def _slots(sm: IntArray) -> IntArray:
    """[tasks]: the place of each task in the queue of its SM."""
    slots = np.zeros(len(sm), np.int64)
    for one in np.unique(sm):
        mine = np.flatnonzero(sm == one)
        slots[mine] = np.arange(len(mine))
    return slots


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
