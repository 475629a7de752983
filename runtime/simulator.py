"""A program on virtual SMs: the GPU's own tables, bodies in numpy, turns taken in any order the events allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..codegen.memory_model import orders_memory
from ..codegen.program import Grid, Program
from ..core.dtype import BF16, round_to_bf16
from ..core.errors import VerificationError
from ..tasks import task_kind
from .engine import host_buffer, host_names, require_shape
from .interleaving import Interleaving, RandomOrder
from .one_plan import require_one_plan
from .simulated_memory import SimulatedMemory, name_on
from .simulated_ranks import Counters, Link, Message, targets
from .timeout import event_name, task_name
from .turns import Blocked, QueuedTask, Turns
from .visibility import DelayedVisibility, Target
from .weights import Parameters

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SimulatorOptions:
    """``storage_rounding``: what a task writes to a bf16 buffer is rounded, as on the GPU. ``shared_arena``: scratch
    buffers overlap as planned, so that memory reused too early shows; else each is its own. ``delayed_writes``: an SM
    sees what another wrote when an event orders it and no earlier, so that a missing wait or fence shows."""

    interleaving: Interleaving = field(default_factory=RandomOrder)
    storage_rounding: bool = False
    shared_arena: bool = False
    delayed_writes: bool = False


class Simulator:
    """An `Engine` on the CPU: all ranks of the program, or one of them with a ``link`` to the others.

    Raises CheckpointError for weights that don't fit; `run` raises VerificationError, and what the link raises.
    """

    def __init__(
        self,
        program: Program,
        parameters: Parameters,
        options: SimulatorOptions | None = None,
        link: Link | None = None,
    ) -> None:
        self.program = program
        self.options = options or SimulatorOptions()
        self.ranks: Sequence[int] = range(program.ranks) if link is None else (link.rank,)
        self._link, self._outbox = link, list[Message]()
        if link is not None:
            require_one_plan(program, link)
        self._memory = SimulatedMemory.allocate(program, parameters, self.ranks, shared_arena=self.options.shared_arena)
        self._counters = Counters(program)
        self._sms = len(program.queue_begin) - 1
        self._delayed: DelayedVisibility | None = None
        if self.options.delayed_writes:
            self._delayed = DelayedVisibility(self._memory, program, self.ranks, ordered=orders_memory(program.headers))
        self._params = [task_kind(grid.kind).params_from(grid.params) for grid in program.grids]
        queues = [
            [
                self._task(number, _Place(rank, place * self._sms + sm), first=number == begin)
                for number in range(begin, end)
            ]
            for place, rank in enumerate(self.ranks)
            for sm, (begin, end) in enumerate(pairwise(program.queue_begin.tolist()))
        ]
        step, arrivals = program.step_event, int(program.event_count[program.step_event])
        waits = [
            (self._counters.number(step, rank), self._counters.target(step, rank, arrivals))
            for rank in self.ranks
            for _ in range(self._sms)
        ]
        end_step = self._memory.poison if self._delayed is None else lambda: None  # views are poisoned one by one
        order, total = self.options.interleaving, self._counters.total
        self._turns = Turns(queues, total, waits, order, end_step, self._idle)

    @property
    def device_name(self) -> str:
        ranks = f"{self.program.ranks} ranks of " if self.program.ranks > 1 else ""
        return f"simulator of {ranks}{self._sms} SMs"

    def names(self) -> tuple[str, ...]:
        return host_names(self.program)

    def read_state(self, name: str, rank: int | None = None) -> Array:
        """That of ``rank``; by default of the first simulated here."""
        rank = self.ranks[0] if rank is None else rank
        return self._memory.arrays[name_on(host_buffer(self.program, name).name, rank)].copy()

    def write_state(self, name: str, values: Array) -> None:
        """On every rank."""
        for rank in self.ranks:
            self.write_rank_state(name, values, rank)

    def write_rank_state(self, name: str, values: Array, rank: int) -> None:
        """On ``rank`` alone, which is simulated here: its part of a state that is split."""
        buffer = host_buffer(self.program, name)
        require_shape(buffer, values)
        stored = round_to_bf16(values) if buffer.dtype == BF16 else values
        self._memory.arrays[name_on(name, rank)][...] = stored

    def run(self, num_steps: int) -> None:
        """Run ``num_steps`` steps. Raises VerificationError if SMs wait for each other, or a body fails."""
        self._memory.poison()
        if self._delayed is not None:
            self._delayed.begin_run()
        try:
            with np.errstate(all="ignore"):  # rows without a request hold anything
                stuck = self._turns.run(num_steps)
        except VerificationError as error:
            if self._link is not None:
                self._link.fail(str(error))
            raise
        if self._delayed is not None:
            self._delayed.end_run()
        if stuck:
            raise self._stall(stuck)

    def synchronize(self) -> None:
        """Nothing to wait for: `run` returns when its steps are done."""

    def _idle(self, done: bool) -> bool:
        if self._link is None:
            return False
        messages, more = self._link.exchange(self._outbox, done=done)
        self._outbox = []
        for message in messages:
            for name, box, values in message.stored:
                self._memory.arrays[name_on(name, message.rank)][box] = values
            self._turns.arrivals(message.events)
        return more

    def _task(self, number: int, place: _Place, *, first: bool) -> QueuedTask:
        row = self.program.tasks[number]
        num_waits, num_signals = row["num_waits"], row["num_signals"]
        waits = tuple(
            (self._counters.number(event, place.rank), self._counters.target(event, place.rank, count))
            for event, count in zip(
                row["wait_event"][:num_waits].tolist(), row["wait_count"][:num_waits].tolist(), strict=True
            )
        )
        push_to = int(row["push_to"])
        signalled = [
            counter
            for event in row["signal_event"][:num_signals].tolist()
            for counter in self._counters.signalled(event, place.rank, push_to)
        ]
        signals = tuple(counter for counter in signalled if self._is_here(counter))
        away = tuple(counter for counter in signalled if not self._is_here(counter))
        grid, delayed = self.program.grids[row["grid"]], self._delayed
        memory = self._memory if delayed is None else delayed.views[place.queue]
        boxes = self._boxes(grid, row, memory, place.rank)
        pushes = self._pushes(grid, row, boxes, place.rank)
        if delayed is None:
            body = self._body(number, grid, row, boxes)
            if not pushes and not away:
                return QueuedTask(number, body, waits, signals)
            return QueuedTask(number, partial(self._run_and_push, body, pushes, memory, away), waits, signals)
        declared = task_kind(grid.kind)
        early = {o.name: boxes[o.name].copy() for o in grid.operands if declared.operand(o.name).early}
        inner, written = self._body(number, grid, row, boxes | early), self._targets(grid, row, place.rank, pushes)

        def run() -> None:
            if first:
                delayed.begin_step(place.queue, waits_of_step)
            for name, copy in early.items():  # the body reads these before it waits
                copy[...] = boxes[name]
            delayed.acquire(place.queue, [event for event, _ in waits])
            delayed.run(place.queue, partial(self._run_and_push, inner, pushes, memory, ()), written)
            delayed.release(place.queue, signals)

        waits_of_step = self._counters.number(self.program.step_event, place.rank)
        return QueuedTask(number, run, waits, signals)

    def _is_here(self, counter: int) -> bool:
        """Whether the counter is of a rank simulated here."""
        return self._counters.split(counter)[0] in self.ranks

    def _targets(self, grid: Grid, row: Any, rank: int, pushes: Sequence[_Push]) -> list[Target]:
        """What a task writes, and on which ranks."""
        own = [
            Target(
                name_on(self.program.buffers[operand.buffer].name, rank),
                self._slices(grid, row, position, rank),
                partial=any(dim >= 0 for dim in operand.along),
            )
            for position, operand in enumerate(grid.operands)
            if operand.access.writes and not operand.pushed
        ]
        return own + [Target(name_on(p.buffer, rank), p.box, partial=False) for p in pushes for rank in p.ranks]

    def _boxes(self, grid: Grid, row: Any, memory: SimulatedMemory, rank: int) -> dict[str, Array]:
        """Per operand the part of ``memory`` that the task touches; what it pushes it writes to memory of its own."""
        boxes: dict[str, Array] = {}
        for position, operand in enumerate(grid.operands):
            buffer = self.program.buffers[operand.buffer]
            if operand.pushed:
                shape = row["sizes"][position, : len(buffer.shape)].tolist()
                boxes[operand.name] = np.zeros(shape, buffer.dtype.numpy)
            else:
                array = memory.arrays[name_on(buffer.name, rank)]
                boxes[operand.name] = array[self._slices(grid, row, position, rank)]
        return boxes

    def _pushes(self, grid: Grid, row: Any, boxes: dict[str, Array], rank: int) -> list[_Push]:
        ranks = tuple(targets(int(row["push_to"]), rank, self.program.ranks))
        return [
            _Push(
                self.program.buffers[operand.buffer].name,
                self._slices(grid, row, position, rank),
                boxes[operand.name],
                ranks,
            )
            for position, operand in enumerate(grid.operands)
            if operand.pushed
        ]

    def _run_and_push(
        self, body: Callable[[], None], pushes: Sequence[_Push], memory: SimulatedMemory, away: Sequence[int]
    ) -> None:
        """Run ``body`` and copy what it pushes; for ranks that are not here with their counters among ``away``."""
        body()
        for push in pushes:
            for rank in push.ranks:
                if rank in self.ranks:
                    memory.arrays[name_on(push.buffer, rank)][push.box] = push.values
        for rank in (r for r in range(self.program.ranks) if r not in self.ranks):
            stored = tuple((p.buffer, p.box, p.values.copy()) for p in pushes if rank in p.ranks)
            events = tuple(counter for counter in away if self._counters.split(counter)[0] == rank)
            if stored or events:
                self._outbox.append(Message(rank, stored, events))

    def _body(self, number: int, grid: Grid, row: Any, boxes: dict[str, Array]) -> Callable[[], None]:
        index = tuple(row["index"][: len(grid.extent)].tolist())
        meaning = partial(task_kind(grid.kind).reference, self._params[row["grid"]], boxes, index)
        rounded: list[Array] = []
        if self.options.storage_rounding:
            stored = [o for o in grid.operands if o.access.writes and self.program.buffers[o.buffer].dtype == BF16]
            rounded = [boxes[operand.name] for operand in stored]
        return partial(_run_body, self.program, number, meaning, rounded)

    def _slices(self, grid: Grid, row: Any, position: int, rank: int) -> tuple[slice, ...]:
        """The box of an operand on ``rank``."""
        operand = grid.operands[position]
        dims = len(self.program.buffers[operand.buffer].shape)
        steps = np.array(operand.rank_step or (0,) * dims)
        begin = row["offsets"][position, :dims] + rank * steps
        end = begin + row["sizes"][position, :dims]
        return tuple(map(slice, begin.tolist(), end.tolist()))

    def _stall(self, stuck: list[Blocked]) -> VerificationError:
        program, lines = self.program, list[str]()
        for b in stuck:
            task = task_name(program, -1 if b.task is None else b.task)
            event = event_name(program, self._counters.split(b.event)[1])
            rank = f"rank {self.ranks[b.sm // self._sms]}, " if program.ranks > 1 else ""
            lines.append(
                f"  {rank}SM {b.sm % self._sms}, step {b.step}: {task} waits for event {event}: count {b.count}, "
                f"target {b.target}"
            )
        return VerificationError("\n".join([f"deadlock: {len(stuck)} SMs cannot go on", *lines]))


@dataclass(frozen=True)
class _Place:
    """Where a task runs: its rank, and its queue among those of all ranks simulated here."""

    rank: int
    queue: int


@dataclass(frozen=True)
class _Push:
    """``values``, for ``box`` of ``buffer`` on ``ranks``."""

    buffer: str
    box: tuple[slice, ...]
    values: Array
    ranks: tuple[int, ...]


def _run_body(program: Program, number: int, meaning: Callable[[], None], rounded: list[Array]) -> None:
    try:
        meaning()
    except (IndexError, ValueError) as error:  # what garbage indices and misshapen boxes raise
        raise VerificationError(f"{task_name(program, number)} failed: {error}") from error
    for box in rounded:
        box[...] = round_to_bf16(box)
