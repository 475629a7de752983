"""Random tensor graphs as small frozen plans: hypothesis draws and shrinks the plan, a builder makes the IR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, bf16, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.dialects import tg

ROWS = 8


@dataclass(frozen=True)
class Layer:
    """One op: ``kind`` of it, and which earlier values it reads (modulo their number)."""

    kind: str
    first: int
    second: int
    width: int


@dataclass(frozen=True)
class GraphPlan:
    """Layers one after another over an input of ``width`` columns; the last value is the result."""

    width: int
    layers: tuple[Layer, ...]


KINDS = (
    *("linear", "add", "sub", "mul", "neg", "silu", "rms_norm", "fused_norm"),
    *("silu_mul", "slice", "softmax", "gram", "experts"),
)


@st.composite
def graph_plans(draw: st.DrawFn) -> GraphPlan:
    widths = st.sampled_from((16, 24, 40, 64, 104))
    position = st.integers(0, 7)
    layer = st.builds(Layer, st.sampled_from(KINDS), position, position, widths)
    layers = draw(st.lists(layer, min_size=1, max_size=7))
    return GraphPlan(draw(widths), tuple(layers))


def build(plan: GraphPlan, rows: int = ROWS) -> ModuleOp:
    """The plan as `func.func @step(%x) -> %result` on ``rows`` rows."""
    block = Block(arg_types=[tg.tensor((rows, plan.width), bf16)])
    values: list[SSAValue] = [block.args[0]]
    for number, layer in enumerate(plan.layers):
        ops = _layer_ops(number, layer, values)
        block.add_ops(ops)
        values.append(ops[-1].results[0])
    # a last op of its own, so that the result is no argument
    last = tg.SiluOp(values[-1])
    block.add_ops([last, ReturnOp(last.result)])
    types = ([block.args[0].type], [last.result.type])
    return ModuleOp([FuncOp("step", types, Region(block))])


def _layer_ops(number: int, layer: Layer, values: list[SSAValue]) -> list[Operation]:
    x = values[layer.first % len(values)]
    columns = tg.shape_of(x)[1]
    alike = [value for value in values if value.type == x.type]
    other = alike[layer.second % len(alike)]
    match layer.kind:
        case "linear":
            weight = tg.ParamOp(f"w{number}", tg.tensor((layer.width, columns), bf16))
            return [weight, tg.LinearOp(x, weight.result)]
        case "rms_norm":
            weight = tg.ParamOp(f"w{number}", tg.tensor((columns,), bf16))
            return [weight, tg.RmsNormOp(x, weight.result, 1e-6)]
        case "fused_norm":
            weight = tg.ParamOp(f"w{number}", tg.tensor((columns,), bf16))
            return [weight, tg.FusedNormOp(x, weight.result, other, 1e-6)]
        case "softmax":
            return [tg.SoftmaxOp(x, 1)]
        case "gram":
            turned = tg.TransposeOp(x, (1, 0))
            return [turned, tg.MatmulOp(x, turned.result)]
        case "experts":
            return _experts(number, x, layer.width)
        case "add":
            return [tg.AddOp(x, other)]
        case "sub":
            return [tg.SubOp(x, other)]
        case "mul":
            return [tg.MulOp(x, other)]
        case "neg":
            return [tg.NegOp(x)]
        case "slice":  # a view: what reads it depends on those that wrote these columns, and on no others
            start = 8 * (layer.second % (columns // 8))
            return [tg.SliceOp(x, (0, start), (ROWS, min(layer.width, columns - start)))]
        case "silu_mul":
            return [tg.SiluMulOp(x, other)]
        case _:
            return [tg.SiluOp(x)]


def _experts(number: int, x: SSAValue, width: int) -> list[Operation]:
    """Each row's two of five experts, weighted: gated, then back to the columns of ``x``."""
    columns = tg.shape_of(x)[1]
    router = tg.ParamOp(f"r{number}", tg.tensor((5, columns), bf16))
    logits = tg.LinearOp(x, router.result, element=f32)
    gate = tg.TopKGateOp(logits.result, 2)
    up = tg.ParamOp(f"u{number}", tg.tensor((5 * 2 * width, columns), bf16))
    down = tg.ParamOp(f"d{number}", tg.tensor((5 * columns, width), bf16))
    inner = tg.GroupedLinearOp(x, up.result, gate.experts, 5, gated=True)
    parts = tg.GroupedLinearOp(inner.result, down.result, gate.experts, 5)
    return [router, logits, gate, up, down, inner, parts, tg.ExpertSumOp(parts.result, gate.weights)]


def random_params(module: ModuleOp, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Normal values for every parameter of ``module``, scaled by its input columns and exact in bf16."""
    generator = np.random.default_rng(seed)
    params: dict[str, np.ndarray[Any, Any]] = {}
    for op in module.walk():
        if isinstance(op, tg.ParamOp):
            shape = tg.shape_of(op.result)
            values = generator.standard_normal(shape) * shape[-1] ** -0.5
            params[op.symbol.data] = round_to_bf16(values.astype(np.float32))
    return params
