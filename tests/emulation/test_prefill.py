"""The program that takes prompts, on the host: keys and values as exact as torch's, and decoding goes on from them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mpk_ir.bench.accuracy import wrong_tokens
from mpk_ir.bench.prefill import PromptAccuracy, check_prompts
from mpk_ir.bench.reference import Decoder
from mpk_ir.bench.shapes import random_weights
from mpk_ir.compiler import compile_step
from mpk_ir.core.target import SIM
from mpk_ir.executable import Executable
from mpk_ir.frontend import ModelConfig, StepOptions
from mpk_ir.prefill import Prefill, compile_prefill
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.weight_pool import WeightPool
from tests.codegen.models import family_config

from .gpu import COMPILER, EmulatedGpu, device_of, executor, install

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which compiles the device code for the host")

RATIO_LIMIT = 1.2
"""Of the mean error of keys and values to that of torch in bf16, both against fp32."""


@pytest.fixture
def gpu(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    folder: Path = tmp_path_factory.getbasetemp() / "emulated"
    return install(monkeypatch, folder)


@cache
def config_of(family: str) -> ModelConfig:
    """A family's tiny model with whole blocks of columns."""
    return replace(family_config(family), hidden_size=256)


@cache
def weights_of(family: str) -> dict[str, torch.Tensor]:
    return random_weights(config_of(family), "cpu", seed=1)


@cache
def decoders_of(family: str) -> tuple[Decoder, Decoder]:
    rounded = Decoder(config_of(family), weights_of(family))
    return rounded.in_fp32(), rounded


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = np.random.default_rng(sum(lengths))
    return [generator.integers(0, 1000, length).tolist() for length in lengths]


def require_exact(found: PromptAccuracy) -> None:
    assert found.mean_torch_error > 0, "the yardstick is torch's own rounding"
    assert found.mean_error <= RATIO_LIMIT * found.mean_torch_error, found
    assert found.wrong == 0, found


@pytest.mark.parametrize(
    ("family", "rows", "lengths"),
    [
        ("qwen3", 72, (70, 33)),  # two requests in a block of rows, two steps
        ("qwen2", 136, (150, 60)),  # biases; a block of rows that is not full, and one of one prompt's end
        ("llama3", 256, (255,)),  # scaled rope; one step, one row free
        ("qwen3", 160, (100, 60)),  # two requests, whose last rows are chosen from in one step
        ("qwen3", 260, (300, 3)),  # a request that decodes while the other is still at its prompt
    ],
    ids=str,
)
def test_keys_and_values_are_as_exact_as_torchs(
    gpu: EmulatedGpu, family: str, rows: int, lengths: tuple[int, ...]
) -> None:
    options = StepOptions(batch=len(lengths), rows=rows, max_length=320, page_size=16)
    program = compile_prefill(config_of(family), SIM, options, rows)
    engine = executor(program, weights_of(family))
    found = check_prompts(program, engine, decoders_of(family), prompts_of(*lengths))
    require_exact(found)
    one_step = sum(lengths) <= rows
    assert one_step == (found.logits_error is not None)
    assert found.logits_error is None or found.logits_error <= RATIO_LIMIT * found.torch_logits_error, found


def test_decoding_goes_on_from_what_the_prefill_left(gpu: EmulatedGpu) -> None:
    """Two kernels, one set of weights, caches and requests."""
    options = StepOptions(batch=2, rows=8, max_length=128, page_size=16)
    program = compile_step(config_of("qwen3"), SIM, options).program
    prompts = compile_prefill(config_of("qwen3"), SIM, options, 128)
    pool, device = WeightPool(states=True), device_of(SIM.num_sms)
    engines = [GpuExecutor(one, weights_of("qwen3"), device, pool=pool) for one in (program, prompts)]
    subject = Executable(program, engines[0], prefill=Prefill(prompts, engines[1]))
    tokens = prompts_of(90, 20)
    found = subject.generate(tokens, 6)
    assert found.timings.steps == 1 + 5
    for prompt, new in zip(tokens, found.tokens, strict=True):
        assert len(new) == 6
        assert not wrong_tokens(prompt, new, decoders_of("qwen3"))


def test_turns_taken_at_random_give_the_same_bits(gpu: EmulatedGpu) -> None:
    options = StepOptions(batch=2, rows=128, max_length=128, page_size=16)
    program = compile_prefill(config_of("qwen3"), SIM, options, 128)
    found: set[bytes] = set()
    for seed in range(4):
        gpu.seed = seed
        subject = Executable(program, executor(program, weights_of("qwen3")))
        tokens = subject.generate(prompts_of(70, 20), 2).tokens
        found.add(repr(tokens).encode() + subject.engine.read_state("k_cache.1").tobytes())
    assert len(found) == 1
