"""The sm graph expanded to the tables that GPU and simulator read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import SSAValue

from ..core.dtype import DType, dtype_of
from ..core.errors import PlanError
from ..core.memory import Space
from ..core.target import target_of
from ..dialects.sm import BufferOp, BufferType, EventOp, GraphOp, GridOp
from ..dialects.sm.attributes import ints
from ..dialects.sm.expansion import (
    box_bounds,
    event_elements,
    placement,
    rank_step,
    task_indices,
    task_targets,
)
from ..dialects.sm.ops import EventUse
from .abi import TaskFlag
from .program import MAX_OPERANDS, MAX_SIGNALS, MAX_WAITS, TASK, Buffer, Grid, GridOperand, Pack

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tables:
    """What `Program` holds of a graph, apart from the source."""

    buffers: tuple[Buffer, ...]
    grids: tuple[Grid, ...]
    bodies: tuple[str, ...]
    tasks: Array
    queue_begin: Array
    event_count: Array
    event_polled: Array
    event_shared: Array
    event_names: tuple[str, ...]
    constants: dict[str, Array]


def expand(graph: GraphOp) -> Tables:
    """All tables of ``graph``, which must be scheduled and have its events.

    Raises PlanError where a task exceeds what a task record holds.
    """
    buffers: dict[SSAValue, int] = {op.buffer: number for number, op in enumerate(graph.buffers)}
    first_element: dict[SSAValue, int] = {}
    counts: list[int] = []
    polled: list[bool] = []
    shared: list[bool] = []
    names: list[str] = []
    for event in graph.events:
        first_element[event.event] = len(counts)
        counts += event.arrivals.tolist()
        polled += [event.polled is not None] * event.size
        shared += [event.shared is not None] * event.size
        names += [f"{event.sym_name.data}[{element}]" for element in range(event.size)]
    bodies: dict[object, int] = {}
    grids = tuple(_grid(op, buffers, bodies) for op in graph.grids)
    num_sms = target_of(graph.target.data).num_sms
    tasks = np.concatenate([_grid_tasks(op, number, first_element, num_sms) for number, op in enumerate(graph.grids)])
    tasks = tasks[np.argsort(tasks["sm"], kind="stable")]
    tasks["flags"] |= np.where(_ordered_grids(graph)[tasks["grid"]], int(TaskFlag.ORDERED), 0).astype(np.int32)
    queue_begin = np.searchsorted(tasks["sm"], np.arange(num_sms + 1)).astype(np.int32)
    return Tables(
        buffers=tuple(_buffer(op) for op in graph.buffers),
        grids=grids,
        bodies=tuple(str(body) for body in bodies),
        tasks=tasks,
        queue_begin=queue_begin,
        event_count=np.array(counts, dtype=np.int32),
        event_polled=np.array(polled, dtype=np.bool_),
        event_shared=np.array(shared, dtype=np.bool_),
        event_names=tuple(names),
        constants={op.sym_name.data: _constant(op) for op in graph.buffers if op.constant is not None},
    )


def _dtype(op: BufferOp) -> DType:
    assert isinstance(op.buffer.type, BufferType)
    return dtype_of(str(op.buffer.type.element_type))


def _buffer(op: BufferOp) -> Buffer:
    pack = None
    if op.sources is not None:
        shards = tuple(shard.shard for shard in op.shards or ())
        pack = Pack(tuple(source.data for source in op.sources), op.interleave.value.data, shards)
    if op.space.data is Space.SCRATCH and op.offset is None:
        raise PlanError(f"buffer @{op.sym_name.data} has no place in the arena", advice="run sm-plan-memory before")
    return Buffer(
        name=op.sym_name.data,
        space=op.space.data,
        shape=op.shape,
        dtype=_dtype(op),
        layout=op.layout.data,
        padded_shape=op.padded_shape,
        pack=pack,
        offset_bytes=op.offset.value.data if op.offset is not None else 0,
        polled=op.polled is not None,
    )


def _constant(op: BufferOp) -> Array:
    assert op.constant is not None
    assert isinstance(op.constant.type, TensorType)
    return np.array(op.constant.get_values(), dtype=_dtype(op).numpy).reshape(op.shape)


def _grid(op: GridOp, buffers: dict[SSAValue, int], bodies: dict[object, int]) -> Grid:
    kind, params = op.task_kind, op.task_params
    signature, arguments = kind.signature(params), kind.body_arguments(params)
    body = bodies.setdefault(Signature(signature, arguments), len(bodies))
    operands = tuple(
        GridOperand(
            name.data, buffers[value], box.mode, ints(box.along), rank_step(op, number), box.pushes, box.multicasts
        )
        for number, (name, value, box) in enumerate(zip(op.operand_names, op.data, op.boxes, strict=True))
    )
    reason, placed = (text.data if text is not None else "" for text in (op.reason, op.placement_reason))
    ahead = op.stream.ahead.data if op.stream is not None else 0
    return Grid(op.sym_name.data, kind.name, params.as_dict(), body, op.shape, operands, reason, placed, ahead)


@dataclass(frozen=True)
class Signature:
    """A case of the kernel's dispatch."""

    type_name: str
    arguments: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.type_name}({', '.join(map(repr, self.arguments))})"


def _grid_tasks(op: GridOp, number: int, first_element: dict[SSAValue, int], num_sms: int) -> Array:
    tasks = np.zeros(op.num_tasks, dtype=TASK)
    tasks["grid"] = number
    indices = task_indices(op)
    tasks["index"][:, : indices.shape[1]] = indices
    tasks["sm"] = placement(op, num_sms)
    if len(op.data) > MAX_OPERANDS:
        raise PlanError(f"grid @{op.sym_name.data}: {len(op.data)} operands, a task record holds {MAX_OPERANDS}")
    for operand in range(len(op.data)):
        low, high = box_bounds(op, operand)
        tasks["offsets"][:, operand, : low.shape[1]] = low
        tasks["sizes"][:, operand, : low.shape[1]] = high - low
    tasks["push_to"] = task_targets(op)
    waits = _elements(op, op.wait_uses, first_element)
    signals = _elements(op, op.signal_uses, first_element)
    tasks["num_waits"], tasks["wait_event"], tasks["wait_count"] = _packed(op, waits, MAX_WAITS, "waits on")
    tasks["num_signals"], tasks["signal_event"], _ = _packed(op, signals, MAX_SIGNALS, "signals")
    return tasks


def _elements(op: GridOp, uses: list[EventUse], first_element: dict[SSAValue, int]) -> tuple[Array, Array]:
    """([tasks, k] event numbers, -1 pads; [tasks, k] their counts)."""
    numbers, counts = [np.zeros((op.num_tasks, 0), np.int64)], [np.zeros((op.num_tasks, 0), np.int64)]
    for use in uses:
        elements = event_elements(op, use)
        assert isinstance(use.event.owner, EventOp)
        table = use.event.owner.arrivals
        numbers.append(np.where(elements >= 0, elements + first_element[use.event], -1))
        counts.append(np.where(elements >= 0, table[np.maximum(elements, 0)], 0))
    return np.concatenate(numbers, axis=1), np.concatenate(counts, axis=1)


def _packed(op: GridOp, uses: tuple[Array, Array], limit: int, verb: str) -> tuple[Array, Array, Array]:
    """Used elements first, the rest zero: ([tasks] how many, [tasks, limit] events, [tasks, limit] counts)."""
    numbers, counts = uses
    used = (numbers >= 0).sum(axis=1)
    if used.max(initial=0) > limit:
        task = int(used.argmax())
        raise PlanError(
            f"grid @{op.sym_name.data}, task {task}: {verb} {int(used[task])} events, a task record holds {limit}",
            advice="run sm-normalize-events before",
        )
    order = np.argsort(numbers < 0, axis=1, kind="stable")[:, :limit]
    events = np.zeros((len(numbers), limit), np.int32)
    needed = np.zeros((len(numbers), limit), np.int32)
    width = order.shape[1]
    events[:, :width] = np.maximum(np.take_along_axis(numbers, order, axis=1), 0)
    needed[:, :width] = np.take_along_axis(counts, order, axis=1)
    return used, events, needed


def _ordered_grids(graph: GraphOp) -> Array:
    """[grids] bool: whose tasks touch, without polling, memory that a grid before writes, or write what one reads."""
    touched: set[SSAValue] = set()
    written: set[SSAValue] = set()
    ordered = np.zeros(len(graph.grids), np.bool_)
    for number, grid in enumerate(graph.grids):
        uses = [(v, box.mode) for v, box in zip(grid.data, grid.boxes.data, strict=True) if not _is_polled(v)]
        ordered[number] = any(v in written or (mode.writes and v in touched) for v, mode in uses)
        touched |= {v for v, _ in uses}
        written |= {v for v, mode in uses if mode.writes}
    return ordered


def _is_polled(value: SSAValue) -> bool:
    return isinstance(value.owner, BufferOp) and value.owner.polled is not None
