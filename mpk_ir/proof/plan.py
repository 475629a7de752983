"""What a plan says, as arrays: the form that the checker reads, whatever the plan was read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ..core.memory import Layout, Space
from .rejection import TaskRef
from .ring import PlanRing

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Slices: TypeAlias = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Bounds:
    """[tasks, rank] each: first element and end of the box of every task of a grid. Equal by identity: layers repeat,
    and `BoundsTable` gives equal boxes one object, so that what is computed of them is computed once."""

    low: IntArray
    high: IntArray

    @cached_property
    def distinct(self) -> tuple[list[Slices], list[int]]:
        """Each box once, as slices, and the first task that has it."""
        rank = self.low.shape[1]
        corners, first = np.unique(np.concatenate([self.low, self.high], axis=1), axis=0, return_index=True)
        return [tuple(map(slice, row[:rank], row[rank:])) for row in corners.tolist()], first.tolist()

    def text(self, task: int) -> str:
        """The box of one task as `[0:8, 16:32]`."""
        pairs = zip(self.low[task].tolist(), self.high[task].tolist(), strict=True)
        return f"[{', '.join(f'{low}:{high}' for low, high in pairs)}]"


class BoundsTable:
    """Makes `Bounds`, one object for equal arrays."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes, bytes], Bounds] = {}

    def of(self, low: IntArray, high: IntArray) -> Bounds:
        low, high = np.ascontiguousarray(low, np.int64), np.ascontiguousarray(high, np.int64)
        return self._known.setdefault((low.shape[1], low.tobytes(), high.tobytes()), Bounds(low, high))


@dataclass(frozen=True)
class Rows:
    """Values by key, ``values[ends[key] : ends[key + 1]]`` each: two flat lists, where a list for each of some 10,000
    keys would have the garbage collector walk through all of them again and again."""

    values: list[int]
    ends: list[int]

    def __getitem__(self, key: int) -> list[int]:
        return self.values[self.ends[key] : self.ends[key + 1]]


@dataclass(frozen=True)
class Region:
    """One operand of a grid: the part of ``buffer`` that each task touches.

    ``along``: per dimension of the buffer the index dimension that keeps tasks apart at run time, -1 for none.
    ``early``: the body reads it before it waits for its events. ``streamed``: a loader reads it ahead of every wait.
    ``appends``, ``polled``, ``tells``: what the body promises, as of `mpk_ir.tasks.base.Operand`.
    ``first_row``: the row of the buffer that is the first of the step's rows. ``rank_step``: elements by which the
    boxes move from rank to rank, per dimension; empty if they don't. ``to``: [tasks] the rank into whose memory each
    task writes it, or `TO_ALL`; None if each rank has its own. ``multicast``: by one store, which reaches all ranks.
    """

    grid: int
    operand: str
    buffer: int
    reads: bool
    writes: bool
    bounds: Bounds
    along: tuple[int, ...]
    early: bool = False
    streamed: bool = False
    appends: bool = False
    polled: bool = False
    tells: bool = False
    rank_step: tuple[int, ...] = ()
    first_row: int = 0
    to: IntArray | None = None
    whole: Bounds | None = None
    """The boxes before they were cut at the buffer's end; None if what is read says nothing beyond it."""
    multicast: bool = False
    layout: Layout = Layout.ROW_MAJOR
    """In which the body takes it."""


@dataclass(frozen=True)
class PlanBuffer:
    """``offset_bytes``: place in the arena; None outside it or before memory is planned."""

    name: str
    space: Space
    shape: tuple[int, ...]
    size_bytes: int
    offset_bytes: int | None = None
    polled: bool = False
    """Its words say themselves when they are written; it lies in the arena twice."""
    element_bytes: int = 4
    layout: Layout = Layout.ROW_MAJOR


@dataclass(frozen=True)
class PlanGrid:
    """Tasks ``first`` to ``first + len(index) - 1``; ``index`` is [tasks, dims]. ``takers``: among how many the body
    deals the grid's work at run time, 0 if it does not."""

    name: str
    first: int
    index: IntArray
    takers: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.index)


@dataclass(frozen=True)
class Plan:
    """One step. Tasks are numbered in program order, which is what the plan must compute: grid after grid, last index
    fastest. A queue is what runs its tasks one after another: SM ``queue_sm[q]`` of rank ``queue_rank[q]``."""

    grids: tuple[PlanGrid, ...]
    buffers: tuple[PlanBuffer, ...]
    regions: tuple[Region, ...]
    """In order of grids."""
    queue: IntArray
    """[tasks]"""
    position: IntArray
    """[tasks]: the place in its queue."""
    queue_sm: IntArray
    queue_rank: IntArray
    event_names: tuple[str, ...]
    """One per event element, `name[element]`."""
    event_count: IntArray
    """[events]: arrivals per step."""
    waits: IntArray
    """[waits, 3] of (task, event, arrivals per step that it waits for)."""
    signals: IntArray
    """[signals, 2] of (task, event)."""
    step_events: tuple[int, ...]
    """Events that end a step: a plan needs one."""
    arena_bytes: int
    event_polled: BoolArray
    """[events]: whether the event stands for what readers of polled buffers see in the data."""
    polled_bytes: int = 0
    """Between the two copies of polled buffers."""
    event_shared: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[events]: whether a task signals the event on every rank to which it writes, the step event on all."""
    ranks: int = 1
    """They all run this plan; ``event_count`` is as if they were one."""
    ring: PlanRing | None = None
    """Of shared memory, if it is split already."""
    unknown_events: tuple[tuple[int, str], ...] = ()
    """(task, event) where a task names an event that does not exist; not in ``waits`` and ``signals``."""

    @property
    def num_tasks(self) -> int:
        return len(self.queue)

    @property
    def num_queues(self) -> int:
        return len(self.queue_sm)

    @cached_property
    def waits_of(self) -> Rows:
        """Per task the events it waits for."""
        return rows_by(self.waits[:, 0], self.waits[:, 1], self.num_tasks)

    @cached_property
    def signals_of(self) -> Rows:
        """Per task the events it signals."""
        return rows_by(self.signals[:, 0], self.signals[:, 1], self.num_tasks)

    @cached_property
    def signallers_of(self) -> Rows:
        """Per event the tasks that signal it."""
        return rows_by(self.signals[:, 1], self.signals[:, 0], len(self.event_count))

    @cached_property
    def _first_tasks(self) -> IntArray:
        return np.array([grid.first for grid in self.grids], np.int64)

    def task(self, number: int) -> TaskRef:
        """Where task ``number`` stands in the plan."""
        grid = self.grids[int(np.searchsorted(self._first_tasks, number, side="right")) - 1]
        queue = int(self.queue[number])
        return TaskRef(
            grid.name,
            tuple(grid.index[number - grid.first].tolist()),
            int(self.queue_sm[queue]),
            int(self.position[number]),
            int(self.queue_rank[queue]),
        )


def rows_by(keys: IntArray, values: IntArray, size: int) -> Rows:
    """Per key 0 .. ``size`` - 1 its values, in order of rows."""
    order = np.argsort(keys, kind="stable")
    return Rows(values[order].tolist(), np.searchsorted(keys[order], np.arange(size + 1)).tolist())
