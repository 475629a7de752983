"""What becomes of a plan's events and polled buffers in the records that the kernel reads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.program import Program
from mpk_ir.runtime.binding import device_tasks, operand_slots

from .models import program_of


@pytest.fixture(scope="module", params=[True, False], ids=["fused", "unfused"])
def program(request: pytest.FixtureRequest) -> Program:
    return program_of("qwen3", 4, fused=request.param)


def records(program: Program) -> np.ndarray:
    return device_tasks(program, {buffer.name: 0 for buffer in program.buffers})


def test_each_sm_arrives_once_for_the_end_of_a_step_behind_its_last_task(program: Program) -> None:
    table, begin = records(program), program.queue_begin.tolist()
    arrivals = 0
    for first, end in pairwise(begin):
        for row in range(first, end):
            signals = table["signal_event"][row][: table["num_signals"][row]].tolist()
            ends = bool(table["flags"][row] & int(TaskFlag.ENDS_STEP))
            assert (program.step_event in signals, ends) == (row == end - 1, row == end - 1)
            arrivals += signals.count(program.step_event)
    assert f"kStepArrivals = {arrivals};" in program.headers["mpk/config.cuh"]


def test_polled_events_have_no_counter_and_all_others_do(program: Program) -> None:
    table = records(program)
    for row, task in zip(program.tasks, table, strict=True):
        for events, used in (("wait_event", "num_waits"), ("signal_event", "num_signals")):
            planned = [e for e in row[events][: row[used]].tolist() if e != program.step_event]
            counted = [e for e in planned if not program.event_polled[e]]
            assert [e for e in task[events][: task[used]].tolist() if e != program.step_event] == counted
        number = row["num_waits"]
        waits = dict(zip(row["wait_event"][:number].tolist(), row["wait_count"][:number].tolist(), strict=True))
        for event, count in zip(task["wait_event"][: task["num_waits"]], task["wait_count"], strict=False):
            assert waits[int(event)] == count


def test_a_record_says_which_operands_are_polled(program: Program) -> None:
    table = records(program)
    for number, grid in enumerate(program.grids):
        slots = zip(operand_slots(grid), grid.operands, strict=True)
        expected = sum(1 << slot for slot, operand in slots if program.buffers[operand.buffer].polled)
        assert (table["polled"][program.tasks["grid"] == number] == expected).all(), grid.name
