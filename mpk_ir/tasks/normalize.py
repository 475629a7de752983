"""`normalize`: softmax, layer norm or RMS norm of each row of a strided operand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, TaskKind
from .math import rms_scale
from .strided import BlockParams

FUNCTIONS = ("softmax", "layer_norm", "rms_norm")


@dataclass(frozen=True)
class NormalizeParams(BlockParams):
    """``function`` over the last dimension; a block has whole rows. Places are those of x, of weight
    and bias (vectors) where ``weighted`` and ``biased``, and of y."""

    function: str
    weighted: bool
    biased: bool
    eps: float


class Normalize(TaskKind[NormalizeParams]):
    """In f32."""

    name = "normalize"
    params_type = NormalizeParams
    operands = (
        Operand("x"),
        Operand("weight", optional=True),
        Operand("bias", optional=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: NormalizeParams) -> str:
        x, *vectors, out = params.places_cuda()
        functor = "".join(word.capitalize() for word in params.function.split("_"))
        weight = vectors[0] if params.weighted else "mpk::Absent"
        bias = vectors[-1] if params.biased else "mpk::Absent"
        parts = [f"mpk::norm::{functor}", params.block_cuda(), params.shape_cuda(), out, x, weight, bias]
        return f"mpk::Normalize<{', '.join(parts)}>"

    def body_arguments(self, params: NormalizeParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: NormalizeParams, target: Target) -> float:
        return 3 * params.block_bytes() / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: NormalizeParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = params.read(0, views["x"], index)
        with np.errstate(all="ignore"):
            y = _normalized(params, x)
        if params.weighted:
            y = y * params.read(1, views["weight"], index)
        if params.biased:
            y = y + params.read(1 + int(params.weighted), views["bias"], index)
        params.write(views["y"], index, y)


def _normalized(params: NormalizeParams, x: Array) -> Array:
    if params.function == "softmax":
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if params.function == "layer_norm":
        x = x - x.mean(axis=-1, keepdims=True)
    return x * rms_scale(x, params.eps)
