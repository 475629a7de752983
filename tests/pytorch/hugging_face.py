"""Tiny models of transformers' own classes, with random weights; nothing of them is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """``model`` and ``config`` classes of transformers, and what is special about the tiny config."""

    model: str
    config: str
    special: dict[str, Any] = field(default_factory=dict[str, Any])


GEMMA = {"tie_word_embeddings": False}
"""Tied, random weights would only repeat the last token."""
CAPS = {"attn_logit_softcapping": 0.7, "final_logit_softcapping": 2.0}
PATTERN = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig"),
    "qwen2.5": Family("Qwen2ForCausalLM", "Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config"),
    "mistral": Family("MistralForCausalLM", "MistralConfig", {"sliding_window": 6}),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", {"head_dim": 48}),
    "gemma2": Family("Gemma2ForCausalLM", "Gemma2Config", GEMMA | {"sliding_window": 6} | CAPS),
    "gemma3": Family(
        "Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA | {"sliding_window": 6, "num_hidden_layers": 3} | PATTERN
    ),
    "smollm": Family("SmolLM3ForCausalLM", "SmolLM3Config"),
    "olmo2": Family("Olmo2ForCausalLM", "Olmo2Config"),
    "ernie": Family("Ernie4_5ForCausalLM", "Ernie4_5Config"),
    "helium": Family("HeliumForCausalLM", "HeliumConfig"),
    "cohere": Family("CohereForCausalLM", "CohereConfig", {"tie_word_embeddings": False}),
    "phi": Family("PhiForCausalLM", "PhiConfig"),
    "glm4": Family("Glm4ForCausalLM", "Glm4Config"),
    "gpt2": Family("GPT2LMHeadModel", "GPT2Config", {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128}),
}


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model whose weights, norms and biases included, are random and exact in bf16. Buffers stay in float32, as where
    transformers loads a checkpoint."""
    family = FAMILIES[name]
    sizes = {key: SIZES[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")} if name == "gpt2" else SIZES
    torch.manual_seed(0)
    config = getattr(transformers, family.config)(**(sizes | family.special))
    model = getattr(transformers, family.model)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_((parameter + 0.1 * noise if parameter.dim() == 1 else 0.2 * noise).bfloat16())
            parameter.data = parameter.data.to(dtype)
    return model


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """The next ``count`` tokens by eager, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]
