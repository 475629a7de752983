"""The kernel's error block in words."""

from __future__ import annotations

import warnings
import weakref
from contextlib import suppress
from typing import Any

from ..codegen import abi
from ..codegen.program import Program
from ..core.errors import DeviceError, KernelTimeoutError
from ..tasks import task_kind
from .driver import MappedMemory


def timeout_error(program: Program, error: Any, rank: int = 0) -> KernelTimeoutError:
    """The exception for ``error`` (one ``abi.ERROR`` row): which task, on which rank, SM and step, waited for what."""
    task, sm, step = int(error["task"]), int(error["sm"]), int(error["step"])
    place = f"rank {rank}, SM {sm}" if program.ranks > 1 else f"SM {sm}"
    who = f"{task_name(program, task)} on {place} in step {step}"
    code = abi.ErrorCode(int(error["code"]))
    if code is abi.ErrorCode.EVENT_TIMEOUT:
        event = event_name(program, int(error["event"]))
        return KernelTimeoutError(
            f"{who} gave up waiting for event {event}: count {int(error['count'])}, target {int(error['target'])}",
            advice="under a debugger or sanitizer the kernel is slow: raise GpuOptions.spin_limit_ns",
        )
    if code is abi.ErrorCode.DATA_TIMEOUT:
        return KernelTimeoutError(
            f"{who} gave up waiting for operand '{operand_name(program, task, int(error['event']))}' to be written",
            advice="under a debugger or sanitizer the kernel is slow: raise GpuOptions.spin_limit_ns",
        )
    roles = {
        abi.ErrorCode.FETCH_TIMEOUT: "consumers waited too long for the record of the task",
        abi.ErrorCode.LOAD_TIMEOUT: "consumers waited too long for the loader warp",
        abi.ErrorCode.RING_TIMEOUT: "the loader warp waited too long for a free stage of the ring",
    }
    return KernelTimeoutError(f"{who}: {roles.get(code, code.name)}")


def report_at_end(owner: object, program: Program, error: MappedMemory) -> None:
    """Warn of an error in ``error`` that nobody has heard of when ``owner`` or the process ends."""
    weakref.finalize(owner, _report, program, error)


def _report(program: Program, error: MappedMemory) -> None:
    with suppress(DeviceError):  # after a crash nothing can be waited for; the record stays readable
        error.wait_for_device()
    if error.record["code"][0] != abi.ErrorCode.NONE:
        words = timeout_error(program, error.record[0])
        warnings.warn(f"a kernel failed and nobody waited for it: {words}", RuntimeWarning, stacklevel=2)


def task_name(program: Program, task: int) -> str:
    """`task 17 of grid 'layer0.qkv' at (2,)`; an SM between two steps runs none."""
    if not 0 <= task < len(program.tasks):
        return "the start of a step"
    row = program.tasks[task]
    grid = program.grids[row["grid"]]
    index = tuple(int(i) for i in row["index"][: len(grid.extent)])
    return f"task {task} of grid '{grid.name}' at {index}"


def operand_name(program: Program, task: int, slot: int) -> str:
    """The operand at ``slot`` of the task's kind, as the kernel numbers them, and the buffer it lies in."""
    if not 0 <= task < len(program.tasks):
        return "?"
    grid = program.grids[program.tasks[task]["grid"]]
    name = task_kind(grid.kind).operands[slot].name
    buffers = [program.buffers[operand.buffer].name for operand in grid.operands if operand.name == name]
    return f"{name} in {buffers[0]}" if buffers else name


def event_name(program: Program, event: int) -> str:
    """The event's name in quotes with its number."""
    name = program.event_names[event] if event < len(program.event_names) else "?"
    return f"'{name}' ({event})"
