"""Virtual SMs taking turns: queues in order, counters that only grow, targets scaled by the step as in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .interleaving import Interleaving


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """Row ``number`` of the task table."""

    number: int
    body: Callable[[], None]
    waits: tuple[tuple[int, int], ...]
    """(event, arrivals per step)."""
    signals: tuple[int, ...]


@dataclass(frozen=True)
class Blocked:
    """An SM that cannot go on: in ``step``, before ``task`` (None: before the step's first), by one event."""

    sm: int
    step: int
    task: int | None
    event: int
    count: int
    target: int


@dataclass
class Turns:
    """The SMs between runs. ``step_waits``: per queue the event that ends a step, with its arrivals per step;
    ``end_step`` is called when the last task of a step has run. ``idle`` is called when no SM is ready, with whether
    all are done: it may deliver `arrivals` from elsewhere, and says whether there may be more to do."""

    queues: Sequence[Sequence[QueuedTask]]
    num_events: int
    step_waits: Sequence[tuple[int, int]]
    interleaving: Interleaving
    end_step: Callable[[], None]
    idle: Callable[[bool], bool] = lambda done: False
    step: int = field(default=0, init=False)
    """Steps of all runs so far."""

    def __post_init__(self) -> None:
        self.counters = [0] * self.num_events
        self._position = [0] * len(self.queues)
        self._waiting: dict[int, list[int]] = {}
        self._ready: list[int] = []
        self._goal: list[int] = [0] * len(self.queues)

    def run(self, num_steps: int) -> list[Blocked]:
        """Take turns until ``num_steps`` steps are done or no SM can go on; the SMs that are stuck."""
        goal = self._goal = [num_steps * len(queue) for queue in self.queues]
        per_step, done = sum(len(queue) for queue in self.queues), 0
        self._position = [0] * len(self.queues)
        self._waiting, self._ready = {}, []
        for sm in range(len(self.queues)):
            self._admit(sm, goal[sm])
        while self._ready or self.idle(done == sum(goal)):
            if not self._ready:
                continue
            sm = self.interleaving.choose(self._ready)
            task = self.queues[sm][self._position[sm] % len(self.queues[sm])]
            task.body()
            self._position[sm] += 1
            self._ready.remove(sm)
            self.arrivals(task.signals)
            self._admit(sm, goal[sm])
            done += 1
            if done % per_step == 0:
                self.end_step()
        unfinished = [sm for sm in range(len(self.queues)) if self._position[sm] < goal[sm]]
        stuck = [blocked for sm in unfinished if (blocked := self._lacking(sm)) is not None]
        self.step += num_steps
        return stuck

    def arrivals(self, events: Iterable[int]) -> None:
        """One arrival at each of ``events``."""
        for event in events:
            self.counters[event] += 1
            for sm in self._waiting.pop(event, ()):
                self._admit(sm, self._goal[sm])

    def _admit(self, sm: int, goal: int) -> None:
        """Put ``sm`` among the ready, or among those that wait for the first event it lacks; nowhere if it is done."""
        if self._position[sm] >= goal:
            return
        lacking = self._lacking(sm)
        if lacking is None:
            self._ready.append(sm)
        else:
            self._waiting.setdefault(lacking.event, []).append(sm)

    def _lacking(self, sm: int) -> Blocked | None:
        """What the next task of ``sm`` has to wait for first, if anything."""
        queue, counters = self.queues[sm], self.counters
        steps, place = divmod(self._position[sm], len(queue))
        step = self.step + steps
        event, arrivals = self.step_waits[sm]
        if place == 0 and counters[event] < step * arrivals:
            return Blocked(sm, step, None, event, counters[event], step * arrivals)
        task = queue[place]
        for event, arrivals in task.waits:
            if counters[event] < (step + 1) * arrivals:
                return Blocked(sm, step, task.number, event, counters[event], (step + 1) * arrivals)
        return None
