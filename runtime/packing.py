"""Weights into the kernel's layout on the GPU: one pass, with nothing beside what is read and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_uint, c_void_p
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING

from ..codegen.program import Buffer
from ..core.memory import Layout
from .cache import KernelCache
from .driver import DeviceMemory, Kernel, Stream
from .weights import BLOCK_COLUMNS, TILE_ROWS, torch_dtype

if TYPE_CHECKING:
    import torch

HEADER, NAME = "mpk/pack.cuh", "mpk_pack"
HALF_ROWS = TILE_ROWS // 2
THREADS, MOST_BLOCKS = 256, 2048
ELEMENT_BYTES, ALIGNMENT_BYTES = 2, 16
THREAD_ELEMENTS = 16
"""A thread's part of a round: 8 neighbours in a row of each half."""


@dataclass(frozen=True)
class _Halves:
    """Where the rows of the two halves of tiles begin, and how many rows on the next tile's are."""

    low: int
    high: int
    tile_rows: int
    tiles: int


@dataclass(frozen=True)
class Packer:
    """Packs on a GPU of ``arch``; its kernel is compiled at the first use."""

    arch: str
    cache: KernelCache = field(default_factory=KernelCache)

    def pack(self, memory: DeviceMemory, buffer: Buffer, parts: Sequence[torch.Tensor], stream: Stream) -> bool:
        """Queue on ``stream`` what fills ``memory`` with ``parts``, joined as ``buffer`` says. False, nothing done, for
        what needs padding or conversion or does not lie in the GPU's memory row by row."""
        if not _lies_as_it_is(buffer, parts):
            return False
        interleave = buffer.pack.interleave if buffer.pack else 0
        if buffer.layout is Layout.ROW_MAJOR:
            return not interleave and _copy(memory, parts, stream)
        halves = _halves(parts, interleave)
        if halves is None:
            return False
        blocks, address = buffer.shape[1] // BLOCK_COLUMNS, memory.address
        for one in halves:
            threads = one.tiles * blocks * TILE_ROWS * BLOCK_COLUMNS // THREAD_ELEMENTS
            values = (one.low, one.high, address, one.tiles, blocks, one.tile_rows)
            grid = min(MOST_BLOCKS, -(-threads // THREADS))
            self._kernel.queue(grid, THREADS, (values, (c_void_p, c_void_p, c_void_p, c_uint, c_uint, c_uint)), stream)
            address += threads * THREAD_ELEMENTS * buffer.dtype.bytes
        return True

    @cached_property
    def _kernel(self) -> Kernel:
        text = resources.files("mpk_ir.codegen").joinpath(f"cuda/{HEADER}").read_text()
        compiled = self.cache.compile(f'#include "{HEADER}"\n', {HEADER: text}, self.arch)
        return Kernel(compiled.cubin, NAME, 0)


def _lies_as_it_is(buffer: Buffer, parts: Sequence[torch.Tensor]) -> bool:
    """Whether ``parts`` lie on a GPU row by row, in the type and with the rows and columns that ``buffer`` holds."""
    dtype = torch_dtype(buffer)
    tiled = buffer.layout is Layout.MMA_ROWS_16
    return (
        (buffer.padded_shape or buffer.shape) == buffer.shape
        and not (tiled and (dtype.itemsize != ELEMENT_BYTES or buffer.shape[1] % BLOCK_COLUMNS))
        and all(part.is_cuda and part.is_contiguous() and part.dtype == dtype for part in parts)
        and not any(part.data_ptr() % ALIGNMENT_BYTES for part in parts)
    )


def _copy(memory: DeviceMemory, parts: Sequence[torch.Tensor], stream: Stream) -> bool:
    begin = 0
    for part in parts:
        memory.copy(part.data_ptr(), part.nbytes, stream, begin=begin)
        begin += part.nbytes
    return True


def _halves(parts: Sequence[torch.Tensor], interleave: int) -> list[_Halves] | None:
    """Where tiles come from: each of ``parts`` has whole ones, or two are dealt in turn, half a tile of each; None for
    anything else."""
    rows = [part.shape[0] for part in parts]
    row_bytes = parts[0].shape[1] * parts[0].element_size()
    if interleave:
        if interleave != HALF_ROWS or len(parts) != 2 or rows[0] != rows[1] or rows[0] % HALF_ROWS:
            return None
        low, high = (part.data_ptr() for part in parts)
        return [_Halves(low, high, HALF_ROWS, rows[0] // HALF_ROWS)]
    if any(count % TILE_ROWS for count in rows):
        return None
    starts = [part.data_ptr() for part in parts]
    pairs = zip(starts, rows, strict=True)
    return [_Halves(low, low + HALF_ROWS * row_bytes, TILE_ROWS, count // TILE_ROWS) for low, count in pairs]
