"""A tiny checkpoint folder per family, and a loop that serves requests with the interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mpk_ir.frontend import config_from, weight_shapes

TINY: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "dtype": "float32",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "eos_token_id": 7,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

WriteCheckpoint = Callable[..., Path]


@pytest.fixture
def tiny() -> dict[str, Any]:
    return dict(TINY)


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """A function that writes a folder with random weights for a config (`TINY` with changes)."""

    def write(**changes: Any) -> Path:
        values = TINY | changes
        (tmp_path / "config.json").write_text(json.dumps(values))
        generator = torch.Generator().manual_seed(0)
        shapes = weight_shapes(config_from(values, "test"))
        tensors = {n: torch.randn(s, generator=generator).to(DTYPES[values["dtype"]]) for n, s in shapes.items()}
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return write


@pytest.fixture
def serve() -> Callable[..., tuple[np.ndarray[Any, Any], list[dict[int, np.ndarray[Any, Any]]]]]:
    """Serve prompts to their stop lengths: (history, per request: position -> logits)."""
    from mpk_ir.core.requests import RequestColumn, RowColumn, assign_rows
    from mpk_ir.interpreter import initial_state, run_step

    def run(module: Any, params: Any, prompts: list[list[int]], new_tokens: int) -> Any:
        state = initial_state(module)
        pages = state["page_table"]
        # Pages in reverse order: nothing may rely on position p being at row p of the cache.
        pages[:] = np.arange(pages.size)[::-1].reshape(pages.shape)
        for request, prompt in enumerate(prompts):
            state["history"][request, : len(prompt)] = prompt
            length = len(prompt)
            state["requests"][request] = (0, 0, 0, length, length, length + new_tokens)
        assign_rows(*(state[name] for name in ("history", "requests", "rows", "row_count")))
        logits: list[dict[int, np.ndarray[Any, Any]]] = [{} for _ in prompts]
        while state["row_count"][0]:
            rows = state["rows"][: state["row_count"][0]].copy()
            run_step(module, params, state)
            for row, values in zip(rows, state["logits"], strict=False):
                logits[row[RowColumn.REQUEST]][int(row[RowColumn.POSITION])] = values.copy()
        lengths = state["requests"][:, RequestColumn.KNOWN]
        return [state["history"][request, :length] for request, length in enumerate(lengths)], logits

    return run
