"""A program's tables as the arrays that the checker reads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..core.memory import Space
from ..proof import BoundsTable, Plan, PlanBuffer, PlanGrid, PlanRing, Region
from ..proof.plan import IntArray
from ..tasks import task_kind
from .program import MAX_SIGNALS, MAX_WAITS, Grid, Program

Array = np.ndarray[Any, Any]
_CONSTANT = re.compile(r"constexpr int (\w+) = (-?\d+);")


def plan_of(program: Program) -> Plan:
    """What the tables of ``program`` say; `codegen.verify` has checked that they are well formed."""
    rows = program_order(program)
    tasks = program.tasks[rows]
    length = np.diff(program.queue_begin)
    events = np.arange(len(program.event_count))
    waits, unknown_waits = _uses(program, tasks, "wait_event", MAX_WAITS)
    signals, unknown_signals = _uses(program, tasks, "signal_event", MAX_SIGNALS)
    counts = tasks["wait_count"][waits[:, 0], waits[:, 2]].astype(np.int64)
    return Plan(
        grids=_grids(program, tasks),
        buffers=tuple(
            PlanBuffer(
                b.name,
                b.space,
                b.shape,
                b.bytes,
                b.offset_bytes if b.space is Space.SCRATCH else None,
                b.polled,
                b.dtype.bytes,
                b.layout,
            )
            for b in program.buffers
        ),
        regions=_regions(program, tasks),
        queue=np.repeat(np.arange(len(length)), length)[rows],
        position=(np.arange(len(rows)) - np.repeat(program.queue_begin[:-1], length))[rows],
        queue_sm=np.arange(len(length)),
        queue_rank=np.zeros(len(length), np.int64),
        event_names=tuple(f"@{program.event_names[event]}" for event in events),
        event_count=program.event_count.astype(np.int64),
        waits=np.concatenate([waits[:, :2], counts[:, None]], axis=1),
        signals=signals[:, :2],
        step_events=(program.step_event,) if program.step_event in events else (),
        arena_bytes=program.arena_bytes,
        event_polled=program.event_polled,
        polled_bytes=program.polled_bytes,
        event_shared=program.event_shared,
        ranks=program.ranks,
        ring=_ring(program, tasks),
        unknown_events=(*unknown_waits, *unknown_signals),
    )


def _ring(program: Program, tasks: Array) -> PlanRing:
    """What the kernel is compiled with; it keeps as many stages as its bodies take."""
    constants, numbers = constants_of(program), range(len(program.grids))
    kinds = [task_kind(grid.kind) for grid in program.grids]
    takes = tuple(kind.stages_at_once if kind.streams else 0 for kind in kinds)
    return PlanRing(
        constants.get("kRingStages", 0),
        constants.get("kStageBytes", 0),
        constants.get("kScratchBytes", 0),
        program.target.shared_memory_bytes,
        takes=takes,
        keeps=takes,
        scratch_needed=tuple(
            kind.scratch_bytes(kind.params_from(grid.params)) for kind, grid in zip(kinds, program.grids, strict=True)
        ),
        ahead=tuple(grid.ahead for grid in program.grids),
        least=np.concatenate([np.zeros(0, np.int64), *(_least_stages(program, tasks, grid) for grid in numbers)]),
        stops=np.array([streams_state(program, grid) for grid in program.grids], np.bool_)[tasks["grid"]],
    )


def _least_stages(program: Program, tasks: Array, number: int) -> IntArray:
    """[tasks of the grid]: the fewest stages that the loader fills for each."""
    grid = program.grids[number]
    kind, rows = task_kind(grid.kind), tasks[tasks["grid"] == number]
    if not kind.streams:
        return np.zeros(len(rows), np.int64)
    indices = rows["index"][:, : len(grid.extent)].astype(np.int64)
    return np.asarray(kind.least_stages(kind.params_from(grid.params), indices), np.int64)


def streams_state(program: Program, grid: Grid) -> bool:
    """Whether the loader of a task of ``grid`` waits for the step before."""
    kind = task_kind(grid.kind)
    return any(
        kind.operand(operand.name).streamed and program.buffers[operand.buffer].space is Space.STATE
        for operand in grid.operands
    )


def constants_of(program: Program) -> dict[str, int]:
    """The constants that the kernel is compiled with."""
    found = _CONSTANT.findall(program.headers.get("mpk/config.cuh", ""))
    return {name: int(value) for name, value in found}


def program_order(program: Program) -> IntArray:
    """[tasks]: rows of the table by grid, and in a grid by index, last dimension fastest."""
    index = program.tasks["index"]
    return np.lexsort((*(index[:, dim] for dim in reversed(range(index.shape[1]))), program.tasks["grid"]))


def _grids(program: Program, tasks: Array) -> tuple[PlanGrid, ...]:
    first = np.searchsorted(tasks["grid"], np.arange(len(program.grids) + 1)).tolist()
    return tuple(
        PlanGrid(grid.name, begin, tasks["index"][begin:end, : len(grid.extent)].astype(np.int64), _takers(grid))
        for grid, begin, end in zip(program.grids, first, first[1:], strict=False)
    )


def _takers(grid: Grid) -> int:
    kind = task_kind(grid.kind)
    return kind.takers(kind.params_from(grid.params))


def _regions(program: Program, tasks: Array) -> tuple[Region, ...]:
    first = np.searchsorted(tasks["grid"], np.arange(len(program.grids) + 1)).tolist()
    table, regions = BoundsTable(), list[Region]()
    for number, (grid, begin, end) in enumerate(zip(program.grids, first, first[1:], strict=False)):
        kind = task_kind(grid.kind)
        params = kind.params_from(grid.params)
        for position, operand in enumerate(grid.operands):
            rank = len(program.buffers[operand.buffer].shape)
            low = tasks["offsets"][begin:end, position, :rank]
            declared = kind.operand(operand.name)
            regions.append(
                Region(
                    number,
                    operand.name,
                    operand.buffer,
                    operand.access.reads,
                    operand.access.writes,
                    table.of(low, low + tasks["sizes"][begin:end, position, :rank]),
                    operand.along or (-1,) * rank,
                    early=declared.early,
                    streamed=declared.streamed,
                    rank_step=operand.rank_step,
                    to=tasks["push_to"][begin:end].astype(np.int64) if operand.pushed else None,
                    multicast=operand.multicast,
                    appends=declared.appends,
                    polled=declared.polled,
                    tells=declared.tells,
                    layout=kind.layout(params, declared),
                )
            )
    return tuple(regions)


def _uses(program: Program, tasks: Array, column: str, limit: int) -> tuple[IntArray, list[tuple[int, str]]]:
    """([uses, 3] of (task, event, place in the record); what names no event)."""
    used = np.arange(limit) < tasks["num_waits" if column == "wait_event" else "num_signals"][:, None]
    rows, places = np.nonzero(used)
    events = tasks[column][rows, places].astype(np.int64)
    known = (events >= 0) & (events < len(program.event_count))
    unknown = [(int(rows[at]), f"number {int(events[at])}") for at in np.flatnonzero(~known).tolist()]
    return np.stack([rows, events, places], axis=1)[known], unknown
