"""Well-known models by shape; their weights are drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError, did_you_mean
from ..frontend import ModelConfig, config_from, load_config, open_checkpoint, weight_shapes

if TYPE_CHECKING:
    import torch

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}
_EXPERTS: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "norm_topk_prob": True,
}
_LLAMA3: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def _sizes(hidden: int, inner: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _QWEN3
    | _sizes(192, 384, 2, 4, tied=True)
    | {"head_dim": 32, "num_key_value_heads": 2, "vocab_size": 1001, "max_position_embeddings": 4096},
    "qwen3-0.6b": _QWEN3 | _sizes(1024, 3072, 28, 16, tied=True),
    "qwen3-1.7b": _QWEN3 | _sizes(2048, 6144, 28, 16, tied=True),
    "qwen3-8b": _QWEN3 | _sizes(4096, 12288, 36, 32, tied=False),
    "qwen3-32b": _QWEN3 | _sizes(5120, 25600, 64, 64, tied=False),
    "qwen3-30b-a3b": _QWEN3
    | _sizes(2048, 6144, 48, 32, tied=False)
    | _EXPERTS
    | {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "num_key_value_heads": 4},
    "tiny-experts": _QWEN3
    | _sizes(64, 128, 2, 4, tied=True)
    | _EXPERTS
    | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    | {"head_dim": 32, "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 4096},
    "llama-3.2-1b": _LLAMA3 | _sizes(2048, 8192, 16, 32, tied=True) | {"head_dim": 64, "num_key_value_heads": 8},
}
"""Name -> config.json values, as published. Our own are "tiny" and "tiny-experts", for tests."""


def shape_config(name: str) -> ModelConfig:
    """The config of the model shape called ``name``, or of the checkpoint folder. Raises UsageError for any other."""
    if Path(name).is_dir():
        return load_config(Path(name))
    if name not in SHAPES:
        raise UsageError(f"unknown model shape '{name}'", advice=did_you_mean(name, SHAPES))
    return config_from(SHAPES[name], where=name)


def weights_of(name: str, config: ModelConfig, device: str) -> dict[str, torch.Tensor]:
    """bf16 weights by checkpoint name: those of the checkpoint folder ``name``, of a shape random ones."""
    if not Path(name).is_dir():
        return random_weights(config, device)
    checkpoint = open_checkpoint(Path(name))
    return {one: checkpoint.tensor(one).bfloat16().to(device) for one in weight_shapes(config)}


def random_weights(config: ModelConfig, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """bf16 weights by checkpoint name: matrices scaled to keep the size of activations, norms around one."""
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, shape in weight_shapes(config).items():
        values = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        scaled = 1.0 + 0.1 * values if len(shape) == 1 else values * shape[-1] ** -0.5
        weights[name] = scaled.to(torch.bfloat16)
    return weights
