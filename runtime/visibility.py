"""Memory as weak as the model allows: what an SM writes, another sees when an event orders it, and no earlier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.program import Program
from .simulated_memory import SimulatedMemory

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Stored:
    """What a task wrote: ``values`` at ``box`` of buffer ``name``, where ``mask`` says (None: everywhere)."""

    serial: int
    step: int
    name: str
    box: tuple[slice, ...]
    values: Array
    mask: Array | None


@dataclass(frozen=True)
class Target:
    """An operand that a task writes. ``partial``: only the elements that change are its own (see `sm.box`, along)."""

    name: str
    box: tuple[slice, ...]
    partial: bool


class DelayedVisibility:
    """A view of memory for each SM, in the manner of a vector clock.

    A signal is a release: it passes on all that its SM has seen, its own writes included. A wait is an acquire: the
    SM's view takes in what its events passed on. Nothing else moves, so a plan that relies on more reads old data. A
    polled event passes on what was written to polled buffers, and no more. With ``ordered=False`` events count but
    order nothing, as if their release or acquire were missing.
    """

    def __init__(self, memory: SimulatedMemory, program: Program, *, ordered: bool) -> None:
        num_sms = len(program.queue_begin) - 1
        self._memory, self.ordered = memory, ordered
        self.views = [memory.copy() for _ in range(num_sms)]
        self._events = np.zeros((len(program.event_count), num_sms), np.int64)
        self._event_polled = program.event_polled
        self._polled = {buffer.name for buffer in program.buffers if buffer.polled}
        self._start(num_sms)

    def _start(self, num_sms: int) -> None:
        self._seen = np.zeros((num_sms, num_sms), np.int64)
        self._log: list[list[list[Stored]]] = [[] for _ in range(num_sms)]
        self._serial = 0
        self._step = [-1] * num_sms
        self._begun: list[list[int]] = [[] for _ in range(num_sms)]  # by step, how many tasks were over
        self._events[...] = 0

    def begin_run(self) -> None:
        """Everybody sees what the host sees."""
        self._start(len(self.views))
        for view in self.views:
            view.assign(self._memory)

    def end_run(self) -> None:
        """The host sees everything: the launch is over."""
        for stored in sorted((s for log in self._log for task in log for s in task), key=lambda s: s.serial):
            _store(self._memory, stored)

    def run(self, sm: int, body: Callable[[], None], targets: Sequence[Target]) -> None:
        """Run a task's ``body``, which works on ``views[sm]``, and note what it wrote."""
        view = self.views[sm]
        before = [view.arrays[t.name][t.box].copy() if t.partial else None for t in targets]
        body()
        stored: list[Stored] = []
        for target, old in zip(targets, before, strict=True):
            values = view.arrays[target.name][target.box].copy()
            mask = None if old is None else ~((values == old) | ((values != values) & (old != old)))
            stored.append(Stored(self._serial, self._step[sm], target.name, target.box, values, mask))
        self._serial += 1
        self._log[sm].append(stored)
        self._seen[sm, sm] += 1

    def release(self, sm: int, events: Iterable[int]) -> None:
        for event in events:
            np.maximum(self._events[event], self._seen[sm], out=self._events[event])

    def acquire(self, sm: int, events: Iterable[int]) -> None:
        for event in events:
            polled = self._event_polled[event]
            news = self._passed(sm, self._events[event]) if polled else self._news(sm, self._events[event])
            for stored in news:
                if stored.name in self._polled or not polled:
                    _store(self.views[sm], stored)

    def begin_step(self, sm: int, step_event: int) -> None:
        """Acquire the end of the step before, for which each SM arrives behind its last task; scratch then holds
        nothing but what tasks of this step wrote already."""
        self._step[sm] += 1
        step = self._step[sm]
        self._begun[sm].append(len(self._log[sm]))
        ended = [
            begun[step] if step < len(begun) else len(log) for begun, log in zip(self._begun, self._log, strict=True)
        ]
        news = self._news(sm, np.maximum(self._events[step_event], ended))
        old = [stored for stored in news if stored.step < self._step[sm]]
        for stored in old:
            _store(self.views[sm], stored)
        self.views[sm].poison()
        for stored in news[len(old) :]:
            _store(self.views[sm], stored)

    def _news(self, sm: int, passed: Array) -> list[Stored]:
        """What is passed on to ``sm``, which sees it from now on; ``passed`` [sms]: tasks of each that are over."""
        news = self._passed(sm, passed) if self.ordered else []
        if self.ordered:
            np.maximum(self._seen[sm], passed, out=self._seen[sm])
        return news

    def _passed(self, sm: int, passed: Array) -> list[Stored]:
        """What these tasks wrote and ``sm`` has not seen: by step, then in the order of writing."""
        news = [
            stored
            for other in np.flatnonzero(passed > self._seen[sm]).tolist()
            for task in self._log[other][int(self._seen[sm, other]) : int(passed[other])]
            for stored in task
        ]
        return sorted(news, key=lambda s: (s.step, s.serial))


def _store(memory: SimulatedMemory, stored: Stored) -> None:
    place = memory.arrays[stored.name][stored.box]
    if stored.mask is None:
        place[...] = stored.values
    else:
        place[stored.mask] = stored.values[stored.mask]
