"""Ranks of the simulator: which counters a task of a rank signals, and how what it pushes reaches the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..codegen.program import MAX_SIGNALS, Program
from ..core.ranks import TO_ALL, TO_SELF

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Message:
    """What a task pushes to ``rank``, which is simulated elsewhere: ``values`` for ``box`` of a buffer, then arrivals
    at ``events``."""

    rank: int
    stored: tuple[tuple[str, tuple[slice, ...], Array], ...]
    events: tuple[int, ...]


class Link(Protocol):
    """How one rank, simulated here, reaches the others, simulated in other processes."""

    @property
    def rank(self) -> int:
        """The rank simulated here."""
        ...

    def exchange(self, messages: Sequence[Message], *, done: bool) -> tuple[list[Message], bool]:
        """Hand over ``messages``, receive those for this rank; whether any rank has more to do.

        Every rank calls it at once. Raises RankError if another rank has failed, or waits for ever.
        """
        ...

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process, in order of ranks. Every rank calls it at once."""
        ...

    def fail(self, error: str) -> None:
        """Tell the others that this rank cannot go on."""
        ...


class Counters:
    """Numbers of the counters of all ranks: each rank has one for each event of the program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._events = len(program.event_count)
        self._arrivals = self._count_arrivals()

    @property
    def total(self) -> int:
        return self.program.ranks * self._events

    def number(self, event: int, rank: int) -> int:
        """The counter of ``event`` on ``rank``."""
        return rank * self._events + event

    def split(self, number: int) -> tuple[int, int]:
        """(rank, event) of a counter."""
        return divmod(number, self._events)

    def target(self, event: int, rank: int, count: int) -> int:
        """Arrivals a step that a task of ``rank`` waits for which needs ``count`` as if all ranks were one."""
        return count - int(self.program.event_count[event]) + int(self._arrivals[rank, event])

    def signalled(self, event: int, rank: int, push_to: int) -> list[int]:
        """The counters at which a task of ``rank`` arrives that signals ``event``."""
        if not self.program.event_shared[event]:
            return [self.number(event, rank)]
        to = TO_ALL if event == self.program.step_event else push_to
        return [self.number(event, other) for other in targets(to, rank, self.program.ranks)]

    def _count_arrivals(self) -> Array:
        """[ranks, events]: arrivals a step that the counter receives."""
        program, ranks = self.program, self.program.ranks
        counts = np.tile(program.event_count.astype(np.int64), (ranks, 1))
        used = np.arange(MAX_SIGNALS) < program.tasks["num_signals"][:, None]
        rows, places = np.nonzero(used)
        events, push_to = program.tasks["signal_event"][rows, places], program.tasks["push_to"][rows]
        for event in np.flatnonzero(program.event_shared).tolist():
            to = push_to[events == event]
            for rank in range(ranks):
                everywhere = event == program.step_event
                counts[rank, event] = ranks * (len(to) if everywhere else int(((to == TO_ALL) | (to == rank)).sum()))
        return counts


def targets(push_to: int, rank: int, ranks: int) -> Iterable[int]:
    """The ranks into whose memory a task of ``rank`` writes."""
    if push_to == TO_SELF:
        return (rank,)
    return range(ranks) if push_to == TO_ALL else (push_to,)
