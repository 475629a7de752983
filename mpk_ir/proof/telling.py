"""What polled data tells of more than itself: that who made it has done its reading."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from .plan import BoolArray, Bounds, IntArray, Plan, Region

FIRST_ROW = 0
"""A step has one active row at least, the first: of later rows nobody knows whether they will be written."""


def told_plan(plan: Plan) -> Plan:
    """``plan`` with, of the polled events, only what orders reads before writes; each once for each grid that waits.

    A task that has seen all words that another writes in its box knows that the other has done its reading. So the
    wait of a task counts for those producers all of whose box, from the first row on, it reads itself, by operands
    whose bodies promise as much (`Operand.tells`); boxes whose extent is known at run time only (``along``) do not
    count.
    """
    polled = plan.event_polled
    waits, signals = plan.waits[polled[plan.waits[:, 1]], :2], plan.signals[polled[plan.signals[:, 1]]]
    grid_of = np.repeat(np.arange(len(plan.grids)), [len(grid.index) for grid in plan.grids])
    pairs = np.stack([waits[:, 1], grid_of[waits[:, 0]]], axis=1)
    parts, part_of = np.unique(pairs, axis=0, return_inverse=True)  # [parts, 2] of (event, grid that waits)
    part_of = part_of.reshape(-1)
    tasks, signalled = _joined(signals, parts[:, 0])
    told = np.zeros(len(tasks), np.bool_)
    rows, waiting = _by_pair(grid_of[tasks], parts[signalled, 1]), _by_key(grid_of[waits[:, 0]])
    for written, read in _told_operands(plan):
        here = rows.get((written.grid, read.grid))
        if here is not None:
            among = waiting[read.grid]
            seen = _seen_by_all(plan, read, waits[among, 0], part_of[among], len(parts))
            told[here] |= _inside(plan, written, tasks[here], seen, signalled[here])
    first = len(plan.event_count)
    kept = np.stack([waits[:, 0], part_of + first, np.zeros(len(waits), np.int64)], axis=1)
    return replace(
        plan,
        waits=np.concatenate([plan.waits[~polled[plan.waits[:, 1]]], kept]),
        signals=np.concatenate(
            [plan.signals[~polled[plan.signals[:, 1]]], np.stack([tasks[told], signalled[told] + first], axis=1)]
        ),
        event_count=np.concatenate([plan.event_count, np.zeros(len(parts), np.int64)]),
    )


def tells(written: Region, read: Region) -> bool:
    """Whether who reads by ``read`` all that a task wrote by ``written`` knows that the task has done its reading."""
    fixed = max(*written.along, *read.along) < 0
    return written.writes and not read.writes and written.tells and read.tells and fixed


def boxes_held(first: Bounds, second: Bounds) -> BoolArray:
    """[n, m]: whether box j of ``second`` holds box i of ``first``."""
    held = np.ones((len(first.low), len(second.low)), dtype=np.bool_)
    for dim in range(first.low.shape[1]):
        held &= first.low[:, None, dim] >= second.low[None, :, dim]
        held &= first.high[:, None, dim] <= second.high[None, :, dim]
    return held


def _told_operands(plan: Plan) -> list[tuple[Region, Region]]:
    by_buffer: dict[int, list[Region]] = defaultdict(list)
    for region in plan.regions:
        if plan.buffers[region.buffer].polled and region.tells:
            by_buffer[region.buffer].append(region)
    return [(one, other) for uses in by_buffer.values() for one in uses for other in uses if tells(one, other)]


def _joined(signals: IntArray, events: IntArray) -> tuple[IntArray, IntArray]:
    """([rows], [rows]): task and part, for each signal and each of the parts of its event; ``events`` is sorted."""
    begin, end = (np.searchsorted(events, signals[:, 1], side=side) for side in ("left", "right"))
    width = end - begin
    row = np.repeat(np.arange(len(signals)), width)
    place = np.arange(len(row)) - np.repeat(np.cumsum(width) - width, width)
    return signals[row, 0], begin[row] + place


def _by_pair(first: IntArray, second: IntArray) -> dict[tuple[int, int], IntArray]:
    """Rows by the pair of keys."""
    keys, inverse = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(inverse.reshape(-1), minlength=len(keys)))
    return {(a, b): rows for (a, b), rows in zip(keys.tolist(), np.split(order, ends[:-1]), strict=False)}


def _by_key(keys: IntArray) -> dict[int, IntArray]:
    return {first: rows for (first, _), rows in _by_pair(keys, np.zeros_like(keys)).items()}


@dataclass(frozen=True)
class _Seen:
    """[parts, rank] each: the box that all tasks which wait for a part of an event read."""

    low: IntArray
    high: IntArray


def _seen_by_all(plan: Plan, read: Region, tasks: IntArray, part_of: IntArray, parts: int) -> _Seen:
    """What ``tasks``, of the grid of ``read``, have in common by the part that they wait for."""
    bounds, number = read.bounds, tasks - plan.grids[read.grid].first
    low = np.zeros((parts, bounds.low.shape[1]), np.int64)
    high = np.full_like(low, np.iinfo(np.int64).max)
    np.maximum.at(low, part_of, bounds.low[number])
    np.minimum.at(high, part_of, bounds.high[number])
    return _Seen(low, high)


def _inside(plan: Plan, written: Region, tasks: IntArray, seen: _Seen, part: IntArray) -> BoolArray:
    """[rows]: whether what a task writes lies in what all see of the part."""
    number = tasks - plan.grids[written.grid].first
    low, high = written.bounds.low[number], written.bounds.high[number]
    return ((low >= seen.low[part]) & (high <= seen.high[part])).all(axis=1) & (
        low[:, 0] == written.first_row + FIRST_ROW
    )
