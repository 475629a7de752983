"""Shared memory of a block: does the ring of stages go round, and does all fit?

Of one SM, number the stages that its loader fills 0, 1, 2, ... in the order of the queue, and in a task in the order in
which the body takes them; stage i lies where stage i - n did, with n stages in the ring. That gives three kinds of
edges: the loader fills i after i - 1; the body takes i after it is filled; the loader fills i after i - n is back.
Bodies give stages back in the order in which they took them, all by their end (`TaskKind.stages_at_once`). So i - n is
given back before i is needed, and without it, exactly if no body has more than n stages at a time. Then every edge goes
from an earlier place of the queue to a later one, and the ring closes no cycle with events either: those order bodies,
and a body needs of loaders only the one of its own SM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..core.memory import SCRATCH_HALVES, shared_bytes
from .rejection import Rejection, TaskRef

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class PlanRing:
    """How blocks split shared memory, and what grids ask of it. Per grid: ``takes``, the stages that the body has at a
    time, 0 if it streams nothing; ``keeps``, those that the plan says it has; ``scratch_needed``, bytes of a half;
    ``ahead``, the stages that are said to be filled while a task waits. [tasks]: ``least``, the fewest stages that are
    filled for it; ``stops``, whether for that the step before must be over."""

    stages: int
    stage_bytes: int
    scratch_bytes: int
    limit_bytes: int
    takes: tuple[int, ...]
    keeps: tuple[int, ...]
    scratch_needed: tuple[int, ...]
    ahead: tuple[int, ...]
    least: IntArray
    stops: BoolArray


def check_ring(ring: PlanRing, first_tasks: tuple[TaskRef, ...]) -> None:
    """The ring goes round and shared memory suffices; ``first_tasks``: of each grid. Raises Rejection, rule ring."""
    needed = shared_bytes(ring.stages, ring.stage_bytes, ring.scratch_bytes)
    if needed > ring.limit_bytes:
        raise Rejection(
            "ring",
            f"{ring.stages} stages of {ring.stage_bytes} bytes, {SCRATCH_HALVES} halves of scratch of "
            f"{ring.scratch_bytes} and the runtime's own are {needed} bytes of shared memory, a block has "
            f"{ring.limit_bytes}",
        )
    for task, takes, keeps, scratch in zip(first_tasks, ring.takes, ring.keeps, ring.scratch_needed, strict=True):
        if scratch > ring.scratch_bytes:
            what = f"{task} needs {scratch} bytes of scratch, a half has {ring.scratch_bytes}"
        elif (takes > 0) != (keeps > 0):
            what = f"{task} has {takes} stages of the ring at a time, the plan says {keeps}"
        elif takes > keeps:
            what = f"{task} has {takes} stages of the ring at a time, the plan lets it keep {keeps}"
        elif keeps > ring.stages:
            what = (
                f"{task} may keep {keeps} stages of a ring of {ring.stages}: it waits for the loader to fill one that "
                "the loader waits for it to give back"
            )
        else:
            continue
        raise Rejection("ring", what, tasks=(task,), advice="sm-pipeline splits shared memory and says what is kept")
