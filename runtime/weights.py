"""Parameters to weights: concatenated, interleaved, padded, and ordered as device memory holds them.

Tensors are torch's (they carry bf16 and files are read as such); torch is imported when the first one is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ..codegen.program import Buffer, Program
from ..core.errors import CheckpointError
from ..core.memory import Layout, Space
from ..core.ranks import ONE_RANK, Rank, Shard

if TYPE_CHECKING:
    import torch


@runtime_checkable
class PieceLoader(Protocol):
    """A loader that reads the piece of one rank, and no more, where it is asked for one."""

    def __call__(self, name: str) -> torch.Tensor: ...

    def piece(self, name: str, shard: Shard, rank: Rank) -> torch.Tensor: ...


WHOLE = Shard(0, 1)
ParameterLoader: TypeAlias = "Callable[[str], torch.Tensor]"
Parameters: TypeAlias = "Mapping[str, torch.Tensor] | ParameterLoader"
"""Parameters by name; a loader reads one when asked, so that a large model is never whole in host memory."""

TILE_ROWS, BLOCK_COLUMNS = 16, 32


def weights_of(program: Program) -> tuple[Buffer, ...]:
    """The buffers bound once, from parameters or constants."""
    return tuple(buffer for buffer in program.buffers if buffer.space is Space.WEIGHT)


def logical_weight(program: Program, buffer: Buffer, parameters: Parameters, rank: Rank = ONE_RANK) -> torch.Tensor:
    """The value of a weight as its tasks' numpy meaning sees it: its parts joined and interleaved, of ``buffer.shape``.

    Raises CheckpointError if a parameter is missing or the sources don't make that shape.
    """
    return joined(buffer, weight_parts(program, buffer, parameters, rank, "cpu"))


def weight_parts(
    program: Program, buffer: Buffer, parameters: Parameters, rank: Rank, place: str
) -> list[torch.Tensor]:
    """The sources of a weight, or ``rank``'s pieces of them, on the device called ``place``.

    Raises CheckpointError if a parameter is missing or they don't make ``buffer.shape``.
    """
    import torch

    if buffer.pack is None:
        constant = torch.from_numpy(np.array(program.constants[buffer.name]))
        return [constant.reshape(buffer.shape).to(place)]
    shards = buffer.pack.shards or (WHOLE,) * len(buffer.pack.sources)
    named = zip(buffer.pack.sources, shards, strict=True)
    parts = [_parameter(parameters, name, shard, rank).to(place) for name, shard in named]
    first = tuple(parts[0].shape)
    shape = first if len(parts) == 1 else (sum(part.shape[0] for part in parts), *first[1:])
    if shape != buffer.shape:
        raise CheckpointError(
            f"weight '{buffer.name}': {' and '.join(buffer.pack.sources)} make shape {list(shape)}, "
            f"expected {list(buffer.shape)}"
        )
    return parts


def joined(buffer: Buffer, parts: list[torch.Tensor]) -> torch.Tensor:
    """``parts`` one behind the other, or the halves of that interleaved, as ``buffer`` says."""
    import torch

    if buffer.pack is None or not buffer.pack.interleave:
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    pair = len(parts) == 2 and parts[0].shape == parts[1].shape
    halves = parts if pair else torch.cat(parts).chunk(2)
    return interleave(halves[0], halves[1], buffer.pack.interleave)


def interleave(first: torch.Tensor, second: torch.Tensor, rows: int) -> torch.Tensor:
    """Two tensors of equal shape dealt in turn along dimension 0: ``rows`` rows of the first, then as many of the
    second. Raises CheckpointError unless each divides into blocks of ``rows``."""
    import torch

    if first.shape != second.shape or first.shape[0] % rows:
        raise CheckpointError(
            f"weights of shapes {list(first.shape)} and {list(second.shape)} cannot be interleaved in blocks of {rows}",
            advice=f"both must be of one shape, a multiple of {rows} rows",
        )
    blocks = [half.reshape(-1, rows, *half.shape[1:]) for half in (first, second)]
    return torch.stack(blocks, dim=1).reshape(-1, *first.shape[1:])


def packed_weight(buffer: Buffer, weight: torch.Tensor) -> torch.Tensor:
    """``weight`` as device memory holds ``buffer``: its dtype, padded with zeros, flat in the order of its layout."""
    packed = weight.new_empty(prod(buffer.padded_shape or buffer.shape), dtype=torch_dtype(buffer))
    pack_into(packed, buffer, weight)
    return packed


def pack_into(memory: torch.Tensor, buffer: Buffer, weight: torch.Tensor) -> None:
    """Write ``weight`` to ``memory``, all of ``buffer`` flat and in its dtype. On one device each element is read once
    and written once, with nothing in between, unless it must be padded."""
    padded = padded_weight(weight, buffer.padded_shape or buffer.shape)
    if buffer.layout is Layout.ROW_MAJOR:
        memory.view(padded.shape).copy_(padded)
        return
    n, k = padded.shape
    halves, rows, quads, products, words = 2, 8, 4, 2, 2
    pairs = _pairs(padded.to(memory.dtype).contiguous())
    tiles = pairs.view(n // TILE_ROWS, halves, rows, k // BLOCK_COLUMNS, quads, products, words)
    ordered = tiles.permute(0, 3, 5, 2, 4, 6, 1)
    _pairs(memory).view(ordered.shape).copy_(ordered)


def _pairs(elements: torch.Tensor) -> torch.Tensor:
    """Two neighbours of a row, of 2 bytes each, as one number: a layout never parts them."""
    import torch

    return elements.view(torch.int32)


def padded_weight(weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """``weight`` in the leading corner of zeros of ``shape``."""
    if tuple(weight.shape) == shape:
        return weight
    padded = weight.new_zeros(shape)
    padded[tuple(slice(size) for size in weight.shape)] = weight
    return padded


def _parameter(parameters: Parameters, name: str, shard: Shard, rank: Rank) -> torch.Tensor:
    """``rank``'s piece of a parameter; a loader that can reads no more than that."""
    try:
        if shard.parts > 1 and isinstance(parameters, PieceLoader):
            return parameters.piece(name, shard, rank)
        whole = parameters[name] if isinstance(parameters, Mapping) else parameters(name)
    except KeyError as error:
        raise CheckpointError(f"no parameter '{name}'") from error
    require_piece(name, tuple(whole.shape), shard)
    return whole[rank.piece(shard, tuple(whole.shape))] if shard.parts > 1 else whole


def require_piece(name: str, shape: tuple[int, ...], shard: Shard) -> None:
    """Raise CheckpointError unless a parameter of ``shape`` is in equal parts as ``shard`` wants it."""
    if shard.parts > 1 and (len(shape) <= shard.dim or shape[shard.dim] % shard.parts):
        raise CheckpointError(
            f"parameter '{name}': found shape {list(shape)}, expected {shard.parts} equal parts of dimension "
            f"{shard.dim}"
        )


def torch_dtype(buffer: Buffer) -> torch.dtype:
    """The torch type of a buffer's elements."""
    import torch

    names = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "i32": torch.int32}
    return names[buffer.dtype.name]
