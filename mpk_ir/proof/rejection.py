"""Why a plan is rejected, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import VerificationError


@dataclass(frozen=True)
class TaskRef:
    """A task: grid and index, and where it runs (``position`` counts from 0 in the queue of its SM)."""

    grid: str
    index: tuple[int, ...]
    sm: int
    position: int
    rank: int = 0

    def __str__(self) -> str:
        rank = f"rank {self.rank}, " if self.rank else ""
        return f"@{self.grid}{list(self.index)} ({rank}SM {self.sm}, position {self.position})"


@dataclass(frozen=True)
class Place:
    """A buffer, or the part of it in ``box``, written as `[0:8, 16:32]`."""

    buffer: str
    box: str = ""


class Rejection(VerificationError):
    """A broken rule, with what breaks it: tasks, events, and places in memory, place i touched by task i. For a
    deadlock ``tasks`` and ``events`` are the cycle, task i waiting for event i."""

    def __init__(
        self,
        rule: str,
        message: str,
        *,
        tasks: tuple[TaskRef, ...] = (),
        events: tuple[str, ...] = (),
        places: tuple[Place, ...] = (),
        advice: str | None = None,
    ) -> None:
        super().__init__(f"sm-verify, {rule}: {message}", advice=advice)
        self.rule, self.tasks, self.events, self.places = rule, tasks, events, places

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rule": self.rule,
            "message": self.message,
            "tasks": [asdict(task) for task in self.tasks],
            "events": list(self.events),
            "places": [asdict(place) for place in self.places],
            "advice": self.advice,
        }
