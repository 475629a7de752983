"""`join`: does nothing but wait and signal; `sm-normalize-events` uses it where a task has too many events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Array, Params, TaskKind


@dataclass(frozen=True)
class JoinParams(Params):
    """None."""


class Join(TaskKind[JoinParams]):
    """Waits for up to the limit of events and relays them as one."""

    name = "join"
    params_type = JoinParams
    operands = ()

    def signature(self, params: JoinParams) -> str:
        return "mpk::Join"

    def cost_us(self, params: JoinParams, target: Target) -> float:
        return target.task_overhead_us

    def reference(self, params: JoinParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        del params, views, index
