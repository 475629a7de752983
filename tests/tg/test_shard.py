"""A sharded function computes on every number of ranks what the function computes on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, f32, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from mpk_ir.core.errors import PlanError, UsageError
from mpk_ir.core.target import target_of
from mpk_ir.dialects import tg
from mpk_ir.interpreter import evaluate, evaluate_ranks, run_step, shard_state
from mpk_ir.passes.tg.canonicalize import TgCanonicalize
from mpk_ir.passes.tg.fuse import TgFuse
from mpk_ir.passes.tg.merge_linears import TgMergeLinears
from mpk_ir.passes.tg.shard import TgShard
from mpk_ir.passes.tile.tile import Tile
from tests.tg.graphs import FAMILIES, LEAST_VOCABULARY, Arrays, Plan, random_state, random_weights, transformed

STEPS = 3
RANKS = tuple(range(1, 9))
PIPELINES: dict[str, tuple[tuple[ModulePass, ...], tuple[ModulePass, ...]]] = {
    "alone": ((), ()),
    "before fusion": ((TgCanonicalize(),), (TgMergeLinears(), TgFuse(), TgCanonicalize())),
}
"""Passes before and after sharding."""


@st.composite
def sharded_plans(draw: st.DrawFn) -> tuple[Plan, int]:
    """A model and a number of ranks that splits its query heads, and its key heads or is split by them."""
    ranks = draw(st.sampled_from(RANKS))
    kv_heads = draw(st.sampled_from([heads for heads in range(1, 9) if heads % ranks == 0 or ranks % heads == 0]))
    plan = Plan(
        family=draw(st.sampled_from(FAMILIES)),
        layers=draw(st.integers(1, 2)),
        kv_heads=kv_heads,
        group=max(1, ranks // kv_heads) * draw(st.integers(1, 2)),
        head_dim=draw(st.sampled_from([2, 6])),
        inner=ranks * draw(st.sampled_from([2, 3, 8])),
        vocabulary=ranks * (-(-LEAST_VOCABULARY // ranks) + draw(st.integers(0, 3))),
        biases=draw(st.booleans()),
        tied=draw(st.booleans()),
        batch=draw(st.integers(1, 2)),
        rows=draw(st.integers(1, 5)),
    )
    return plan, ranks


def run_both(before: ModuleOp, after: ModuleOp, weights: Arrays, ranks: int) -> None:
    """Run steps of both and compare every state of every rank after each."""
    whole = random_state(before)
    states = [shard_state(after, whole, rank, ranks) for rank in range(ranks)]
    for step in range(STEPS):
        active = int(whole["row_count"][0])
        run_step(before, weights, whole)
        evaluate_ranks(after, (), weights, states)
        for state in (whole, *states):
            state["logits"][active:] = 0
        for rank, state in enumerate(states):
            for name, expected in shard_state(after, whole, rank, ranks).items():
                message = f"step {step}, rank {rank}: {name}"
                np.testing.assert_allclose(state[name], expected, rtol=2e-4, atol=2e-4, err_msg=message)


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=16, deadline=None)
@given(drawn=sharded_plans())
def test_a_sharded_step_computes_the_same(name: str, drawn: tuple[Plan, int]) -> None:
    plan, ranks = drawn
    before = plan.build()
    earlier, later = PIPELINES[name]
    after = transformed(before, *earlier, TgShard(tp=ranks), *later)
    run_both(before, after, random_weights(plan.config()), ranks)


@settings(max_examples=8, deadline=None)
@given(drawn=sharded_plans())
def test_a_rank_reads_no_more_than_its_part(drawn: tuple[Plan, int]) -> None:
    plan, ranks = drawn
    config = plan.config()
    params = [op for op in transformed(plan.build(), TgShard(tp=ranks)).walk() if isinstance(op, tg.ParamOp)]
    read = sum(int(np.prod(tg.shape_of(op.result))) for op in params)
    weights = random_weights(config)
    # What every rank has: vectors, and key heads that ranks share.
    shared = sum(weight.size for weight in weights.values() if weight.ndim == 1)
    keys = 2 * plan.layers * config.kv_size * config.hidden_size
    split = sum(weight.size for weight in weights.values() if weight.ndim == 2) - keys
    assert read <= shared + split // ranks + keys // min(ranks, plan.kv_heads)


MAKERS = ("linear", "biased", "silu", "norm", "residual", "product", "narrow")


def build_graph(steps: list[tuple[str, int]], unit: int) -> tuple[ModuleOp, Arrays]:
    """A function of [4, 2 * ``unit``] that applies ``steps`` one after another, and its parameters."""
    block = Block(arg_types=[tg.tensor((4, 2 * unit), f32)])
    generator = np.random.default_rng(0)
    params: Arrays = {}
    seen: list[SSAValue] = [block.args[0]]

    def emit(op: Operation) -> SSAValue:
        block.add_op(op)
        return op.results[0]

    def param(*shape: int) -> SSAValue:
        name = f"p{len(params)}"
        params[name] = generator.normal(0, 0.3, shape).astype(np.float32)
        return emit(tg.ParamOp(name, tg.tensor(shape, f32)))

    for maker, choice in steps:
        x = seen[-1]
        width = tg.shape_of(x)[1]
        alike = [value for value in seen if tg.shape_of(value)[1] == width]
        match maker:
            case "linear" | "narrow":
                seen.append(
                    emit(tg.LinearOp(x, param(unit if maker == "narrow" else 2 * unit * (1 + choice % 2), width)))
                )
            case "biased":
                columns = 2 * unit * (1 + choice % 2)
                seen.append(emit(tg.LinearOp(x, param(columns, width), param(columns))))
            case "silu":
                seen.append(emit(tg.SiluOp(x)))
            case "norm":
                seen.append(emit(tg.RmsNormOp(x, param(width), 1e-6)))
            case "residual":
                seen.append(emit(tg.AddOp(alike[choice % len(alike)], x)))
            case _:
                seen.append(emit(tg.MulOp(x, param(width) if choice % 2 else alike[choice % len(alike)])))
    returned = [seen[-1], seen[len(seen) // 2]]
    block.add_op(ReturnOp(*returned))
    types = [value.type for value in returned]
    return ModuleOp([FuncOp("f", ((block.args[0].type,), types), Region(block))]), params


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(MAKERS), st.integers(0, 5)), min_size=1, max_size=8),
    ranks=st.sampled_from(RANKS),
)
def test_a_sharded_graph_of_linears_computes_the_same(steps: list[tuple[str, int]], ranks: int) -> None:
    unit = 8 if 8 % ranks == 0 else 2 * ranks
    before, params = build_graph(steps, unit)
    before.verify()
    after = transformed(before, TgShard(tp=ranks))
    x = np.random.default_rng(1).normal(size=(4, 2 * unit)).astype(np.float32)
    expected = evaluate(before, [x], params, {})
    results = evaluate_ranks(after, [x], params, [{} for _ in range(ranks)])
    for rank in results:
        for array, other in zip(rank, expected, strict=True):
            np.testing.assert_allclose(array, other, rtol=2e-4, atol=2e-4 * max(1.0, float(np.abs(other).max())))
    for rank in results[1:]:  # bits, not only numbers
        assert [array.tobytes() for array in rank] == [array.tobytes() for array in results[0]]


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_scattered_sum_that_is_gathered_is_the_sum_on_every_rank(ranks: int, axis: int) -> None:
    rows, columns = 2 * ranks, 4 * ranks
    whole = np.random.default_rng(2).normal(size=(rows * ranks, columns)).astype(np.float32)
    block = Block()
    x = tg.ParamOp("x", tg.tensor((rows, columns), f32))
    x.shard([tg.ShardAttr.of(0, ranks)])  # another x on each rank
    scattered = tg.ReduceScatterOp(x.result, axis, ranks)
    gathered = tg.AllGatherOp(scattered.result, axis, ranks)
    total = tg.AllReduceOp(x.result, ranks)
    block.add_ops([x, scattered, gathered, total, ReturnOp(gathered.result, total.result)])
    function = FuncOp("f", ((), (x.result.type, x.result.type)), Region(block))
    function.attributes[tg.RANKS] = IntegerAttr(ranks, i64)
    module = ModuleOp([function])
    module.verify()
    expected = whole.reshape(ranks, rows, columns).sum(axis=0)
    for results in evaluate_ranks(module, (), {"x": whole}, [{} for _ in range(ranks)]):
        assert results[0].tobytes() == results[1].tobytes()
        np.testing.assert_allclose(results[1], expected, rtol=1e-5, atol=1e-5)


def test_logits_that_tie_across_ranks_give_the_first_token() -> None:
    plan = Plan(kv_heads=2, tied=False)
    weights = random_weights(plan.config())
    weights["lm_head.weight"][:] = 0
    before = plan.build()
    run_both(before, transformed(before, TgShard(tp=4)), weights, ranks=4)


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "query heads": ({"kv_heads": 1, "group": 2}, 4, "found 2, expected a multiple of 4 ranks"),
    "key heads": (
        {"kv_heads": 3, "group": 4},
        2,
        "heads of tg.linear 'k' .*k_proj.*: found 3",
    ),
    "columns": ({"kv_heads": 4, "group": 2, "inner": 12}, 8, "columns of tg.linear 'gate' .*: found 12"),
    "vocabulary": (
        {"kv_heads": 3, "group": 1, "inner": 24},
        3,
        "rows of the embedding @model.embed_tokens.weight: found 40",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_split_is_named_and_left_as_it_was(name: str) -> None:
    changes, ranks, message = REFUSED[name]
    module = Plan(**changes).build()
    before = str(module)
    with pytest.raises(PlanError, match=message):
        TgShard(tp=ranks).apply(Context(), module)
    assert str(module) == before


def test_sharding_comes_before_fusion_and_only_once() -> None:
    step = Plan(kv_heads=2).build()
    merged = transformed(step, TgMergeLinears())
    with pytest.raises(PlanError, match="sources or shards"):
        TgShard(tp=2).apply(Context(), merged)
    with pytest.raises(PlanError, match=r"found 'tg\.fused_linear'"):
        TgShard(tp=2).apply(Context(), transformed(merged, TgFuse()))
    with pytest.raises(PlanError, match="ranks already"):
        TgShard(tp=2).apply(Context(), transformed(step, TgShard(tp=2)))


def test_a_sharded_step_does_not_run_on_one_rank() -> None:
    sharded = transformed(Plan(kv_heads=2).build(), TgShard(tp=2))
    unmarked = sharded.clone()
    next(op for op in unmarked.ops if isinstance(op, FuncOp)).attributes.pop(tg.RANKS)
    with pytest.raises(PlanError, match="holds shards, but does not say of how many ranks"):
        Tile(target=target_of("sim").name).apply(Context(), unmarked)
    with pytest.raises(UsageError, match="is for 2 ranks, found 1 states"):
        run_step(sharded, {}, {})
