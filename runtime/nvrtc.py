"""CUDA C to machine code by NVRTC, with headers in memory. Needs neither a GPU nor a CUDA toolkit."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from typing import Any

from ..core.errors import KernelCompileError

SOURCE_NAME = "kernel.cu"
"""What the compiler calls the source in its messages; `mpk compile --emit cu` writes it under the same name."""

_DIAGNOSTIC = re.compile(
    r"^(?P<file>[^\s()]+)\((?P<line>\d+)\): (?:catastrophic )?error: (?P<message>.*)$", re.MULTILINE
)
_ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class NvrtcOptions:
    """How to compile. ``line_info`` keeps source lines for profilers; ``defines`` are `NAME` or `NAME=value`."""

    standard: str = "c++20"
    line_info: bool = False
    defines: tuple[str, ...] = ()

    def arguments(self, arch: str) -> tuple[str, ...]:
        """The compiler's command line for ``arch`` (such as `sm_90a`)."""
        base = (f"--gpu-architecture={arch}", f"-std={self.standard}", "--ptxas-options=-v")
        base += ("--no-cache",)  # NVRTC's own cache, on machines with a driver, forgets the assembler's log
        return base + (("-lineinfo",) if self.line_info else ()) + tuple(f"-D{define}" for define in self.defines)


@dataclass(frozen=True)
class Resources:
    """What one kernel uses, by the assembler's account."""

    registers: int
    static_shared_bytes: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code, the compiler's log, resources by kernel name, and how long the compiler took."""

    cubin: bytes
    log: str
    resources: Mapping[str, Resources]
    seconds: float


def nvrtc_version() -> tuple[int, int]:
    """Major and minor version of the NVRTC found. Raises KernelCompileError if there is none."""
    nvrtc = _bindings()
    return tuple(_checked(nvrtc, nvrtc.nvrtcVersion()))


def compile_source(
    source: str, headers: Mapping[str, str], arch: str, options: NvrtcOptions | None = None
) -> CompiledKernel:
    """Compile ``source`` for ``arch``; `#include "name"` finds ``headers[name]``.

    Raises KernelCompileError with the compiler's log; its ``where`` is the file and line to edit.
    """
    nvrtc = _bindings()
    arguments = [argument.encode() for argument in (options or NvrtcOptions()).arguments(arch)]
    names, texts = [name.encode() for name in headers], [text.encode() for text in headers.values()]
    created = nvrtc.nvrtcCreateProgram(source.encode(), SOURCE_NAME.encode(), len(names), texts, names)
    program = _checked(nvrtc, created)[0]
    try:
        begin = time.perf_counter()
        status = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)[0]
        seconds = time.perf_counter() - begin
        log = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode(errors="replace")
        log = log.rstrip("\0\n ")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise _rejection(nvrtc, status, log)
        cubin = _text(nvrtc, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return CompiledKernel(cubin, log, parse_resources(log), seconds)


def parse_resources(log: str) -> dict[str, Resources]:
    """The assembler's verbose ``log`` as a table: kernel name -> resources."""
    table: dict[str, Resources] = {}
    entries = list(_ENTRY.finditer(log))
    for entry, following in zip_longest(entries, entries[1:]):
        part = log[entry.end() : following.start() if following else len(log)]
        spills, registers, shared = _SPILLS.search(part), _REGISTERS.search(part), _SHARED.search(part)
        table[entry["name"]] = Resources(
            registers=int(registers[1]) if registers else 0,
            static_shared_bytes=int(shared[1]) if shared else 0,
            stack_bytes=int(spills[1]) if spills else 0,
            spill_bytes=int(spills[2]) + int(spills[3]) if spills else 0,
        )
    return table


def _rejection(nvrtc: Any, status: Any, log: str) -> KernelCompileError:
    first = _DIAGNOSTIC.search(log)
    if first is None:
        reason = _checked(nvrtc, nvrtc.nvrtcGetErrorString(status))[0].decode()
        return KernelCompileError(f"NVRTC failed: {reason}\n{log}".rstrip())
    return KernelCompileError(
        f"NVRTC: {first['message']}\n{log}",
        where=f"{first['file']}:{first['line']}",
        advice="headers are under codegen/cuda/; `mpk compile --emit cu` prints the source that includes them",
    )


def _text(nvrtc: Any, size_of: Any, read: Any, program: Any) -> bytes:
    buffer = b" " * _checked(nvrtc, size_of(program))[0]
    _checked(nvrtc, read(program, buffer))
    return buffer


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> tuple[Any, ...]:
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelCompileError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(status)[1].decode()}")
    return tuple(values)


def _bindings() -> Any:
    advice = "pip install 'cuda-bindings>=13,<14' nvidia-cuda-nvrtc"
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as error:  # the second: libnvrtc is looked for at the first call
        raise KernelCompileError(f"no NVRTC: {error}", advice=advice) from error
    return nvrtc
