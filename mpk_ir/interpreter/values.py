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


def assemble_param(op: tg.ParamOp, params: Mapping[str, Array]) -> Array:
    """The value of a `tg.param` from the checkpoint's tensors. Raises UsageError if one is missing or does not fit."""
    for name in op.source_names:
        if name not in params:
            raise UsageError(f"no parameter '{name}'", advice=did_you_mean(name, params))
    sources = [params[name] for name in op.source_names]
    shape, block = tg.shape_of(op.result), op.interleave.value.data
    array = (
        interleave(sources[0], sources[1], block) if block else np.concatenate(sources) if sources[1:] else sources[0]
    )
    if array.shape != shape:
        raise UsageError(
            f"tg.param @{op.symbol.data}: found parameters of shape {list(array.shape)}, expected {list(shape)}"
        )
    return array


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
