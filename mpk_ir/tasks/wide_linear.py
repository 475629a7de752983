"""`wide_linear`: many rows of activations times 128 rows of a weight, on tensor cores by warpgroups (wgmma)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.memory import BLOCK_COLUMNS, BLOCK_ROWS, Layout
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .linear import product

FEATURES = 128
"""Weight rows of a task: two warpgroups, each M = 64 of wgmma."""
ROW_CHOICES = (BLOCK_ROWS, 2 * BLOCK_ROWS)
"""Rows of activations of a task: one or two products of N = 128, whose sums are 64 or 128 registers of a thread."""
STEP_COLUMNS = 2 * BLOCK_COLUMNS
"""That K is a multiple of: two blocks take turns in registers."""
MANY_ROWS = 1024
STEP_US = {128: (0.98, 1.17), 256: (2.5, 2.08)}
"""By rows of a task, for `STEP_COLUMNS` of K, of a step of up to `MANY_ROWS` and of one of more: the steady state on an
H200 with all SMs at work, from Qwen3-8B at 512 and 2,048 tokens (docs/prompts.md), measured 2026-11-28. Large tiles
read less from the second-level cache, small ones share each weight among more SMs."""
END_US = {128: 2.1, 256: 3.5}
"""By rows of a task: from its first load to its first product, and its epilogue; measured alike."""


@dataclass(frozen=True)
class WideLinearParams(Params):
    """y[rows, n] = act(x[rows, k] · Wᵀ + bias) + residual, for ``rows`` of ``total_rows`` and 128 rows of W a task.

    Grid index is (block of weight rows, block of rows). x is in `Layout.K_BLOCKS_64`, and y if it is ``blocked``.
    ``activation`` as in `LinearParams`.
    """

    n: int
    k: int
    rows: int
    total_rows: int
    bias: bool
    residual: bool
    activation: str
    blocked: bool

    @property
    def gated(self) -> bool:
        return self.activation != "none"

    @property
    def columns_per_task(self) -> int:
        return FEATURES // (2 if self.gated else 1)


def wide_linear_us(k: int, rows: int, total_rows: int) -> float:
    """Microseconds of a task of ``rows``, one of `ROW_CHOICES`, of a step of ``total_rows``."""
    return k / STEP_COLUMNS * STEP_US[rows][total_rows > MANY_ROWS] + END_US[rows]


class WideLinear(TaskKind[WideLinearParams]):
    """Weights and activations go through the ring, 64 columns at a time; the loader fetches activations behind the
    task's events (codegen/cuda/mpk/runtime/fetch.cuh)."""

    name = "wide_linear"
    params_type = WideLinearParams
    stages_at_once = 6
    fetches = True
    operands = (
        Operand("x", layout=Layout.K_BLOCKS_64),
        Operand("weight", streamed=True, layout=Layout.MMA_ROWS_16),
        Operand("bias", optional=True),
        Operand("residual", optional=True),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def layout(self, params: WideLinearParams, operand: Operand) -> Layout:
        blocked = params.blocked and operand.name == "y"
        return Layout.K_BLOCKS_64 if blocked else super().layout(params, operand)

    def signature(self, params: WideLinearParams) -> str:
        return f"mpk::WideLinear<{params.total_rows}>"

    def record_numbers(self, params: WideLinearParams) -> tuple[int, ...]:
        """In the order of the body's `enum Number`. One body computes all products of a program: ptxas has no registers
        for wgmma's sums in flight at more than a few places of a kernel."""
        activation = ("none", "silu_mul", "gelu_mul").index(params.activation)
        return (params.n, params.k, params.rows, 2 * activation + int(params.blocked))

    def cost_us(self, params: WideLinearParams, target: Target) -> float:
        del target
        return wide_linear_us(params.k, params.rows, params.total_rows)

    def reference(self, params: WideLinearParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        views["y"][...] = product(params, views, views["x"]).astype(np.float32)
