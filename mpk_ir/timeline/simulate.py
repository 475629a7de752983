"""Predicts when every task of a step runs: discrete events over a program's own tables.

What is modelled, per SM: a loader that streams the weights and caches of its queue in order, ahead of the consumers by
the part of the ring that few copies under way fill, and caches not before the step begins; consumers that run one task
after another, each waiting for its events, then for its activations, then for the last of its weights. Polled data is
there when it is computed, other data when its event is signalled. What the SMs share is memory bandwidth: all streams
get the same rate, at most what one SM can take, give or take some luck that is drawn for each task, the same each time.
What a task loads from the second-level cache while its weights stream takes a share of that. A hand-off takes longer
the more memory is in use.

Ranks run the same plan on equal machines, so one stands for all: what it sends leaves over its link one after another,
and what the others send in the meantime arrives as its own does at theirs. That ranks drift apart is not modelled.

What is not either: contention for the second-level cache, weights that go to registers during a wait, and the moment
when a stage is free again (a task's weights are a fluid, freed when the task begins to work).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeAlias

import numpy as np

from ..codegen.abi import ProfilePhase
from ..codegen.program import Program
from ..core.errors import PlanError
from ..tasks.work import Load
from .trace import Facts, FloatArray, Origin, Trace, trace_of
from .traffic import Demand, demand

Handler: TypeAlias = Callable[[int], None]
LEAST_BYTES = 1e-3
"""Less is a rounding error."""


def predict(program: Program, load: Load, name: str = "") -> Trace:
    """The timeline of one step of ``program`` in steady state, under ``load``; ``name`` is what the trace calls it.

    Raises PlanError if its tasks wait for each other for ever.
    """
    times, step_us = simulate(program, demand(program, load))
    facts = Facts(
        Origin.PREDICTED, name or program.name, program.target, "timeline", load, step_us, (step_us, step_us, step_us)
    )
    return trace_of(program, facts, times)


def simulate(program: Program, asked: Demand) -> tuple[FloatArray, float]:
    """([tasks, `ProfilePhase`] microseconds since the step began, microseconds until the next step begins)."""
    machine = _Machine(program, asked)
    step_us = machine.run()
    return machine.times(), step_us


class _SharedMemoryBus:
    """Bandwidth shared equally among streams, in virtual time: the bytes a stream of the step's begin would have."""

    def __init__(self, total_bytes_per_us: float, stream_bytes_per_us: float) -> None:
        self._total, self._most = total_bytes_per_us, stream_bytes_per_us
        self.virtual_bytes = 0.0
        self.streams = 0
        self._goals: list[tuple[float, int, Handler, int]] = []
        self._order = 0

    def rate(self) -> float:
        return min(self._most, self._total / max(1, self.streams))

    def utilization(self) -> float:
        return min(1.0, self.streams * self._most / self._total)

    def call_after(self, bytes_: float, handler: Handler, argument: int) -> None:
        """Call when a stream that is under way has got ``bytes_`` more."""
        self._order += 1
        heappush(self._goals, (self.virtual_bytes + bytes_, self._order, handler, argument))

    def next_us(self) -> float:
        """Time from now until the next goal."""
        return (self._goals[0][0] - self.virtual_bytes) / self.rate() if self._goals else float("inf")

    def pop(self) -> tuple[Handler, int]:
        self.virtual_bytes = self._goals[0][0]
        _, _, handler, argument = heappop(self._goals)
        return handler, argument


class _Machine:
    """All SMs of one step."""

    def __init__(self, program: Program, asked: Demand) -> None:
        tasks, target = program.tasks, program.target
        self.program, self.costs = program, target.costs
        self.bus = _SharedMemoryBus(target.bytes_per_us * self.costs.stream_efficiency, self.costs.stream_bytes_per_us)
        self.now = 0.0
        self._calls: list[tuple[float, int, Handler, int]] = []
        self._order = 0
        self.sm: list[int] = tasks["sm"].tolist()
        self.end: list[int] = program.queue_begin[1:].tolist()
        reread = np.where(asked.streamed_bytes > 0, self.costs.cached_share * asked.reread_bytes, 0.0)
        luck = 1.0 + self.costs.stream_spread * np.random.default_rng(0).standard_normal(len(tasks)).clip(-3, 3)
        self.streamed, self.cached = ((asked.streamed_bytes + reread) * luck).tolist(), asked.cache_bytes.tolist()
        self.occupied, self.of_this_step = asked.ring_bytes.tolist(), asked.of_this_step.tolist()
        self.activation, self.compute = asked.activation_us.tolist(), asked.compute_us.tolist()
        self.tail = asked.tail_us.tolist()
        # By counters, and by polled data: while memory is idle, and while it streams.
        polled = self.costs.handoff_us, self.costs.handoff_loaded_us
        counted = max(target.handoff_idle_us, polled[0]), max(target.handoff_loaded_us, polled[1])
        self.handoffs_us = counted, polled
        self.signals = _rows(tasks["signal_event"], tasks["num_signals"])
        self.polled: list[bool] = program.event_polled.tolist()
        waits = _rows(tasks["wait_event"], tasks["num_waits"])
        self.missing = [len(events) for events in waits]
        self.waiters: dict[int, list[int]] = defaultdict(list)
        for task, events in enumerate(waits):
            for event in events:
                self.waiters[event].append(task)
        self.left: list[int] = program.event_count.tolist()
        self.pushed, self.link = asked.pushed_bytes.tolist(), target.link
        self.link_free = 0.0
        self.shared: list[bool] = (program.event_shared & (program.ranks > 1)).tolist()
        count = len(tasks)
        self.begin, self.ready = [-1.0] * count, [-1.0] * count
        self.computed, self.signalled = [-1.0] * count, [-1.0] * count
        self.has_waits = [bool(events) for events in waits]
        self.loaders = [_Loader(self, sm) for sm in range(len(self.end))]
        self.earliest = [-1.0] * count  # computed if its weights were all there; -1 until it consumes
        self.is_loaded = [True] * count
        self.step_over = 0.0

    def call_at(self, time: float, handler: Handler, argument: int) -> None:
        self._order += 1
        heappush(self._calls, (time, self._order, handler, argument))

    def run(self) -> float:
        for loader in self.loaders:
            loader.start()
        for first, end in zip(self.program.queue_begin[:-1].tolist(), self.end, strict=True):
            if first < end:
                self.on_begin(first)
        while True:
            due = self.now + self.bus.next_us()
            if self._calls and self._calls[0][0] <= due:
                time, _, handler, argument = heappop(self._calls)
                self.bus.virtual_bytes += self.bus.rate() * (time - self.now)
            elif due < float("inf"):
                time = due
                handler, argument = self.bus.pop()
            else:
                break
            self.now = time
            handler(argument)
        self._require_all_done()
        return self.step_over + self.costs.handoff_us

    def times(self) -> FloatArray:
        found = np.zeros((len(self.sm), len(ProfilePhase)))
        found[:, ProfilePhase.BEGIN], found[:, ProfilePhase.READY] = self.begin, self.ready
        found[:, ProfilePhase.COMPUTED], found[:, ProfilePhase.SIGNALLED] = self.computed, self.signalled
        return found

    def on_begin(self, task: int) -> None:
        self.begin[task] = self.now
        if not self.missing[task]:
            wait = self.costs.poll_us if self.has_waits[task] else 0.0
            self.call_at(self.now + wait + self.activation[task], self.on_ready, task)

    def on_ready(self, task: int) -> None:
        """The activations are there: weights, or a cache, are worked through from now on."""
        self.ready[task] = self.now
        self.earliest[task] = self.now + self.compute[task]
        if self.cached[task]:
            self.is_loaded[task] = False
            self.bus.streams += 1
            self.bus.call_after(self.cached[task], self.on_cache_read, task)
        elif self.streamed[task]:
            self.loaders[self.sm[task]].free(self.occupied[task])
        self._finish_if_loaded(task)

    def on_cache_read(self, task: int) -> None:
        self.bus.streams -= 1
        self.on_loaded(task)

    def on_loaded(self, task: int) -> None:
        self.is_loaded[task] = True
        if self.earliest[task] >= 0.0:
            self.earliest[task] = max(self.earliest[task], self.now + self.tail[task])
            self._finish_if_loaded(task)

    def _finish_if_loaded(self, task: int) -> None:
        if self.is_loaded[task]:
            self.call_at(self.earliest[task], self.on_computed, task)

    def on_computed(self, task: int) -> None:
        self.computed[task] = self.now
        self._arrive(task, polled=True)
        self.call_at(self.now + self.costs.signal_us, self.on_signalled, task)
        if task + 1 < self.end[self.sm[task]]:
            self.on_begin(task + 1)

    def on_signalled(self, task: int) -> None:
        self.signalled[task] = self.now
        self._arrive(task, polled=False)

    def _arrive(self, task: int, *, polled: bool) -> None:
        if polled:  # what is pushed is polled
            self.link_free = max(self.link_free, self.now) + self.pushed[task] / self.link.bytes_per_us
        beyond_us = max(0.0, self.link.latency_us - self.costs.handoff_us)  # of a hand-off on the rank itself
        for event in self.signals[task]:
            if self.polled[event] is not polled:
                continue
            if self.shared[event]:
                self.call_at(max(self.link_free, self.now) + beyond_us, self._count, event)
            else:
                self._count(event)

    def _count(self, event: int) -> None:
        self.left[event] -= 1
        if not self.left[event]:
            self._arrived(event)

    def _arrived(self, event: int) -> None:
        if event == self.program.step_event:
            self.step_over = self.now
        idle, loaded = self.handoffs_us[self.polled[event]]
        ready = self.now + idle + (loaded - idle) * self.bus.utilization()
        for task in self.waiters[event]:
            self.missing[task] -= 1
            if not self.missing[task] and self.begin[task] >= 0.0:
                self.call_at(ready + self.activation[task], self.on_ready, task)

    def _require_all_done(self) -> None:
        waiting = [task for task, time in enumerate(self.signalled) if time < 0.0]
        if waiting:
            first = next((task for task in waiting if self.begin[task] >= 0.0), waiting[0])
            grid = self.program.grids[int(self.program.tasks["grid"][first])]
            raise PlanError(
                f"the timeline stops with {len(waiting)} tasks left, first {grid.name} on SM {self.sm[first]}",
                advice="the program deadlocks: check it with sm-verify",
            )


class _Loader:
    """The loader warp of one SM: bytes in the order of its queue, at most a ring ahead of what is consumed."""

    def __init__(self, machine: _Machine, sm: int) -> None:
        self.machine, self.bus = machine, machine.bus
        begin, end = (int(n) for n in machine.program.queue_begin[sm : sm + 2])
        self.tasks = [task for task in range(begin, end) if machine.streamed[task]]
        self.next = -1  # of the tasks, the first that is not loaded
        self.rest = 0.0  # of its bytes
        self.share = 1.0  # of the ring that a byte of it occupies
        self.room = machine.costs.ahead_share * machine.program.launch.ring_bytes
        self.chunk = 0.0
        self.active = False

    def start(self) -> None:
        """As in a running kernel: the end of the step before was time enough to load as far ahead as ever, weights."""
        for task in self.tasks:
            self.machine.is_loaded[task] = False
        self._go_on()
        while self._has_room() and not self.machine.of_this_step[self.tasks[self.next]]:
            self._take(self._fitting())
        self._continue()

    def free(self, bytes_: float) -> None:
        self.room += bytes_
        if not self.active:
            self._continue()

    def on_chunk(self, _: int) -> None:
        self.bus.streams -= 1
        self.active = False
        self._take(self.chunk)
        self._continue()

    def _has_room(self) -> bool:
        return self.next < len(self.tasks) and self.room > LEAST_BYTES

    def _fitting(self) -> float:
        return min(self.rest, self.room / self.share)

    def _continue(self) -> None:
        if self._has_room():
            self.active = True
            self.chunk = self._fitting()
            self.bus.streams += 1
            self.bus.call_after(self.chunk, self.on_chunk, 0)

    def _take(self, bytes_: float) -> None:
        self.rest -= bytes_
        self.room -= bytes_ * self.share
        if self.rest <= LEAST_BYTES:
            task = self.tasks[self.next]
            self._go_on()
            self.machine.on_loaded(task)

    def _go_on(self) -> None:
        self.next += 1
        if self.next < len(self.tasks):
            task = self.tasks[self.next]
            self.rest = self.machine.streamed[task]
            self.share = self.machine.occupied[task] / self.rest


def _rows(events: np.ndarray, count: np.ndarray) -> list[list[int]]:
    return [row[:n] for row, n in zip(events.tolist(), count.tolist(), strict=True)]
