"""`matmul`: products of computed matrices, strided and batched, of any element type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .strided import BlockParams, Placement


@dataclass(frozen=True)
class MatmulParams(BlockParams):
    """``shape`` is [..., M, N]. Row (..., m) of lhs is multiplied with column (..., n) of rhs: ``depth`` elements that
    lie ``lhs_step`` and ``rhs_step`` (rows, columns) apart."""

    depth: int
    lhs_step: tuple[int, ...]
    rhs_step: tuple[int, ...]


class Matmul(TaskKind[MatmulParams]):
    """Sums in f32, in order. A thread computes an element: for small matrices, not for weights (see `linear`)."""

    name = "matmul"
    params_type = MatmulParams
    operands = (Operand("lhs"), Operand("rhs"), Operand("y", Access.WRITE))

    def signature(self, params: MatmulParams) -> str:
        lhs, rhs, out = params.places_cuda()
        axes = [f"mpk::Axis<{params.depth}, {step[0]}, {step[1]}>" for step in (params.lhs_step, params.rhs_step)]
        return f"mpk::Matmul<{', '.join([params.block_cuda(), params.shape_cuda(), out, lhs, rhs, *axes])}>"

    def cost_us(self, params: MatmulParams, target: Target) -> float:
        return 2 * params.depth * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: MatmulParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        (lhs, rhs, _), (rows, columns) = params.placements, params.window(index)
        *lead, height, width = params.shape
        a = _matrices(lhs, views["lhs"], (*lead, height, params.depth), (lhs.steps[-2], params.lhs_step))
        b = _matrices(rhs, views["rhs"], (*lead, params.depth, width), (params.rhs_step, rhs.steps[-1]))
        with np.errstate(all="ignore"):
            y = np.matmul(a, b).reshape(params.total)
        params.write(views["y"], index, y[rows, columns])


def _matrices(place: Placement, box: Array, shape: tuple[int, ...], last: tuple[tuple[int, ...], ...]) -> Array:
    """The operand with its last two dimensions stepped by ``last``."""
    steps = (*place.steps[:-2], *((step[0], step[1]) for step in last))
    return Placement(False, place.row, place.column, steps).array(box, shape)
