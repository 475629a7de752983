"""`map`: an elementwise expression of up to eight strided operands, which may broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .expression import parse_expression
from .strided import BlockParams

MAX_INPUTS = 8


@dataclass(frozen=True)
class MapParams(BlockParams):
    """``expression`` (see `tasks.expression`) over the operands in order."""

    expression: str


class Map(TaskKind[MapParams]):
    """A copy is the expression `in0`."""

    name = "map"
    params_type = MapParams
    operands = (*(Operand(f"in{k}", optional=True) for k in range(MAX_INPUTS)), Operand("y", Access.WRITE))

    def signature(self, params: MapParams) -> str:
        *inputs, out = params.places_cuda()
        parts = [parse_expression(params.expression).cuda(), params.block_cuda(), params.shape_cuda(), out, *inputs]
        return f"mpk::Map<{', '.join(parts)}>"

    def cost_us(self, params: MapParams, target: Target) -> float:
        return len(params.types) * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: MapParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        inputs = [params.read(k, views[f"in{k}"], index) for k in range(len(params.types) - 1)]
        with np.errstate(all="ignore"):
            params.write(views["y"], index, parse_expression(params.expression).value(inputs))
