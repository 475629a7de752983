"""`tg-raise` finds norms, activations and gates however their operands commute, and changes no value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, bf16, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from mpk_ir.dialects import tg
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.tg.canonicalize import TgCanonicalize
from mpk_ir.passes.tg.raise_ops import TgRaise, explanations

SHAPES = st.lists(st.sampled_from((1, 2, 3, 4)), min_size=0, max_size=2).map(lambda lead: (*lead, 8))


class Decomposed:
    """Appends the elementwise ops that PyTorch makes of something; ``order`` says which operands are swapped."""

    def __init__(self, shape: tuple[int, ...], element: Attribute, order: list[bool]) -> None:
        types = [tg.tensor(shape, element), tg.tensor(shape, element), tg.tensor(shape[-1:], element)]
        self.block = Block(arg_types=types)
        self.element = element
        self.order = list(order)

    def emit(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def both(self, kind: type[tg.BinaryOp], a: SSAValue, b: SSAValue) -> SSAValue:
        swapped = self.order.pop() if self.order else False
        return self.emit(kind(b, a) if swapped else kind(a, b))

    def number(self, value: float) -> SSAValue:
        return self.emit(tg.ConstantOp.of(np.array([value], np.float32)))

    def wide(self, x: SSAValue) -> SSAValue:
        return x if self.element == f32 else self.emit(tg.CastOp(x, f32))

    def narrow(self, x: SSAValue) -> SSAValue:
        return x if self.element == f32 else self.emit(tg.CastOp(x, self.element))

    def norm(self, x: SSAValue, weight: SSAValue) -> SSAValue:
        wide, shape = self.wide(x), tg.shape_of(x)
        squares = self.both(tg.MulOp, wide, wide)
        if len(shape) == 1:
            squares = self.emit(tg.ReshapeOp(squares, (1, *shape)))
        mean = self.emit(tg.ReduceOp(tg.Reduction.MEAN, squares, len(tg.shape_of(squares)) - 1))
        kept = self.emit(tg.ReshapeOp(mean, (*shape[:-1], 1)))
        scale = self.emit(tg.RsqrtOp(self.both(tg.AddOp, kept, self.number(1e-5))))
        return self.both(tg.MulOp, weight, self.narrow(self.both(tg.MulOp, wide, scale)))

    def layer_norm(self, x: SSAValue, weight: SSAValue, bias: SSAValue | None) -> SSAValue:
        """The difference from the mean is computed twice, as PyTorch does."""
        wide, shape = self.wide(x), tg.shape_of(x)

        def mean(of: SSAValue) -> SSAValue:
            return self.emit(tg.ReshapeOp(self.emit(tg.ReduceOp(tg.Reduction.MEAN, of, len(shape) - 1)), kept))

        kept = (*shape[:-1], 1)
        middle = mean(wide)
        centred, again = (self.emit(tg.SubOp(wide, middle)) for _ in range(2))
        scale = self.emit(
            tg.RsqrtOp(self.both(tg.AddOp, mean(self.both(tg.MulOp, centred, centred)), self.number(1e-5)))
        )
        normed = self.both(tg.MulOp, weight, self.narrow(self.both(tg.MulOp, again, scale)))
        return normed if bias is None else self.both(tg.AddOp, normed, bias)

    def silu(self, x: SSAValue) -> SSAValue:
        wide = self.wide(x)
        return self.narrow(self.both(tg.MulOp, wide, self.emit(tg.SigmoidOp(wide))))

    def gelu(self, x: SSAValue) -> SSAValue:
        wide = self.wide(x)
        cube = self.both(tg.MulOp, self.both(tg.MulOp, wide, wide), wide)
        inner = self.both(tg.AddOp, wide, self.both(tg.MulOp, self.number(0.044715), cube))
        tanh = self.emit(tg.TanhOp(self.both(tg.MulOp, inner, self.number(math.sqrt(2 / math.pi)))))
        half = self.both(tg.MulOp, wide, self.number(0.5))
        return self.narrow(self.both(tg.MulOp, half, self.both(tg.AddOp, tanh, self.number(1.0))))

    def module(self, value: SSAValue) -> ModuleOp:
        self.block.add_op(ReturnOp(value))
        types = [argument.type for argument in self.block.args]
        return ModuleOp([FuncOp("f", (types, (value.type,)), Region(self.block))])


def inputs(shape: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(one).astype(np.float32) for one in (shape, shape, shape[-1:])]


def raised(module: ModuleOp, shape: tuple[int, ...]) -> list[str]:
    """The ops of ``module`` once it is raised, which leaves its meaning as it was."""
    module.verify()
    before = evaluate(module, inputs(shape), {}, {})[0]
    TgCanonicalize().apply(Context(), module)
    TgRaise().apply(Context(), module)
    module.verify()
    np.testing.assert_allclose(evaluate(module, inputs(shape), {}, {})[0], before, rtol=1e-4, atol=1e-5)
    return [op.name for op in module.walk()]


@settings(max_examples=40)
@given(
    st.sampled_from(("norm", "silu_gate", "gelu_gate", "norm_of_gate")),
    SHAPES,
    st.sampled_from((f32, bf16)),
    st.lists(st.booleans(), min_size=16, max_size=16),
)
def test_it_is_found_in_any_order_and_means_the_same(
    what: str, shape: tuple[int, ...], element: Attribute, order: list[bool]
) -> None:
    d = Decomposed(shape, element, order)
    x, up, weight = d.block.args
    value: SSAValue = x
    if "gate" in what:
        value = d.both(tg.MulOp, d.gelu(x) if what == "gelu_gate" else d.silu(x), up)
    if "norm" in what:
        value = d.norm(value, weight)
    module = d.module(value)
    names = raised(module, shape)
    wanted = {
        "norm": ["tg.rms_norm"],
        "silu_gate": ["tg.silu_mul"],
        "gelu_gate": ["tg.gelu_mul"],
        "norm_of_gate": ["tg.silu_mul", "tg.rms_norm"],
    }[what]
    assert [name for name in names if name in ("tg.rms_norm", "tg.silu_mul", "tg.gelu_mul")] == wanted
    assert not {"tg.rsqrt", "tg.sigmoid", "tg.tanh", "tg.reduce"} & set(names)
    assert explanations(module) == []


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=2).map(lambda lead: (*lead, 8)),
    st.sampled_from((f32, bf16)),
    st.booleans(),
    st.lists(st.booleans(), min_size=16, max_size=16),
)
def test_a_layer_norm_is_found_with_and_without_bias(
    shape: tuple[int, ...], element: Attribute, biased: bool, order: list[bool]
) -> None:
    d = Decomposed(shape, element, order)
    x, _, weight = d.block.args
    module = d.module(d.layer_norm(x, weight, weight if biased else None))
    names = raised(module, shape)
    assert names.count("tg.layer_norm") == 1
    assert not {"tg.rsqrt", "tg.reduce", "tg.rms_norm", "tg.sub", "tg.add"} & set(names)


def test_what_is_left_over_is_explained() -> None:
    d = Decomposed((4, 8), f32, [])
    x, _, _ = d.block.args
    module = d.module(d.emit(tg.MulOp(d.emit(tg.SigmoidOp(x)), d.emit(tg.TanhOp(x)))))
    TgRaise().apply(Context(), module)
    sigmoid, tanh = explanations(module)
    assert "'tg.sigmoid' did not raise; not part of silu" in sigmoid
    assert "'tg.tanh' did not raise; not part of gelu" in tanh
