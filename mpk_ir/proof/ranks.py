"""A plan that several ranks run, as one plan of all their tasks, memories and events.

What holds of two ranks holds of any number if a task that writes to other ranks writes to all of them, because then any
two ranks are like any other two: a task's wait is for the arrivals of all ranks, so what orders two tasks when only
their ranks are looked at orders them among N. Where tasks choose a rank to write to, all are looked at. That no ranks
wait for each other in a circle follows from the plan of one rank, in which such a circle would be one, too
(docs/decisions/0008-ranks-meet-in-polled-data.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.ranks import TO_ALL, TO_SELF
from .plan import Bounds, BoundsTable, IntArray, Plan, PlanBuffer, PlanGrid, Region
from .promises import WORD_BYTES
from .rejection import Place, Rejection


def check_pushes(plan: Plan) -> None:
    """Only polled data crosses ranks: within a step nothing else is ordered at their scope. Raises Rejection, rule
    memory-model; rule bounds for a task that writes to a rank that does not exist, rule coverage for a store that
    reaches ranks for which it is not meant."""
    for region in plan.regions:
        if region.to is None:
            continue
        buffer, task = plan.buffers[region.buffer], plan.task(plan.grids[region.grid].first)
        if not buffer.polled:
            raise Rejection(
                "memory-model",
                f"{task} writes by operand {region.operand} to @{buffer.name} of other ranks, which is not polled: "
                "nothing orders ranks within a step",
                tasks=(task,),
                places=(Place(buffer.name),),
            )
        if region.rank_step and region.rank_step[-1] * buffer.element_bytes % WORD_BYTES:
            raise Rejection(
                "polled",
                f"{task} writes by operand {region.operand} half a word of @{buffer.name}, and another rank the rest",
                tasks=(task,),
                places=(Place(buffer.name),),
            )
        if region.multicast and (region.to != TO_ALL).any():
            raise Rejection(
                "coverage",
                f"{task} writes by operand {region.operand} to one rank, but by multicast, which reaches all",
                tasks=(task,),
                places=(Place(buffer.name),),
            )
        if ((region.to < TO_ALL) | (region.to >= plan.ranks)).any():
            raise Rejection(
                "bounds",
                f"{task} writes by operand {region.operand} to a rank that is none of {plan.ranks}",
                tasks=(task,),
            )


def representatives(plan: Plan) -> tuple[int, ...]:
    """The ranks that must be looked at: two, unless tasks choose among ranks."""
    choosing = any((region.to >= 0).any() for region in plan.regions if region.to is not None)
    return tuple(range(plan.ranks if choosing else min(plan.ranks, 2)))


def spread(plan: Plan, ranks: Sequence[int]) -> Plan:
    """``plan`` on each of ``ranks``: grid by grid in program order, in each grid rank by rank.

    Other ranks are left out; what they write is taken to be written by the last of ``ranks``, whose place among waits
    and arrivals no task of theirs takes.
    """
    count, events, tasks = len(ranks), len(plan.event_count), _task_numbers(plan, len(ranks))
    waits = np.concatenate(
        [np.stack([tasks[k, plan.waits[:, 0]], plan.waits[:, 1] + k * events], axis=1) for k in range(count)]
    )
    signals = np.concatenate([_signals(plan, ranks, k, tasks[k]) for k in range(count)])
    arrivals = np.bincount(signals[:, 1], minlength=count * events)
    order = np.argsort(tasks.reshape(-1))
    queues = plan.num_queues
    return replace(
        plan,
        grids=tuple(
            PlanGrid(grid.name, int(tasks[k, grid.first]), grid.index, grid.takers)
            for grid in plan.grids
            for k in range(count)
        ),
        buffers=tuple(_named(buffer, rank) for rank in ranks for buffer in plan.buffers),
        regions=_regions(plan, ranks),
        queue=np.concatenate([plan.queue + k * queues for k in range(count)])[order],
        position=np.tile(plan.position, count)[order],
        queue_sm=np.tile(plan.queue_sm, count),
        queue_rank=np.repeat(np.array(ranks), queues),
        event_names=tuple(f"{name} of rank {rank}" for rank in ranks for name in plan.event_names),
        event_count=arrivals,
        waits=np.concatenate([waits, arrivals[waits[:, 1]][:, None]], axis=1),
        signals=signals,
        step_events=tuple(event + k * events for k in range(count) for event in plan.step_events),
        event_polled=np.tile(plan.event_polled, count),
        event_shared=np.tile(plan.event_shared, count),
    )


def _task_numbers(plan: Plan, count: int) -> IntArray:
    """[ranks, tasks]: the number of each task in the plan of all."""
    numbers = np.zeros((count, plan.num_tasks), np.int64)
    for grid in plan.grids:
        size = grid.end - grid.first
        for k in range(count):
            numbers[k, grid.first : grid.end] = count * grid.first + k * size + np.arange(size)
    return numbers


def _named(buffer: PlanBuffer, rank: int) -> PlanBuffer:
    return replace(buffer, name=f"{buffer.name} of rank {rank}")


def _signals(plan: Plan, ranks: Sequence[int], k: int, tasks: IntArray) -> IntArray:
    """[signals, 2] of the tasks of the k-th rank: shared events on the ranks to which they write, the step on all."""
    events = len(plan.event_count)
    task, event = plan.signals.T
    to = np.where(np.isin(event, plan.step_events), TO_ALL, _targets_of_tasks(plan)[task])
    to = np.where(plan.event_shared[event], to, TO_SELF)
    found: list[IntArray] = []
    for other, rank in enumerate(ranks):
        there = (to == TO_ALL) | (to == rank) | ((to == TO_SELF) & (other == k))
        found.append(np.stack([tasks[task[there]], event[there] + other * events], axis=1))
    return np.concatenate(found)


def _targets_of_tasks(plan: Plan) -> IntArray:
    """[tasks]: the rank to which each writes; `TO_SELF` for those that write to no other."""
    targets = np.full(plan.num_tasks, TO_SELF)
    for region in plan.regions:
        if region.to is not None:
            targets[plan.grids[region.grid].first : plan.grids[region.grid].end] = region.to
    return targets


def _regions(plan: Plan, ranks: Sequence[int]) -> tuple[Region, ...]:
    """Those of each rank in its own memory, and of what it pushes in every memory that it reaches."""
    table, count, buffers = BoundsTable(), len(ranks), len(plan.buffers)
    found: list[Region] = []
    others = [rank for rank in range(plan.ranks) if rank not in ranks]
    for region in plan.regions:
        shape = np.array(plan.buffers[region.buffer].shape)
        for k, rank in enumerate(ranks):
            copy = replace(region, grid=region.grid * count + k, buffer=region.buffer + k * buffers)
            if region.to is None:
                found.append(replace(copy, bounds=on_rank(region, shape, rank, table)))
                continue
            for writer in (rank, *(others if k == count - 1 else ())):
                bounds = on_rank(region, shape, writer, table)
                for other, owner in enumerate(ranks):
                    reached = (region.to == TO_ALL) | (region.to == owner)
                    if reached.any():
                        row = writer * (region.rank_step or (0,))[0]
                        place = replace(copy, buffer=region.buffer + other * buffers, first_row=row)
                        found.append(replace(place, bounds=_only(bounds, reached, shape, table)))
    found.sort(key=lambda region: region.grid)
    return tuple(found)


def on_rank(region: Region, shape: IntArray, rank: int, table: BoundsTable) -> Bounds:
    """The boxes of ``region`` on ``rank``, clipped to a buffer of ``shape``."""
    if not region.rank_step or not rank:
        return region.bounds
    step = rank * np.array(region.rank_step)
    return table.of(np.minimum(region.bounds.low + step, shape), np.minimum(region.bounds.high + step, shape))


def _only(bounds: Bounds, tasks: np.ndarray, shape: IntArray, table: BoundsTable) -> Bounds:
    """``bounds`` of those ``tasks``; the others' boxes are empty, past the end."""
    if tasks.all():
        return bounds
    return table.of(np.where(tasks[:, None], bounds.low, shape), np.where(tasks[:, None], bounds.high, shape))
