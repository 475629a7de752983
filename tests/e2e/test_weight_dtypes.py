"""Checkpoints in any of the usual dtypes run: the same text from bf16, fp16 and fp32 weights of equal value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mpk_ir

EXAMPLE = Path(__file__).parents[2] / "examples/tiny_qwen3/checkpoint"


def _copy_as(dtype: torch.dtype, name: str, folder: Path) -> None:
    for file in EXAMPLE.iterdir():
        shutil.copy(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    key = "dtype" if "dtype" in config else "torch_dtype"
    (folder / "config.json").write_text(json.dumps(config | {key: name}))
    weights = load_file(EXAMPLE / "model.safetensors")
    save_file({tensor: values.to(dtype) for tensor, values in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.float16, "float16")])
def test_other_dtypes_give_the_text_of_bf16(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    _copy_as(dtype, name, tmp_path)
    texts = [
        mpk_ir.compile(str(folder), target="sim", max_length=64).generate("The Zen of", max_new_tokens=12).text
        for folder in (EXAMPLE, tmp_path)
    ]
    assert texts[0] == texts[1]
