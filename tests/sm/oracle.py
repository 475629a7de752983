"""What makes a plan unsafe, told task by task and element by element in plain loops: the judge of sm-verify."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr
from xdsl.ir import SSAValue

from mpk_ir.core.memory import Space
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BufferOp, BufferType, CyclicAttr, GraphOp, GridOp
from mpk_ir.dialects.sm.attributes import ints
from mpk_ir.dialects.sm.ops import EventUse

Key = tuple[SSAValue, int]


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
    reads: bool
    writes: bool
    early: bool

    def meets(self, other: Touch) -> bool:
        bounds = zip(self.low, self.high, other.low, other.high, strict=True)
        return all(a < d and c < b for a, b, c, d in bounds)

    def apart_from(self, other: Touch) -> bool:
        """Whether two tasks of a grid touch parts that are disjoint at run time."""
        pairs = zip(self.along, other.along, strict=True)
        return any(a == b and a >= 0 and self.index[a] != other.index[b] for a, b in pairs)


class NaivePlan:
    """The tasks of a graph with what each touches, awaits and signals."""

    def __init__(self, graph: GraphOp) -> None:
        self.graph = graph
        self.sm: list[int] = []
        self.touches: dict[SSAValue, list[Touch]] = defaultdict(list)
        self.waits: list[list[Key]] = []
        self.signals: list[list[Key]] = []
        for number, grid in enumerate(graph.grids):
            for flat, index in enumerate(product(*map(range, grid.shape))):
                self._add_task(number, grid, flat, index)

    def _add_task(self, number: int, grid: GridOp, flat: int, index: tuple[int, ...]) -> None:
        task = len(self.sm)
        rule, num_sms = grid.placement, target_of(self.graph.target.data).num_sms
        if rule is None or isinstance(rule, CyclicAttr):
            self.sm.append(((rule.first.data if rule else 0) + flat) % num_sms)
        else:
            self.sm.append(int(tuple(rule.iter_values())[flat]))  # pyright: ignore[reportArgumentType]
        self.waits.append(list(_keys(grid.wait_uses, flat, index)))
        self.signals.append(list(_keys(grid.signal_uses, flat, index)))
        for operand, (value, box) in enumerate(zip(grid.data, grid.boxes, strict=True)):
            assert isinstance(value.type, BufferType)
            shape, start = ints(value.type.shape), box.offset.data.eval(list(index), [])
            low = tuple(min(s, n) for s, n in zip(start, shape, strict=True))
            high = tuple(min(s + w, n) for s, w, n in zip(start, ints(box.sizes), shape, strict=True))
            mode, along = box.mode, ints(box.along)
            early = grid.task_kind.operand(grid.operand_names.data[operand].data).early
            touch = Touch(task, number, operand, index, low, high, along, mode.reads, mode.writes, early)
            self.touches[value].append(touch)

    def broken_rule(self) -> str | None:
        """The first rule of sm-verify that the plan breaks, in its order; None for a safe plan."""
        if any(a < 0 or a >= b for ts in self.touches.values() for t in ts for a, b in zip(t.low, t.high, strict=True)):
            return "bounds"
        if self._miscounted():
            return "counting"
        before = self.before()
        if before is None:
            return "deadlock"
        checks = {
            "race": self._races(before),
            "memory-model": self._read_ahead(before),
            "coverage": self._reads_nothing(),
            "memory": self._shares_memory(before),
            "step": self._outlives_step(before),
        }
        return next((rule for rule, broken in checks.items() if broken), None)

    def _miscounted(self) -> bool:
        arrivals: dict[Key, int] = defaultdict(int)
        for keys in self.signals:
            for key in keys:
                arrivals[key] += 1
        said = {(event.event, i): int(n) for event in self.graph.events for i, n in enumerate(event.arrivals)}
        return arrivals != said or any(key not in said for keys in self.waits for key in keys)

    def before(self) -> list[int] | None:
        """Per task the set (as bits) of tasks that are over when it starts; None if some never start."""
        signallers: dict[Key, list[int]] = defaultdict(list)
        for task, keys in enumerate(self.signals):
            for key in keys:
                signallers[key].append(task)
        needs: list[set[int]] = [{t for key in keys for t in signallers[key]} for keys in self.waits]
        latest: dict[int, int] = {}
        for task, sm in enumerate(self.sm):
            if sm in latest:
                needs[task].add(latest[sm])
            latest[sm] = task
        before: dict[int, int] = {}
        while len(before) < len(needs):
            ready = [t for t, need in enumerate(needs) if t not in before and need <= before.keys()]
            if not ready:
                return None
            for task in ready:
                before[task] = 0
                for earlier in needs[task]:
                    before[task] |= before[earlier] | 1 << earlier
        return [before[task] for task in range(len(needs))]

    def _races(self, before: list[int]) -> bool:
        for touches in self.touches.values():
            writes = [touch for touch in touches if touch.writes]
            for a, b in product(writes, touches):
                if a.task == b.task or not a.meets(b):
                    continue
                if a.grid == b.grid:
                    if not a.apart_from(b):
                        return True
                elif not before[max(a.task, b.task)] >> min(a.task, b.task) & 1:
                    return True
        return False

    def _read_ahead(self, before: list[int]) -> bool:
        """Whether something is read before a wait although a task of the same step may still be writing it."""
        latest: dict[int, int] = {}
        known: list[int] = []  # per task the tasks that are over when its queue comes to it
        for task, sm in enumerate(self.sm):
            known.append(before[latest[sm]] | 1 << latest[sm] if sm in latest else 0)
            latest[sm] = task
        for value, touches in self.touches.items():
            assert isinstance(value.owner, BufferOp)
            if value.owner.space.data is Space.WEIGHT and any(touch.writes for touch in touches):
                return True
            for a, b in product(touches, touches):
                if a.writes and b.early and a.grid < b.grid and a.meets(b) and not known[b.task] >> a.task & 1:
                    return True
        return False

    def _reads_nothing(self) -> bool:
        for buffer in self.graph.buffers:
            if buffer.space.data not in (Space.SCRATCH, Space.OUTPUT):
                continue
            touches = self.touches[buffer.buffer]
            writer = np.full(buffer.shape, len(self.graph.grids))  # the first grid that writes each element
            for touch in reversed([t for t in touches if t.writes]):
                writer[tuple(map(slice, touch.low, touch.high))] = touch.grid
            if any((writer[tuple(map(slice, t.low, t.high))] >= t.grid).any() for t in touches if t.reads):
                return True
        return False

    def _shares_memory(self, before: list[int]) -> bool:
        placed = [b for b in self.graph.buffers if b.offset is not None]
        spans: list[tuple[int, int]] = []
        for buffer in placed:
            assert buffer.offset is not None
            assert isinstance(buffer.buffer.type, BufferType)
            width = 2 if str(buffer.buffer.type.element_type) in ("bf16", "f16") else 4
            begin = buffer.offset.value.data
            spans.append((begin, begin + width * prod(buffer.padded_shape)))
        arena = self.graph.arena_bytes.value.data if self.graph.arena_bytes else 0
        if any(begin < 0 or end > arena for begin, end in spans):
            return True
        for one in range(len(placed)):
            for two in range(one):
                if spans[one][0] < spans[two][1] and spans[two][0] < spans[one][1]:
                    first, second = ({t.task for t in self.touches[placed[i].buffer]} for i in (one, two))
                    if not (_all_before(first, second, before) or _all_before(second, first, before)):
                        return True
        return False

    def _outlives_step(self, before: list[int]) -> bool:
        steps = [event for event in self.graph.events if event.step]
        if len(steps) != 1:
            return True
        last = [task for task, keys in enumerate(self.signals) if (steps[0].event, 0) in keys]
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
