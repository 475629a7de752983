"""`linear`: rows of activations times 16-row tiles of a weight, with norm before and bias, gate, residual after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.memory import STAGE_BYTES, Layout
from ..core.target import Target
from .base import CONSUMER_WARPS, Access, Array, Operand, Params, TaskKind
from .math import gelu_tanh, rms_scale, silu

TILE_ROWS = 16
"""Rows of a weight tile: M of the tensor-core product m16n8k16."""
STAGE_COLUMNS = STAGE_BYTES // (2 * TILE_ROWS)
"""Of a tile's, in one stage of the ring."""
STAGE_BLOCKS = STAGE_COLUMNS // 32 // CONSUMER_WARPS
"""Of 32 columns of a stage, of a warp: vectors of 16 bytes that a lane loads of 8 rows of x."""
MOST_SEGMENT_VECTORS = 12
"""Of 16 bytes of x that a lane loads at once (this and the next: codegen/cuda/mpk/tasks/linear.cuh)."""
MOST_MANY_VECTORS = 16
"""The same of more than 8 rows, where all columns are as many, or no norm needs registers besides."""
MAX_ROWS = 16
"""Rows of activations: twice N of m16n8k16."""
MAX_TILES = 4
"""Of a pass: a warp finishes a row of it, a lane two columns."""
GATE_BLOCK = 8
"""Gate rows, then up rows: half a tile of each (``Pack.interleave`` of a gated weight)."""


@dataclass(frozen=True)
class LinearParams(Params):
    """y[rows, n] = act(norm(x[rows, k]) · Wᵀ + bias) + residual, for ``tiles`` tiles of 16 weight rows a task,
    ``pass_tiles`` of them at once.

    With ``activation`` silu_mul or gelu_mul the 8 gate rows and 8 up rows of a tile make 8 columns of y. With ``best``
    the task also says which of its columns is largest in each row, and its value. ``total_rows``: of y, where the last
    of the blocks of ``rows`` has fewer; else 0. ``x_panel``, ``y_panel``: rows of a panel of x, of residual and y.
    """

    n: int
    k: int
    tiles: int
    pass_tiles: int
    rows: int
    norm: bool
    eps: float
    bias: bool
    residual: bool
    best: bool
    activation: str
    out: str
    total_rows: int = 0
    x_panel: int = 1
    y_panel: int = 1

    @property
    def weight_rows(self) -> int:
        """Of a task."""
        return self.tiles * TILE_ROWS

    @property
    def columns_per_task(self) -> int:
        return self.weight_rows // (2 if self.gated else 1)

    @property
    def gated(self) -> bool:
        return self.activation != "none"


def is_whole(k: int, rows: int) -> bool:
    """Whether the passes of a task share one load of ``rows`` rows of ``k`` columns of x."""
    halves = _halves(rows)
    most = MOST_SEGMENT_VECTORS if halves == 1 else MOST_MANY_VECTORS
    return -(-k // STAGE_COLUMNS) * halves * STAGE_BLOCKS <= most


def _halves(rows: int) -> int:
    """Blocks of 8 rows in a task of a kernel. Tasks of the simulator, which may have more, count as the greatest."""
    return -(-min(rows, MAX_ROWS) // 8)


def x_segments(params: LinearParams) -> int:
    """In how many pieces a task loads its rows of x: as few as registers allow."""
    if is_whole(params.k, params.rows):
        return 1
    halves = _halves(params.rows)
    most = MOST_SEGMENT_VECTORS if halves == 1 or params.norm else MOST_MANY_VECTORS
    stages = -(-params.k // STAGE_COLUMNS)
    return -(-stages // (most // (STAGE_BLOCKS * halves)))


class ProductParams(Protocol):
    """What a product of activations and weights adds to the sums."""

    @property
    def bias(self) -> bool: ...

    @property
    def residual(self) -> bool: ...

    @property
    def activation(self) -> str: ...


def product(params: ProductParams, views: Mapping[str, Array], x: Array) -> Array:
    """``x`` times the weight, plus bias, through the gate (its rows in blocks of `GATE_BLOCK`), plus residual."""
    y = x @ views["weight"].T
    if params.bias:
        y = y + views["bias"]
    if params.activation != "none":
        pairs = y.reshape(y.shape[0], -1, 2, GATE_BLOCK)
        gate, up = pairs[:, :, 0].reshape(y.shape[0], -1), pairs[:, :, 1].reshape(y.shape[0], -1)
        y = (silu(gate) if params.activation == "silu_mul" else gelu_tanh(gate)) * up
    return y + views["residual"] if params.residual else y


class Linear(TaskKind[LinearParams]):
    """Weights stream through the shared-memory ring; activations are read once, or once a pass."""

    name = "linear"
    params_type = LinearParams
    stages_at_once = 4
    operands = (
        Operand("x", polled=True, tells=True, panel="x_panel"),
        Operand("weight", streamed=True, layout=Layout.MMA_ROWS_16),
        Operand("bias", optional=True),
        Operand("norm_weight", optional=True, streamed=True),
        Operand("residual", optional=True, polled=True, tells=True, panel="y_panel"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True, panel="y_panel"),
        Operand("best_value", Access.WRITE, optional=True, polled=True, tells=True),
        Operand("best_column", Access.WRITE, optional=True, polled=True, tells=True),
    )

    def signature(self, params: LinearParams) -> str:
        activation = {"none": "None", "silu_mul": "SiluMul", "gelu_mul": "GeluMul"}[params.activation]
        parts = (params.norm, params.bias, params.residual, params.best)
        flags = ", ".join(str(flag).lower() for flag in parts)
        out = {"bf16": "mpk::bf16", "f32": "float"}[params.out]
        shape = f"{params.n}, {params.k}, {params.tiles}, {params.pass_tiles}, {params.rows}"
        panels = f", {params.total_rows}, {params.x_panel}, {params.y_panel}"
        rest = panels if panels != ", 0, 1, 1" else ""
        return f"mpk::Linear<{shape}, {flags}, mpk::Activation::k{activation}, {out}{rest}>"

    def body_arguments(self, params: LinearParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: LinearParams, target: Target) -> float:
        weight_bytes = params.weight_rows * params.k * 2
        return weight_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def least_stages(self, params: LinearParams, indices: Array) -> Array:
        """Whole rows of tiles, and the norm's weights once."""
        left = -(-params.n // TILE_ROWS) - indices[:, 0] * params.tiles
        return np.minimum(left, params.tiles) * -(-params.k // STAGE_COLUMNS) + int(params.norm)

    def scratch_bytes(self, params: LinearParams) -> int:
        rows = -(-params.rows // 8) * 8
        return CONSUMER_WARPS * rows * (params.pass_tiles * TILE_ROWS + 4 + 1) * 4

    def reference(self, params: LinearParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"]
        if params.norm:
            x = x * rms_scale(x, params.eps) * views["norm_weight"]
        y = product(params, views, x)
        views["y"][...] = y.astype(np.float32)
        if params.best:
            column = y.argmax(axis=1)
            views["best_value"][:, 0] = y[np.arange(len(y)), column]
            views["best_column"][:, 0] = column + index[0] * params.columns_per_task
