"""What a plan's buffers hold: their size in bytes."""

from __future__ import annotations

import numpy as np

from ...core.dtype import dtype_of
from ...dialects.sm import BufferOp, BufferType


def size_bytes(buffer: BufferOp) -> int:
    """Bytes of device memory, padding included."""
    assert isinstance(buffer.buffer.type, BufferType)
    elements = int(np.prod(buffer.padded_shape, dtype=np.int64))
    return elements * dtype_of(str(buffer.buffer.type.element_type)).bytes
