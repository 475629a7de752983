"""The imported graph, run by the interpreter, gives the logits that transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpk_ir.frontend import StepOptions, build_step, open_checkpoint, weight_shapes

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3, scaled rope": ("Llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, linear rope, wide heads": ("Llama", {"rope_parameters": LINEAR_ROPE, "head_dim": 24}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("Qwen3", {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3 with experts": (
        "Qwen3Moe",
        {
            "head_dim": 16,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "qwen3, tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True, "num_key_value_heads": 6}),
}


def random_model(family: str, options: dict[str, Any]) -> Any:
    """A model with random weights, biases and norms included (transformers starts those at 0 and 1)."""
    config = getattr(transformers, f"{family}Config")(**(SIZES | options))
    torch.manual_seed(1)
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * spread if "norm" in name else 0.15 * spread)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_position_of_prefill_and_decode_has_the_reference_logits(name: str, tmp_path: Path, serve: Any) -> None:
    model = random_model(*MODELS[name])
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    module = build_step(checkpoint.config, StepOptions(batch=2, rows=6, max_length=32, page_size=8))
    module.verify()
    params = {name: checkpoint.array(name) for name in weight_shapes(checkpoint.config)}
    prompts = [[5, 1, 88], [7, 2, 9, 40, 61, 3, 3, 12, 9, 77, 20]]
    histories, logits = serve(module, params, prompts, new_tokens=6)
    for history, found, prompt in zip(histories, logits, prompts, strict=True):
        assert len(history) == len(prompt) + 6
        with torch.no_grad():
            expected = model(torch.tensor(history[None, :-1].astype(np.int64))).logits[0].numpy()
        np.testing.assert_allclose(np.stack([found[p] for p in range(len(expected))]), expected, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(history[len(prompt) :], expected[len(prompt) - 1 :].argmax(axis=1))
