"""What the rules of the general task kinds share: blocks of a result, operands with their placements and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...core.dtype import dtype_of
from ...core.errors import UnsupportedError
from ...core.target import Target
from ...dialects.sm import BoxAttr
from ...dialects.sm.ops import GridOperand
from ...tasks.base import Access
from ...tasks.strided import Placement
from .builder import VECTOR, GraphBuilder, View, element_type, round_up
from .views import Axes, broadcast, by_rows, same_place

LEAST_ELEMENTS = 512
"""Of a block: smaller ones cost more in hand-off than they save."""
INDICES = 2
"""Of the grids: a block's row and column."""


@dataclass(frozen=True)
class Blocks:
    """A result of ``shape`` in blocks of ``rows`` by ``columns``; its first ``row_dims`` dimensions are rows."""

    shape: tuple[int, ...]
    row_dims: int
    rows: int
    columns: int

    @property
    def total(self) -> tuple[int, int]:
        return prod(self.shape[: self.row_dims]), prod(self.shape[self.row_dims :])

    @property
    def extent(self) -> tuple[int, int]:
        return ceil(self.total[0] / self.rows), ceil(self.total[1] / self.columns)

    def params(self, operands: Sequence[Placed]) -> dict[str, Any]:
        """The fields of `BlockParams`; ``operands`` with the result last."""
        return {
            "shape": self.shape,
            "row_dims": self.row_dims,
            "rows": self.rows,
            "columns": self.columns,
            "types": tuple(operand.dtype for operand in operands),
            "places": tuple(number for operand in operands for number in operand.place.flat()),
        }


def blocks_of(view: View, target: Target, *, whole_rows: bool = False) -> Blocks:
    """Blocks of a result that lies at ``view``, one for each SM if they are not too small; rows are divided first.

    A result that is no rows by columns of its buffer is one block.
    """
    shape = tuple(axis.size for axis in view.axes)
    choices = range(len(shape) - 1, 0, -1) if len(shape) > 1 else (1,)
    fitting = [dims for dims in choices if same_place(view.axes, by_rows(shape, dims)) and len(view.shape) <= 2]
    if not fitting:
        return one_block(shape)
    whole = one_block(shape, fitting[0])
    rows, columns = whole.total
    tasks = max(1, min(target.num_sms, rows * columns // LEAST_ELEMENTS))
    if rows >= tasks or whole_rows:
        return replace(whole, rows=ceil(rows / tasks))
    return replace(whole, rows=1, columns=round_up(ceil(columns / (tasks // rows)), VECTOR))


def one_block(shape: tuple[int, ...], row_dims: int = 0) -> Blocks:
    """All of ``shape`` in one task."""
    dims = row_dims or max(1, len(shape) - 1)
    return Blocks(shape, dims, prod(shape[:dims]), prod(shape[dims:]))


@dataclass(frozen=True)
class Placed:
    """An operand of a grid: which box of the buffer, and where in it the elements lie."""

    dtype: str
    place: Placement
    operand: GridOperand


def placed(role: str, view: View, axes: Axes, blocks: Blocks, dtype: str) -> Placed:
    """An operand that is read at one element for each of the result: ``axes`` are as many as its dimensions."""
    aligned = _alignment(view, axes, blocks)
    if aligned is None:
        return anywhere(role, view, axes, dtype)
    place = Placement(True, *aligned, ((0, 0),) * len(axes))
    return Placed(dtype, place, GridOperand(role, view.buffer, _block_box(view, blocks, aligned, Access.READ)))


def operand(role: str, value: SSAValue, blocks: Blocks, builder: GraphBuilder) -> Placed:
    """A value that broadcasts to the result."""
    view = builder.strided(value)
    return placed(role, view, broadcast(view.axes, blocks.shape), blocks, dtype_name(value))


def anywhere(role: str, view: View, axes: Axes, dtype: str, access: Access = Access.READ) -> Placed:
    """An operand of whose buffer every task may touch all."""
    place = Placement(False, view.row, view.first, tuple((axis.rows, axis.columns) for axis in axes))
    zeros = (AffineConstantExpr(0),) * len(view.shape)
    box = BoxAttr.of(access, AffineMap(INDICES, 0, zeros), view.shape)
    return Placed(dtype, place, GridOperand(role, view.buffer, box))


def written(role: str, view: View, blocks: Blocks, dtype: str) -> Placed:
    """The result, of which each task writes its block."""
    if _alignment(view, view.axes, blocks) != (1, 1):
        return anywhere(role, view, view.axes, dtype, Access.WRITE)
    place = Placement(True, 1, 1, ((0, 0),) * len(view.axes))
    return Placed(dtype, place, GridOperand(role, view.buffer, _block_box(view, blocks, (1, 1), Access.WRITE)))


def dtype_name(value: SSAValue) -> str:
    """The element type by name. Raises UnsupportedError for one that the general kinds do not compute."""
    name = dtype_of(str(element_type(value))).name
    if name == "f16":
        raise UnsupportedError("tile: elements of f16 have no task kind here", advice="convert the model to bf16")
    return name


def _alignment(view: View, axes: Axes, blocks: Blocks) -> tuple[int, int] | None:
    """(rows, columns), each 1 if the operand has one for each of the result's and 0 if it has one for all; None if
    it lies differently."""
    if len(view.shape) > 2 or (len(view.shape) == 1 and blocks.row_dims < len(blocks.shape)):
        return None
    wanted, dims = by_rows(blocks.shape, blocks.row_dims), blocks.row_dims
    flags: list[int] = []
    for part, expected in ((axes[:dims], wanted[:dims]), (axes[dims:], wanted[dims:])):
        if same_place(part, expected):
            flags.append(1)
        elif all(axis.rows == axis.columns == 0 for axis in part if axis.size > 1):
            flags.append(0)
        else:
            return None
    return flags[0], flags[1]


def _block_box(view: View, blocks: Blocks, aligned: tuple[int, int], access: Access) -> BoxAttr:
    rows: AffineExpr = AffineDimExpr(0) * (blocks.rows * aligned[0]) + view.row
    columns: AffineExpr = AffineDimExpr(1) * (blocks.columns * aligned[1]) + view.first
    exprs, sizes = (rows, columns), (blocks.rows if aligned[0] else 1, blocks.columns if aligned[1] else 1)
    rank = len(view.shape)
    return BoxAttr.of(access, AffineMap(INDICES, 0, exprs[:rank]), sizes[:rank])
