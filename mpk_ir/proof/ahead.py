"""How far loaders run ahead: what a plan says of it must be what the ring and the step allow.

Stop the consumers of an SM before one of its tasks. All stages taken before are given back then, and the loader goes on
over the queue, into the next step when this one's tasks are through. It stops for one of two reasons: the ring is full,
and to fill one stage more it would overwrite one that no body has taken yet; or it has come to a task of the next step
that streams a state, which tasks of this step still write. Stages are counted as few as there may be: a cache can be
empty. More than that a plan must not count on.
"""

from __future__ import annotations

import numpy as np

from .plan import IntArray, Plan
from .rejection import Rejection
from .ring import PlanRing


def check_ahead(plan: Plan, ring: PlanRing) -> None:
    """No grid is said to have more stages filled while a task waits than loaders fill. Raises Rejection, rule ring."""
    said = np.repeat(np.array(ring.ahead, np.int64), [len(grid.index) for grid in plan.grids])
    if (over := np.flatnonzero(said > ring.stages)).size:
        why = f"the ring has {ring.stages}: the next would overwrite one that is not given back"
        raise _rejection(plan, said, int(over[0]), why)
    filled = filled_ahead(plan, ring)
    if (late := np.flatnonzero(said > filled)).size:
        why = (
            f"its SM's loader is only sure to fill {filled[late[0]]}: then the step ends, and the next streams what "
            f"this one writes"
        )
        raise _rejection(plan, said, int(late[0]), why)


def _rejection(plan: Plan, said: IntArray, number: int, why: str) -> Rejection:
    task = plan.task(number)
    return Rejection(
        "ring",
        f"while {task} waits {said[number]} stages from its first on are said to be filled, {why}",
        tasks=(task,),
        advice="sm-pipeline says how far loads run ahead",
    )


def filled_ahead(plan: Plan, ring: PlanRing) -> IntArray:
    """[tasks]: the fewest stages from a task's first on that its SM's loader fills while the task waits."""
    order = np.lexsort((plan.position, plan.queue))
    queue = plan.queue[order]
    first = np.searchsorted(queue, np.arange(plan.num_queues + 1))
    before = np.concatenate([[0], np.cumsum(ring.least[order])])
    stops = np.flatnonzero(ring.stops[order])
    at = np.searchsorted(stops, first[:-1])  # the first stop of a queue, if it is one of its own
    stop = np.append(stops, len(order))[at]
    next_step = before[np.minimum(stop, first[1:])] - before[first[:-1]]
    filled = np.empty(plan.num_tasks, np.int64)
    filled[order] = before[first[1:]][queue] - before[:-1] + next_step[queue]
    return np.minimum(filled, ring.stages)
