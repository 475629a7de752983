"""What makes a plan unsafe, told task by task and element by element in plain loops: the judge of the checker.

Reads a graph or the tables of a program by its own means and shares no code with `mpk_ir.proof`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr
from xdsl.ir import SSAValue

from mpk_ir.codegen.program import Program
from mpk_ir.core.memory import Layout, Space
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BufferType, CyclicAttr, GraphOp, GridOp
from mpk_ir.dialects.sm.attributes import ints
from mpk_ir.dialects.sm.ops import EventUse
from mpk_ir.tasks import task_kind
from mpk_ir.tasks.base import Access, Operand

from .ring import Load, Split, filled

Key = tuple[SSAValue | None, int]
"""An event element; of tables by number alone."""


@dataclass(frozen=True)
class Touch:
    """One task's use of one operand."""

    task: int
    grid: int
    operand: int
    index: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    along: tuple[int, ...]
    access: Access
    promised: Operand
    layout: Layout

    @property
    def reads(self) -> bool:
        return self.access.reads

    @property
    def writes(self) -> bool:
        return self.access.writes

    def tells(self, reader: Touch) -> bool:
        """Whether a reader of all that is written here knows that the writer reads nothing any more."""
        promised = self.promised.tells and reader.promised.tells and self.writes and not reader.writes
        fixed = all(dim < 0 for dim in (*self.along, *reader.along))
        inside = all(c <= a and b <= d for a, b, c, d in zip(self.low, self.high, reader.low, reader.high, strict=True))
        return promised and fixed and inside and self.low[0] == 0  # only the first row is sure to be active

    def meets(self, other: Touch) -> bool:
        bounds = zip(self.low, self.high, other.low, other.high, strict=True)
        return all(a < d and c < b for a, b, c, d in bounds)

    def apart_from(self, other: Touch) -> bool:
        """Whether two tasks of a grid touch parts that are disjoint at run time."""
        pairs = zip(self.along, other.along, strict=True)
        return any(a == b and a >= 0 and self.index[a] != other.index[b] for a, b in pairs)


@dataclass(frozen=True)
class NaiveBuffer:
    """``begin`` and ``end``: bytes of the arena, None outside it."""

    space: Space
    shape: tuple[int, ...]
    begin: int | None
    end: int | None
    polled: bool = False
    width: int = 4
    """Bytes of an element."""
    layout: Layout = Layout.ROW_MAJOR
    padded: bool = False

    @cached_property
    def places(self) -> np.ndarray | None:
        """Where each element lies, in elements; None if the layout cannot hold the buffer."""
        panel = {Layout.ROW_PANELS_2: 2, Layout.ROW_PANELS_4: 4, Layout.ROW_PANELS_8: 8}.get(self.layout, 1)
        if panel == 1:
            return np.arange(prod(self.shape)).reshape(self.shape)
        if len(self.shape) != 2 or self.width != 2 or self.padded or self.space is not Space.SCRATCH:
            return None
        rows, columns = self.shape
        if rows % panel or columns % 8:
            return None
        lying = np.arange(rows * columns).reshape(rows // panel, columns // 8, panel, 8)
        return lying.transpose(0, 2, 1, 3).reshape(rows, columns)


class NaivePlan:
    """The tasks of a plan, numbered in program order, with what each touches, awaits and signals."""

    def __init__(self, graph: GraphOp | None = None) -> None:
        self.sm: list[int] = []
        self.queues: dict[int, list[int]] = defaultdict(list)
        self.touches: dict[Hashable, list[Touch]] = defaultdict(list)
        self.buffers: dict[Hashable, NaiveBuffer] = {}
        self.waits: list[list[Key]] = []
        self.targets: list[list[int]] = []
        self.signals: list[list[Key]] = []
        self.said: dict[Key, int] = {}
        self.steps: list[Key] = []
        self.polled: set[Key] = set()
        self.arena = 0
        self.polled_bytes = 0
        self.takers: dict[int, int] = {}
        """By grid: among how many tasks its body deals the work."""
        self.ahead: dict[int, int] = {}
        """By grid: the stages that are said to be filled while a task of it waits."""
        self.torn = False
        """Whether a box reaches beyond its buffer that is not the last of its blocks."""
        self.split = Split.of_graph(graph) if graph is not None else None
        if graph is not None:
            self._read_graph(graph)

    def _read_graph(self, graph: GraphOp) -> None:
        self.arena = graph.arena_bytes.value.data if graph.arena_bytes else 0
        self.polled_bytes = graph.polled_bytes.value.data if graph.polled_bytes else 0
        for event in graph.events:
            self.polled |= {(event.event, i) for i in range(event.size) if event.polled}
            self.said |= {(event.event, i): int(n) for i, n in enumerate(event.arrivals)}
            self.steps += [(event.event, 0)] if event.step else []
        for buffer in graph.buffers:
            assert isinstance(buffer.buffer.type, BufferType)
            width = 2 if str(buffer.buffer.type.element_type) in ("bf16", "f16") else 4
            begin = buffer.offset.value.data if buffer.offset is not None else None
            end = None if begin is None else begin + width * prod(buffer.padded_shape)
            padded = buffer.padded_shape != buffer.shape
            self.buffers[buffer.buffer] = NaiveBuffer(
                buffer.space.data,
                buffer.shape,
                begin,
                end,
                buffer.polled is not None,
                width,
                buffer.layout.data,
                padded,
            )
        for number, grid in enumerate(graph.grids):
            self._note_takers(number, grid.task_kind.takers(grid.task_params))
            self.ahead[number] = grid.stream.ahead.data if grid.stream is not None else 0
            for flat, index in enumerate(product(*map(range, grid.shape))):
                self._add_task(graph, number, grid, flat, index)

    def _note_takers(self, grid: int, takers: int) -> None:
        if takers:
            self.takers[grid] = takers

    def _add_task(self, graph: GraphOp, number: int, grid: GridOp, flat: int, index: tuple[int, ...]) -> None:
        task = len(self.sm)
        rule, num_sms = grid.placement, target_of(graph.target.data).num_sms
        if rule is None or isinstance(rule, CyclicAttr):
            self.sm.append(((rule.first.data if rule else 0) + flat) % num_sms)
        else:
            self.sm.append(int(tuple(rule.iter_values())[flat]))  # pyright: ignore[reportArgumentType]
        self.queues[self.sm[-1]].append(task)
        self.waits.append(list(_keys(grid.wait_uses, flat, index)))
        self.targets.append([self.said.get(key, -1) for key in self.waits[-1]])
        self.signals.append(list(_keys(grid.signal_uses, flat, index)))
        for operand, (value, box) in enumerate(zip(grid.data, grid.boxes, strict=True)):
            assert isinstance(value.type, BufferType)
            shape, start = ints(value.type.shape), box.offset.data.eval(list(index), [])
            sides = list(zip(start, ints(box.sizes), shape, strict=True))
            self.torn |= any(s + w > n and s not in range(0, n, w) for s, w, n in sides)
            low = tuple(min(s, n) for s, _, n in sides)
            high = tuple(min(s + w, n) for s, w, n in sides)
            promised = grid.task_kind.operand(grid.operand_names.data[operand].data)
            layout = grid.task_kind.layout(grid.task_params, promised)
            touch = Touch(task, number, operand, index, low, high, ints(box.along), box.mode, promised, layout)
            self.touches[value].append(touch)

    @staticmethod
    def of_tables(program: Program) -> NaivePlan:
        """What the kernel would read."""
        plan = NaivePlan()
        plan.arena = program.arena_bytes
        plan.split = Split.of_tables(program)
        plan.said = {(None, event): int(count) for event, count in enumerate(program.event_count)}
        plan.steps = [(None, program.step_event)]
        plan.polled = {(None, event) for event in np.flatnonzero(program.event_polled).tolist()}
        plan.polled_bytes = program.polled_bytes
        for number, grid in enumerate(program.grids):
            kind = task_kind(grid.kind)
            plan._note_takers(number, kind.takers(kind.params_from(grid.params)))
            plan.ahead[number] = grid.ahead
        for number, buffer in enumerate(program.buffers):
            begin = buffer.offset_bytes if buffer.space is Space.SCRATCH else None
            end = None if begin is None else begin + buffer.dtype.bytes * prod(buffer.padded_shape or buffer.shape)
            plan.buffers[number] = NaiveBuffer(
                buffer.space,
                buffer.shape,
                begin,
                end,
                buffer.polled,
                buffer.dtype.bytes,
                buffer.layout,
                buffer.padded_shape not in ((), buffer.shape),
            )
        rows = [(int(row["grid"]), tuple(row["index"].tolist()), n) for n, row in enumerate(program.tasks)]
        number_of = {row: task for task, (_, _, row) in enumerate(sorted(rows))}
        plan.sm = [0] * len(rows)
        for sm, (begin, end) in enumerate(pairwise(program.queue_begin.tolist())):
            plan.queues[sm] = [number_of[row] for row in range(begin, end)]
            for task in plan.queues[sm]:
                plan.sm[task] = sm
        for task, (_, _, row) in enumerate(sorted(rows)):
            plan._add_row(program, task, row)
        return plan

    def _add_row(self, program: Program, task: int, number: int) -> None:
        row = program.tasks[number]
        grid = program.grids[row["grid"]]
        index = tuple(row["index"].tolist())[: len(grid.extent)]
        self.waits.append([(None, event) for event in row["wait_event"][: row["num_waits"]].tolist()])
        self.targets.append(row["wait_count"][: row["num_waits"]].tolist())
        self.signals.append([(None, event) for event in row["signal_event"][: row["num_signals"]].tolist()])
        for place, operand in enumerate(grid.operands):
            rank = len(program.buffers[operand.buffer].shape)
            low = tuple(row["offsets"][place].tolist())[:rank]
            high = tuple(a + b for a, b in zip(low, row["sizes"][place].tolist(), strict=False))
            kind = task_kind(grid.kind)
            promised = kind.operand(operand.name)
            along = operand.along or (-1,) * rank
            layout = kind.layout(kind.params_from(grid.params), promised)
            touch = Touch(task, int(row["grid"]), place, index, low, high, along, operand.access, promised, layout)
            self.touches[operand.buffer].append(touch)

    def broken_rule(self) -> str | None:
        """The first rule of sm-verify that the plan breaks, in its order; None for a safe plan."""
        if self.torn:
            return "bounds"
        for buffer, touches in self.touches.items():
            bounds = [zip(t.low, t.high, self.buffers[buffer].shape, strict=True) for t in touches]
            if any(a < 0 or a >= b or b > size for one in bounds for a, b, size in one):
                return "bounds"
        if self._lies_otherwise():
            return "layout"
        if self._miscounted():
            return "counting"
        if self._cannot_be_polled():
            return "polled"
        if self._dealt_badly():
            return "dealing"
        before, strong, told = self.before(), self.before(polled=False), self.before(telling=True)
        if before is None or strong is None or told is None:
            return "deadlock"
        checks = {
            "race": lambda strong: self._races(before, strong, told),
            "memory-model": self._read_ahead,
            "coverage": lambda _: self._reads_nothing(),
            "memory": self._shares_memory,
            "ring": lambda _: self.split is not None and (self.split.is_wrong() or self._promises_too_much()),
            "step": lambda _: self._outlives_step(before),
        }
        return next((rule for rule, broken in checks.items() if broken(strong)), None)

    def _lies_otherwise(self) -> bool:
        """Whether a body, which counts from the first element of its box, looks for another where it does not lie."""
        for key, touches in self.touches.items():
            buffer = self.buffers[key]
            if any(touch.layout is not buffer.layout for touch in touches):
                return True
            if buffer.layout in (Layout.MMA_ROWS_16, Layout.K_BLOCKS_64):
                continue
            if buffer.places is None:
                return True
            for low, high in {(touch.low, touch.high) for touch in touches}:
                lie = buffer.places[tuple(map(slice, low, high))]
                counted = buffer.places[tuple(slice(b - a) for a, b in zip(low, high, strict=True))]
                if not np.array_equal(lie - lie.flat[0], counted):
                    return True
        return False

    def _miscounted(self) -> bool:
        """A wait for less than all arrivals lets a task go early, at the latest some steps on, where the counter is
        ahead; for more, it stops it for ever. An event nobody waits for may say what it likes to the kernel, but is
        wrong too."""
        arrivals: dict[Key, int] = defaultdict(int)
        for keys in self.signals:
            for key in keys:
                arrivals[key] += 1
        if any(arrivals[key] != self.said[key] for key in self.said) or not arrivals.keys() <= self.said.keys():
            return True
        waits = [
            pair
            for keys, targets in zip(self.waits, self.targets, strict=True)
            for pair in zip(keys, targets, strict=True)
        ]
        return any(self.said.get(key) != target for key, target in waits)

    def _dealt_badly(self) -> bool:
        """Whether work that is dealt at run time is dealt to other tasks than there are, or a task has a box of its
        own, although nobody knows yet which part will be its."""
        for grid, takers in self.takers.items():
            boxes: dict[tuple[Hashable, int], set[tuple[tuple[int, ...], tuple[int, ...]]]] = defaultdict(set)
            tasks: set[int] = set()
            for key, touches in self.touches.items():
                for touch in (touch for touch in touches if touch.grid == grid):
                    boxes[key, touch.operand].add((touch.low, touch.high))
                    tasks.add(touch.task)
            if len(tasks) != takers or any(len(found) > 1 for found in boxes.values()):
                return True
        return False

    def _cannot_be_polled(self) -> bool:
        """Whether words would be read that nobody marks, or marked twice: each polled word is written by one task, of
        one grid, and all that touch it know how."""
        for key, buffer in self.buffers.items():
            touches = self.touches[key] if buffer.polled else []
            if any(not touch.promised.polled or touch.access is Access.READ_WRITE for touch in touches):
                return True
            if len({touch.grid for touch in touches if touch.writes}) > 1:
                return True
            for touch in touches:
                begin, end = touch.low[-1] * buffer.width, touch.high[-1] * buffer.width
                if touch.writes and (begin % 4 or (end % 4 and touch.high[-1] < buffer.shape[-1])):
                    return True
        return False

    def _tells(self, writer: int, reader: int) -> bool:
        """Whether task ``reader``, when it has seen what it waits for, knows that ``writer`` reads no more."""
        return any(
            a.tells(b)
            for key, a in self._polled_touches[writer]
            for other, b in self._polled_touches[reader]
            if key == other
        )

    @cached_property
    def _polled_touches(self) -> dict[int, list[tuple[Hashable, Touch]]]:
        found: dict[int, list[tuple[Hashable, Touch]]] = defaultdict(list)
        for key in (key for key, buffer in self.buffers.items() if buffer.polled):
            for touch in self.touches[key]:
                found[touch.task].append((key, touch))
        return found

    def before(self, *, polled: bool = True, telling: bool = False) -> list[int] | None:
        """Per task the set (as bits) of tasks that are over when it starts; None if some never start. ``polled``: by
        polled events too; ``telling``: only as far as the data tells that a task reads no more."""
        signallers: dict[Key, list[int]] = defaultdict(list)
        for task, keys in enumerate(self.signals):
            for key in keys:
                signallers[key].append(task)
        needs: list[set[int]] = [
            {
                t
                for key in keys
                for t in signallers[key]
                if key not in self.polled or (polled and (not telling or self._tells(t, task)))
            }
            for task, keys in enumerate(self.waits)
        ]
        for queue in self.queues.values():
            for earlier, later in pairwise(queue):
                needs[later].add(earlier)
        before: dict[int, int] = {}
        waiting = list(range(len(needs)))
        while waiting:
            ready = [t for t in waiting if needs[t] <= before.keys()]
            if not ready:
                return None
            for task in ready:
                before[task] = 0
                for earlier in needs[task]:
                    before[task] |= before[earlier] | 1 << earlier
            waiting = [t for t in waiting if t not in before]
        return [before[task] for task in range(len(needs))]

    def _races(self, full: list[int], strong: list[int], told: list[int]) -> bool:
        for buffer, touches in self.touches.items():
            writes = [touch for touch in touches if touch.writes]
            for a, b in product(writes, touches):
                if a.task == b.task or not a.meets(b):
                    continue
                if a.grid == b.grid:
                    if not a.apart_from(b):
                        return True
                    continue
                first, second = sorted((a, b), key=lambda touch: touch.task)
                by_data = full if self.buffers[buffer].polled and not second.writes else strong
                order = by_data if first.writes else told
                if not order[second.task] >> first.task & 1:
                    return True
        return False

    def _read_ahead(self, before: list[int]) -> bool:
        """Whether something is read before a wait although a task of the same step may still be writing it."""
        known = [0] * len(self.sm)  # the tasks that are over when its queue comes to a task
        for queue in self.queues.values():
            for earlier, later in pairwise(queue):
                known[later] = before[earlier] | 1 << earlier
        for buffer, touches in self.touches.items():
            if self.buffers[buffer].space is Space.WEIGHT and any(touch.writes for touch in touches):
                return True
            streams = [touch for touch in touches if touch.promised.streamed]
            if streams and self.buffers[buffer].space not in (Space.WEIGHT, Space.STATE):
                return True
            new = [touch for touch in touches if touch.writes and not touch.promised.appends]
            if any(a.grid <= b.grid and a.meets(b) for a, b in product(new, streams)):
                return True
            early = [touch for touch in touches if touch.promised.early]
            for a, b in product([touch for touch in touches if touch.writes] if early else [], early):
                if a.grid < b.grid and a.meets(b) and not known[b.task] >> a.task & 1:
                    return True
        return False

    def _reads_nothing(self) -> bool:
        for key, buffer in self.buffers.items():
            if buffer.space not in (Space.SCRATCH, Space.OUTPUT):
                continue
            touches = self.touches[key]
            writer = np.full(buffer.shape, 1 << 30)  # the first grid that writes each element
            for touch in sorted([t for t in touches if t.writes], key=lambda t: -t.grid):
                writer[tuple(map(slice, touch.low, touch.high))] = touch.grid
            if any((writer[tuple(map(slice, t.low, t.high))] >= t.grid).any() for t in touches if t.reads):
                return True
        return False

    def _shares_memory(self, before: list[int]) -> bool:
        placed = [
            (key, b.begin + shift, b.end + shift)
            for key, b in self.buffers.items()
            if b.begin is not None and b.end is not None
            for shift in ([0, self.polled_bytes] if b.polled else [0])
        ]
        if any(begin < 0 or end > self.arena for _, begin, end in placed):
            return True
        for one, (key, begin, end) in enumerate(placed):
            for other, start, stop in placed[:one]:
                if begin < stop and start < end:
                    if self.buffers[key].polled or self.buffers[other].polled:
                        return True
                    first, second = ({t.task for t in self.touches[name]} for name in (key, other))
                    if not (_all_before(first, second, before) or _all_before(second, first, before)):
                        return True
        return False

    def _promises_too_much(self) -> bool:
        """Whether more stages are said to be filled while a task waits than its loader fills."""
        return any(said > self.stages_ahead[grid] for grid, said in self.ahead.items() if said)

    @cached_property
    def stages_ahead(self) -> dict[int, int]:
        """By grid: the stages that the loader of its worst task fills while that waits."""
        loads: dict[int, Load] = defaultdict(Load)
        grid_of: dict[int, int] = {}
        for key, touches in self.touches.items():
            for touch in touches:
                grid_of[touch.task] = touch.grid
                if touch.promised.streamed and self.buffers[key].space is Space.WEIGHT:
                    loads[touch.task].add_box(touch.low, touch.high)
                elif touch.promised.streamed:
                    loads[touch.task].state = True
        found: dict[int, int] = {}
        assert self.split is not None
        for queue in self.queues.values():
            for place, task in enumerate(queue):
                mine = filled([loads[other] for other in queue], place, self.split.stages)
                grid = grid_of.get(task, -1)
                found[grid] = min(mine, found.get(grid, mine))
        return found

    def _outlives_step(self, before: list[int]) -> bool:
        if len(self.steps) != 1:
            return True
        last = [task for task, keys in enumerate(self.signals) if self.steps[0] in keys]
        over = 0
        for task in last:
            over |= before[task] | 1 << task
        return over != (1 << len(self.sm)) - 1


def _all_before(first: set[int], second: set[int], before: list[int]) -> bool:
    return all(before[b] >> a & 1 for a in first for b in second)


def _keys(uses: list[EventUse], flat: int, index: tuple[int, ...]) -> Iterator[Key]:
    for use in uses:
        if isinstance(use.elements, AffineMapAttr):
            elements = list(use.elements.data.eval(list(index), []))
        else:
            width = use.elements.get_shape()[1]
            values = list(use.elements.iter_values())
            elements = [int(v) for v in values[flat * width : (flat + 1) * width]]  # pyright: ignore[reportArgumentType]
        yield from ((use.event, element) for element in elements if element >= 0)
