"""`gather`: slices of a strided operand chosen by ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .strided import BlockParams, Placement


@dataclass(frozen=True)
class GatherParams(BlockParams):
    """Slice ids[...] of the ``length`` slices of x, which lie ``axis_row`` rows and ``axis_column`` columns apart."""

    length: int
    axis_row: int
    axis_column: int


class Gather(TaskKind[GatherParams]):
    """A negative id counts from the end; one outside x reads the nearest slice, never other memory."""

    name = "gather"
    params_type = GatherParams
    operands = (Operand("x"), Operand("ids"), Operand("y", Access.WRITE))

    def signature(self, params: GatherParams) -> str:
        x, ids, out = params.places_cuda()
        axis = f"mpk::Axis<{params.length}, {params.axis_row}, {params.axis_column}>"
        return f"mpk::Gather<{', '.join([params.block_cuda(), params.shape_cuda(), out, x, ids, axis])}>"

    def cost_us(self, params: GatherParams, target: Target) -> float:
        return 2 * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: GatherParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        place, (rows, columns) = params.placements[0], params.window(index)
        ids = wrapped(params.read(1, views["ids"], index), params.length)
        whole = Placement(False, place.row, place.column, (*place.steps, (params.axis_row, params.axis_column)))
        x = whole.array(views["x"], (*params.shape, params.length)).reshape(*params.total, params.length)[rows, columns]
        ids = np.broadcast_to(ids, x.shape[:2])
        params.write(views["y"], index, np.take_along_axis(x, ids[..., None], axis=-1)[..., 0])


def wrapped(ids: Array, length: int) -> Array:
    """``ids`` with negative ones counted from the end, inside 0 .. ``length`` - 1."""
    return np.clip(np.where(ids < 0, ids + length, ids), 0, length - 1)
