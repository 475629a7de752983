"""The `softcap` task: what one SM does with a block of columns, and how the op becomes a grid of such tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from math import ceil

import numpy as np
from xdsl.ir import Operation

from mpk_ir.core.target import Target
from mpk_ir.dialects.sm.ops import GridOperand
from mpk_ir.passes.tile.builder import VECTOR, GraphBuilder, round_up, tensor_shape, tile_rule
from mpk_ir.tasks import register
from mpk_ir.tasks.base import Access, Array, Operand, Params, TaskKind

from .dialect import CapOp

LEAST_COLUMNS = 64


@dataclass(frozen=True)
class SoftcapParams(Params):
    """A task caps ``columns`` of each of ``rows`` rows; the last one ends at column ``total``."""

    columns: int
    rows: int
    total: int
    cap: float


class SoftcapKind(TaskKind[SoftcapParams]):
    """Grid index is the block of columns."""

    name = "softcap"
    params_type = SoftcapParams
    operands = (Operand("x"), Operand("row_count", optional=True, early=True), Operand("y", Access.WRITE))

    def signature(self, params: SoftcapParams) -> str:
        return f"mpk_softcap::Softcap<{params.columns}, {params.rows}, {params.total}>"

    def body_arguments(self, params: SoftcapParams) -> tuple[float, ...]:
        return (params.cap,)

    def cost_us(self, params: SoftcapParams, target: Target) -> float:
        return 8 * params.rows * params.columns / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: SoftcapParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        with np.errstate(all="ignore"):  # rows past row_count hold anything
            views["y"][...] = params.cap * np.tanh(views["x"] / params.cap)

    def header(self) -> str:
        return resources.files("mpk_softcap").joinpath("softcap.cuh").read_text()


def tile_cap(op: Operation, builder: GraphBuilder) -> None:
    """Blocks of columns, one for each SM if that leaves enough to do in each."""
    assert isinstance(op, CapOp)
    rows, total = tensor_shape(op.x)
    name = builder.unique("softcap")
    x, y = builder.view(op.x), builder.result(op.result, f"{name}.out")
    columns = max(LEAST_COLUMNS, round_up(ceil(total / builder.target.num_sms), VECTOR))
    operands = [
        GridOperand("x", x.buffer, x.box(Access.READ, 1, columns, columns)),
        GridOperand("y", y.buffer, y.box(Access.WRITE, 1, columns, columns)),
    ]
    params = SoftcapParams(columns, rows, total, float(op.cap.value.data))
    builder.grid(name, SoftcapKind(), params, (ceil(total / columns),), operands)


def register_all() -> None:
    """What the entry point calls."""
    register(SoftcapKind())
    tile_rule(CapOp.name)(tile_cap)
