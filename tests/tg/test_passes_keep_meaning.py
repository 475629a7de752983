"""Whatever the model, a pass changes nothing that the interpreter can see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, bf16, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from mpk_ir.dialects import tg
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.tg.canonicalize import TgCanonicalize
from mpk_ir.passes.tg.fuse import TgFuse
from mpk_ir.passes.tg.hoist_rows import TgHoistRows
from mpk_ir.passes.tg.merge_linears import TgMergeLinears
from tests.tg.graphs import Plan, assert_same_runs, plans, random_weights, run_steps, transformed

STEPS = 3
PIPELINES: dict[str, tuple[ModulePass, ...]] = {
    "canonicalize": (TgCanonicalize(),),
    "merge": (TgMergeLinears(),),
    "fuse alone": (TgFuse(),),
    "merge, fuse": (TgMergeLinears(), TgFuse()),
    "merge, fuse, canonicalize": (TgCanonicalize(), TgMergeLinears(), TgFuse(), TgCanonicalize()),
    "norm only": (TgMergeLinears(), TgFuse(residual=False, activation=False, attention=False)),
    "attention only": (TgMergeLinears(), TgFuse(norm=False, residual=False, activation=False)),
}


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=8)
@given(plan=plans)
def test_a_step_computes_the_same_after_passes(name: str, plan: Plan) -> None:
    before = plan.build()
    after = transformed(before, *PIPELINES[name])
    weights = random_weights(plan.config())
    assert_same_runs(run_steps(before, weights, STEPS), run_steps(after, weights, STEPS))


@settings(max_examples=25)
@given(plan=plans)
def test_rows_chosen_early_are_those_chosen_late(plan: Plan) -> None:
    """The logits behind those of requests that have rows, too. Behind the last attention all are rows of requests."""
    plan = replace(plan, last_rows=True, rows=max(plan.rows, plan.batch))
    before = plan.build()
    after = transformed(before, TgHoistRows())
    weights = random_weights(plan.config())
    found, expected = (run_steps(module, weights, STEPS) for module in (after, before))
    assert_same_runs(expected, found)
    operations = list(after.walk())
    attention = max(n for n, op in enumerate(operations) if isinstance(op, tg.AttentionOp))
    products = [op for op in operations[attention:] if isinstance(op, tg.LinearOp)]
    if not plan.biases:
        assert {tg.shape_of(op.result)[0] for op in products} == {plan.batch}


@settings(max_examples=8)
@given(plan=plans)
def test_passes_have_nothing_left_to_do_the_second_time(plan: Plan) -> None:
    once = transformed(plan.build(), *PIPELINES["merge, fuse, canonicalize"])
    assert str(transformed(once, *PIPELINES["merge, fuse, canonicalize"])) == str(once)


MAKERS = ("reshape", "transpose", "slice", "concat", "cast", "neg", "add zero", "times one", "sub", "exp")


def apply_maker(maker: str, x: SSAValue, choice: int, block: Block) -> SSAValue:
    """Append ops that make ``maker`` of ``x`` [a, b]; ``choice`` varies them."""

    def emit(op: Operation) -> SSAValue:
        block.add_op(op)
        return op.results[0]

    rows, columns = tg.shape_of(x)
    constant = {"add zero": 0.0, "times one": 1.0, "sub": float(choice % 2)}.get(maker, 0.5)
    shape = [(rows, columns), (1, columns), (1, 1)][choice % 3]
    match maker:
        case "reshape":
            return emit(tg.ReshapeOp(x, [(columns, rows), (rows, columns), (1, rows * columns)][choice % 3]))
        case "transpose":
            return emit(tg.TransposeOp(x, (1, 0) if choice % 2 else (0, 1)))
        case "slice":
            start = choice % columns
            return emit(tg.SliceOp(x, (0, start), (rows, columns - start)))
        case "concat":
            return emit(tg.ConcatOp([x] * (1 + choice % 2), axis=1))
        case "cast":
            return emit(tg.CastOp(emit(tg.CastOp(x, bf16 if choice % 2 else f32)), f32))
        case "neg":
            return emit(tg.NegOp(x))
        case "exp":
            return emit(tg.ExpOp(emit(tg.NegOp(emit(tg.ExpOp(x))))))
        case _:
            kind = {"add zero": tg.AddOp, "times one": tg.MulOp, "sub": tg.SubOp}[maker]
            number = emit(tg.ConstantOp.of(np.full(shape, constant, np.float32)))
            return emit(kind(number, x) if choice % 2 else kind(x, number))


@settings(max_examples=80)
@given(steps=st.lists(st.tuples(st.sampled_from(MAKERS), st.integers(0, 5)), max_size=8))
def test_canonicalize_keeps_what_chains_of_ops_compute(steps: list[tuple[str, int]]) -> None:
    block = Block(arg_types=[tg.tensor((4, 6), f32)])
    value: SSAValue = block.args[0]
    for maker, choice in steps:
        value = apply_maker(maker, value, choice, block)
    block.add_op(ReturnOp(value))
    module = ModuleOp([FuncOp("f", ((block.args[0].type,), (value.type,)), Region(block))])
    module.verify()
    x = np.linspace(-2, 2, 24, dtype=np.float32).reshape(4, 6)
    before = evaluate(module, [x], {}, {}, storage_rounding=True)
    TgCanonicalize().apply(Context(), module)
    module.verify()
    np.testing.assert_array_equal(evaluate(module, [x], {}, {}, storage_rounding=True)[0], before[0])
