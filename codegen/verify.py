"""`mpk verify` on a saved program: are its tables, its source and its plan as they must be?"""

from __future__ import annotations

import re
from itertools import product

import numpy as np

from ..core.errors import MpkError
from ..core.memory import shared_bytes, step_counter_offset
from ..proof import Plan, Rejection, check
from ..proof.barriers import check_barriers
from ..tasks import task_kind
from .abi import TaskFlag
from .memory_model import check_ordering, check_stages
from .plan_arrays import constants_of, plan_of, program_order, streams_state
from .program import MAX_RANK, MAX_SIGNALS, MAX_WAITS, Grid, Program

_RUN = re.compile(r"case (\d+): return mpk::run_body<(.+)>\(context, slot(?:, )?(.*)\);")
_LOAD = re.compile(r"case (\d+): return (.+)::load\(loader, task\);")


def verify_program(program: Program) -> Plan:
    """Prove that what ``program`` says is safe to run; what it says as arrays.

    The tables are read as the kernel reads them, so a fault of expansion or printing shows as well as one of planning.
    Raises Rejection: rule *tables* or *source* for what contradicts itself, *resources* for what does not fit the
    machine, *memory-model* for events that do not order memory, *barrier* for warps of a block that nothing holds
    apart, else a rule of `mpk_ir.proof.check`.
    """
    check_queues(program)
    check_grids(program)
    check_source(program)
    check_resources(program)
    check_ordering(program.headers)
    check_stages(program.headers, state_streams(program))
    plan = plan_of(program)
    check(plan)
    flags = program.tasks["flags"][program_order(program)]
    check_barriers(plan, (flags & int(TaskFlag.ORDERED)) != 0)
    return plan


def state_streams(program: Program) -> list[str]:
    """Kinds of tasks for which loaders copy a state to shared memory."""
    return [grid.kind for grid in program.grids if streams_state(program, grid)]


def check_queues(program: Program) -> None:
    """Each row belongs to one queue, that of its SM, and its counts fit the record. Raises Rejection, rule tables."""
    begin, tasks = program.queue_begin, program.tasks
    if begin[0] != 0 or begin[-1] != len(tasks) or (np.diff(begin) < 0).any():
        raise Rejection(
            "tables", f"queues do not divide the {len(tasks)} tasks: they begin at {begin.tolist()[:8]} ..."
        )
    sm = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    for column, low, high in (
        ("sm", sm, sm),
        ("grid", 0, len(program.grids) - 1),
        ("num_waits", 0, MAX_WAITS),
        ("num_signals", 0, MAX_SIGNALS),
    ):
        wrong = np.flatnonzero((tasks[column] < low) | (tasks[column] > high))
        if wrong.size:
            row = int(wrong[0])
            raise Rejection("tables", f"row {row}, in the queue of SM {sm[row]}: {column} is {tasks[column][row]}")
    if len(program.event_polled) != len(program.event_count):
        raise Rejection(
            "tables", f"{len(program.event_count)} events, {len(program.event_polled)} marks of polled ones"
        )
    if len(program.event_names) != len(program.event_count):
        raise Rejection("tables", f"{len(program.event_count)} events have {len(program.event_names)} names")


def check_grids(program: Program) -> None:
    """Every task of every grid stands in the table once, and grids are as their kinds want them. Raises Rejection."""
    number_of, index = program.tasks["grid"], program.tasks["index"]
    for number, grid in enumerate(program.grids):
        rows = index[number_of == number]
        extent = np.array([*grid.extent, *[1] * (rows.shape[1] - len(grid.extent))])
        inside = ((rows >= 0) & (rows < extent)).all()
        flat = np.sort(np.ravel_multi_index(tuple(rows.T), tuple(extent))) if inside else rows
        if not inside or not np.array_equal(flat, np.arange(np.prod(extent))):
            raise Rejection(
                "tables", f"grid @{grid.name} has {len(rows)} rows, expected one for each index of {list(grid.extent)}"
            )
        _check_operands(program, grid)


def _check_operands(program: Program, grid: Grid) -> None:
    try:
        kind = task_kind(grid.kind)
        params = kind.checked_params(grid.params)
    except MpkError as error:
        raise Rejection("tables", f"grid @{grid.name}: {error}") from error
    declared = {operand.name: operand for operand in kind.operands}
    found = {operand.name for operand in grid.operands}
    if not {name for name, operand in declared.items() if not operand.optional} <= found <= set(declared):
        raise Rejection(
            "tables", f"grid @{grid.name}: kind '{kind.name}' takes {list(declared)}, found {sorted(found)}"
        )
    for operand in grid.operands:
        if not 0 <= operand.buffer < len(program.buffers) or operand.access is not declared[operand.name].access:
            raise Rejection("tables", f"grid @{grid.name}: operand {operand.name} has the wrong buffer or access")
        if len(program.buffers[operand.buffer].shape) > MAX_RANK:
            raise Rejection("tables", f"grid @{grid.name}: operand {operand.name} has more than {MAX_RANK} dimensions")
    expected = f"{kind.signature(params)}({', '.join(map(repr, kind.body_arguments(params)))})"
    if not 0 <= grid.body < len(program.bodies) or program.bodies[grid.body] != expected:
        raise Rejection("tables", f"grid @{grid.name} runs body {grid.body}, which is not {expected}")


def check_source(program: Program) -> None:
    """The text that NVRTC compiles agrees with the tables. Raises Rejection, rule source."""
    constants = constants_of(program)
    step = program.step_event
    busy = int((np.diff(program.queue_begin) > 0).sum())  # each arrives once, when its last task is over
    expected = {"kStepEvent": step, "kStepArrivals": program.ranks * busy, "kNumTasks": len(program.tasks)}
    expected |= {"kPolledBytes": program.polled_bytes, "kBlockThreads": program.launch.num_threads}
    expected |= {"kRanks": program.ranks, "kRankBlocks": len(program.queue_begin) - 1}
    expected |= {"kMulticasts": int(program.multicasts)}
    expected |= {"kStepCounterOffset": step_counter_offset(program.arena_bytes)}
    for name, value in expected.items():
        if constants.get(name) != value:
            raise Rejection("source", f"{name} is {constants.get(name)} in mpk/config.cuh, the tables say {value}")
    cases = {"run": dict[int, str](), "load": {int(number): name for number, name in _LOAD.findall(program.source)}}
    for number, type_name, arguments in _RUN.findall(program.source):
        values = [float(argument.removesuffix("f")) for argument in arguments.split(", ") if argument]
        cases["run"][int(number)] = f"{type_name}({', '.join(map(repr, values))})"
    bodies = dict(enumerate(program.bodies))
    streaming = {grid.body for grid in program.grids if any(o.streamed for o in task_kind(grid.kind).operands)}
    for number, method in product(bodies, cases):
        wanted = bodies[number] if method == "run" else bodies[number].partition("(")[0]
        wanted = wanted if method == "run" or number in streaming else None
        if cases[method].get(number) != wanted:
            raise Rejection(
                "source", f"{method} of body {number} is {cases[method].get(number)} in kernel.cu, expected {wanted}"
            )


def check_resources(program: Program) -> None:
    """All blocks are resident at once, one an SM, and shared memory holds what they keep. Raises Rejection."""
    launch, target = program.launch, program.target
    blocks = len(program.queue_begin) - 1
    if not blocks == launch.num_blocks <= target.num_sms:
        raise Rejection(
            "resources", f"{launch.num_blocks} blocks for {blocks} queues on the {target.num_sms} SMs of {target.name}"
        )
    parts = [constants_of(program).get(name, 0) for name in ("kRingStages", "kStageBytes", "kScratchBytes")]
    needed = shared_bytes(*parts)
    if not needed <= launch.shared_bytes <= target.shared_memory_bytes or launch.ring_bytes != parts[0] * parts[1]:
        raise Rejection(
            "resources",
            f"a launch with {launch.shared_bytes} bytes of shared memory and a ring of {launch.ring_bytes}, the kernel "
            f"lays out {needed} and {parts[0] * parts[1]}, a block of {target.name} has {target.shared_memory_bytes}",
        )
