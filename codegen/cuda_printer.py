"""The `cuda` dialect as text: one op, one form."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import FloatAttr

from ..dialects.cuda import BodyOp, IncludeOp, SourceOp

DISPATCH = "run(mpk::Context& context, int body, int slot)"
LOAD = "load(mpk::Loader& loader, const mpk::Task& task)"


def print_source(source: SourceOp) -> str:
    """The translation unit; deterministic. `mpk/config.cuh` and `mpk/abi.cuh` are headers rendered beside it."""
    return "\n".join([*_lines(source), ""])


def print_config(source: SourceOp) -> str:
    """The text of `mpk/config.cuh`: the constants of this program."""
    constants = (f"constexpr int {name} = {value};" for name, value in source.constants.items())
    return "\n".join(["// Printed for each program.", "#pragma once", "", "namespace mpk {", *constants, "}", ""])


def _lines(source: SourceOp) -> Iterator[str]:
    yield f"// {source.sym_name.data}: printed by mpk-ir; the bodies are in the included headers."
    yield '#include "mpk/runtime/kernel.cuh"'
    yield from (f'#include "{include.header.data}"' for include in source.ops_of(IncludeOp))
    bodies = source.ops_of(BodyOp)
    yield ""
    yield "struct Bodies {"
    yield from _switch(f"void {DISPATCH}", "body", [_run_case(body) for body in bodies], "")
    streaming = [body for body in bodies if body.streams.value.data]
    yield from _switch(f"bool {LOAD}", "task.body", [_load_case(body) for body in streaming], "true")
    yield "};"
    yield ""
    kernel = source.kernel
    yield f'extern "C" __global__ void __launch_bounds__({kernel.threads.value.data}, 1)'
    yield f"    {kernel.sym_name.data}(const __grid_constant__ mpk::Launches launches) {{"
    yield "  mpk::run_kernel<Bodies>(launches);"
    yield "}"


def _switch(signature: str, body: str, cases: list[str], otherwise: str) -> Iterator[str]:
    yield f"  static __device__ __forceinline__ {signature} {{"
    yield f"    switch ({body}) {{"
    yield from (f"      {case}" for case in cases)
    yield "    }"
    if otherwise:
        yield f"    return {otherwise};"
    yield "  }"


def _run_case(body: BodyOp) -> str:
    arguments = "".join(f", {_float(argument)}" for argument in body.arguments)
    return f"case {body.number.value.data}: return mpk::run_body<{body.type_name.data}>(context, slot{arguments});"


def _load_case(body: BodyOp) -> str:
    return f"case {body.number.value.data}: return {body.type_name.data}::load(loader, task);"


def _float(value: FloatAttr) -> str:
    text = repr(float(value.value.data))
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"
