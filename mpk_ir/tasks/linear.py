"""`linear`: rows of activations times 16-row tiles of a weight, with norm before and bias, gate, residual after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import gelu_tanh, rms_scale, silu

TILE_ROWS = 16
"""Rows of a weight tile: M of the tensor-core product m16n8k16."""
ROW_GROUP = 8
"""Rows of activations in one product: N of m16n8k16."""
CONSUMER_WARPS = 8
PANEL_BYTES = 72 * 1024
"""Shared memory for activations; more rows or columns than fit are read in panels."""
GATE_BLOCK = 8
"""Gate rows, then up rows, in one tile: ``Pack.interleave`` of a gated weight."""


@dataclass(frozen=True)
class LinearParams(Params):
    """y[rows, n] = act(norm(x[rows, k]) · Wᵀ + bias) + residual, for ``tiles`` tiles of 16 weight rows a task.

    With ``activation`` silu_mul or gelu_mul each tile holds 8 gate rows and their 8 up rows and makes 8 columns of y.
    """

    n: int
    k: int
    tiles: int
    rows: int
    norm: bool
    eps: float
    bias: bool
    residual: bool
    activation: str
    out: str

    @property
    def columns_per_task(self) -> int:
        return self.tiles * (GATE_BLOCK if self.gated else TILE_ROWS)

    @property
    def gated(self) -> bool:
        return self.activation != "none"


class Linear(TaskKind[LinearParams]):
    """Weights stream through the shared-memory ring; activations are read once a task."""

    name = "linear"
    params_type = LinearParams
    operands = (
        Operand("x"),
        Operand("weight", streamed=True),
        Operand("bias", optional=True),
        Operand("norm_weight", optional=True),
        Operand("residual", optional=True),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: LinearParams) -> str:
        activation = {"none": "None", "silu_mul": "SiluMul", "gelu_mul": "GeluMul"}[params.activation]
        flags = ", ".join(str(flag).lower() for flag in (params.norm, params.bias, params.residual))
        out = {"bf16": "mpk::bf16", "f32": "float"}[params.out]
        shape = f"{params.n}, {params.k}, {params.tiles}, {params.rows}"
        return f"mpk::Linear<{shape}, {flags}, mpk::Activation::k{activation}, {out}>"

    def body_arguments(self, params: LinearParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: LinearParams, target: Target) -> float:
        weight_bytes = params.tiles * TILE_ROWS * params.k * 2
        return weight_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: LinearParams) -> int:
        groups = -(-params.rows // ROW_GROUP)
        stride = -(-(-(-params.k // 32) * 32) // 64) * 64 + 32
        panel = min(params.rows * stride * 2, PANEL_BYTES)
        partial = 2 * CONSUMER_WARPS * groups * ROW_GROUP * TILE_ROWS * 4
        return panel + partial + groups * ROW_GROUP * CONSUMER_WARPS * 4 + 16

    def reference(self, params: LinearParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"]
        if params.norm:
            x = x * rms_scale(x, params.eps) * views["norm_weight"]
        y = x @ views["weight"].T
        if params.bias:
            y = y + views["bias"]
        if params.gated:
            pairs = y.reshape(y.shape[0], -1, 2, GATE_BLOCK)
            gate, up = pairs[:, :, 0].reshape(y.shape[0], -1), pairs[:, :, 1].reshape(y.shape[0], -1)
            y = (silu(gate) if params.activation == "silu_mul" else gelu_tanh(gate)) * up
        if params.residual:
            y = y + views["residual"]
        views["y"][...] = y.astype(np.float32)
