"""Sizes of the decoders that people run, by family of transformers: what their config.json files say of the graph."""

from __future__ import annotations

from typing import Any

from .shapes import SHAPES


def _sizes(hidden: int, inner: int, layers: int, heads: tuple[int, int], vocab: int) -> dict[str, Any]:
    """``heads``: of queries, and of keys and values."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
    }


def _rope(theta: float, eps: float, positions: int) -> dict[str, Any]:
    return {"rope_theta": theta, "rms_norm_eps": eps, "max_position_embeddings": positions}


PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B": SHAPES["llama-3.2-1b"],
    "Qwen/Qwen2.5-0.5B": {"model_type": "qwen2", "tie_word_embeddings": True}
    | _sizes(896, 4864, 24, (14, 2), 151936)
    | _rope(1e6, 1e-6, 32768),
    "Qwen/Qwen3-0.6B": SHAPES["qwen3-0.6b"],
    "mistralai/Mistral-7B-v0.1": {"model_type": "mistral", "tie_word_embeddings": False, "sliding_window": 4096}
    | _sizes(4096, 14336, 32, (32, 8), 32000)
    | _rope(1e4, 1e-5, 32768),
    "microsoft/Phi-3-mini-4k-instruct": {"model_type": "phi3", "tie_word_embeddings": False, "sliding_window": 2047}
    | _sizes(3072, 8192, 32, (32, 32), 32064)
    | _rope(1e4, 1e-5, 4096),
    "google/gemma-2-2b": {"model_type": "gemma2", "tie_word_embeddings": True, "sliding_window": 4096}
    | _sizes(2304, 9216, 26, (8, 4), 256000)
    | _rope(1e4, 1e-6, 8192)
    | {"head_dim": 256, "query_pre_attn_scalar": 256}
    | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "google/gemma-3-1b-pt": {"model_type": "gemma3_text", "tie_word_embeddings": True, "sliding_window": 512}
    | _sizes(1152, 6912, 26, (4, 1), 262144)
    | _rope(1e6, 1e-6, 32768)
    | {"head_dim": 256, "query_pre_attn_scalar": 256, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6},
    "HuggingFaceTB/SmolLM2-135M": {"model_type": "llama", "tie_word_embeddings": True}
    | _sizes(576, 1536, 30, (9, 3), 49152)
    | _rope(1e5, 1e-5, 8192),
    "allenai/OLMo-2-0425-1B": {"model_type": "olmo2", "tie_word_embeddings": False}
    | _sizes(2048, 8192, 16, (16, 16), 100352)
    | _rope(5e5, 1e-6, 4096),
    "openai-community/gpt2": {"model_type": "gpt2", "tie_word_embeddings": True}
    | {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
}
"""Name on the Hugging Face hub -> values of its config.json; what is not named is transformers' default."""
