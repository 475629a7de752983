"""The kernel that packs weights, compiled for the host, against the definition; what it must leave alone."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pytest
import torch

from mpk_ir.codegen.program import Buffer, Pack
from mpk_ir.core.dtype import BF16, F32
from mpk_ir.core.memory import Layout, Space
from mpk_ir.runtime import nvrtc, packing
from mpk_ir.runtime.packing import Packer
from mpk_ir.runtime.weights import joined, packed_weight

SOURCE = resources.files("mpk_ir.codegen").joinpath("cuda/mpk/pack.cuh")
HOST = """
struct Index { unsigned x; };
static Index blockIdx, threadIdx, blockDim, gridDim;
#define __global__
#include "pack.cuh"
extern "C" void launch(unsigned blocks, unsigned threads, const Eight* low, const Eight* high, Eight* packed,
                       unsigned tiles, unsigned row_blocks, unsigned tile_rows) {
  gridDim.x = blocks, blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
      mpk_pack(low, high, packed, tiles, row_blocks, tile_rows);
}
"""


@dataclass
class HostKernel:
    """Launches run at once, on the host."""

    library: Any
    launches: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def queue(self, blocks: int, threads: int, arguments: tuple[Any, Any], stream: object) -> None:
        self.launches.append((blocks, threads))
        values, types = arguments
        self.library.launch(blocks, threads, *(kind(value) for kind, value in zip(types, values, strict=True)))


class HostMemory:
    """What a `DeviceMemory` is asked for, in host memory."""

    def __init__(self, buffer: Buffer) -> None:
        self.values = torch.full((buffer.bytes // 2,), float("nan"), dtype=torch.bfloat16)
        self.address = self.values.data_ptr()

    def copy(self, address: int, bytes: int, stream: object, *, begin: int = 0) -> None:
        ctypes.memmove(self.address + begin, address, bytes)


class OnGpu(torch.Tensor):
    """A tensor of the host that says it lies on a GPU."""

    is_cuda = True  # pyright: ignore[reportAssignmentType]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> HostKernel:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no host compiler")
    folder = tmp_path_factory.mktemp("pack")
    (folder / "pack.cuh").write_text(SOURCE.read_text())
    (folder / "host.cpp").write_text(HOST)
    built = ["-std=c++20", "-O2", "-shared", "-fPIC", "-w", str(folder / "host.cpp"), "-o", str(folder / "host.so")]
    subprocess.run([compiler, *built], check=True)
    return HostKernel(ctypes.CDLL(str(folder / "host.so")))


def weight(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32) % 251 - 125
    return values.reshape(shape).to(dtype).as_subclass(OnGpu)


def buffer_of(rows: int, columns: int, interleave: int = 0, layout: Layout = Layout.MMA_ROWS_16) -> Buffer:
    return Buffer("w", Space.WEIGHT, (rows, columns), BF16, layout, (rows, columns), Pack(("a", "b"), interleave))


def packs(kernel: HostKernel, buffer: Buffer, parts: list[torch.Tensor]) -> torch.Tensor | None:
    packer, memory = Packer("sm_90a"), HostMemory(buffer)
    packer.__dict__["_kernel"] = kernel
    stream: Any = None
    return memory.values if packer.pack(memory, buffer, parts, stream) else None  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("rows", "columns", "interleave"), [((16,), 32, 0), ((48,), 160, 0), ((64, 16, 32), 96, 0), ((24, 24), 64, 8)]
)
def test_it_packs_as_the_definition_says(
    kernel: HostKernel, rows: tuple[int, ...], columns: int, interleave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_BLOCKS", 2)  # so that threads go round
    monkeypatch.setattr(packing, "THREADS", 32)
    buffer = buffer_of(sum(rows), columns, interleave)
    parts = [weight(count, columns) for count in rows]
    packed = packs(kernel, buffer, parts)
    assert packed is not None
    assert torch.equal(packed, packed_weight(buffer, joined(buffer, parts)))


def test_row_major_parts_are_copied(kernel: HostKernel) -> None:
    buffer = buffer_of(5, 8, layout=Layout.ROW_MAJOR)
    parts = [weight(2, 8), weight(3, 8)]
    packed = packs(kernel, buffer, parts)
    assert packed is not None
    assert torch.equal(packed, torch.cat(parts).reshape(-1))


@pytest.mark.parametrize(
    ("buffer", "parts"),
    [
        (buffer_of(48, 32), [weight(40, 32), weight(8, 32)]),
        (buffer_of(48, 32, 16), [weight(24, 32), weight(24, 32)]),
        (buffer_of(48, 32, 8), [weight(16, 32), weight(16, 32), weight(16, 32)]),
        (buffer_of(16, 32), [weight(16, 32, dtype=torch.float32)]),
        (buffer_of(16, 32), [weight(32, 16).t()]),
        (buffer_of(16, 32), [weight(17 * 32)[1:513].reshape(16, 32)]),
        (buffer_of(16, 32, 8, Layout.ROW_MAJOR), [weight(8, 32), weight(8, 32)]),
        (Buffer("w", Space.WEIGHT, (8, 32), BF16, Layout.MMA_ROWS_16, (16, 32), Pack(("a",))), [weight(8, 32)]),
        (Buffer("w", Space.WEIGHT, (16, 16), BF16, Layout.MMA_ROWS_16, (16, 32), Pack(("a",))), [weight(16, 16)]),
        (Buffer("w", Space.WEIGHT, (4,), F32, pack=Pack(("a",))), [weight(4)]),
        (buffer_of(16, 32), [weight(16, 32).as_subclass(torch.Tensor)]),
    ],
    ids=["rows", "blocks", "three", "type", "order", "place", "dealt", "short", "narrow", "converted", "host"],
)
def test_what_is_not_its_business_is_left_alone(kernel: HostKernel, buffer: Buffer, parts: list[torch.Tensor]) -> None:
    before = len(kernel.launches)
    assert packs(kernel, buffer, parts) is None
    assert len(kernel.launches) == before


def test_it_compiles_for_the_gpu() -> None:
    compiled = nvrtc.compile_source('#include "mpk/pack.cuh"\n', {"mpk/pack.cuh": SOURCE.read_text()}, "sm_90a")
    assert compiled.resources["mpk_pack"].spill_bytes == 0
