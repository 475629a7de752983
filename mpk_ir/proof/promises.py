"""What bodies promise about their operands, held against what a plan does with them."""

from __future__ import annotations

import numpy as np

from ..core.memory import Space
from .plan import BoolArray, Bounds, Plan, Region
from .races import Overlaps, uses_by_buffer
from .rejection import Place, Rejection, TaskRef

STREAMED_SPACES = (Space.WEIGHT, Space.STATE)
WORD_BYTES = 4
"""What is written, or not yet, as a whole (codegen/cuda/mpk/runtime/polling.cuh)."""


def check_polled(plan: Plan) -> None:
    """All who touch a polled buffer can poll, and each of its words has one writer. Raises Rejection, rule polled."""
    uses: dict[int, list[Region]] = {}
    for region in plan.regions:
        if plan.buffers[region.buffer].polled:
            uses.setdefault(region.buffer, []).append(region)
    known: set[tuple[Bounds, tuple[int, ...], int]] = set()
    for number, regions in sorted(uses.items()):
        buffer = plan.buffers[number]
        if unable := [r for r in regions if not r.polled or (r.reads and r.writes)]:
            raise _polled(plan, unable[0], "cannot tell its written words from the others")
        writers = [region for region in regions if region.writes]
        if len(writers) > 1:
            raise _polled(
                plan, writers[1], f"writes it after {_first(plan, writers[0])}: a word is written once a step"
            )
        for region in writers:
            key = (region.bounds, buffer.shape, buffer.element_bytes)
            if key not in known and (torn := np.flatnonzero(_tears_words(region, *key[1:]))).size:
                raise _polled(plan, region, f"writes half a word of it in {region.bounds.text(int(torn[0]))}")
            known.add(key)


def _tears_words(region: Region, shape: tuple[int, ...], element_bytes: int) -> BoolArray:
    """[tasks]: whether a box begins or ends inside a word; rows begin with one."""
    low, high = region.bounds.low[:, -1], region.bounds.high[:, -1]
    inside = (high * element_bytes % WORD_BYTES != 0) & (high != shape[-1])
    return (low * element_bytes % WORD_BYTES != 0) | inside


def _first(plan: Plan, region: Region) -> TaskRef:
    return plan.task(plan.grids[region.grid].first)


def _polled(plan: Plan, region: Region, what: str) -> Rejection:
    name, task = plan.buffers[region.buffer].name, _first(plan, region)
    return Rejection(
        "polled",
        f"buffer @{name} is polled, and {task}, operand {region.operand}, {what}",
        tasks=(task,),
        places=(Place(name),),
        advice="sm-poll-data marks the buffers that can be",
    )


def check_streams(plan: Plan) -> None:
    """What a loader reads ahead of every wait is a weight that nothing writes, or of a state what earlier steps wrote.
    Raises Rejection, rule memory-model.

    A body streams of a state only what earlier steps wrote, so tasks before it may only append to it.
    """
    for region in plan.regions:
        space = plan.buffers[region.buffer].space
        if (region.writes and space is Space.WEIGHT) or (region.streamed and space not in STREAMED_SPACES):
            what = "writes weight" if region.writes else f"streams, ahead of its waits, a buffer of space {space},"
            raise _stream(plan, region, what, _first(plan, region))
    overlaps = Overlaps()
    for regions in uses_by_buffer(plan).values():
        streams = [region for region in regions if region.streamed]
        for writer in [r for r in regions if streams and r.writes and not r.appends]:
            for stream in [s for s in streams if s.grid >= writer.grid]:
                rows, columns = overlaps.of(writer.bounds, stream.bounds)
                if len(rows):
                    begin = plan.grids[writer.grid].first, plan.grids[stream.grid].first
                    what = f"writes what {plan.task(int(columns[0]) + begin[1])} streams ahead of its waits:"
                    raise _stream(plan, writer, what, plan.task(int(rows[0]) + begin[0]))


def _stream(plan: Plan, region: Region, what: str, task: TaskRef) -> Rejection:
    name = plan.buffers[region.buffer].name
    return Rejection(
        "memory-model",
        f"{task} {what} @{name} by operand {region.operand}",
        tasks=(task,),
        places=(Place(name),),
    )
