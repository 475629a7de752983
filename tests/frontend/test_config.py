"""What a config.json says, in every dialect of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpk_ir.core.dtype import BF16, F32
from mpk_ir.core.errors import CheckpointError, UnsupportedError, UsageError
from mpk_ir.frontend import LinearScaling, Rope, StepOptions, build_step, config_from, load_config

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(values: dict[str, Any], **changes: Any) -> Any:
    return config_from(values | changes, "config.json")


def test_a_path_may_be_the_folder_or_the_file(tmp_path: Path, tiny: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny))
    assert load_config(tmp_path) == load_config(tmp_path / "config.json")
    assert load_config(tmp_path).eos_tokens == (7,)


def test_generation_config_decides_the_end_tokens(tmp_path: Path, tiny: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    assert load_config(tmp_path).eos_tokens == (3, 5)


def test_old_and_new_spellings_mean_the_same(tiny: dict[str, Any]) -> None:
    old = read(tiny, torch_dtype="bfloat16", dtype=None, rope_theta=5e5, rope_scaling=LLAMA3)
    new = read(tiny, dtype="bfloat16", rope_parameters=LLAMA3 | {"rope_theta": 5e5})
    assert old == new
    assert (old.dtype, old.rope.theta) == (BF16, 5e5)
    assert read(tiny, rope_scaling={"type": "linear", "factor": 2.0}).rope == Rope(1e4, LinearScaling(2.0))


def test_defaults_are_those_of_the_family(tiny: dict[str, Any]) -> None:
    bare = {key: value for key, value in tiny.items() if key not in ("head_dim", "num_key_value_heads", "dtype")}
    llama = read(bare, architectures=["LlamaForCausalLM"])
    assert (llama.head_dim, llama.num_kv_heads, llama.dtype) == (8, 4, F32)
    assert read(bare).head_dim == 128
    assert read(bare, architectures=None, model_type="qwen2").qkv_bias
    assert not read(tiny, architectures=["Qwen2ForCausalLM"], attention_bias=True).output_bias


REFUSED: dict[str, dict[str, Any]] = {
    "architectures": {"architectures": ["MixtralForCausalLM"]},
    "quantization_config": {"quantization_config": {"quant_method": "fp8"}},
    "use_sliding_window": {"use_sliding_window": True},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention"]},
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "hidden_act": {"hidden_act": "gelu"},
    "num_experts": {"num_experts": 8},
    "rope_type": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "dtype": {"dtype": "float64"},
}


@pytest.mark.parametrize("option", REFUSED)
def test_unsupported_options_are_named(option: str, tiny: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=option) as caught:
        read(tiny, **REFUSED[option])
    assert caught.value.where == "config.json"


DAMAGED: dict[str, dict[str, Any]] = {
    "num_attention_heads: found 3, expected a multiple of 2": {"num_attention_heads": 3},
    "hidden_size: found -4, expected a positive integer": {"hidden_size": -4},
    "vocab_size: found 'many', expected a positive integer": {"vocab_size": "many"},
    "head_dim: found 15, expected an even number": {"head_dim": 15},
    "rope factor: found None": {"rope_scaling": {"rope_type": "linear"}},
    "high_freq_factor: found 1.0, expected more than": {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}},
}


@pytest.mark.parametrize("message", DAMAGED)
def test_values_that_make_no_sense_are_named(message: str, tiny: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tiny, **DAMAGED[message])


def test_a_missing_key_is_named(tiny: dict[str, Any]) -> None:
    del tiny["num_hidden_layers"]
    with pytest.raises(CheckpointError, match="key 'num_hidden_layers' is missing"):
        read(tiny)


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[1]", "found a JSON list")])
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)


def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones(tiny: dict[str, Any]) -> None:
    plain = Rope(5e5).inv_freq(128)
    scaled = read(tiny, rope_theta=5e5, rope_scaling=LLAMA3).rope.inv_freq(128)
    ratio = plain / scaled
    assert ratio[0] == 1.0
    np.testing.assert_allclose(ratio[-1], 32.0, rtol=1e-6)
    assert (np.diff(ratio) >= -1e-5).all()


def test_options_beyond_the_model_are_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="max_length: found 4096, expected at most 128, the model's"):
        build_step(read(tiny), StepOptions(max_length=4096))
    with pytest.raises(UsageError, match="rows: found 0, expected 1 or more"):
        StepOptions(rows=0)
