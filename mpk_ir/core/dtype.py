"""The element types the compiler knows: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import UnsupportedError, did_you_mean


@dataclass(frozen=True)
class DType:
    """``numpy`` is the type that holds its values on the CPU (bf16 is held in float32)."""

    name: str
    bits: int
    numpy: np.dtype[Any]
    cuda: str

    @property
    def bytes(self) -> int:
        return self.bits // 8


BF16 = DType("bf16", 16, np.dtype(np.float32), "mpk::bf16")
F16 = DType("f16", 16, np.dtype(np.float16), "mpk::f16")
F32 = DType("f32", 32, np.dtype(np.float32), "float")
I32 = DType("i32", 32, np.dtype(np.int32), "int")

DTYPES = {dtype.name: dtype for dtype in (BF16, F16, F32, I32)}


def dtype_of(name: str) -> DType:
    """The dtype called ``name``. Raises UnsupportedError for any other."""
    if name not in DTYPES:
        raise UnsupportedError(f"unknown element type '{name}'", advice=did_you_mean(name, DTYPES))
    return DTYPES[name]


def round_to_bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``values`` (float32) rounded to the nearest bfloat16, ties to even, still held in float32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded &= np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, rounded.view(np.float32))
