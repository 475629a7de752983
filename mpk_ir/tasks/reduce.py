"""`reduce`: sum, mean, maximum or minimum along one axis of a strided operand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .strided import BlockParams, Placement

FUNCTIONS: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


@dataclass(frozen=True)
class ReduceParams(BlockParams):
    """``function`` of ``length`` elements that lie ``axis_row`` rows and ``axis_column`` columns apart."""

    function: str
    length: int
    axis_row: int
    axis_column: int


class Reduce(TaskKind[ReduceParams]):
    """In f32 (i32 for integers), in a fixed order."""

    name = "reduce"
    params_type = ReduceParams
    operands = (Operand("x"), Operand("y", Access.WRITE))

    def signature(self, params: ReduceParams) -> str:
        x, out = params.places_cuda()
        functor = params.function.capitalize()
        axis = f"mpk::Axis<{params.length}, {params.axis_row}, {params.axis_column}>"
        return (
            f"mpk::Reduce<mpk::reduction::{functor}, {params.block_cuda()}, {params.shape_cuda()}, {out}, {x}, {axis}>"
        )

    def cost_us(self, params: ReduceParams, target: Target) -> float:
        return params.length * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: ReduceParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        place, (rows, columns) = params.placements[0], params.window(index)
        whole = Placement(False, place.row, place.column, (*place.steps, (params.axis_row, params.axis_column)))
        x = whole.array(views["x"], (*params.shape, params.length)).reshape(*params.total, params.length)
        params.write(views["y"], index, FUNCTIONS[params.function](x[rows, columns], axis=-1))
