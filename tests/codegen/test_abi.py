"""The host/device interface: sizes as C has them, one declaration for both sides."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from mpk_ir.codegen import abi
from mpk_ir.codegen.program import MAX_OPERANDS, MAX_SIGNALS, MAX_WAITS
from mpk_ir.core.requests import RequestColumn, RowColumn

C_BYTES = {"int": 4, "unsigned": 4, "unsigned long long": 8}


@pytest.mark.parametrize(("struct", "size"), [(abi.TASK, 256), (abi.ERROR, 28), (abi.LAUNCH, 152)])
def test_sizes_are_known_and_asserted_in_the_header(struct: abi.Struct, size: int) -> None:
    assert struct.dtype.itemsize == size
    assert f'static_assert(sizeof({struct.name}) == {size}, "{struct.name}: host and device disagree");' in abi.header()


@pytest.mark.parametrize("struct", [abi.TASK, abi.ERROR, abi.LAUNCH])
def test_fields_lie_where_c_puts_them(struct: abi.Struct) -> None:
    offset, widest = 0, 1
    fields: Any = struct.dtype.fields
    for field in struct.fields:
        width = 8 if field.c_type.endswith("*") else C_BYTES[field.c_type]
        widest, offset = max(widest, width), -(-offset // width) * width
        dtype, found = fields[field.name][:2]
        assert (found, dtype.itemsize) == (offset, width * field.count), field.name
        offset += width * field.count
    unit = max(widest, struct.alignment)
    assert struct.dtype.itemsize == -(-offset // unit) * unit


def test_the_task_struct_reads_as_expected() -> None:
    text = abi.TASK.c_text()
    assert text.startswith("// One task as the kernel reads it")
    fields = re.findall(r"^  (.+) (\w+)(?:\[(\d+)\])?;$", text, re.MULTILINE)
    assert fields[:4] == [("int", "body", ""), ("int", "grid", ""), ("int", "flags", ""), ("int", "index", "3")]
    assert fields[-1] == ("unsigned long long", "operand", str(MAX_OPERANDS))
    widths = {name: count for _, name, count in fields}
    assert widths["wait_event"] == widths["wait_count"] == str(MAX_WAITS)
    assert widths["signal_event"] == str(MAX_SIGNALS + 1)


def test_enums_of_the_header_are_those_of_python() -> None:
    header = abi.header()
    for kind in (abi.ErrorCode, abi.TaskFlag, abi.ProfilePhase, RequestColumn, RowColumn):
        body = re.search(
            rf"namespace {kind.__name__} {{\nenum Value : int {{ (.*) }};\nconstexpr int kCount = (\d+);", header
        )
        assert body is not None
        values = dict(re.findall(r"k(\w+) = (\d+)", body[1]))
        assert values == {member.name.title().replace("_", ""): str(member.value) for member in kind}
        assert int(body[2]) == len(kind)


def test_the_header_is_whole_and_stable() -> None:
    header = abi.header()
    assert header == abi.header()
    assert header.startswith("// Rendered from codegen/abi.py; do not edit.\n#pragma once\n")
    assert header.count("{") == header.count("}")
    assert f"constexpr int kEventStride = {abi.EVENT_STRIDE_BYTES // 4};" in header
    assert np.dtype(np.uint32).itemsize * (abi.EVENT_STRIDE_BYTES // 4) == 128
