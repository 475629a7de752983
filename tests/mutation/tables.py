"""Ways to damage the tables of a program, as a faulty planner, printer or hand would. None: found no place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.program import MAX_SIGNALS, MAX_WAITS, Program
from mpk_ir.core.memory import Space

from .boxes import BOX_DAMAGES
from .layouts import LAYOUT_DAMAGES
from .split import SPLIT_DAMAGES

Array = np.ndarray[Any, Any]
Damage = Callable[[Program, np.random.Generator], Program | None]


def _pick(generator: np.random.Generator, rows: Array) -> int | None:
    return int(generator.choice(rows)) if len(rows) else None


def with_queues(program: Program, queues: list[Array]) -> Program:
    """``program`` with these rows on each SM."""
    tasks = np.concatenate(queues)
    tasks["sm"] = np.repeat(np.arange(len(queues)), [len(queue) for queue in queues])
    begin = np.cumsum([0, *(len(queue) for queue in queues)]).astype(np.int32)
    return replace(program, tasks=tasks, queue_begin=begin)


def queues_of(program: Program) -> list[Array]:
    """A copy of each SM's rows."""
    return [queue.copy() for queue in np.split(program.tasks, program.queue_begin[1:-1])]


def _without(row: Any, names: tuple[str, ...], count: str, place: int) -> None:
    for name in names:
        row[name][place:-1] = row[name][place + 1 :].copy()
        row[name][-1] = 0
    row[count] -= 1


WAIT = ("wait_event", "wait_count")


def drop_wait(program: Program, generator: np.random.Generator) -> Program | None:
    """One task no longer waits for one event."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["num_waits"]))
    if row is None:
        return None
    _without(tasks[row], WAIT, "num_waits", int(generator.integers(tasks["num_waits"][row])))
    return replace(program, tasks=tasks)


def drop_waits_of_a_grid(program: Program, generator: np.random.Generator) -> Program | None:
    """No task of a grid waits: an operator-level edge thought superfluous."""
    tasks = program.tasks.copy()
    grid = _pick(generator, np.unique(tasks["grid"][tasks["num_waits"] > 0]))
    if grid is None:
        return None
    tasks["num_waits"][tasks["grid"] == grid] = 0
    return replace(program, tasks=tasks)


def _change_target(program: Program, generator: np.random.Generator, change: int) -> Program | None:
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["num_waits"]))
    if row is None:
        return None
    tasks["wait_count"][row, generator.integers(tasks["num_waits"][row])] += change
    return replace(program, tasks=tasks)


def lower_target(program: Program, generator: np.random.Generator) -> Program | None:
    """One wait is for an arrival less than come."""
    return _change_target(program, generator, -1)


def raise_target(program: Program, generator: np.random.Generator) -> Program | None:
    """One wait is for more arrivals than come."""
    return _change_target(program, generator, int(generator.integers(1, 3)))


def drop_signal(program: Program, generator: np.random.Generator) -> Program | None:
    """One arrival never comes."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["num_signals"]))
    if row is None:
        return None
    _without(tasks[row], ("signal_event",), "num_signals", int(generator.integers(tasks["num_signals"][row])))
    return replace(program, tasks=tasks)


def duplicate_signal(program: Program, generator: np.random.Generator) -> Program | None:
    """One arrival comes twice."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero((tasks["num_signals"] > 0) & (tasks["num_signals"] < MAX_SIGNALS)))
    if row is None:
        return None
    used = int(tasks["num_signals"][row])
    tasks["signal_event"][row, used] = tasks["signal_event"][row, generator.integers(used)]
    tasks["num_signals"][row] += 1
    return replace(program, tasks=tasks)


def redirect_signal(program: Program, generator: np.random.Generator) -> Program | None:
    """One arrival goes to another event."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["num_signals"]))
    if row is None:
        return None
    event = generator.integers(len(program.event_count))
    tasks["signal_event"][row, generator.integers(tasks["num_signals"][row])] = event
    return replace(program, tasks=tasks)


def redirect_wait(program: Program, generator: np.random.Generator) -> Program | None:
    """One task waits for another event in full, instead of its own."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["num_waits"]))
    if row is None:
        return None
    event, place = generator.integers(len(program.event_count)), generator.integers(tasks["num_waits"][row])
    tasks["wait_event"][row, place], tasks["wait_count"][row, place] = event, program.event_count[event]
    return replace(program, tasks=tasks)


def exchange_waits(program: Program, generator: np.random.Generator) -> Program | None:
    """Two tasks of a grid wait for what the other should."""
    tasks = program.tasks.copy()
    grid = _pick(generator, np.unique(tasks["grid"][tasks["num_waits"] > 0]))
    if grid is None:
        return None
    one, other = generator.choice(np.flatnonzero(tasks["grid"] == grid), 2)
    for name in (*WAIT, "num_waits"):
        tasks[name][[one, other]] = tasks[name][[other, one]]
    return replace(program, tasks=tasks)


def swap_in_queue(program: Program, generator: np.random.Generator) -> Program | None:
    """Two tasks of one SM change places."""
    queues = queues_of(program)
    sm = _pick(generator, np.flatnonzero([len(queue) > 1 for queue in queues]))
    if sm is None:
        return None
    one, other = generator.permutation(len(queues[sm]))[:2]
    queues[sm][[one, other]] = queues[sm][[other, one]]
    return with_queues(program, queues)


def swap_neighbours(program: Program, generator: np.random.Generator) -> Program | None:
    """Two tasks that follow each other on an SM change places."""
    queues = queues_of(program)
    sm = _pick(generator, np.flatnonzero([len(queue) > 1 for queue in queues]))
    if sm is None:
        return None
    one = int(generator.integers(len(queues[sm]) - 1))
    queues[sm][[one, one + 1]] = queues[sm][[one + 1, one]]
    return with_queues(program, queues)


def swap_across_queues(program: Program, generator: np.random.Generator) -> Program | None:
    """Two tasks of two SMs change places."""
    queues = queues_of(program)
    used = np.flatnonzero([len(queue) > 0 for queue in queues])
    if len(used) < 2:
        return None
    one, other = generator.permutation(used)[:2]
    first, second = (int(generator.integers(len(queues[sm]))) for sm in (one, other))
    kept = queues[one][first].copy()
    queues[one][first], queues[other][second] = queues[other][second], kept
    return with_queues(program, queues)


def _move(program: Program, generator: np.random.Generator, place: str) -> Program | None:
    queues = queues_of(program)
    used = np.flatnonzero([len(queue) > 0 for queue in queues])
    sm, target = int(generator.choice(used)), int(generator.integers(len(queues)))
    number = int(generator.integers(len(queues[sm])))
    row = queues[sm][number : number + 1].copy()
    queues[sm] = np.delete(queues[sm], number)
    rest = queues[target]
    queues[target] = np.concatenate([rest, row] if place == "end" else [row, rest])
    return with_queues(program, queues)


def move_to_an_end(program: Program, generator: np.random.Generator) -> Program | None:
    """One task runs last on another SM."""
    return _move(program, generator, "end")


def move_to_a_front(program: Program, generator: np.random.Generator) -> Program | None:
    """One task runs first on another SM."""
    return _move(program, generator, "front")


def _scratch(program: Program) -> Array:
    return np.flatnonzero([b.space is Space.SCRATCH for b in program.buffers])


def _with_offset(program: Program, number: int, offset: int) -> Program:
    buffers = list(program.buffers)
    buffers[number] = replace(buffers[number], offset_bytes=offset)
    return replace(program, buffers=tuple(buffers))


def alias_buffers(program: Program, generator: np.random.Generator) -> Program | None:
    """One scratch buffer lies where another does."""
    scratch = _scratch(program)
    if len(scratch) < 2:
        return None
    one, other = generator.permutation(scratch)[:2].tolist()
    return _with_offset(program, one, program.buffers[other].offset_bytes)


def overlap_buffers(program: Program, generator: np.random.Generator) -> Program | None:
    """One scratch buffer begins somewhat early: the life of its neighbour's bytes is cut short."""
    scratch = _scratch(program)
    number = _pick(generator, scratch)
    if number is None:
        return None
    shift = 16 * int(generator.integers(1, 1 + max(1, program.buffers[number].bytes // 32)))
    return _with_offset(program, number, program.buffers[number].offset_bytes - shift)


def shrink_arena(program: Program, generator: np.random.Generator) -> Program | None:
    """The arena is smaller than what lies in it."""
    if not program.arena_bytes:
        return None
    return replace(program, arena_bytes=program.arena_bytes - int(generator.integers(1, program.arena_bytes)))


def _with_step(program: Program, event: int, arrivals: int) -> Program:
    """Step event and arrivals changed in tables and source alike."""
    counts = program.event_count.copy()
    counts[event] = arrivals
    name = "mpk/config.cuh"
    text = re.sub(r"kStepEvent = \d+", f"kStepEvent = {event}", program.headers[name])
    return replace(program, event_count=counts, step_event=event, headers={**program.headers, name: text})


def end_step_early(program: Program, generator: np.random.Generator) -> Program | None:
    """A step begins an arrival too early, so its counters and buffers are used again too soon."""
    del generator
    return _with_step(program, program.step_event, int(program.event_count[program.step_event]) - 1)


def end_step_by_another_event(program: Program, generator: np.random.Generator) -> Program | None:
    """A step begins when another event has its arrivals."""
    event = int(generator.integers(len(program.event_count)))
    return None if event == program.step_event else _with_step(program, event, int(program.event_count[event]))


def forget_the_last_task(program: Program, generator: np.random.Generator) -> Program | None:
    """A task that ends the step no longer counts for it; another one does instead."""
    tasks = program.tasks.copy()
    signals = (tasks["signal_event"] == program.step_event) & (np.arange(MAX_SIGNALS) < tasks["num_signals"][:, None])
    row = _pick(generator, np.flatnonzero(signals.any(axis=1)))
    other = _pick(generator, np.flatnonzero(~signals.any(axis=1) & (tasks["num_signals"] < MAX_SIGNALS)))
    if row is None or other is None:
        return None
    _without(tasks[row], ("signal_event",), "num_signals", int(signals[row].argmax()))
    tasks["signal_event"][other, tasks["num_signals"][other]] = program.step_event
    tasks["num_signals"][other] += 1
    return replace(program, tasks=tasks)


def share_counter(program: Program, generator: np.random.Generator) -> Program | None:
    """Two events of a step use one counter."""
    if len(program.event_count) < 2:
        return None
    kept, gone = generator.permutation(len(program.event_count))[:2]
    tasks = program.tasks.copy()
    for name, count in (("wait_event", "num_waits"), ("signal_event", "num_signals")):
        used = np.arange(tasks[name].shape[1]) < tasks[count][:, None]
        tasks[name][used & (tasks[name] == gone)] = kept
    return replace(program, tasks=tasks)


def lose_task(program: Program, generator: np.random.Generator) -> Program | None:
    """One task is in no queue; the counts of its events fit the rest."""
    queues = queues_of(program)
    sm = _pick(generator, np.flatnonzero([len(queue) > 0 for queue in queues]))
    if sm is None:
        return None
    number = int(generator.integers(len(queues[sm])))
    row = queues[sm][number].copy()
    queues[sm] = np.delete(queues[sm], number)
    return _with_arrivals(with_queues(program, queues), row["signal_event"][: row["num_signals"]].tolist(), -1)


def run_task_twice(program: Program, generator: np.random.Generator) -> Program | None:
    """One task is in two queues; the counts of its events fit that."""
    queues = queues_of(program)
    row = program.tasks[int(generator.integers(len(program.tasks)))].copy()
    sm = int(generator.integers(len(queues)))
    queues[sm] = np.append(queues[sm], row)
    return _with_arrivals(with_queues(program, queues), row["signal_event"][: row["num_signals"]].tolist(), 1)


def _with_arrivals(program: Program, events: list[int], change: int) -> Program:
    tasks, counts = program.tasks.copy(), program.event_count.copy()
    for event in events:
        counts[event] += change
        used = np.arange(MAX_WAITS) < tasks["num_waits"][:, None]
        tasks["wait_count"][used & (tasks["wait_event"] == event)] += change
    return _with_step(
        replace(program, tasks=tasks, event_count=counts), program.step_event, int(counts[program.step_event])
    )


def swap_buffer(program: Program, generator: np.random.Generator) -> Program | None:
    """A grid's operand is another buffer of its shape: a pointer stale from another layer."""
    grids = list(program.grids)
    number = int(generator.integers(len(grids)))
    if not grids[number].operands:
        return None
    place = int(generator.integers(len(grids[number].operands)))
    operands = list(grids[number].operands)
    old = program.buffers[operands[place].buffer]
    like = [
        n
        for n, b in enumerate(program.buffers)
        if (b.shape, b.dtype, b.space) == (old.shape, old.dtype, old.space) and n != operands[place].buffer
    ]
    if not like or old.space is Space.WEIGHT:
        return None
    operands[place] = replace(operands[place], buffer=int(generator.choice(like)))
    grids[number] = replace(grids[number], operands=tuple(operands))
    return replace(program, grids=tuple(grids))


def forget_to_order(program: Program, generator: np.random.Generator) -> Program | None:
    """A task begins, on some warps, before other warps have left the task whose memory it touches."""
    tasks = program.tasks.copy()
    row = _pick(generator, np.flatnonzero(tasks["flags"] & int(TaskFlag.ORDERED)))
    if row is None:
        return None
    tasks["flags"][row] &= ~int(TaskFlag.ORDERED)
    return replace(program, tasks=tasks)


def _with_constant(program: Program, name: str, value: int) -> Program:
    """A constant of the device code changed."""
    file = "mpk/config.cuh"
    text = re.sub(rf"{name} = \d+", f"{name} = {value}", program.headers[file])
    return replace(program, headers={**program.headers, file: text})


def begin_step_early(program: Program, generator: np.random.Generator) -> Program | None:
    """An SM begins a step when all SMs but one have ended the step before."""
    del generator
    busy = sum(len(queue) > 0 for queue in queues_of(program))
    return _with_constant(program, "kStepArrivals", busy - 1)


def move_copies_together(program: Program, generator: np.random.Generator) -> Program | None:
    """The copies of polled buffers for odd and even steps lie nearer to each other than they are long."""
    if not program.polled_bytes:
        return None
    distance = 16 * int(generator.integers(program.polled_bytes // 16))
    return _with_constant(replace(program, polled_bytes=distance), "kPolledBytes", distance)


def poll_any_buffer(program: Program, generator: np.random.Generator) -> Program | None:
    """A buffer of the arena is polled, though some of its words may look unwritten when they are not."""
    number = _pick(generator, np.flatnonzero([b.space is Space.SCRATCH and not b.polled for b in program.buffers]))
    if number is None:
        return None
    buffers = list(program.buffers)
    buffers[number] = replace(buffers[number], polled=True)
    return replace(program, buffers=tuple(buffers))


def poll_any_event(program: Program, generator: np.random.Generator) -> Program | None:
    """An event loses its counter, as if the data said when it is there."""
    number = _pick(
        generator, np.flatnonzero(~program.event_polled & (np.arange(len(program.event_count)) != program.step_event))
    )
    if number is None:
        return None
    polled = program.event_polled.copy()
    polled[number] = True
    return replace(program, event_polled=polled)


def count_polled_data(program: Program, generator: np.random.Generator) -> Program | None:
    """A polled buffer is written and read as if it were not: one copy, whatever step it is from."""
    number = _pick(generator, np.flatnonzero([b.polled for b in program.buffers]))
    if number is None:
        return None
    buffers = list(program.buffers)
    buffers[number] = replace(buffers[number], polled=False)
    return replace(program, buffers=tuple(buffers))


def write_half_a_word(program: Program, generator: np.random.Generator) -> Program | None:
    """Two tasks share a word of a polled buffer, and both parts of their boxes are moved alike."""
    grids = [
        (number, place)
        for number, grid in enumerate(program.grids)
        for place, operand in enumerate(grid.operands)
        if operand.access.writes and program.buffers[operand.buffer].polled
        if program.buffers[operand.buffer].dtype.bytes == 2
    ]
    if not grids:
        return None
    number, place = grids[int(generator.integers(len(grids)))]
    tasks = program.tasks.copy()
    rows = np.flatnonzero(tasks["grid"] == number)
    last = len(program.buffers[program.grids[number].operands[place].buffer].shape) - 1
    first = tasks["offsets"][rows, place, last] == tasks["offsets"][rows, place, last].min()
    if first.all():
        return None
    tasks["sizes"][rows[first], place, last] += 1
    tasks["offsets"][rows[~first], place, last] += 1
    highest = tasks["offsets"][rows, place, last].max()
    ends = rows[tasks["offsets"][rows, place, last] == highest]
    tasks["sizes"][ends, place, last] -= 1
    return replace(program, tasks=tasks)


DAMAGES: tuple[Damage, ...] = (
    drop_wait,
    drop_waits_of_a_grid,
    lower_target,
    raise_target,
    drop_signal,
    duplicate_signal,
    redirect_signal,
    redirect_wait,
    exchange_waits,
    swap_in_queue,
    swap_neighbours,
    swap_across_queues,
    move_to_an_end,
    move_to_a_front,
    alias_buffers,
    overlap_buffers,
    shrink_arena,
    end_step_early,
    end_step_by_another_event,
    forget_the_last_task,
    share_counter,
    lose_task,
    run_task_twice,
    swap_buffer,
    forget_to_order,
    begin_step_early,
    move_copies_together,
    poll_any_buffer,
    poll_any_event,
    count_polled_data,
    write_half_a_word,
    *BOX_DAMAGES,
    *SPLIT_DAMAGES,
    *LAYOUT_DAMAGES,
)
