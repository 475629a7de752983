"""The kernel itself on the host: its CUDA source through a host compiler, every thread a fiber. What a program computes
on a GPU, body by body and word by word, without one; not how fast, and not what weakly ordered memory may do to it."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpk_ir.codegen.program import Program
from mpk_ir.runtime.driver import Device
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.peers import Arena, SameDevice
from mpk_ir.runtime.weights import Parameters
from tests.pytorch import fake_gpu
from tests.pytorch.fake_gpu import FakeGpu, at_address

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
_FLAGS = ("-std=c++20", "-O2", "-w", "-fno-strict-aliasing", "-shared", "-fPIC", "-x", "c++")
_REPLACED = ("atoms.cuh", "matrix.cuh")
"""Headers of the device library that are PTX."""
_IN_WORDS_OF_THE_HOST = {
    'asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));': (
        "packed = emulation::pack_bf16(low, high);"
    ),
    'asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));': (
        "product = emulation::pack_bf16(emulation::low_bf16(a) * emulation::low_bf16(b),"
        " emulation::high_bf16(a) * emulation::high_bf16(b));"
    ),
    "steps_loaded, 0) <= context.step) {": "steps_loaded, 0) <= context.step) { emulation::yield();",
    "if (shared_address(dynamic_shared) != kSharedBase) __trap();": "",
    "extern __shared__ char dynamic_shared[];": "",
}
"""What the device library says elsewhere that a host compiler does not know, or a fiber would never leave."""


class EmulatedGpu(FakeGpu):
    """Launches run the kernel; ``seed`` other than 0 makes threads and copies take turns at random."""

    folder: Path
    seed: int = 0

    def _cuModuleGetFunction(self, module: str, name: bytes) -> Any:
        assert self.loading is not None
        return self.loading[0], build(self.loading[0], self.folder)

    def _cuLaunchCooperativeKernel(self, function: Any, *arguments: Any) -> None:
        program, library = function
        at = int(at_address(arguments[-1], (1,), np.dtype(np.uint64))[0])
        shape = program.launch
        left = library.emulate(ctypes.c_void_p(at), arguments[0], shape.num_threads, shape.shared_bytes, self.seed)
        assert left == 0, f"{left} threads wait for what never comes"


def build(program: Program, folder: Path) -> Any:
    """``program``'s kernel as a library of the host."""
    assert COMPILER is not None
    texts = {"program.cu": program.source, **program.headers}
    target = folder / hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    library = target / "kernel.so"
    if not library.exists():
        ours = {f"mpk/{name}": (HERE / name).read_text() for name in _REPLACED}
        for name, text in (texts | ours).items():
            for word, instead in _IN_WORDS_OF_THE_HOST.items():
                text = text.replace(word, instead)
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        includes = (f"-I{HERE}", f"-I{target}", f"-DKERNEL={program.launch.kernel}")
        command = [COMPILER, *_FLAGS, *includes, "-o", str(library), str(HERE / "launch.cu")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


@cache
def device_of(num_sms: int) -> Device:
    """Host memory as a GPU of as many SMs."""
    return Device(0, "host memory", num_sms, (9, 0), 1 << 40)


def install(patch: pytest.MonkeyPatch, folder: Path) -> EmulatedGpu:
    """Executors run on the host from now on."""
    patch.setattr(fake_gpu, "FakeGpu", EmulatedGpu)
    gpu = fake_gpu.install(patch)
    assert isinstance(gpu, EmulatedGpu)
    gpu.folder = folder
    patch.setattr(torch.cuda, "synchronize", lambda: None)
    return gpu


class SwitchedPeers(SameDevice):
    """Ranks on one device with a multicast address, as GPUs behind a switch have one: `emulation::machine` knows what
    it stands for, nothing lies there."""

    def multicast(self, arenas: Sequence[Arena]) -> int:
        return 1 << 62


def executor(program: Program, parameters: Parameters) -> GpuExecutor:
    """``program`` on the host."""
    device = device_of(program.ranks * program.target.num_sms)
    return GpuExecutor(program, parameters, device, peers=SwitchedPeers(program.ranks))
