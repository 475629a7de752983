"""What a plan's buffers hold: their size in bytes, and reads of elements that nothing has written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from xdsl.ir import Attribute, SSAValue

from ...core.dtype import dtype_of
from ...core.memory import Space
from ...dialects.sm import BufferOp, BufferType, GraphOp, GridOp
from ...dialects.sm.expansion import box_bounds

_FILLED_BY_THE_STEP = (Space.SCRATCH, Space.OUTPUT)


def size_bytes(buffer: BufferOp) -> int:
    """Bytes of device memory, padding included."""
    assert isinstance(buffer.buffer.type, BufferType)
    elements = int(np.prod(buffer.padded_shape, dtype=np.int64))
    return elements * dtype_of(str(buffer.buffer.type.element_type)).bytes


@dataclass(frozen=True)
class UncoveredRead:
    """Task ``task`` of grid number ``grid`` reads by ``operand`` elements of ``buffer`` that no grid before writes."""

    buffer: BufferOp
    grid: int
    task: int
    operand: int


def uncovered_reads(graph: GraphOp) -> Iterator[UncoveredRead]:
    """Per operand the first such read. Weights, inputs and states are filled before the step."""
    uses: dict[SSAValue, list[_Use]] = defaultdict(list)
    for number, grid in enumerate(graph.grids):
        for operand, (value, box) in enumerate(zip(grid.data, grid.boxes.data, strict=True)):
            # a grid's reads come before its writes: its tasks run in any order
            uses[value] += [_Use(number, False, operand)] if box.mode.reads else []
            uses[value] += [_Use(number, True, operand)] if box.mode.writes else []
    grids, known = graph.grids, _KnownBoxes()
    for buffer in [b for b in graph.buffers if b.space.data in _FILLED_BY_THE_STEP]:
        written = np.zeros(buffer.shape, dtype=np.bool_)
        for use in sorted(uses[buffer.buffer]):
            boxes, first = known.of(grids[use.grid], use.operand)
            if use.writes:
                for box in boxes:
                    written[box] = True
            else:
                missing = [task for box, task in zip(boxes, first, strict=True) if not written[box].all()]
                if missing:
                    yield UncoveredRead(buffer, use.grid, min(missing), use.operand)


_Boxes: TypeAlias = tuple[list[tuple[slice, ...]], list[int]]


class _Use(NamedTuple):
    grid: int
    writes: bool
    operand: int


class _KnownBoxes:
    """Layers repeat: the boxes of operands with equal maps, extents and buffer types are computed once."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[Attribute, ...], _Boxes] = {}

    def of(self, grid: GridOp, operand: int) -> _Boxes:
        """The boxes of an operand as slices, each once, and the first task that has each."""
        key = (grid.extent, grid.boxes.data[operand], grid.data[operand].type)
        if key not in self._boxes:
            low, high = box_bounds(grid, operand)
            rank = low.shape[1]
            corners, first = np.unique(np.concatenate([low, high], axis=1), axis=0, return_index=True)
            boxes = [tuple(map(slice, row[:rank], row[rank:])) for row in corners.tolist()]
            self._boxes[key] = boxes, first.tolist()
        return self._boxes[key]
