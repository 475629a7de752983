"""Random decoder steps, with weights and a state to run them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from mpk_ir.core.requests import RequestColumn, assign_rows
from mpk_ir.frontend import ModelConfig, StepOptions, build_step, config_from, weight_shapes
from mpk_ir.interpreter import initial_state, run_step

Arrays = dict[str, np.ndarray[Any, Any]]
FAMILIES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


LEAST_VOCABULARY = 40
"""Tokens of random histories are below it."""


@dataclass(frozen=True)
class Plan:
    """A model and a step, small."""

    family: str = "Qwen3ForCausalLM"
    layers: int = 1
    kv_heads: int = 2
    group: int = 2
    head_dim: int = 8
    inner: int = 16
    hidden: int = 24
    vocabulary: int = LEAST_VOCABULARY
    biases: bool = False
    tied: bool = True
    batch: int = 2
    rows: int = 5
    dtype: str = "float32"
    last_rows: bool = False

    def config(self) -> ModelConfig:
        values: dict[str, Any] = {
            "architectures": [self.family],
            "dtype": self.dtype,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.kv_heads * self.group,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": 64,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.biases,
            "mlp_bias": self.biases,
        }
        return config_from(values, "test")

    def build(self) -> ModuleOp:
        options = StepOptions(self.batch, self.rows, max_length=16, page_size=4, last_rows=self.last_rows)
        return build_step(self.config(), options)


plans = st.builds(
    Plan,
    family=st.sampled_from(FAMILIES),
    layers=st.integers(1, 2),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_dim=st.sampled_from([2, 6, 8]),
    # 12 columns of gate do not divide into blocks of 8: the epilogue must be refused.
    inner=st.sampled_from([12, 16, 24]),
    biases=st.booleans(),
    tied=st.booleans(),
    batch=st.integers(1, 3),
    rows=st.integers(1, 6),
)


def random_weights(config: ModelConfig, seed: int = 0) -> Arrays:
    generator = np.random.default_rng(seed)
    return {n: generator.normal(0, 0.5, s).astype(np.float32) for n, s in weight_shapes(config).items()}


def random_state(module: ModuleOp, seed: int = 0) -> Arrays:
    """Requests with prompts of different lengths, pages shuffled, caches full of noise."""
    generator = np.random.default_rng(seed)
    state = initial_state(module)
    for name, array in state.items():
        if "cache" in name:
            array[:] = generator.normal(size=array.shape)
    pages = state["page_table"]
    pages[:] = generator.permutation(pages.size).reshape(pages.shape)
    state["history"][:] = generator.integers(0, LEAST_VOCABULARY, state["history"].shape)
    for request, row in enumerate(state["requests"]):
        row[[RequestColumn.PROMPT_LENGTH, RequestColumn.KNOWN]] = 3 + 2 * request
        row[RequestColumn.STOP_LENGTH] = 6 + 2 * request
    assign_rows(*(state[name] for name in ("history", "requests", "rows", "row_count")))
    return state


def run_steps(module: ModuleOp, weights: Arrays, steps: int) -> list[Arrays]:
    """The state after each step; logits of inactive rows, which are unspecified, as zeros."""
    state, seen = random_state(module), list[Arrays]()
    for _ in range(steps):
        active = int(state["row_count"][0])
        run_step(module, weights, state)
        state["logits"][active:] = 0
        seen.append({name: array.copy() for name, array in state.items()})
    return seen


def transformed(module: ModuleOp, *passes: ModulePass) -> ModuleOp:
    """A verified copy of ``module`` after ``passes``."""
    module = module.clone()
    for each in passes:
        each.apply(Context(), module)
        module.verify()
    return module


def assert_same_runs(before: list[Arrays], after: list[Arrays]) -> None:
    for step, (one, other) in enumerate(zip(before, after, strict=True)):
        for name, array in one.items():
            np.testing.assert_allclose(other[name], array, rtol=2e-4, atol=2e-4, err_msg=f"step {step}: {name}")
