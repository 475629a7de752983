"""NVRTC needs no GPU: headers come from memory, errors name the line to edit."""

from __future__ import annotations

import pytest

from mpk_ir.codegen import abi
from mpk_ir.core.errors import KernelCompileError
from mpk_ir.runtime.nvrtc import NvrtcOptions, Resources, compile_source, parse_resources

SOURCE = '#include "mpk/twice.cuh"\nextern "C" __global__ void kernel(float* x) { x[threadIdx.x] = twice(x[0]); }\n'
TWICE = "__device__ inline float twice(float x) { return FACTOR * x; }\n"


def test_a_kernel_compiles_to_machine_code_for_hopper() -> None:
    kernel = compile_source(SOURCE, {"mpk/twice.cuh": TWICE}, "sm_90a", NvrtcOptions(defines=("FACTOR=2",)))
    assert kernel.cubin.startswith(b"\x7fELF")
    assert kernel.seconds > 0
    assert kernel.resources["kernel"].registers > 0
    assert kernel.resources["kernel"].spill_bytes == 0


def test_compiling_the_same_source_again_still_tells_its_resources() -> None:
    first, again = (compile_source('extern "C" __global__ void k() {}', {}, "sm_90a") for _ in range(2))
    assert first.resources == again.resources
    assert again.resources["k"].registers > 0


def test_line_info_is_an_option() -> None:
    plain, lined = (
        compile_source(SOURCE, {"mpk/twice.cuh": TWICE}, "sm_90a", NvrtcOptions(line_info=on, defines=("FACTOR=2",)))
        for on in (False, True)
    )
    assert b".debug_line" in lined.cubin
    assert b".debug_line" not in plain.cubin


def test_an_error_names_the_line_of_the_header() -> None:
    with pytest.raises(KernelCompileError, match='identifier "FACTOR" is undefined') as caught:
        compile_source(SOURCE, {"mpk/twice.cuh": "\n\n" + TWICE}, "sm_90a")
    assert caught.value.where == "mpk/twice.cuh:3"


def test_a_missing_header_is_named() -> None:
    with pytest.raises(KernelCompileError, match=r"cannot open source file .*mpk/twice\.cuh") as caught:
        compile_source(SOURCE, {}, "sm_90a")
    assert caught.value.where == "kernel.cu:1"


def test_an_unknown_architecture_is_an_error_with_the_compilers_words() -> None:
    with pytest.raises(KernelCompileError, match="gpu-architecture"):
        compile_source("", {}, "sm_9z")


def test_the_rendered_abi_compiles_so_host_and_device_agree() -> None:
    kernel = 'extern "C" __global__ void kernel(mpk::Launch launch) { launch.error->code = launch.tasks->body; }'
    compile_source(f'#include "mpk/abi.cuh"\n{kernel}', {"mpk/abi.cuh": abi.header()}, "sm_90a")


def test_resources_are_read_per_kernel() -> None:
    log = """ptxas info    : Compiling entry function 'a' for 'sm_90a'
ptxas         .     8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 8 bytes stack size
ptxas info    : Compiling entry function 'b' for 'sm_90a'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 256 bytes smem"""
    assert parse_resources("") == {}
    assert parse_resources(log) == {"a": Resources(255, 0, 8, 28), "b": Resources(10, 256, 0, 0)}
