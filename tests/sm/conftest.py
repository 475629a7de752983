"""Planned graphs for the tests of the sm passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import GraphOp
from mpk_ir.frontend import StepOptions, build_step
from mpk_ir.pipeline import plan_passes, tensor_passes

PlanDecoder = Callable[..., ModuleOp]


def graph_of(module: ModuleOp) -> GraphOp:
    """The one graph of a planned module."""
    (graph,) = [op for op in module.body.block.ops if isinstance(op, GraphOp)]
    return graph


@pytest.fixture(scope="session")
def plan_decoder() -> PlanDecoder:
    """`plan_decoder(target, batch, fused=True)`: a fresh plan of a decoder of two layers."""
    texts: dict[tuple[str, int, bool], ModuleOp] = {}

    def plan(target: str = "sim", batch: int = 1, *, fused: bool = True) -> ModuleOp:
        key = (target, batch, fused)
        if key not in texts:
            module = build_step(shape_config("tiny"), StepOptions(batch=batch, rows=8, max_length=64, page_size=16))
            for one in (*(tensor_passes() if fused else ()), *plan_passes(target_of(target))):
                one.apply(Context(), module)
            texts[key] = module
        return texts[key].clone()

    return plan
