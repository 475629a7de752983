"""The persistent kernel on a GPU: as exact as torch, the same bits every run, requests of different lengths."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mpk_ir.bench.accuracy import Accuracy, check
from mpk_ir.bench.reference import Decoder
from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.codegen.program import Program
from mpk_ir.compiler import compile_step
from mpk_ir.core.target import H200, SIM
from mpk_ir.executable import Executable
from mpk_ir.frontend import StepOptions
from mpk_ir.runtime.driver import find_device
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from mpk_ir.tasks import BUILTIN_KINDS
from tests.codegen.models import (
    EXPERT_KINDS,
    FAMILIES,
    GENERAL_KINDS,
    PROMPT_KINDS,
    RANK_KINDS,
    Limits,
    family_config,
    program_of,
)

pytestmark = pytest.mark.gpu

RATIO_LIMIT = 1.2
"""Of the kernel's mean error to that of torch in bf16, both against fp32."""
STEPS = 24
RUNS = 20
DENSE = [family for family in FAMILIES if family != "qwen3_moe"]
"""Which experts a row chooses jumps where rounding decides: no measure of exactness as for the others."""
PROMPTS = {1: [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]], 4: [[7], list(range(2, 21)), [11, 13, 17], [999, 500, 1, 1000, 8]]}


@pytest.fixture(autouse=True)
def gpu() -> None:
    if find_device() is None:
        pytest.skip("no NVIDIA GPU")


@cache
def weights_of(family: str) -> dict[str, torch.Tensor]:
    """Random bf16 weights with biases and norms off their trivial values."""
    return random_weights(family_config(family), "cpu", seed=1)


@cache
def executable(family: str, batch: int, fused: bool) -> Executable:
    program = program_of(family, batch, fused=fused)
    return Executable(program, GpuExecutor(program, weights_of(family)))


def accuracy(family: str, batch: int, fused: bool) -> Accuracy:
    config, weights = family_config(family), weights_of(family)
    decoders = Decoder(config, {name: tensor.float() for name, tensor in weights.items()}), Decoder(config, weights)
    return check(executable(family, batch, fused), decoders, PROMPTS[batch], STEPS)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("family", DENSE)
def test_logits_are_as_exact_as_torchs(family: str, batch: int, fused: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("logits are poisoned through torch, which is built without CUDA")
    found = accuracy(family, batch, fused)
    assert found.steps >= STEPS
    assert found.mean_torch_error > 0, "the yardstick is torch's own rounding"
    assert found.mean_error <= RATIO_LIMIT * found.mean_torch_error, found
    assert found.wrong == 0, found


@pytest.mark.parametrize("batch", [1, 16])
def test_rows_too_long_for_registers_are_as_exact(batch: int) -> None:
    """A layer as wide as Qwen3-8B's: its products take a row in pieces, and again in each pass over their tiles."""
    if not torch.cuda.is_available():
        pytest.skip("the oracle runs on the GPU")
    config = replace(shape_config("qwen3-8b"), num_layers=1, vocab_size=32768)
    weights = random_weights(config, "cuda", seed=1)
    options = StepOptions(batch=batch, rows=max(8, batch), max_length=128, page_size=64)
    program = compile_step(config, H200, options).program
    decoders = Decoder(config, {name: tensor.float() for name, tensor in weights.items()}), Decoder(config, weights)
    prompts = [[7 + request] * (5 + request) for request in range(batch)]
    found = check(Executable(program, GpuExecutor(program, weights), None), decoders, prompts, STEPS)
    assert found.mean_error <= RATIO_LIMIT * found.mean_torch_error, found
    assert found.wrong == 0, found


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_runs_give_identical_bits(family: str, batch: int, fused: bool) -> None:
    runs: list[tuple[bytes, list[list[int]]]] = []
    subject = executable(family, batch, fused)
    assert isinstance(subject.engine, GpuExecutor)
    for _ in range(RUNS):
        subject.engine.poison()
        tokens = subject.generate(PROMPTS[batch], STEPS).tokens
        caches = [subject.engine.read_state(f"{name}_cache.{layer}") for name in "kv" for layer in range(2)]
        state = b"".join(array.tobytes() for array in (subject.engine.read_state("logits"), *caches))
        runs.append((state, tokens))
    assert all(run == runs[0] for run in runs)


def test_one_launch_gives_what_a_launch_per_step_gives() -> None:
    subject = executable("qwen3", 4, True)
    at_once = subject.generate(PROMPTS[4], STEPS).tokens
    seen: list[list[int]] = [[] for _ in PROMPTS[4]]
    subject.steps_per_launch = 1
    stepwise = subject.generate(PROMPTS[4], STEPS, lambda request, token: seen[request].append(token)).tokens
    assert at_once == stepwise == seen


def test_a_request_does_not_depend_on_its_neighbours() -> None:
    prompts = [[7], [400], [11], [1000]]  # of one token: alone or together, each has one row a step
    together = executable("qwen3", 4, True).generate(prompts, STEPS).tokens
    for request, prompt in enumerate(prompts):
        assert executable("qwen3", 4, True).generate([prompt], STEPS).tokens[0] == together[request]


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_the_gpu_computes_what_the_simulator_computes(family: str) -> None:
    """The first step on both, from the same state; they round to bf16 in different places."""
    prompt = [[3, 1, 4, 1, 5]]
    simulated: Program = program_of(family, 1, target=SIM.name)
    simulator = Simulator(simulated, weights_of(family), SimulatorOptions(storage_rounding=True))
    found: list[np.ndarray[Any, Any]] = []
    for one in (executable(family, 1, True), Executable(simulated, simulator)):
        one.begin(prompt, 1)
        one.engine.run(1)
        found.append(one.engine.read_state("logits")[: len(prompt[0])])
    scale = np.abs(found[1]).max()
    assert scale > 0
    assert np.abs(found[0] - found[1]).max() < 0.05 * scale


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("limits", [(0.5, 0), (0.0, 3), (0.5, 18)])
@pytest.mark.parametrize("last_rows", [1, 6])
def test_capped_scores_and_windows_are_the_simulators(fused: bool, limits: Limits, last_rows: int) -> None:
    """A prompt of three whole steps and one of ``last_rows``: of one row, whose keys are streamed, or of several."""
    prompt = [list(range(2, 26 + last_rows))]
    found: list[np.ndarray[Any, Any]] = []
    for target, engine in (("h200", GpuExecutor), (SIM.name, Simulator)):
        program = program_of("qwen3", 1, fused=fused, target=target, limits=limits)
        one = Executable(program, engine(program, weights_of("qwen3")))
        one.begin(prompt, 1)
        one.engine.run(4)
        found.append(one.engine.read_state("logits")[:last_rows])
    scale = np.abs(found[1]).max()
    assert scale > 0
    assert np.abs(found[0] - found[1]).max() < 0.05 * scale


def test_fused_and_unfused_graphs_exercise_every_body_of_a_decoder() -> None:
    kinds = {grid.kind for fused in (True, False) for grid in executable("qwen3", 1, fused).program.grids}
    # an argmax behind a linear is part of it: tests/gpu/test_general_kinds.py runs one of its own
    others = {"join", "argmax"} | GENERAL_KINDS | RANK_KINDS | EXPERT_KINDS | PROMPT_KINDS
    assert kinds == {kind.name for kind in BUILTIN_KINDS} - others
