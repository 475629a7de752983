"""A model's config.json, read into facts and checked for what we do not support."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.dtype import BF16, F16, F32, DType
from ..core.errors import CheckpointError, UnsupportedError
from .rope import Rope, rope_from

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Family:
    """What a family of models fixes that its config does not say.

    ``qkv_bias``: q, k and v always have a bias. ``biases_by_config``: `attention_bias` gives q, k, v and o one,
    `mlp_bias` the others.
    """

    model_type: str
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: bool = False
    biases_by_config: bool = True
    default_head_dim: int | None = None


FAMILIES = {
    "LlamaForCausalLM": Family("llama"),
    "Qwen2ForCausalLM": Family("qwen2", qkv_bias=True, biases_by_config=False),
    "Qwen3ForCausalLM": Family("qwen3", qk_norm=True, default_head_dim=128),
    "Qwen3MoeForCausalLM": Family("qwen3_moe", qk_norm=True, experts=True, default_head_dim=128),
}

_DTYPES = {"bfloat16": BF16, "float16": F16, "float32": F32}


@dataclass(frozen=True)
class Experts:
    """``count`` experts of ``size`` inner columns each, of which a row uses ``used``."""

    count: int
    used: int
    size: int


@dataclass(frozen=True)
class ModelConfig:
    """The dimensions and options of a decoder. ``eos_tokens`` end a generation. ``experts``: of the MLP of each layer;
    None if it is dense."""

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: Rope
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: DType
    max_positions: int
    eos_tokens: tuple[int, ...]
    experts: Experts | None = None

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim


def load_config(path: str | Path) -> ModelConfig:
    """Read a checkpoint folder's config.json (``path`` is either).

    Raises CheckpointError if it is missing, damaged or lacks a key; UnsupportedError if it asks for what we lack.
    """
    if not Path(path).exists():
        raise CheckpointError(
            "no such checkpoint", where=str(path), advice="give a Hugging Face checkpoint folder or a config.json"
        )
    file = Path(path) / CONFIG_FILE if Path(path).is_dir() else Path(path)
    values = read_json(file)
    generation = file.parent / "generation_config.json"
    eos = (read_json(generation) if generation.is_file() else {}).get("eos_token_id", values.get("eos_token_id"))
    return config_from(values, where=str(file), eos_tokens=_token_ids(eos))


def config_from(values: Mapping[str, Any], where: str, eos_tokens: tuple[int, ...] = ()) -> ModelConfig:
    """The config whose keys and values are those of a config.json; ``where`` is its name in errors."""
    name, family = _family(values, where)
    _reject_unsupported(values, family, where)
    hidden, heads = _integer(values, "hidden_size", where), _integer(values, "num_attention_heads", where)
    kv_heads = _integer(values, "num_key_value_heads", where, default=heads)
    if heads % kv_heads:
        raise CheckpointError(f"num_attention_heads: found {heads}, expected a multiple of {kv_heads}", where=where)
    by_config = family.biases_by_config and bool(values.get("attention_bias", False))
    return ModelConfig(
        family=name,
        vocab_size=_integer(values, "vocab_size", where),
        hidden_size=hidden,
        intermediate_size=_integer(values, "intermediate_size", where),
        num_layers=_integer(values, "num_hidden_layers", where),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(values, family, hidden // heads, where),
        norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        rope=rope_from(values, where),
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        qkv_bias=family.qkv_bias or by_config,
        output_bias=by_config,
        mlp_bias=family.biases_by_config and bool(values.get("mlp_bias", False)),
        qk_norm=family.qk_norm,
        dtype=_dtype(values, where),
        max_positions=_integer(values, "max_position_embeddings", where, default=2048),
        eos_tokens=eos_tokens,
        experts=_experts(values, where) if family.experts else None,
    )


def _experts(values: Mapping[str, Any], where: str) -> Experts:
    refused = {
        "norm_topk_prob": not values.get("norm_topk_prob", False),
        "decoder_sparse_step": values.get("decoder_sparse_step", 1) != 1,
        "mlp_only_layers": bool(values.get("mlp_only_layers")),
    }
    for option, found in refused.items():
        if found:
            raise UnsupportedError(f"option {option} = {values.get(option)!r} is not supported", where=where)
    count = "num_experts" if "num_experts" in values else "num_local_experts"  # the latter by transformers 5
    sizes = (count, "num_experts_per_tok", "moe_intermediate_size")
    return Experts(*(_integer(values, key, where) for key in sizes))


def read_json(file: Path) -> dict[str, Any]:
    """The object in ``file``. Raises CheckpointError if it is missing or no JSON object."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {file.name}", where=str(file.parent), advice="give a Hugging Face checkpoint folder"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read as JSON: {error}", where=str(file)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"found a JSON {type(values).__name__}, expected an object", where=str(file))
    return values


def _family(values: Mapping[str, Any], where: str) -> tuple[str, Family]:
    listed = values.get("architectures")
    if listed is None:
        model_type = values.get("model_type")
        listed = [name for name, family in FAMILIES.items() if family.model_type == model_type] or [str(model_type)]
    if not isinstance(listed, list) or not listed or listed[0] not in FAMILIES:
        raise UnsupportedError(
            f"architectures: found {listed}, expected one of {', '.join(FAMILIES)}",
            where=where,
            advice="dense Llama 3, Qwen2, Qwen2.5 and Qwen3 checkpoints are supported, and Qwen3 with experts",
        )
    return listed[0], FAMILIES[listed[0]]


def _reject_unsupported(values: Mapping[str, Any], family: Family, where: str) -> None:
    """Raises UnsupportedError naming the first option we cannot honour."""
    layer_types = set(values.get("layer_types") or ["full_attention"])
    refused = {
        "quantization_config": values.get("quantization_config") is not None,
        "use_sliding_window": bool(values.get("use_sliding_window", False)),
        "layer_types": layer_types != {"full_attention"},
        "partial_rotary_factor": values.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0),
        "hidden_act": values.get("hidden_act", "silu") != "silu",
        "num_experts": not family.experts and bool(values.get("num_experts") or values.get("num_local_experts")),
    }
    for option, found in refused.items():
        if found:
            raise UnsupportedError(f"option {option} = {values.get(option)!r} is not supported", where=where)


def _head_dim(values: Mapping[str, Any], family: Family, even_share: int, where: str) -> int:
    default = family.default_head_dim or even_share
    size = default if values.get("head_dim") is None else _integer(values, "head_dim", where)
    if size % 2:
        raise CheckpointError(f"head_dim: found {size}, expected an even number", where=where)
    return size


def _integer(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    found = values.get(key, default)
    if found is None and key not in values:
        raise CheckpointError(f"key '{key}' is missing", where=where)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise CheckpointError(f"{key}: found {found!r}, expected a positive integer", where=where)
    return found


def _dtype(values: Mapping[str, Any], where: str) -> DType:
    # transformers 5 writes `dtype`, older versions `torch_dtype`; without either a model is in f32.
    name = values.get("dtype") or values.get("torch_dtype") or "float32"
    if name not in _DTYPES:
        raise UnsupportedError(f"dtype: found {name!r}, expected one of {', '.join(_DTYPES)}", where=where)
    return _DTYPES[name]


def _token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
