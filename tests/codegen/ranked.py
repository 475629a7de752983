"""A small decoder that splits over 2, 4 and 8 ranks, with as many key heads as ranks or fewer."""

from __future__ import annotations

from functools import cache
from typing import Any

from mpk_ir.codegen.program import Program
from mpk_ir.compiler import compile_step
from mpk_ir.core.ranks import Parallel
from mpk_ir.core.target import part_of, target_of
from mpk_ir.frontend import ModelConfig, StepOptions, config_from

RANKS = (1, 2, 4, 8)
OPTIONS = StepOptions(batch=2, rows=8, max_length=64, page_size=16)


def ranked_config(kv_heads: int = 2) -> ModelConfig:
    """Two layers, eight query heads."""
    values: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": kv_heads,
        "head_dim": 32,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    return config_from(values, "test")


@cache
def ranked_program(ranks: int, target: str = "sim", kv_heads: int = 2, strategy: str = "auto") -> Program:
    """For ``ranks`` that share one ``target``, on the simulator for as many targets."""
    part = target_of(target) if target == "sim" else part_of(target_of(target), ranks)
    return compile_step(ranked_config(kv_heads), part, OPTIONS, parallel=Parallel(ranks, strategy)).program
