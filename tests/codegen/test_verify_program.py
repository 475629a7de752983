"""The tables and the source of a program are proved by themselves: a fault of expansion or printing shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.plan_arrays import plan_of
from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.dialects.sm import GraphOp
from mpk_ir.passes.analysis.plan_arrays import plan_of as plan_of_graph
from mpk_ir.proof import Plan, Rejection
from mpk_ir.tasks import BUILTIN_KINDS
from mpk_ir.tasks.base import TaskKind

from .models import FAMILIES, plan_model, program_of


@cache
def original() -> Program:
    return program_of("qwen3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("target", ["h200", "sim"])
def test_programs_are_accepted(family: str, fused: bool, target: str) -> None:
    verify_program(program_of(family, 4, fused=fused, target=target))


def test_saved_programs_are_accepted(tmp_path: Path) -> None:
    original().save(tmp_path)
    verify_program(Program.load(tmp_path))


def facts(plan: Plan) -> list[object]:
    regions = [
        (r.grid, r.operand, r.buffer, r.reads, r.writes, r.bounds.low.tolist(), r.bounds.high.tolist(), r.along)
        for r in plan.regions
    ]
    uses = [sorted(map(tuple, array.tolist())) for array in (plan.waits, plan.signals)]
    places = [array.tolist() for array in (plan.queue, plan.position, plan.event_count)]
    return [regions, uses, places, plan.event_names, plan.step_events, plan.arena_bytes, plan.buffers]


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_say_what_the_graph_says(family: str) -> None:
    module = plan_model(family, 2, target="sim")
    (graph,) = [op for op in module.body.block.ops if isinstance(op, GraphOp)]
    assert facts(plan_of(program_of(family, 2, target="sim"))) == facts(plan_of_graph(graph))


def with_table(column: str, row: int, value: int) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        tasks = program.tasks.copy()
        tasks[column][row] = value
        return replace(program, tasks=tasks)

    return change


def without_flags(program: Program) -> Program:
    tasks = program.tasks.copy()
    tasks["flags"] &= ~int(TaskFlag.ORDERED)
    return replace(program, tasks=tasks)


def with_task_of(number: int, other: int) -> Callable[[Program], Program]:
    """Task ``number`` of the last grid of several tasks is another one of it."""

    def change(program: Program) -> Program:
        tasks = program.tasks.copy()
        grid = max(n for n, grid in enumerate(program.grids) if grid.extent[0] > max(number, other))
        rows = np.flatnonzero(tasks["grid"] == grid)
        tasks["index"][rows[number]] = tasks["index"][rows[other]]
        return replace(program, tasks=tasks)

    return change


def with_header(name: str, pattern: str, text: str) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        found, count = re.subn(pattern, text, program.headers[name])
        assert count
        return replace(program, headers={**program.headers, name: found})

    return change


def with_source(pattern: str, text: str) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        found, count = re.subn(pattern, text, program.source, count=1)
        assert count
        return replace(program, source=found)

    return change


def with_first_grid(**changes: object) -> Callable[[Program], Program]:
    return lambda program: replace(program, grids=(replace(program.grids[0], **changes), *program.grids[1:]))


def with_queues_from(first: int) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        begin = program.queue_begin.copy()
        begin[0] = first
        return replace(program, queue_begin=begin)

    return change


CONTEXT, KERNEL, ATOMS, CONFIG = "mpk/runtime/context.cuh", "mpk/runtime/kernel.cuh", "mpk/atoms.cuh", "mpk/config.cuh"
FAULTS: dict[str, tuple[Callable[[Program], Program], str]] = {
    "a queue that begins late": (with_queues_from(1), "tables: queues do not divide"),
    "a task in another SM's queue": (with_table("sm", 0, 1), "tables: row 0, in the queue of SM 0: sm is 1"),
    "a grid that does not exist": (with_table("grid", 3, 999), "tables: .* grid is 999"),
    "more waits than a record holds": (with_table("num_waits", 3, 5), "tables: .* num_waits is 5"),
    "a task of no grid": (with_table("index", -1, 3), "tables: grid .* expected one for each index"),
    "an event that does not exist": (with_table("wait_event", -1, 9999), "counting: .* event number 9999"),
    "no task ordered": (without_flags, "barrier: no barrier stands between @.* and @.*"),
    "a lowered target": (with_table("wait_count", -1, 0), "counting: .* waits for 0 arrivals a step of event"),
    "another body": (with_first_grid(body=1), "tables: grid .* runs body 1, which is not"),
    "a task twice": (with_task_of(1, 2), "tables: grid .* expected one for each index"),
    "an unknown kind": (with_first_grid(kind="embed"), "tables: grid .*embed"),
    "parameters of another kind": (with_first_grid(params={}), "tables: grid .* parameters missing"),
    "no operands": (with_first_grid(operands=()), "tables: grid .* takes"),
    "another step event": (lambda p: replace(p, step_event=0), "source: kStepEvent is"),
    "another count of arrivals": (with_header(CONFIG, r"kStepArrivals = \d+", "kStepArrivals = 9"), "source: kStepArr"),
    "a case that runs another body": (
        with_source(r"case 0: return mpk::\w+", "case 0: return mpk::Join"),
        "source: run",
    ),
    "a body without its case": (with_source(r"case 1: .*\n", ""), "source: run of body 1 is None"),
    "a loader that skips a body": (with_source(r"case \d+: return .*::load.*\n", ""), "source: load of body"),
    "more blocks than SMs": (
        lambda p: replace(p, launch=replace(p.launch, num_blocks=133)),
        "resources: 133 blocks for 132 queues",
    ),
    "too much shared memory": (
        lambda p: replace(p, launch=replace(p.launch, shared_bytes=1 << 20)),
        "resources: a launch with 1048576 bytes of shared memory",
    ),
    "relaxed arrivals": (
        with_header(ATOMS, r"red\.release\.gpu", "red.relaxed.gpu"),
        "memory-model: `add_release_gpu`",
    ),
    "arrivals for the block only": (
        with_header(ATOMS, r"red\.release\.gpu", "red.release.cta"),
        "memory-model: `add_re",
    ),
    "relaxed polls": (with_header(ATOMS, r"ld\.acquire\.gpu", "ld.relaxed.gpu"), "memory-model: `load_acquire_gpu`"),
    "polls by another atom": (
        with_header(CONTEXT, r"load_acquire_gpu\(counter\)", "load_relaxed_gpu(counter)"),
        "memory-model: `wait_event` of the kernel has no acquire",
    ),
    "arrivals without a barrier": (
        with_header(KERNEL, r"(void leave_task\((?s:.*?))__syncwarp\(\);", r"\1"),
        "memory-model: `leave_task` of the kernel does not gather",
    ),
    "a relaxed count of warps": (
        with_header(ATOMS, r"atom\.acq_rel\.cta", "atom.relaxed.cta"),
        "memory-model: `add_acquire_release_block` is",
    ),
    "waits without a barrier": (
        with_header(CONTEXT, r"(void wait\((?s:.*?))__syncwarp\(\);", r"\1"),
        "memory-model: `wait` of the kernel has no barrier",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(Rejection, match=message):
        verify_program(change(original()))


EARLY = re.compile(r"operand<[^>]*>\(task, k(\w+)\)")
ROWS = re.compile(r"context\.(?:touched_)?rows_from\(")  # of the row_count that the kernel reads as a step begins


@pytest.mark.parametrize("kind", BUILTIN_KINDS, ids=lambda kind: kind.name)
def test_what_a_body_reads_before_its_wait_is_declared_early(kind: TaskKind[Any]) -> None:
    text = kind.header()
    body = text[text.index(" run(Context& context") :].partition("context.wait(")[0]
    called = re.findall(r" (\w+)\(task\);", body)
    helpers = [text.partition(f" {name}(const Task& task)")[2] for name in called]
    parts = [body, *(helper.partition("\n  }")[0] for helper in helpers)]
    names = [name for part in parts for name in EARLY.findall(part)]
    before = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in names}
    if ROWS.search(text):  # `advance`, which writes it, is the last task to know it
        before |= {"row_count"} & {operand.name for operand in kind.operands if not operand.access.writes}
    assert before == {operand.name for operand in kind.operands if operand.early}
