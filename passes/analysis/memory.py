"""What a plan's buffers hold: sizes in bytes."""

from __future__ import annotations

import numpy as np

from ...core.dtype import dtype_of
from ...dialects.sm import BufferOp, BufferType


def size_bytes(buffer: BufferOp) -> int:
    """Bytes of device memory, padding included."""
    return int(np.prod(buffer.padded_shape, dtype=np.int64)) * element_bytes(buffer)


def element_bytes(buffer: BufferOp) -> int:
    """Bytes of one element."""
    assert isinstance(buffer.buffer.type, BufferType)
    return dtype_of(str(buffer.buffer.type.element_type)).bytes
