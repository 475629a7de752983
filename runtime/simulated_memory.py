"""Device memory of the simulator: numpy arrays of logical shape, bf16 in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.program import Buffer, Program
from ..core.memory import Space
from ..core.ranks import Rank
from .weights import Parameters, logical_weight, torch_dtype

Array = np.ndarray[Any, Any]

_BYTE_SCALE = 2
"""Bytes of the simulated arena per byte of the real one: bf16 takes 4 instead of 2."""


@dataclass(frozen=True)
class SimulatedMemory:
    """The arrays by buffer name, and those of them that hold nothing between steps."""

    arrays: dict[str, Array]
    scratch: tuple[Array, ...]
    mutable: tuple[str, ...]
    """Names of what is no weight."""
    arena: Array | None = None
    """The bytes behind all scratch, if it is shared."""

    @staticmethod
    def allocate(
        program: Program, parameters: Parameters, ranks: Sequence[int] = (0,), *, shared_arena: bool
    ) -> SimulatedMemory:
        """What ``ranks`` of the program's have, buffers called as `name_on` says: weights bound, the rest zero.

        With ``shared_arena`` scratch buffers overlap as their offsets in the arena do: what one writes, another that
        shares its bytes sees.
        """
        rank_bytes = _BYTE_SCALE * program.arena_bytes if shared_arena else 0
        arena = np.zeros(len(ranks) * rank_bytes, np.uint8)
        arrays: dict[str, Array] = {}
        bound: dict[tuple[object, ...], Array] = {}
        for place, number in enumerate(ranks):
            rank = Rank(number, program.ranks)
            for buffer in program.buffers:
                name = name_on(buffer.name, number)
                if buffer.space is Space.WEIGHT:  # two layouts of one weight look the same here
                    key = (buffer.pack, buffer.dtype, "" if buffer.pack else buffer.name)
                    key += (number if buffer.pack and buffer.pack.shards else 0,)
                    if key not in bound:
                        bound[key] = _weight(program, buffer, parameters, rank)
                    arrays[name] = bound[key]
                elif buffer.space is Space.SCRATCH and shared_arena:
                    arrays[name] = _arena_view(arena[place * rank_bytes :], buffer)
                else:
                    arrays[name] = np.zeros(buffer.shape, buffer.dtype.numpy)
        named = [(name_on(b.name, number), b.space) for number in ranks for b in program.buffers]
        scratch = tuple(arrays[name] for name, space in named if space is Space.SCRATCH)
        mutable = tuple(name for name, space in named if space is not Space.WEIGHT)
        return SimulatedMemory(arrays, scratch, mutable, arena if shared_arena else None)

    def copy(self) -> SimulatedMemory:
        """Another memory of equal contents; the weights are the same arrays."""
        arena = None if self.arena is None else self.arena.copy()
        arrays, scratch = dict(self.arrays), list[Array]()
        for name in self.mutable:
            old = self.arrays[name]
            inside = arena is not None and self.arena is not None and np.shares_memory(old, self.arena)
            arrays[name] = _same_place(old, self.arena, arena) if inside else old.copy()
            scratch += [arrays[name]] if any(old is one for one in self.scratch) else []
        return SimulatedMemory(arrays, tuple(scratch), self.mutable, arena)

    def assign(self, other: SimulatedMemory) -> None:
        """Take over the contents of ``other``, which has the same buffers."""
        for name in self.mutable:
            self.arrays[name][...] = other.arrays[name]

    def poison(self) -> None:
        """Make all scratch NaN (of integers the smallest): what is read before it is written shows."""
        for array in self.scratch:
            array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)


def name_on(buffer: str, rank: int) -> str:
    """What ``rank``'s memory for a buffer is called: on rank 0, which programs for one rank run on, as the buffer."""
    return f"{buffer} of rank {rank}" if rank else buffer


def _weight(program: Program, buffer: Buffer, parameters: Parameters, rank: Rank) -> Array:
    import torch

    weight = logical_weight(program, buffer, parameters, rank).to(torch_dtype(buffer))
    values = weight.to(torch.float32) if weight.dtype is torch.bfloat16 else weight
    array = values.contiguous().numpy()
    array.flags.writeable = False
    return array


def _arena_view(arena: Array, buffer: Buffer) -> Array:
    """Element i lies where its own bytes lie in the real arena, scaled; a 4-byte type leaves the other half unused."""
    shape = buffer.padded_shape or buffer.shape
    pitch = buffer.dtype.bytes * _BYTE_SCALE
    counts = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]
    strides = [pitch * count for count in counts]
    offset = buffer.offset_bytes * _BYTE_SCALE
    return np.ndarray(buffer.shape, buffer.dtype.numpy, arena.data, offset, strides)


def _same_place(view: Array, arena: Array | None, other: Array | None) -> Array:
    """The view of ``other`` that lies where ``view`` lies in ``arena``."""
    assert arena is not None
    assert other is not None
    offset = view.__array_interface__["data"][0] - arena.__array_interface__["data"][0]
    return np.ndarray(view.shape, view.dtype, other.data, offset, view.strides)
