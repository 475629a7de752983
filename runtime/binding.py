"""A program's tables with addresses in them: what the kernel reads, from what the compiler planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..codegen import abi
from ..codegen.program import MAX_OPERANDS, Buffer, Grid, GridOperand, Program
from ..core.dtype import BF16, DType, round_to_bf16
from ..core.errors import PlanError
from ..core.memory import BLOCK_COLUMNS, PANEL_COLUMNS, Layout
from ..core.ranks import TO_ALL
from ..tasks import task_kind
from .weights import TILE_ROWS

Array = np.ndarray[Any, Any]


def device_tasks(program: Program, addresses: Mapping[str, int], rank: int = 0) -> Array:
    """The task table as ``rank``'s kernel reads it, [tasks] of ``abi.TASK``; ``addresses`` is where each buffer of its
    memory begins. Raises PlanError for what a record cannot say."""
    table = np.zeros(len(program.tasks), abi.TASK.dtype)
    table["body"] = np.array([grid.body for grid in program.grids], np.int32)[program.tasks["grid"]]
    for name in ("grid", "flags", "index"):
        table[name] = program.tasks[name]
    _keep_counted_events(program, table, ("wait_event", "wait_count"), "num_waits")
    _keep_counted_events(program, table, ("signal_event",), "num_signals")
    _end_step(program, table)
    to = program.tasks["push_to"]
    everybody = np.uint32((1 << program.ranks) - 1)
    table["push_to"] = np.where(to == TO_ALL, everybody, np.where(to >= 0, 1 << np.maximum(to, 0), 0))
    for number, grid in enumerate(program.grids):
        _require_one_stride(program, grid)
        rows = np.flatnonzero(program.tasks["grid"] == number)
        kind = task_kind(grid.kind)
        numbers = kind.record_numbers(kind.params_from(grid.params))
        behind = len(kind.operands) + np.arange(len(numbers))
        table["row_stride"][rows[:, None], behind] = numbers
        for position, slot in enumerate(operand_slots(grid)):
            buffer = program.buffers[grid.operands[position].buffer]
            operand = grid.operands[position]
            offsets = box_offsets(buffer, program.tasks["offsets"][rows, position])
            step = rank_stride(buffer, operand)
            offsets = offsets + rank * step
            if operand.pushed:
                table["pushed"][rows] |= np.uint32(1 << slot)
                table["push_to"][rows] |= np.uint32(abi.MULTICAST if operand.multicast else 0)
                table["rank_stride"][rows] = step * buffer.dtype.bytes
            table["operand"][rows, slot] = addresses[buffer.name] + offsets * buffer.dtype.bytes
            table["row_stride"][rows, slot] = row_stride(buffer)
            table["polled"][rows] |= np.uint32(buffer.polled << slot)
    return table


def rank_stride(buffer: Buffer, operand: GridOperand) -> int:
    """Elements between the boxes of neighbouring ranks."""
    step = np.array([operand.rank_step or (0,) * len(buffer.shape)])
    return int(box_offsets(buffer, step)[0])


def _require_one_stride(program: Program, grid: Grid) -> None:
    pushed = [(program.buffers[o.buffer], o) for o in grid.operands if o.pushed]
    strides = {rank_stride(buffer, operand) * buffer.dtype.bytes for buffer, operand in pushed}
    if len(strides) > 1:
        raise PlanError(
            f"grid '{grid.name}' pushes operands whose ranks lie {sorted(strides)} bytes apart, expected one"
        )
    if len({operand.multicast for _, operand in pushed}) > 1:
        raise PlanError(f"grid '{grid.name}' pushes some operands by multicast and others not")
    if any(buffer.polled is False for buffer, _ in pushed):
        raise PlanError(f"grid '{grid.name}' pushes to a buffer that is not polled")


def moved_tasks(program: Program, table: Array, before: Mapping[str, int], after: Mapping[str, int]) -> Array:
    """A copy of ``table``, made for addresses ``before``, in which the buffers that ``after`` names begin elsewhere."""
    moved = table.copy()
    for number, grid in enumerate(program.grids):
        slots = operand_slots(grid)
        for position, operand in enumerate(grid.operands):
            name = program.buffers[operand.buffer].name
            if name in after:
                rows = table["grid"] == number
                by = np.array(after[name] - before[name]).astype(np.uint64)  # wraps around
                moved["operand"][rows, slots[position]] += by
    return moved


def _keep_counted_events(program: Program, table: Array, columns: tuple[str, ...], number: str) -> None:
    """Copy a task's events without the polled ones, for which there is no counter, and without the end of the step."""
    events, used = program.tasks[columns[0]], program.tasks[number]
    counted = (np.arange(events.shape[1]) < used[:, None]) & ~program.event_polled[events]
    counted &= events != program.step_event
    order = np.argsort(~counted, axis=1, kind="stable")
    table[number] = counted.sum(axis=1)
    for column in columns:
        kept = np.where(counted, program.tasks[column], 0)
        table[column][:, : events.shape[1]] = np.take_along_axis(kept, order, axis=1)


def _end_step(program: Program, table: Array) -> None:
    """Let the last task of each SM signal the end of the step: a queue runs in order, so all others are over then."""
    last = program.queue_begin[1:][np.diff(program.queue_begin) > 0] - 1
    table["signal_event"][last, table["num_signals"][last]] = program.step_event
    table["num_signals"][last] += 1
    table["flags"][last] |= int(abi.TaskFlag.ENDS_STEP)


def operand_slots(grid: Grid) -> list[int]:
    """The kernel's slot of each operand of ``grid``: its place in the declaration of the task kind."""
    kind = task_kind(grid.kind)
    slots = {operand.name: slot for slot, operand in enumerate(kind.operands)}
    unknown = [operand.name for operand in grid.operands if operand.name not in slots]
    if unknown or len(slots) > MAX_OPERANDS:
        raise PlanError(
            f"grid '{grid.name}': operands {unknown} are not of task kind '{grid.kind}', which has {sorted(slots)}"
        )
    return [slots[operand.name] for operand in grid.operands]


def row_stride(buffer: Buffer) -> int:
    """Elements between neighbours along the first dimension."""
    return int(np.prod((buffer.padded_shape or buffer.shape)[1:], dtype=np.int64))


def box_offsets(buffer: Buffer, offsets: Array) -> Array:
    """Where boxes at ``offsets`` [n, rank or more] begin in ``buffer``, in elements: [n] int64.

    Raises PlanError for a box that does not begin at a whole tile of a tiled weight, or at whole words of panels.
    """
    shape = buffer.padded_shape or buffer.shape
    offsets = offsets[:, : len(shape)].astype(np.int64)
    if buffer.layout is Layout.MMA_ROWS_16 and (np.any(offsets[:, 0] % TILE_ROWS) or np.any(offsets[:, 1:])):
        raise PlanError(f"weight '{buffer.name}' is in tiles of {TILE_ROWS} rows: a task's box begins inside a tile")
    if buffer.layout is Layout.K_BLOCKS_64:
        return (offsets[:, 1] // BLOCK_COLUMNS * shape[0] + offsets[:, 0]) * BLOCK_COLUMNS
    if (panel := buffer.layout.panel_rows) > 1:
        if np.any(offsets[:, 1] % PANEL_COLUMNS):
            raise PlanError(f"'{buffer.name}' is in panels: a task's box begins inside {PANEL_COLUMNS} columns")
        row, column = offsets[:, 0], offsets[:, 1]
        return row // panel * panel * shape[1] + column * panel + row % panel * PANEL_COLUMNS
    strides = np.append(np.cumprod(np.array(shape[:0:-1], np.int64))[::-1], 1)
    return offsets @ strides


def to_device(values: Array, buffer: Buffer) -> Array:
    """``values`` [shape] of a row-major ``buffer`` as the bits of its memory, padded with zeros."""
    padded = np.zeros(buffer.padded_shape or buffer.shape, buffer.dtype.numpy)
    padded[tuple(slice(size) for size in buffer.shape)] = values
    return (round_to_bf16(padded).view(np.uint32) >> 16).astype(np.uint16) if buffer.dtype == BF16 else padded


def from_device(bits: Array, buffer: Buffer) -> Array:
    """The inverse of ``to_device``: [shape] in the numpy type of the buffer's dtype."""
    values = (bits.astype(np.uint32) << 16).view(np.float32) if buffer.dtype == BF16 else bits
    return values[tuple(slice(size) for size in buffer.shape)].copy()


def device_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy type of a dtype's bits in device memory."""
    return np.dtype(np.uint16) if dtype == BF16 else dtype.numpy
