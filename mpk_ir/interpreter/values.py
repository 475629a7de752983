"""Tensors as numpy arrays: floats of any width are held in float32, i32 in int32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects.builtin import bf16, f16, i32
from xdsl.ir import Attribute, SSAValue

from ..core.dtype import round_to_bf16
from ..core.errors import UsageError, did_you_mean
from ..dialects import tg

Array: TypeAlias = np.ndarray[Any, Any]
Read: TypeAlias = Callable[[SSAValue], Array]

UNSPECIFIED = np.float32(0.0)
"""What this interpreter puts where a value is unspecified (inactive rows)."""


def hold(array: Array, element: Attribute, storage_rounding: bool) -> Array:
    """``array`` as the holder of ``element``; with ``storage_rounding`` its values are ones the type can store."""
    if element == i32:
        return np.asarray(array, np.int32)
    held = np.asarray(array, np.float32)
    if storage_rounding and element == bf16:
        return round_to_bf16(held)
    if storage_rounding and element == f16:
        return held.astype(np.float16).astype(np.float32)
    return held


def assemble_param(op: tg.ParamOp, params: Mapping[str, Array], rank: int = 0, ranks: int = 1) -> Array:
    """What ``rank`` of ``ranks`` has of a `tg.param`, from the checkpoint's tensors.

    Raises UsageError if one is missing or does not fit.
    """
    for name in op.source_names:
        if name not in params:
            raise UsageError(f"no parameter '{name}'", advice=did_you_mean(name, params))
    named = zip(op.source_names, op.source_shards, strict=True)
    sources = [take_shard(name, params[name], shard, rank, ranks) for name, shard in named]
    shape, block = tg.shape_of(op.result), op.interleave.value.data
    array = (
        interleave(sources[0], sources[1], block) if block else np.concatenate(sources) if sources[1:] else sources[0]
    )
    if array.shape != shape:
        raise UsageError(
            f"tg.param @{op.symbol.data}: found parameters of shape {list(array.shape)}, expected {list(shape)}"
        )
    return array


def take_shard(name: str, array: Array, shard: tg.ShardAttr, rank: int, ranks: int) -> Array:
    """The view of ``array`` that ``rank`` of ``ranks`` holds. Raises UsageError if it does not split as asked."""
    dim, parts = shard.dim.data, shard.parts.data
    if parts == 1:
        return array
    if ranks % parts:
        raise UsageError(f"'{name}' is in {parts} parts: found {ranks} ranks, expected a multiple of {parts}")
    if array.ndim <= dim or array.shape[dim] % parts:
        raise UsageError(f"'{name}': found shape {list(array.shape)}, expected {parts} equal parts of dimension {dim}")
    return array[shard.box(array.shape, rank, ranks)]


def interleave(first: Array, second: Array, block: int) -> Array:
    """``block`` rows of ``first``, ``block`` of ``second``, and so on. Raises UsageError if their shapes do not fit."""
    if first.shape != second.shape or len(first) % block:
        shapes = f"{list(first.shape)} and {list(second.shape)}"
        raise UsageError(f"cannot interleave {shapes}: expected equal shapes of a multiple of {block} rows")
    blocks = [half.reshape(-1, block, *half.shape[1:]) for half in (first, second)]
    return np.stack(blocks, axis=1).reshape(-1, *first.shape[1:])


def deinterleave(columns: Array, block: int) -> tuple[Array, Array]:
    """The two halves of [R, N] whose columns alternate in blocks."""
    blocks = columns.reshape(len(columns), -1, 2, block)
    return blocks[:, :, 0].reshape(len(columns), -1), blocks[:, :, 1].reshape(len(columns), -1)
