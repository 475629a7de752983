"""Tiny models of the supported families, planned."""

from __future__ import annotations

from typing import Any, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.bench.shapes import SHAPES
from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.core.target import target_of
from mpk_ir.dialects import tg
from mpk_ir.frontend import ModelConfig, StepOptions, build_step, config_from
from mpk_ir.pipeline import lowering_passes, plan_passes, tensor_passes

_SIZES: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1001,
    "max_position_embeddings": 4096,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": SHAPES["tiny"],
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        **_SIZES,
    },
    "llama3": SHAPES["llama-3.2-1b"] | _SIZES,
    "qwen3_moe": SHAPES["tiny-experts"],
}

GENERAL_KINDS = frozenset({"map", "reduce", "normalize", "matmul", "gather", "index_copy"})
"""What graphs that are no decoders are made of; decoders need none of them."""

EXPERT_KINDS = frozenset({"top_k_gate", "grouped_linear", "expert_sum"})
"""What only decoders with experts are made of."""

PROMPT_KINDS = frozenset({"wide_linear", "block_rows", "rope_append", "prompt_attention", "last_rows"})
"""What only steps of many rows are made of."""

RANK_KINDS = frozenset({"push", "rank_sum", "shard_embedding"})
"""What only decoders for several ranks are made of."""


def family_config(family: str) -> ModelConfig:
    return config_from(FAMILIES[family], where=family)


Limits: TypeAlias = tuple[float, int]
"""Soft cap of attention's scores, and window; 0 is none."""


def plan_model(
    family: str, batch: int = 1, *, fused: bool = True, target: str = "h200", limits: Limits = (0.0, 0)
) -> ModuleOp:
    """The lowered module of a family's tiny model; without fusion every op of the graph is a task kind of its own."""
    options = StepOptions(batch=batch, rows=8, max_length=640, page_size=16)  # long enough to be worth splitting
    module = build_step(family_config(family), options)
    for op in module.walk():
        if isinstance(op, tg.AttentionOp):
            op.properties.update(tg.Scores(op.scores.scale, *limits).properties())
    first = tensor_passes() if fused else ()
    for one in (*first, *plan_passes(target_of(target)), *lowering_passes()):
        one.apply(Context(), module)
    module.verify()
    return module


def program_of(
    family: str, batch: int = 1, *, fused: bool = True, target: str = "h200", limits: Limits = (0.0, 0)
) -> Program:
    return emit(plan_model(family, batch, fused=fused, target=target, limits=limits))
