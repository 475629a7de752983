"""What ATen rules build with: tg ops appended to a block, with PyTorch's dtypes and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, LocationAttr, StringAttr, UnknownLoc, bf16, f32, i32
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

Operand: TypeAlias = "SSAValue | float | int | bool"


def tg_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape in `tg`, which has no tensors of rank 0."""
    return tuple(int(size) for size in shape) or (1,)


def element_of_dtype(dtype: torch.dtype) -> Attribute:
    """How `tg` holds elements of ``dtype``. Raises UnsupportedError for one that it cannot."""
    import torch

    held = {
        torch.float32: f32,
        torch.bfloat16: bf16,
        torch.int32: i32,
        torch.int64: i32,
        torch.bool: i32,
    }
    if dtype not in held:
        names = ", ".join(str(known).removeprefix("torch.") for known in held)
        raise UnsupportedError(f"elements of {str(dtype).removeprefix('torch.')}", advice=f"mpk-ir computes {names}")
    return held[dtype]


class Emitter:
    """Appends ops; ``location`` is given to each."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.location: LocationAttr = UnknownLoc()

    def emit(self, op: Operation) -> SSAValue:
        """Append ``op``; its first result."""
        op.location = self.location
        self.block.add_op(op)
        return op.results[0]

    def emit_update(self, name: str, value: SSAValue) -> None:
        """Store the value that state ``name`` has when the step ends."""
        self.block.add_op(tg.UpdateOp(name, value))

    def constant(self, value: Any, element: Attribute) -> SSAValue:
        """Numbers as a tensor of ``element``."""
        array = np.atleast_1d(np.asarray(value))
        if element == i32:
            return self.emit(tg.ConstantOp.of(array.astype(np.int32)))
        made = self.emit(tg.ConstantOp.of(array.astype(np.float32)))
        return made if element == f32 else self.emit(tg.CastOp(made, element))

    def cast(self, value: SSAValue, element: Attribute) -> SSAValue:
        return value if tg.element_of(value) == element else self.emit(tg.CastOp(value, element))

    def typed(self, value: Operand, element: Attribute) -> SSAValue:
        """``value``, a tensor or a number, as a tensor of ``element``."""
        return self.cast(value, element) if isinstance(value, SSAValue) else self.constant(value, element)

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        target = tg_shape(shape)
        return value if tg.shape_of(value) == target else self.emit(tg.ReshapeOp(value, target))

    def broadcast(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        target = tg_shape(shape)
        return value if tg.shape_of(value) == target else self.emit(tg.BroadcastOp(value, target))

    def transpose(self, value: SSAValue, order: Sequence[int]) -> SSAValue:
        return value if list(order) == list(range(len(order))) else self.emit(tg.TransposeOp(value, order))

    def binary(self, kind: type[tg.BinaryOp], lhs: Operand, rhs: Operand, element: Attribute) -> SSAValue:
        """``kind`` of both as ``element``."""
        return self.emit(kind(self.typed(lhs, element), self.typed(rhs, element)))


def source_location(node: Node) -> LocationAttr:
    """The innermost line of the user's Python that made ``node``."""
    place = source_line(node)
    if place is None:
        return UnknownLoc()
    file, _, line = place.rpartition(":")
    return FileLineColLoc(StringAttr(file), IntAttr(int(line)), IntAttr(1))


def source_line(node: Node) -> str | None:
    """`file:line` of the innermost line of Python outside PyTorch that made ``node``."""
    return innermost_line(node.meta.get("stack_trace") or "")


def innermost_line(trace: str) -> str | None:
    """`file:line` of the last frame of a traceback's text that is none of PyTorch's own; of its last if all are."""
    import torch

    places: list[str] = []
    for text in map(str.strip, trace.splitlines()):
        if text.startswith('File "') and ", line " in text:
            file, _, rest = text.removeprefix('File "').partition('", line ')
            places.append(f"{file}:{rest.split(',')[0].split()[0]}")
    own = [place for place in places if not place.startswith(str(Path(torch.__file__).parent))]
    return (own or places or [None])[-1]
