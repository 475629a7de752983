"""Opening checkpoint folders, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mpk_ir.core.errors import CheckpointError
from mpk_ir.frontend import ByteTokenizer, open_checkpoint, tokenizer, weight_shapes

NORM = "model.norm.weight"


def rewrite(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors of the folder's file, or drop those given as None."""
    file = folder / "model.safetensors"
    tensors = load_file(file) | {name: tensor for name, tensor in changes.items() if tensor is not None}
    save_file({name: tensor for name, tensor in tensors.items() if changes.get(name, tensor) is not None}, file)


def shard(folder: Path) -> dict[str, str]:
    """Split the folder's file in two, with an index; the weight map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    weight_map = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors_come_as_they_were_written(dtype: str, write_checkpoint: Any) -> None:
    folder = write_checkpoint(dtype=dtype)
    checkpoint = open_checkpoint(folder)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(checkpoint.tensor(name), tensor)
        np.testing.assert_array_equal(checkpoint.array(name), tensor.float().numpy())
    assert set(weight_shapes(checkpoint.config)) == set(checkpoint.entries)


def test_shards_are_one_checkpoint(write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    whole = load_file(folder / "model.safetensors")
    shard(folder)
    checkpoint = open_checkpoint(folder)
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in whole.items())


def test_an_untied_head_is_a_tensor_of_its_own(write_checkpoint: Any) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tie_word_embeddings=False))
    assert not torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))


def test_a_missing_tensor_is_named_with_what_was_expected(write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    rewrite(folder, {NORM: None})
    with pytest.raises(CheckpointError, match=rf"tensor '{NORM}' is missing, expected f32\[32\]"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("tensor", "found"), [(torch.zeros(31), r"f32\[31\]"), (torch.zeros(32, dtype=torch.bfloat16), r"bf16\[32\]")]
)
def test_a_tensor_of_another_shape_or_dtype_is_named(tensor: torch.Tensor, found: str, write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    rewrite(folder, {NORM: tensor})
    with pytest.raises(CheckpointError, match=rf"tensor '{NORM}': found {found}, expected f32\[32\]") as caught:
        open_checkpoint(folder)
    assert caught.value.where == str(folder / "model.safetensors")


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, -1])
def test_a_file_cut_short_is_refused(kept_bytes: int, write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=r"damaged|expected") as caught:
        open_checkpoint(folder)
    assert caught.value.where == str(file)


def test_a_file_of_something_else_is_refused(write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(CheckpointError, match="not a safetensors file, or damaged"):
        open_checkpoint(folder)


def test_an_index_that_contradicts_its_files_is_refused(write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    weight_map = shard(folder)
    weight_map[NORM] = next(file for file in weight_map.values() if file != weight_map[NORM])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=f"the index places tensor '{NORM}' here") as caught:
        open_checkpoint(folder)
    assert caught.value.where == str(folder / weight_map[NORM])


def test_a_missing_shard_is_named(write_checkpoint: Any) -> None:
    folder = write_checkpoint()
    lost = next(iter(shard(folder).values()))
    (folder / lost).unlink()
    with pytest.raises(CheckpointError, match=f"no {lost}"):
        open_checkpoint(folder)


def test_asking_for_an_unknown_tensor_suggests_a_known_one(write_checkpoint: Any) -> None:
    with pytest.raises(CheckpointError, match=f"did you mean '{NORM}'"):
        open_checkpoint(write_checkpoint()).tensor("model.norm.wieght")


def test_a_folder_without_tokenizer_has_none(tmp_path: Path) -> None:
    assert tokenizer(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    assert tokenizer(tmp_path) is None


def test_the_byte_tokenizer_is_there_for_folders_that_ask(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByteTokenizer"}')
    found = tokenizer(tmp_path)
    assert isinstance(found, ByteTokenizer)
    assert found.encode("né") == [110, 195, 169]
    assert found.decode([110, 195, 169, 256]) == "né"
    assert found.decode([110, 195]) == "n\N{REPLACEMENT CHARACTER}"


def test_tokenizer_json_is_read_by_the_tokenizers_library(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    library = Tokenizer(models.WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    found = tokenizer(tmp_path)
    assert found is not None
    assert found.encode("hello world") == [0, 1]
    assert found.decode([1, 0]) == "world hello"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        tokenizer(tmp_path)
