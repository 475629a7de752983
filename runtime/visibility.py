"""Memory as weak as the model allows: what an SM writes, another sees when an event orders it, and no earlier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.program import Program
from .simulated_memory import SimulatedMemory, name_on

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

    def __init__(
        self, memory: SimulatedMemory, program: Program, ranks: Sequence[int] = (0,), *, ordered: bool
    ) -> None:
        self._rank_sms = len(program.queue_begin) - 1
        self._shared_step = bool(program.event_shared[program.step_event])
        num_sms = self._rank_sms * len(ranks)
        self._memory, self.ordered = memory, ordered
        self.views = [memory.copy() for _ in range(num_sms)]
        self._events = np.zeros((program.ranks * len(program.event_count), num_sms), np.int64)
        self._polled_events = np.zeros_like(self._events)
        self._event_polled = np.tile(program.event_polled, program.ranks)
        self._polled = {name_on(buffer.name, rank) for buffer in program.buffers if buffer.polled for rank in ranks}
        self._start(num_sms)

    def _start(self, num_sms: int) -> None:
        self._seen = np.zeros((num_sms, num_sms), np.int64)
        self._seen_polled = np.zeros((num_sms, num_sms), np.int64)  # as far as polled buffers go
        self._log: list[list[list[Stored]]] = [[] for _ in range(num_sms)]
        self._serial = 0
        self._step = [-1] * num_sms
        self._begun: list[list[int]] = [[] for _ in range(num_sms)]  # by step, how many tasks were over
        self._events[...] = 0
        self._polled_events[...] = 0

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
        self._seen_polled[sm, sm] += 1

    def release(self, sm: int, events: Iterable[int]) -> None:
        for event in events:
            np.maximum(self._events[event], self._seen[sm], out=self._events[event])
            np.maximum(self._polled_events[event], self._seen_polled[sm], out=self._polled_events[event])

    def acquire(self, sm: int, events: Iterable[int]) -> None:
        for event in events:
            passed = None if self._event_polled[event] else self._events[event]
            for stored in self._news(sm, passed, self._polled_events[event]):
                _store(self.views[sm], stored)

    def begin_step(self, sm: int, step_event: int) -> None:
        """Acquire the end of the step before, for which each SM arrives behind its last task; scratch then holds
        nothing but what tasks of this step wrote already."""
        self._step[sm] += 1
        step = self._step[sm]
        self._begun[sm].append(len(self._log[sm]))
        ended = [
            0 if not self._ends_for(sm, other) else begun[step] if step < len(begun) else len(log)
            for other, (begun, log) in enumerate(zip(self._begun, self._log, strict=True))
        ]
        news = self._news(
            sm, np.maximum(self._events[step_event], ended), np.maximum(self._polled_events[step_event], ended)
        )
        old = [stored for stored in news if stored.step < self._step[sm]]
        for stored in old:
            _store(self.views[sm], stored)
        self.views[sm].poison()
        for stored in news[len(old) :]:
            _store(self.views[sm], stored)

    def _ends_for(self, sm: int, other: int) -> bool:
        """Whether the last task of SM ``other`` arrives at the step event that ``sm`` waits for."""
        return self._shared_step or sm // self._rank_sms == other // self._rank_sms

    def _news(self, sm: int, passed: Array | None, passed_polled: Array) -> list[Stored]:
        """What is passed on to ``sm``, which sees it from now on: by step, then in the order of writing.

        ``passed`` [sms]: tasks of each that are over, None behind a polled event; ``passed_polled``: those of which
        polled words are there, which every reader polls for itself, whoever has seen them before.
        """
        news = [s for s in self._between(self._seen_polled[sm], passed_polled) if s.name in self._polled]
        np.maximum(self._seen_polled[sm], passed_polled, out=self._seen_polled[sm])
        if passed is not None and self.ordered:
            news += [s for s in self._between(self._seen[sm], passed) if s.name not in self._polled]
            np.maximum(self._seen[sm], passed, out=self._seen[sm])
        return sorted(news, key=lambda s: (s.step, s.serial))

    def _between(self, seen: Array, passed: Array) -> Iterable[Stored]:
        """What tasks wrote that are among the ``passed`` [sms], not among the ``seen``."""
        for other in np.flatnonzero(passed > seen).tolist():
            for task in self._log[other][int(seen[other]) : int(passed[other])]:
                yield from task


def _store(memory: SimulatedMemory, stored: Stored) -> None:
    place = memory.arrays[stored.name][stored.box]
    if stored.mask is None:
        place[...] = stored.values
    else:
        place[stored.mask] = stored.values[stored.mask]
