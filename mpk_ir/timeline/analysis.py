"""What a trace says: time, bytes and waits by operator, and the chain of tasks that decides how long the step takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from ..core.names import operator_name
from .trace import FloatArray, IntArray, Trace


@dataclass(frozen=True)
class Operator:
    """The grids of one name. Times are microseconds of the step, averaged over all SMs, so that operators add up to it.

    ``time_us``: from the end of the task before to the end of a task of the operator; ``exposed_wait_us`` is the part
    of it in which the SM's consumers wait for events. ``bandwidth_fraction``: bytes over what memory could move in
    ``time_us``. ``critical_us``: the operator's part of the critical path.
    """

    name: str
    kind: str
    grids: int
    tasks: int
    time_us: float
    exposed_wait_us: float
    moved_bytes: float
    bandwidth_fraction: float
    critical_us: float


@dataclass(frozen=True)
class ExposedWait:
    """The waits of one operator: their sum over the number of SMs, the longest and whose it was, and the operator whose
    arrival ended most of them."""

    operator: str
    wait_us: float
    longest_us: float
    longest_task: str
    waits_for: str


class Cause(StrEnum):
    """What a task of the critical path had to have before it could begin."""

    STEP = "begin of the step"
    QUEUE = "the task before it on its SM"
    EVENT = "an event"


@dataclass(frozen=True)
class Link:
    """One task of the critical path. Of the time since its predecessor computed, ``signal_us`` went by until that
    told of it, ``handoff_us`` until this task was ready, ``work_us`` until it had computed."""

    task: int
    cause: Cause
    signal_us: float
    handoff_us: float
    work_us: float

    @property
    def total_us(self) -> float:
        return self.signal_us + self.handoff_us + self.work_us


class Analysis:
    """Derived from one trace, each part when it is first asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @property
    def moved_bytes(self) -> float:
        return float(self.trace.moved_bytes.sum())

    @property
    def floor_us(self) -> float:
        """The time that memory alone would need."""
        return self.moved_bytes / self.trace.facts.target.bytes_per_us

    @property
    def bandwidth_fraction(self) -> float:
        return self.floor_us / self.trace.facts.step_us

    @cached_property
    def wait_us(self) -> FloatArray:
        """[tasks]: how long the SM's consumers wait for events."""
        return self.trace.ready - self.trace.begin

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Operators in order of their first grid."""
        return {name: n for n, name in enumerate(dict.fromkeys(operator_name(g.name) for g in self.trace.grids))}

    @cached_property
    def _operator_of(self) -> IntArray:
        """[tasks]: the number of the task's operator."""
        return np.array([self._numbers[operator_name(g.name)] for g in self.trace.grids])[self.trace.grid]

    @cached_property
    def operators(self) -> list[Operator]:
        """By name, those that take the most time first."""
        trace, sms, size = self.trace, self.trace.num_sms, len(self._numbers)
        kinds = {operator_name(grid.name): grid.kind for grid in trace.grids}
        grids = Counter(operator_name(grid.name) for grid in trace.grids)
        tasks = np.bincount(self._operator_of, minlength=size)
        time, wait, moved, critical = (
            np.bincount(self._operator_of, values, size)
            for values in (self._spent_us(), self.wait_us, trace.moved_bytes, self._critical_us())
        )
        capacity = time / sms * trace.facts.target.bytes_per_us
        fraction = np.divide(moved, capacity, out=np.zeros_like(moved), where=capacity > 0)
        columns = np.stack([time / sms, wait / sms, moved, fraction, critical], axis=1).tolist()
        rows = [Operator(o, kinds[o], grids[o], int(tasks[n]), *columns[n]) for o, n in self._numbers.items()]
        return sorted(rows, key=lambda row: -row.time_us)

    def _spent_us(self) -> FloatArray:
        """[tasks]: since the task before on the same SM computed, or since the step began."""
        trace = self.trace
        before = np.concatenate([[0.0], trace.computed[:-1]])
        before[np.flatnonzero(np.diff(trace.sm, prepend=-1))] = 0.0
        return trace.computed - before

    def _critical_us(self) -> FloatArray:
        found = np.zeros(len(self.trace.sm))
        for link in self.critical_path:
            found[link.task] += link.total_us
        return found

    @cached_property
    def last_signaller(self) -> IntArray:
        """[events]: the task whose arrival completed the event; -1 if no task signals it."""
        trace = self.trace
        found = np.full(1 + max(int(trace.signals.max(initial=-1)), int(trace.waits.max(initial=-1))), -1, np.int64)
        task, column = np.nonzero(trace.signals >= 0)
        order = np.argsort(trace.signalled[task], kind="stable")
        found[trace.signals[task, column][order]] = task[order]  # of equal indices the last one stays
        return found

    @cached_property
    def awaited(self) -> IntArray:
        """[tasks]: the task whose arrival was the last that this one needed; -1 if it needs none."""
        trace = self.trace
        if not trace.waits.size or not self.last_signaller.size:
            return np.full(len(trace.sm), -1, np.int64)
        last = np.where(trace.waits >= 0, self.last_signaller[trace.waits], -1)
        times = np.where(last >= 0, trace.signalled[last], -np.inf)
        return np.take_along_axis(last, times.argmax(axis=1)[:, None], axis=1)[:, 0]

    @cached_property
    def critical_path(self) -> list[Link]:
        """Backwards from the task that signals last: what each one had to wait for; given in order of time."""
        links: list[Link] = []
        task = int(self.trace.signalled.argmax())
        while task >= 0 and len(links) < len(self.trace.sm):
            link, task = self._link(task)
            links.append(link)
        return links[::-1]

    def _link(self, task: int) -> tuple[Link, int]:
        """How ``task`` hangs on its predecessor, and which that is (-1: none)."""
        trace = self.trace
        begin, ready, computed = (float(times[task]) for times in (trace.begin, trace.ready, trace.computed))
        awaited = int(self.awaited[task])
        if awaited >= 0 and trace.signalled[awaited] > begin:
            told, done = float(trace.signalled[awaited]), float(trace.computed[awaited])
            told = min(told, ready)  # a measured time may be read a little late
            return Link(task, Cause.EVENT, max(0.0, told - done), ready - told, computed - ready), awaited
        if task > 0 and trace.sm[task - 1] == trace.sm[task]:
            return Link(task, Cause.QUEUE, 0.0, ready - float(trace.computed[task - 1]), computed - ready), task - 1
        return Link(task, Cause.STEP, 0.0, ready, computed - ready), -1

    def exposed_waits(self, limit: int = 10) -> list[ExposedWait]:
        """The operators that cost the most waiting."""
        trace, names = self.trace, list(self._numbers)
        sums = np.bincount(self._operator_of, self.wait_us, len(names))
        rows: list[ExposedWait] = []
        for number in np.argsort(-sums, kind="stable")[:limit].tolist():
            mine = np.flatnonzero(self._operator_of == number)
            longest = int(mine[self.wait_us[mine].argmax()])
            ended_by = self.awaited[mine][self.awaited[mine] >= 0]
            if not sums[number] or not len(ended_by):
                continue
            cause = names[int(np.bincount(self._operator_of[ended_by]).argmax())]
            wait_us = float(sums[number]) / trace.num_sms
            rows.append(
                ExposedWait(names[number], wait_us, float(self.wait_us[longest]), trace.task_name(longest), cause)
            )
        return rows


@dataclass(frozen=True)
class ComparedOperator:
    """An operator in two traces; ``error`` is (predicted - measured) / measured, None where nothing was measured."""

    name: str
    predicted_us: float
    measured_us: float

    @property
    def error(self) -> float | None:
        return self.predicted_us / self.measured_us - 1 if self.measured_us else None


def compare(predicted: Trace, measured: Trace) -> list[ComparedOperator]:
    """Every operator of either trace, by measured time, and the step as the last row."""
    times = [{row.name: row.time_us for row in Analysis(trace).operators} for trace in (predicted, measured)]
    names = sorted(times[0] | times[1], key=lambda name: -times[1].get(name, 0.0))
    rows = [ComparedOperator(name, times[0].get(name, 0.0), times[1].get(name, 0.0)) for name in names]
    return [*rows, ComparedOperator("step", predicted.facts.step_us, measured.facts.step_us)]
