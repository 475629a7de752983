"""`index_copy`: slices of a strided operand replaced in place, chosen by ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .gather import wrapped
from .strided import BlockParams, Placement


@dataclass(frozen=True)
class IndexCopyParams(BlockParams):
    """Element i of ``shape``, the source's, goes to x at i, but along the axis at the id of i: one of ``length``
    slices that lie ``axis_row`` rows and ``axis_column`` columns apart. Places are those of source, ids and x."""

    length: int
    axis_row: int
    axis_column: int


class IndexCopy(TaskKind[IndexCopyParams]):
    """One task, in whose memory nobody else writes. Of equal ids any may win."""

    name = "index_copy"
    params_type = IndexCopyParams
    operands = (Operand("source"), Operand("ids"), Operand("x", Access.READ_WRITE))

    def signature(self, params: IndexCopyParams) -> str:
        source, ids, x = params.places_cuda()
        axis = f"mpk::Axis<{params.length}, {params.axis_row}, {params.axis_column}>"
        return f"mpk::IndexCopy<{', '.join([params.block_cuda(), params.shape_cuda(), x, source, ids, axis])}>"

    def cost_us(self, params: IndexCopyParams, target: Target) -> float:
        return 2 * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: IndexCopyParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        source, ids, place = params.placements
        shape = params.shape
        chosen = wrapped(ids.array(views["ids"], shape), params.length)
        whole = Placement(False, place.row, place.column, (*place.steps, (params.axis_row, params.axis_column)))
        x = whole.array(views["x"], (*shape, params.length))
        np.put_along_axis(x, chosen[..., None], source.array(views["source"], shape)[..., None], axis=-1)
