"""The host/device interface, declared once: rendered to C text for the kernel and to numpy dtypes for the host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from ..core.requests import RequestColumn, RowColumn
from .program import MAX_OPERANDS, MAX_SIGNALS, MAX_WAITS

EVENT_STRIDE_BYTES = 128
"""Each event counter has a cache line of its own: a poll never contends with a neighbour's arrivals."""


MAX_RANKS = 8
"""Of one program: the GPUs of a host."""
MULTICAST = 1 << 31
"""In ``Task.push_to``: by one store, to the address at which all ranks listen."""
UNWRITTEN_BYTE = 0xFF
"""Each byte of `kUnwritten`, what a polled word holds until it is written (codegen/cuda/mpk/runtime/polling.cuh)."""


class ErrorCode(IntEnum):
    """What ended a launch early."""

    NONE = 0
    EVENT_TIMEOUT = 1
    """A task waited too long for an event."""
    LOAD_TIMEOUT = 2
    """Consumers waited too long for the loader warp."""
    RING_TIMEOUT = 3
    """The loader warp waited too long for a free stage."""
    DATA_TIMEOUT = 4
    """A task waited too long for the words of a polled operand."""
    FETCH_TIMEOUT = 5
    """Consumers waited too long for the record of their next task."""


class TaskFlag(IntEnum):
    """Bits of ``Task.flags``."""

    ORDERED = 1
    """All warps of the block end the task before, ere any begins this one: it touches, without polling, what earlier
    tasks touch."""
    ENDS_STEP = 2
    """The last task of its SM."""


class ProfilePhase(IntEnum):
    """Columns of a profile record: nanoseconds of the global timer."""

    BEGIN = 0
    READY = 1
    """Waits satisfied."""
    COMPUTED = 2
    SIGNALLED = 3
    """The task's first warp has left it."""


@dataclass(frozen=True)
class Field:
    """``count`` > 1 makes an array; ``c_type`` and ``numpy`` must have the same size."""

    name: str
    c_type: str
    numpy: str
    count: int = 1


@dataclass(frozen=True)
class Struct:
    """A C struct; ``comment`` stands above it."""

    name: str
    comment: str
    fields: tuple[Field, ...]
    alignment: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype with C's padding, and more where ``alignment`` asks for it."""
        rows = [(f.name, f.numpy, (f.count,)) if f.count > 1 else (f.name, f.numpy) for f in self.fields]
        plain = np.dtype(rows, align=True)
        if missing := -plain.itemsize % self.alignment:
            rows.append(("padding", "V1", (missing,)))
        return np.dtype(rows, align=True)

    def c_text(self) -> str:
        lines = [
            f"// {self.comment}",
            f"struct {f'alignas({self.alignment}) ' if self.alignment > 1 else ''}{self.name} {{",
        ]
        lines += [f"  {f.c_type} {f.name}{f'[{f.count}]' if f.count > 1 else ''};" for f in self.fields]
        check = f'static_assert(sizeof({self.name}) == {self.dtype.itemsize}, "{self.name}: host and device disagree");'
        return "\n".join([*lines, "};", check, ""])


TASK = Struct(
    "Task",
    "One task as the kernel reads it: pointers resolved, in the order its SM runs them.",
    (
        Field("body", "int", "<i4"),
        Field("grid", "int", "<i4"),
        Field("flags", "int", "<i4"),
        Field("index", "int", "<i4", 3),
        Field("num_waits", "int", "<i4"),
        Field("num_signals", "int", "<i4"),
        Field("polled", "unsigned", "<u4"),
        Field("wait_event", "unsigned", "<u4", MAX_WAITS),
        Field("wait_count", "unsigned", "<u4", MAX_WAITS),
        Field("signal_event", "unsigned", "<u4", MAX_SIGNALS + 1),
        Field("pushed", "unsigned", "<u4"),
        Field("push_to", "unsigned", "<u4"),
        Field("rank_stride", "unsigned", "<u4"),
        Field("row_stride", "unsigned", "<u4", MAX_OPERANDS),
        Field("operand", "unsigned long long", "<u8", MAX_OPERANDS),
    ),
    alignment=16,  # records are copied to shared memory by 16 bytes
)
"""``row_stride``: elements between neighbours along an operand's first dimension; ``operand``: address of the box's
first element, 0 for an absent optional operand; ``signal_event``: one more than in the plan, the last task of an SM
signals the end of the step too; ``polled``: bits of the operands in polled buffers; ``pushed``: bits of those written
to the ranks whose bits are in ``push_to``, beside which `MULTICAST` may stand, where those of neighbouring ranks lie
``rank_stride`` bytes apart. Operands are in the order of the task kind's declaration; behind the strides of a kind's
operands stand its `TaskKind.record_numbers`."""

ERROR = Struct(
    "Error",
    "Why a launch ended early; the first block to fail fills it.",
    (
        Field("code", "int", "<i4"),
        Field("sm", "int", "<i4"),
        Field("task", "int", "<i4"),
        Field("step", "int", "<i4"),
        Field("event", "unsigned", "<u4"),
        Field("count", "unsigned", "<u4"),
        Field("target", "unsigned", "<u4"),
    ),
)

LAUNCH = Struct(
    "Launch",
    "What the blocks of a rank are given; the kernel's argument has one for each rank of the launch.",
    (
        Field("tasks", "const Task*", "<u8"),
        Field("queue_begin", "const int*", "<u8"),
        Field("events", "unsigned*", "<u8"),
        Field("error", "Error*", "<u8"),
        Field("profile", "unsigned long long*", "<u8"),
        Field("spin_limit_ns", "unsigned long long", "<u8"),
        Field("first_step", "int", "<i4"),
        Field("num_steps", "int", "<i4"),
        Field("failures", "unsigned*", "<u8"),
        Field("row_count", "const int*", "<u8"),
        Field("peer", "unsigned long long", "<u8", MAX_RANKS),
        Field("multicast", "unsigned long long", "<u8"),
        Field("rank", "int", "<i4"),
    ),
)
"""``events``: one counter per ``EVENT_STRIDE_BYTES``, never reset: a wait for c arrivals of an event in step s of all
steps since the counters were zeroed needs (s + 1) * c, so ``first_step`` counts the steps of earlier launches.
``failures``: how many blocks have given up, in device memory: a block that waits looks there, not into ``error``, which
lies in the host's.
``row_count``: the state of that name, the active rows of a step; null where every row is.
``peer``: where each rank's arena begins, as this GPU addresses it, with the counter that ends a step behind it;
``multicast``: where one store reaches the arenas of all ranks; 0 if no task of the program does that;
``rank``: whose blocks these are.
``profile``: [steps, tasks, 4] u64 in the profiling build, else null."""


def header() -> str:
    """The text of `mpk/abi.cuh`."""
    enums = "\n".join(_enum(e) for e in (ErrorCode, TaskFlag, ProfilePhase, RequestColumn, RowColumn))
    constants = f"constexpr int kEventStride = {EVENT_STRIDE_BYTES // 4};  // in counters of 4 bytes\n"
    constants += f"constexpr unsigned kMulticast = {MULTICAST:#x}u;  // in Task.push_to: by one store\n"
    structs = "\n".join(struct.c_text() for struct in (TASK, ERROR, LAUNCH))
    return (
        "// Rendered from codegen/abi.py; do not edit.\n#pragma once\n\nnamespace mpk {\n\n"
        f"{enums}\n{constants}\n{structs}\n}}  // namespace mpk\n"
    )


def _enum(kind: type[IntEnum]) -> str:
    rows = ", ".join(f"k{_camel(member.name)} = {member.value}" for member in kind)
    return f"namespace {kind.__name__} {{\nenum Value : int {{ {rows} }};\nconstexpr int kCount = {len(kind)};\n}}"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
