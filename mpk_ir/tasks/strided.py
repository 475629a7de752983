"""Operands as strided tensors: how the general task kinds (`map`, `reduce`, ...) find an element of a buffer.

A buffer is seen as rows by columns (its first dimension by the rest); element (i_0, i_1, ...) of a tensor lies in row
``row + sum i_d * row_step_d`` and column ``column + sum i_d * column_step_d``. So a transpose, a slice, a broadcast or
a reshape of a buffer is another set of steps, and device memory may pad its rows as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..core.dtype import dtype_of
from .base import Array, Params

Steps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Placement:
    """Where a tensor's elements lie. ``aligned``: the operand's box is the task's own block of the result, of which
    the tensor has a row each if ``row`` is 1, a column each if ``column`` is 1, and one for all if it is 0."""

    aligned: bool
    row: int
    column: int
    steps: Steps

    def flat(self) -> tuple[int, ...]:
        """As task parameters."""
        return (int(self.aligned), self.row, self.column, *(number for step in self.steps for number in step))

    @staticmethod
    def unflat(numbers: Sequence[int]) -> Placement:
        """The inverse of ``flat``."""
        steps = tuple(zip(numbers[3::2], numbers[4::2], strict=True))
        return Placement(bool(numbers[0]), numbers[1], numbers[2], steps)

    def cuda(self, dtype: str) -> str:
        """The C++ type that finds elements of ``dtype``."""
        kind = dtype_of(dtype).cuda
        if self.aligned:
            return f"mpk::Aligned<{kind}, {self.row}, {self.column}>"
        numbers = ", ".join(map(str, self.flat()[1:]))
        return f"mpk::Strided<{kind}, {numbers}>"

    def array(self, box: Array, shape: Sequence[int]) -> Array:
        """A view of ``box`` of ``shape``; writing to it writes to the box. Not for an aligned operand."""
        rows = box if box.ndim == 2 else box.reshape(box.shape[0], -1)
        strides = [a * rows.strides[0] + b * rows.strides[1] for a, b in self.steps]
        return np.lib.stride_tricks.as_strided(rows[self.row :, self.column :], shape, strides)


@dataclass(frozen=True)
class BlockParams(Params):
    """Results of ``shape``, whose first ``row_dims`` dimensions are rows and the others columns, of which a task
    computes a block of ``rows`` by ``columns``; grid indices are the block's row and column. ``types`` and ``places``:
    dtype and flat `Placement` of each operand, the result's last."""

    shape: tuple[int, ...]
    row_dims: int
    rows: int
    columns: int
    types: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def total(self) -> tuple[int, int]:
        """Rows and columns of the whole result."""
        return prod(self.shape[: self.row_dims]), prod(self.shape[self.row_dims :])

    @property
    def placements(self) -> tuple[Placement, ...]:
        size = len(self.places) // len(self.types)
        return tuple(Placement.unflat(self.places[i : i + size]) for i in range(0, len(self.places), size))

    def window(self, index: tuple[int, ...]) -> tuple[slice, slice]:
        """The rows and columns of the whole result that task ``index`` computes."""
        rows, columns = self.total
        first, second = index[0] * self.rows, index[1] * self.columns
        return slice(first, min(first + self.rows, rows)), slice(second, min(second + self.columns, columns))

    def block_cuda(self) -> str:
        """The C++ type of the block."""
        return f"mpk::Block<{self.rows}, {self.columns}, {self.total[0]}, {self.total[1]}>"

    def shape_cuda(self) -> str:
        return f"mpk::Shape<{', '.join(map(str, self.shape))}>"

    def places_cuda(self) -> list[str]:
        """The C++ type of each operand, the result's last."""
        return [place.cuda(dtype) for place, dtype in zip(self.placements, self.types, strict=True)]

    def read(self, operand: int, box: Array, index: tuple[int, ...]) -> Array:
        """The elements of an operand that belong to the task's block, as rows by columns (or what broadcasts so)."""
        place, (rows, columns) = self.placements[operand], self.window(index)
        if place.aligned:
            matrix = box if box.ndim == 2 else box[:, None]
            return matrix[: rows.stop - rows.start, : columns.stop - columns.start]
        return place.array(box, self.shape).reshape(self.total)[rows, columns]

    def write(self, box: Array, index: tuple[int, ...], values: Array) -> None:
        """Store the block's ``values`` in the result."""
        place, (rows, columns) = self.placements[-1], self.window(index)
        if place.aligned:
            matrix = box if box.ndim == 2 else box[:, None]
            matrix[: rows.stop - rows.start, : columns.stop - columns.start] = values
        else:
            place.array(box, self.shape)[...] = np.broadcast_to(values, self.total).reshape(self.shape)

    def block_bytes(self) -> int:
        """Bytes of one block of 4-byte elements."""
        return 4 * self.rows * self.columns
