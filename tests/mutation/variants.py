"""Changes that keep a plan safe, most of the time: what the judge then calls safe, the checker should accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpk_ir.codegen.program import MAX_WAITS, Program
from mpk_ir.core.memory import Space, step_counter_offset

from .layouts import lay_in_pairs
from .split import promise_less_ahead, with_constant
from .tables import WAIT, queues_of, swap_neighbours, with_queues

Variant = Callable[[Program, np.random.Generator], Program | None]


def rename_sms(program: Program, generator: np.random.Generator) -> Program | None:
    """The queues are dealt to other SMs."""
    queues = queues_of(program)
    return with_queues(program, [queues[sm] for sm in generator.permutation(len(queues))])


def renumber_events(program: Program, generator: np.random.Generator) -> Program | None:
    """Two events, none of them the step's, exchange their counters."""
    others = np.flatnonzero(np.arange(len(program.event_count)) != program.step_event)
    if len(others) < 2:
        return None
    one, other = generator.permutation(others)[:2]
    tasks, counts, polled = program.tasks.copy(), program.event_count.copy(), program.event_polled.copy()
    for column in (counts, polled):
        column[[one, other]] = column[[other, one]]
    for name, count in (("wait_event", "num_waits"), ("signal_event", "num_signals")):
        used = np.arange(tasks[name].shape[1]) < tasks[count][:, None]
        first, second = used & (tasks[name] == one), used & (tasks[name] == other)
        tasks[name][first], tasks[name][second] = other, one
    return replace(program, tasks=tasks, event_count=counts, event_polled=polled)


def wait_for_more(program: Program, generator: np.random.Generator) -> Program | None:
    """One task waits for an event besides its own."""
    tasks = program.tasks.copy()
    rows = np.flatnonzero(tasks["num_waits"] < MAX_WAITS)
    if not len(rows):
        return None
    row, event = int(generator.choice(rows)), int(generator.integers(len(program.event_count)))
    place = tasks["num_waits"][row]
    tasks["wait_event"][row, place], tasks["wait_count"][row, place] = event, program.event_count[event]
    tasks["num_waits"][row] += 1
    return replace(program, tasks=tasks)


def reorder_waits(program: Program, generator: np.random.Generator) -> Program | None:
    """A task polls its events in another order."""
    tasks = program.tasks.copy()
    rows = np.flatnonzero(tasks["num_waits"] > 1)
    if not len(rows):
        return None
    row = int(generator.choice(rows))
    used = int(tasks["num_waits"][row])
    for name in WAIT:
        tasks[name][row, :used] = tasks[name][row, :used][::-1].copy()
    return replace(program, tasks=tasks)


def coarsen_events(program: Program, generator: np.random.Generator) -> Program | None:
    """Two events, both polled or neither, become one: who waited for either waits for both."""
    alike = program.event_polled == bool(generator.integers(2))
    others = np.flatnonzero(alike & (np.arange(len(program.event_count)) != program.step_event))
    if len(others) < 2:
        return None
    place = int(generator.integers(len(others) - 1))
    kept, gone = others[place : place + 2]
    tasks, counts = program.tasks.copy(), program.event_count.copy()
    for name, count in (("wait_event", "num_waits"), ("signal_event", "num_signals")):
        used = np.arange(tasks[name].shape[1]) < tasks[count][:, None]
        tasks[name][used & (tasks[name] == gone)] = kept
    counts[kept], counts[gone] = counts[kept] + counts[gone], 0
    used = np.arange(MAX_WAITS) < tasks["num_waits"][:, None]
    tasks["wait_count"][used & (tasks["wait_event"] == kept)] = counts[kept]
    return replace(program, tasks=tasks, event_count=counts)


def move_task(program: Program, generator: np.random.Generator) -> Program | None:
    """One task runs at a random place of a random SM."""
    queues = queues_of(program)
    sm = int(generator.choice(np.flatnonzero([len(queue) > 0 for queue in queues])))
    number = int(generator.integers(len(queues[sm])))
    row = queues[sm][number].copy()
    queues[sm] = np.delete(queues[sm], number)
    target = int(generator.integers(len(queues)))
    place = int(generator.integers(len(queues[target]) + 1))
    queues[target] = np.concatenate([queues[target][:place], row[None], queues[target][place:]])
    return with_queues(program, queues)


def spread_buffers(program: Program, generator: np.random.Generator) -> Program | None:
    """No two scratch buffers share memory; their order in the arena is random, polled ones first and twice."""
    buffers, end = list(program.buffers), 0
    mixed = [n for n in generator.permutation(len(buffers)).tolist() if buffers[n].space is Space.SCRATCH]
    for polled in (True, False):
        for number in [n for n in mixed if buffers[n].polled is polled]:
            buffers[number] = replace(buffers[number], offset_bytes=end)
            end += -(-buffers[number].bytes // 256) * 256
        end = 2 * program.polled_bytes if polled else end
    spread = replace(program, buffers=tuple(buffers), arena_bytes=end)
    return with_constant(spread, "kStepCounterOffset", step_counter_offset(end))


def read_less(program: Program, generator: np.random.Generator) -> Program | None:
    """One task is said to read one column less than it could."""
    tasks = program.tasks.copy()
    row = int(generator.integers(len(tasks)))
    grid = program.grids[tasks["grid"][row]]
    places = [n for n, operand in enumerate(grid.operands) if not operand.access.writes]
    if not places:
        return None
    place = int(generator.choice(places))
    dim = len(program.buffers[grid.operands[place].buffer].shape) - 1
    if tasks["sizes"][row, place, dim] < 2 or place == 0:
        return None
    tasks["sizes"][row, place, dim] -= 1
    return replace(program, tasks=tasks)


VARIANTS: tuple[Variant, ...] = (
    rename_sms,
    renumber_events,
    wait_for_more,
    reorder_waits,
    coarsen_events,
    move_task,
    spread_buffers,
    read_less,
    swap_neighbours,
    promise_less_ahead,
    lay_in_pairs,
)
