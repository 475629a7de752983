"""A graph as the arrays that the checker reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from xdsl.ir import Attribute, SSAValue

from ...core.target import target_of
from ...dialects.sm import EventOp, GraphOp, GridOp
from ...dialects.sm.attributes import ints
from ...dialects.sm.expansion import (
    IntArray,
    box_bounds,
    event_elements,
    placement,
    push_targets,
    rank_step,
    task_indices,
    whole_boxes,
)
from ...dialects.sm.ops import EventUse
from ...proof import Bounds, BoundsTable, Plan, PlanBuffer, PlanGrid, PlanRing, Region, Rejection
from .memory import element_bytes, size_bytes
from .shared_memory import least_stages, streams_state


def plan_of(graph: GraphOp) -> Plan:
    """What ``graph`` says. Raises Rejection, rule resources, for a task on an SM that does not exist."""
    num_sms = target_of(graph.target.data).num_sms
    grids, uses = _grids(graph.grids), _Uses(graph)
    queue = np.concatenate([np.zeros(0, np.int64), *(placement(grid, num_sms) for grid in graph.grids)])
    _require_sms(graph, grids, queue, num_sms)
    counts = np.concatenate([np.zeros(0, np.int64), *(event.arrivals for event in graph.events)])
    waits = uses.of((place, grid, grid.wait_uses) for place, grid in zip(grids, graph.grids, strict=True))
    signals = uses.of((place, grid, grid.signal_uses) for place, grid in zip(grids, graph.grids, strict=True))
    return Plan(
        grids=grids,
        buffers=tuple(
            PlanBuffer(
                op.sym_name.data,
                op.space.data,
                op.shape,
                size_bytes(op),
                op.offset.value.data if op.offset is not None else None,
                op.polled is not None,
                element_bytes(op),
                op.layout.data,
            )
            for op in graph.buffers
        ),
        regions=_regions(graph),
        queue=queue,
        position=positions(queue),
        queue_sm=np.arange(num_sms),
        queue_rank=np.zeros(num_sms, np.int64),
        event_names=tuple(f"@{op.sym_name.data}[{element}]" for op in graph.events for element in range(op.size)),
        event_count=counts,
        waits=np.concatenate([waits, counts[waits[:, 1]][:, None]], axis=1),
        signals=signals,
        step_events=tuple(uses.first[op.event] for op in graph.events if op.step is not None and op.size == 1),
        arena_bytes=graph.arena_bytes.value.data if graph.arena_bytes is not None else 0,
        event_polled=np.array([op.polled is not None for op in graph.events for _ in range(op.size)], np.bool_),
        polled_bytes=graph.polled_bytes.value.data if graph.polled_bytes is not None else 0,
        event_shared=np.array([op.shared is not None for op in graph.events for _ in range(op.size)], np.bool_),
        ranks=graph.rank_count,
        ring=_ring(graph),
        unknown_events=tuple(uses.unknown),
    )


def _ring(graph: GraphOp) -> PlanRing | None:
    split = graph.shared_memory
    if split is None:
        return None
    kinds = [grid.task_kind for grid in graph.grids]
    return PlanRing(
        split.stages.data,
        split.stage_bytes.data,
        split.scratch_bytes.data,
        target_of(graph.target.data).shared_memory_bytes,
        takes=tuple(kind.stages_at_once if kind.streams else 0 for kind in kinds),
        keeps=tuple(grid.stream.keeps.data if grid.stream is not None else 0 for grid in graph.grids),
        scratch_needed=tuple(
            kind.scratch_bytes(grid.task_params) for kind, grid in zip(kinds, graph.grids, strict=True)
        ),
        ahead=tuple(grid.stream.ahead.data if grid.stream is not None else 0 for grid in graph.grids),
        least=np.concatenate([np.zeros(0, np.int64), *map(least_stages, graph.grids)]),
        stops=np.repeat([streams_state(grid) for grid in graph.grids], [grid.num_tasks for grid in graph.grids]),
    )


def _require_sms(graph: GraphOp, grids: tuple[PlanGrid, ...], queue: IntArray, num_sms: int) -> None:
    if wrong := np.flatnonzero((queue < 0) | (queue >= num_sms)).tolist():
        grid = next(grid for grid in grids if grid.first <= wrong[0] < grid.end)
        raise Rejection(
            "resources",
            f"@{grid.name}{grid.index[wrong[0] - grid.first].tolist()} is placed on SM {int(queue[wrong[0]])}, "
            f"{graph.target.data} has SMs 0 to {num_sms - 1}",
        )


def positions(queue: IntArray) -> IntArray:
    """[tasks]: the place of each task among those of its queue, in order of number."""
    order = np.argsort(queue, kind="stable")
    begin = np.searchsorted(queue[order], queue[order])
    result = np.empty(len(queue), np.int64)
    result[order] = np.arange(len(queue)) - begin
    return result


def _grids(grids: list[GridOp]) -> tuple[PlanGrid, ...]:
    first = np.cumsum([0, *(grid.num_tasks for grid in grids)]).tolist()
    return tuple(
        PlanGrid(grid.sym_name.data, begin, task_indices(grid), grid.task_kind.takers(grid.task_params))
        for grid, begin in zip(grids, first, strict=False)
    )


def _regions(graph: GraphOp) -> tuple[Region, ...]:
    numbers: dict[SSAValue, int] = {op.buffer: number for number, op in enumerate(graph.buffers)}
    table, known = BoundsTable(), dict[tuple[Attribute, ...], tuple[Bounds, Bounds]]()
    regions: list[Region] = []
    for number, grid in enumerate(graph.grids):
        kind, params = grid.task_kind, grid.task_params
        for position, (name, value, box) in enumerate(zip(grid.operand_names, grid.data, grid.boxes, strict=True)):
            key = (grid.extent, box, value.type)
            if key not in known:  # layers repeat
                known[key] = table.of(*box_bounds(grid, position)), table.of(*whole_boxes(grid, position))
            operand, (bounds, whole) = kind.operand(name.data), known[key]
            regions.append(
                Region(
                    number,
                    name.data,
                    numbers[value],
                    box.mode.reads,
                    box.mode.writes,
                    bounds,
                    ints(box.along),
                    whole=whole,
                    early=operand.early,
                    streamed=operand.streamed,
                    rank_step=rank_step(grid, position),
                    to=push_targets(grid, box) if box.pushes else None,
                    multicast=box.multicasts,
                    appends=operand.appends,
                    polled=operand.polled,
                    tells=operand.tells,
                    layout=kind.layout(params, operand),
                )
            )
    return tuple(regions)


class _Uses:
    """[uses, 2] of (task, event) from the waits or signals of grids."""

    def __init__(self, graph: GraphOp) -> None:
        self.first: dict[SSAValue, int] = {}
        self.total = 0
        for event in graph.events:
            self.first[event.event] = self.total
            self.total += event.size
        self.unknown: list[tuple[int, str]] = []

    def of(self, grids: Iterable[tuple[PlanGrid, GridOp, list[EventUse]]]) -> IntArray:
        pairs = [np.zeros((0, 2), np.int64)]
        for place, grid, uses in grids:
            for use in uses:
                elements = event_elements(grid, use)
                rows, columns = np.nonzero(elements >= 0)
                found, tasks = elements[rows, columns], rows + place.first
                assert isinstance(use.event.owner, EventOp)
                event = use.event.owner
                known = found < event.size
                names = (f"@{event.sym_name.data}[{element}]" for element in found[~known].tolist())
                self.unknown += zip(tasks[~known].tolist(), names, strict=True)
                pairs.append(np.stack([tasks[known], found[known] + self.first[use.event]], axis=1))
        return np.concatenate(pairs)
