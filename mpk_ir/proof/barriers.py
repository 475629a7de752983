"""Warps of one SM: no barrier stands between two tasks of a queue unless the second asks for it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .plan import BoolArray, IntArray, Plan, Region
from .races import boxes_overlap
from .rejection import Place, Rejection


def check_barriers(plan: Plan, ordered: BoolArray) -> None:
    """Between two tasks of a queue that touch the same unpolled bytes, one writing, all warps of the block meet.

    ``ordered`` [tasks]: before the task begins, all warps have ended the tasks before it. Raises Rejection, rule
    barrier.
    """
    stretch = _stretches(plan, ordered)
    for shared in _shared_bytes(plan):
        writers = [region for region in shared if region.writes]
        for one in writers:
            for other in [r for r in shared if r.grid != one.grid]:
                _check_pair(plan, stretch, one, other)


def _stretches(plan: Plan, ordered: BoolArray) -> IntArray:
    """[tasks]: number of the stretch of a queue, from one barrier to the next, that the task lies in."""
    order = np.lexsort((plan.position, plan.queue))
    begins = ordered[order] | (plan.position[order] == 0)
    stretch = np.empty(plan.num_tasks, np.int64)
    stretch[order] = np.cumsum(begins)
    return stretch


def _shared_bytes(plan: Plan) -> list[list[Region]]:
    """Operands by unpolled buffer; buffers that share bytes of the arena are one list."""
    group = {number: number for number in range(len(plan.buffers))}
    placed = sorted(
        (buffer.offset_bytes, buffer.offset_bytes + buffer.size_bytes, number)
        for number, buffer in enumerate(plan.buffers)
        if buffer.offset_bytes is not None and not buffer.polled
    )
    end, leader = -1, -1
    for begin, stop, number in placed:
        if begin >= end:
            leader = number
        group[number], end = leader, max(end, stop)
    uses: dict[int, list[Region]] = defaultdict(list)
    for region in plan.regions:
        if not plan.buffers[region.buffer].polled:
            uses[group[region.buffer]].append(region)
    return [regions for regions in uses.values() if any(region.writes for region in regions)]


def _check_pair(plan: Plan, stretch: IntArray, one: Region, other: Region) -> None:
    first, second = (np.arange(plan.grids[r.grid].first, plan.grids[r.grid].end) for r in (one, other))
    if not np.isin(stretch[first], stretch[second]).any():
        return
    together = stretch[first][:, None] == stretch[second]
    if one.buffer == other.buffer:
        together &= boxes_overlap(one.bounds, other.bounds)
    elif not _share_bytes(plan, one, other):
        return
    if together.any():
        a, b = (np.argwhere(together)[0] + (plan.grids[one.grid].first, plan.grids[other.grid].first)).tolist()
        tasks = plan.task(min(a, b)), plan.task(max(a, b))
        raise Rejection(
            "barrier",
            f"no barrier stands between {tasks[0]} and {tasks[1]}: of buffer @{plan.buffers[one.buffer].name} one "
            "writes what the other touches, and warps of a block run ahead of each other",
            tasks=tasks,
            places=(Place(plan.buffers[one.buffer].name), Place(plan.buffers[other.buffer].name)),
            advice="the flag ORDERED of the second, or of a task between them, makes one",
        )


def _share_bytes(plan: Plan, one: Region, other: Region) -> bool:
    first, second = plan.buffers[one.buffer], plan.buffers[other.buffer]
    if first.offset_bytes is None or second.offset_bytes is None:
        return False
    return (
        first.offset_bytes < second.offset_bytes + second.size_bytes
        and second.offset_bytes < first.offset_bytes + first.size_bytes
    )
