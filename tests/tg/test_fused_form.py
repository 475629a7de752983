"""What is left of a decoder after merging and fusion, and how long it takes to get there."""

from __future__ import annotations

import gc
from collections import Counter
from time import process_time

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.dialects.func import FuncOp

from mpk_ir.core.errors import PlanError
from mpk_ir.dialects import tg
from mpk_ir.passes.base import collect_statistics
from mpk_ir.passes.tg.canonicalize import TgCanonicalize
from mpk_ir.passes.tg.fuse import TgFuse
from mpk_ir.passes.tg.merge_linears import TgMergeLinears
from tests.tg.graphs import Plan, transformed

NOT_COMPUTING = (tg.ParamOp, tg.StateOp, tg.ConstantOp, tg.UpdateOp)


def computing_ops(module: ModuleOp) -> list[tg.TgOp]:
    (function,) = (op for op in module.ops if isinstance(op, FuncOp))
    return [op for op in function.body.block.ops if isinstance(op, tg.TgOp) and not isinstance(op, NOT_COMPUTING)]


@pytest.mark.parametrize("family", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_a_layer_is_five_ops(family: str) -> None:
    plan = Plan(family=family, layers=1)
    embedding, qkv, attention, out, gate_up, down, head, argmax, advance = computing_ops(
        transformed(plan.build(), TgMergeLinears(), TgFuse())
    )
    assert isinstance(embedding, tg.EmbeddingOp)
    assert isinstance(qkv, tg.FusedLinearOp)
    assert qkv.norm_weight is not None
    assert qkv.residual is None
    assert (qkv.bias is not None) == (family == "Qwen2ForCausalLM")
    assert isinstance(attention, tg.FusedAttentionOp)
    assert attention.qkv is qkv.result
    assert (attention.q_norm is not None) == (attention.k_norm is not None) == (family == "Qwen3ForCausalLM")
    assert isinstance(out, tg.FusedLinearOp)
    assert out.norm_weight is None
    assert out.residual is embedding.result
    assert isinstance(gate_up, tg.FusedLinearOp)
    assert gate_up.epilogue.data is tg.Epilogue.SILU_MUL
    assert gate_up.norm_weight is not None
    assert isinstance(down, tg.FusedLinearOp)
    assert down.residual is out.result
    assert isinstance(head, tg.FusedLinearOp)
    assert head.norm_weight is not None
    assert isinstance(argmax, tg.ArgmaxOp)
    assert isinstance(advance, tg.AdvanceOp)


def test_merged_params_name_their_sources_in_order() -> None:
    module = transformed(Plan().build(), TgMergeLinears(), TgFuse())
    params = {op.symbol.data: op for op in module.walk() if isinstance(op, tg.ParamOp)}
    qkv = params["model.layers.0.self_attn.q_proj_k_proj_v_proj.weight"]
    assert [name.split(".")[-2] for name in qkv.source_names] == ["q_proj", "k_proj", "v_proj"]
    gate_up = params["model.layers.0.mlp.gate_proj_up_proj.weight"]
    assert [name.split(".")[-2] for name in gate_up.source_names] == ["gate_proj", "up_proj"]
    assert (qkv.interleave.value.data, gate_up.interleave.value.data) == (0, tg.GATE_UP_BLOCK)


def test_unmerged_attention_is_left_alone() -> None:
    ops = Counter(type(op) for op in computing_ops(transformed(Plan().build(), TgFuse())))
    assert ops[tg.FusedAttentionOp] == 0
    assert ops[tg.AttentionOp] == 1


def test_interleaved_rope_is_not_fused() -> None:
    module = Plan().build()
    for op in module.walk():
        if isinstance(op, tg.RopeOp):
            op.interleaved = UnitAttr()
    assert any(isinstance(op, tg.AttentionOp) for op in transformed(module, TgMergeLinears(), TgFuse()).walk())


def test_statistics_say_what_was_done() -> None:
    with collect_statistics() as table:
        transformed(Plan(layers=2).build(), TgMergeLinears(), TgFuse())
    assert table["tg-merge-linears"] == {"groups": 4, "merged": 10}
    assert table["tg-fuse"] == {"FuseNorm": 5, "FuseResidual": 4, "FuseActivation": 2, "FuseAttention": 2}


def test_72_layers_take_less_than_a_second_and_a_half() -> None:
    module = Plan(layers=72).build()
    gc.freeze()  # or the collector walks what thousands of other tests have left, at our expense
    began = process_time()
    for each in (TgCanonicalize(), TgMergeLinears(), TgFuse(), TgCanonicalize()):
        each.apply(Context(), module)
    seconds = process_time() - began
    gc.unfreeze()
    assert seconds < 1.5


def test_canonicalize_stops_at_its_limit() -> None:
    module = transformed(Plan().build(), TgMergeLinears())
    chain = next(op for op in module.walk() if isinstance(op, tg.ReshapeOp))
    assert chain.parent is not None
    for _ in range(4):
        again = tg.NegOp(chain.result)
        chain.parent.insert_op_after(again, chain)
        back = tg.NegOp(again.result)
        chain.parent.insert_op_after(back, again)
        chain.result.replace_uses_with_if(back.result, lambda use, first=again: use.operation is not first)
    with pytest.raises(PlanError, match="does not settle"):
        TgCanonicalize(max_rewrites=2).apply(Context(), module)
