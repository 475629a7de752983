"""What one rank of a program has on its GPU: buffers, tables, counters, the record that its blocks are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..codegen import abi
from ..codegen.program import Buffer, Program
from ..core.memory import Space, step_counter_offset
from ..core.ranks import Rank
from ..core.requests import ROW_COUNT
from .binding import device_dtype, device_tasks, from_device, moved_tasks, to_device
from .driver import DeviceMemory, MappedMemory, Stream
from .packing import Packer
from .peers import Arena
from .weight_pool import WeightPool
from .weights import Parameters, joined, pack_into, packed_weight, torch_dtype, weight_parts, weights_of

Array = np.ndarray[Any, Any]


def arena_size(program: Program) -> int:
    """Bytes that a rank's arena takes, the counter that ends a step included."""
    if program.ranks == 1:
        return program.arena_bytes
    return step_counter_offset(program.arena_bytes) + abi.EVENT_STRIDE_BYTES


class RankMemory:
    """``rank``'s part of ``program``, scratch in ``arena``; ``device`` is the ordinal of its GPU.

    ``profile_steps``: steps for which the tables have room for a profile. Weights that ``pool`` has are read there.
    """

    def __init__(
        self, program: Program, rank: int, arena: Arena, device: int, profile_steps: int, pool: WeightPool
    ) -> None:
        self.program = program
        self.rank = rank
        self.arena = arena
        self._device = device
        self.memory, self._packed = pool.memory(program, rank)
        self.task_rows = device_tasks(program, self._addresses(), rank)
        self.tables = self._upload_tables(profile_steps)
        self.error = MappedMemory(abi.ERROR.dtype)
        """Why its blocks gave up: a row of ``abi.ERROR``."""
        self.error_code: Array = self.error.record["code"]
        self.reset()

    def read(self, buffer: Buffer) -> Array:
        shape = buffer.padded_shape or buffer.shape
        return from_device(self.memory[buffer.name].read(shape, device_dtype(buffer.dtype)), buffer)

    def write(self, buffer: Buffer, values: Array, stream: Stream) -> None:
        self.memory[buffer.name].write(to_device(values, buffer), stream)

    def moved_tasks(self, addresses: Mapping[str, int]) -> Array:
        """The task table with the buffers that ``addresses`` names there."""
        return moved_tasks(self.program, self.task_rows, self._addresses(), addresses)

    def scratch_at(self, address: int) -> dict[str, int]:
        """Where each scratch buffer begins in an arena at ``address``."""
        scratch = (b for b in self.program.buffers if b.space is Space.SCRATCH)
        return {b.name: address + b.offset_bytes for b in scratch}

    def tensor(self, buffer: Buffer) -> Any:
        """A buffer outside the arena, padded shape and all, as a torch tensor on the same memory."""
        import torch

        flat = torch.as_tensor(self.memory[buffer.name], device=f"cuda:{self._device}")
        return flat.view(torch_dtype(buffer)).reshape(buffer.padded_shape or buffer.shape)

    def fill_record(self, record: Array, spin_limit_ns: int, peers: list[int]) -> None:
        """Write into ``record``, [1] of ``abi.LAUNCH``, what does not change from launch to launch; ``peers`` are the
        addresses of all arenas."""
        for name, memory in self.tables.items():
            record[name] = memory.address
        record["error"] = self.error.address
        record["row_count"] = self.memory[ROW_COUNT].address if ROW_COUNT in self.memory else 0
        record["spin_limit_ns"] = spin_limit_ns
        record["rank"] = self.rank
        record["peer"][0, : len(peers)] = peers

    def poison(self) -> None:
        """Fill scratch and outputs with 0xFF, a NaN in every float type and the mark of unwritten words."""
        self.arena.fill(abi.UNWRITTEN_BYTE, end=self.program.arena_bytes)
        for buffer in self.program.buffers:
            if buffer.space is Space.OUTPUT:
                self.memory[buffer.name].fill(0xFF)

    def reset(self) -> None:
        """Counters and polled words as at the first launch."""
        self.arena.fill(abi.UNWRITTEN_BYTE, end=self.program.arena_bytes)
        if self.program.ranks > 1:
            self.arena.fill(0, begin=step_counter_offset(self.program.arena_bytes))
        for name in ("events", "failures"):
            self.tables[name].fill(0)
        self.error.clear()

    def bind_weights(self, parameters: Parameters, packer: Packer) -> None:
        """Pack one weight at a time, on the GPU if torch can: there it takes milliseconds."""
        import torch

        on_gpu = torch.cuda.is_available()
        place = f"cuda:{self._device}" if on_gpu else "cpu"
        stream = Stream(torch.cuda.current_stream(self._device).cuda_stream) if on_gpu else None
        rank = Rank(self.rank, self.program.ranks)
        for buffer in weights_of(self.program):
            if buffer.name in self._packed:
                continue
            memory, parts = self.memory[buffer.name], weight_parts(self.program, buffer, parameters, rank, place)
            if stream is None:
                memory.write(packed_weight(buffer, joined(buffer, parts)).view(torch.uint8).numpy())
            elif not packer.pack(memory, buffer, parts, stream):
                pack_into(self.tensor(buffer).view(-1), buffer, joined(buffer, parts))
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # what packing took; torch would keep it

    def _upload_tables(self, profile_steps: int) -> dict[str, DeviceMemory]:
        program = self.program
        tables = {
            "tasks": DeviceMemory.of(self.task_rows),
            "queue_begin": DeviceMemory.of(program.queue_begin.astype(np.int32)),
            "events": DeviceMemory(len(program.event_count) * abi.EVENT_STRIDE_BYTES),
            "failures": DeviceMemory(abi.EVENT_STRIDE_BYTES),
        }
        if profile_steps:
            tables["profile"] = DeviceMemory(profile_steps * len(program.tasks) * len(abi.ProfilePhase) * 8)
        return tables

    def _addresses(self) -> dict[str, int]:
        return {**self.scratch_at(self.arena.address), **{name: m.address for name, m in self.memory.items()}}
