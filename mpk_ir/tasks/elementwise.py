"""`elementwise`: a function of one or two operands of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import gelu_tanh, silu

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "silu": silu,
    "gelu_tanh": gelu_tanh,
    "exp": np.exp,
    "neg": np.negative,
    "silu_mul": lambda gate, up: silu(gate) * up,
    "gelu_tanh_mul": lambda gate, up: gelu_tanh(gate) * up,
}
"""Name -> meaning. The CUDA functor of `silu_mul` is `mpk::functor::SiluMul`."""
BINARY = frozenset({"add", "sub", "mul", "div", "silu_mul", "gelu_tanh_mul"})


@dataclass(frozen=True)
class ElementwiseParams(Params):
    """``columns`` of every row a task computes; the last task of the grid ends at ``total``."""

    function: str
    columns: int
    rows: int
    total: int


class Elementwise(TaskKind[ElementwiseParams]):
    """Grid index is the block of columns."""

    name = "elementwise"
    params_type = ElementwiseParams
    operands = (
        Operand("a"),
        Operand("b", optional=True),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: ElementwiseParams) -> str:
        functor = "".join(word.capitalize() for word in params.function.split("_"))
        return f"mpk::Elementwise<mpk::functor::{functor}, {params.columns}, {params.rows}, {params.total}>"

    def cost_us(self, params: ElementwiseParams, target: Target) -> float:
        return 6 * params.rows * params.columns / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: ElementwiseParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        operands = [views[name] for name in ("a", "b") if name in views]
        with np.errstate(all="ignore"):  # rows past row_count hold anything
            views["y"][...] = FUNCTIONS[params.function](*operands)
