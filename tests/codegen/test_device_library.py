"""Each task kind is a pair: a Python declaration and a CUDA body that agree on operands."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest

from mpk_ir.tasks import BUILTIN_KINDS, all_kinds
from mpk_ir.tasks.base import TaskKind

FOLDER = resources.files("mpk_ir.codegen").joinpath("cuda/mpk/tasks")
RENAMED = {  # where the plain name is taken in C++: a flag of the template, a namespace of columns
    "bias": "BiasVector",
    "residual": "ResidualRows",
    "rows": "RowState",
}


def test_kinds_and_headers_are_in_bijection() -> None:
    headers = {file.name.removesuffix(".cuh") for file in FOLDER.iterdir() if file.name.endswith(".cuh")}
    names = [kind.name for kind in BUILTIN_KINDS]
    assert sorted(names) == sorted(headers)
    assert len(set(names)) == len(names)
    assert all(type(kind).__module__ == f"mpk_ir.tasks.{kind.name}" for kind in BUILTIN_KINDS)
    assert set(BUILTIN_KINDS) <= set(all_kinds())


@pytest.mark.parametrize("kind", BUILTIN_KINDS, ids=lambda kind: kind.name)
def test_the_bodys_operands_are_those_declared_in_order(kind: TaskKind[Any]) -> None:
    found = re.search(r"enum Operand \{(.*?)\};", kind.header(), re.DOTALL)
    slots = re.findall(r"\w+", found[1]) if found else []
    expected = [RENAMED.get(operand.name, operand.name.title().replace("_", "")) for operand in kind.operands]
    assert slots == [f"k{name}" for name in expected]


@pytest.mark.parametrize("kind", BUILTIN_KINDS, ids=lambda kind: kind.name)
def test_every_body_has_a_run_that_waits_and_streaming_ones_a_load(kind: TaskKind[Any]) -> None:
    text = kind.header()
    assert "#pragma once" in text
    assert re.search(r"static __device__ __forceinline__ void run\(Context& context, const Task& task", text)
    assert text.count("context.wait(task)") == 1
    streams = any(operand.streamed for operand in kind.operands)
    assert ("static __device__ __forceinline__ bool load(Loader& loader" in text) is streams


TELLING = [kind for kind in BUILTIN_KINDS if any(o.tells and o.access.writes for o in kind.operands)]


@pytest.mark.parametrize("kind", TELLING, ids=lambda kind: kind.name)
def test_a_body_whose_words_tell_of_its_reading_has_a_barrier_before_it_publishes(kind: TaskKind[Any]) -> None:
    """`Operand.tells`: all warps have passed a barrier behind their reading when the last words are stored."""
    text = kind.header()
    parts = (
        resources.files("mpk_ir.codegen").joinpath("cuda/mpk", name)
        for name in re.findall(r'#include "mpk/(\w+\.cuh)"', text)
    )
    assert any(re.search(r"\bcontext\.publish(_at)?\(", part) for part in (text, *(p.read_text() for p in parts)))
    run = text[text.index(" run(Context& context") :]
    reached = run[: run.index("\n  }")]
    for name in re.findall(
        r"\b(run_pass|merge|norm)\(context", reached
    ):  # where the barrier stands in a part of the body
        part = text[text.index(f" {name}(Context& context") :]
        reached = reached.replace(f"{name}(context", part[: part.index("\n  }")] + f"{name}(context", 1)
    assert "context.sync()" in reached
    last = max(reached.rfind(call) for call in ("context.publish(", "end.finish(", "publish_lookup<"))
    assert reached.index("context.sync()") < last
