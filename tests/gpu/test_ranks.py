"""Ranks as parts of one GPU: the same kernel and tables that GPUs of a host run, pointers to peers into one memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mpk_ir.bench.accuracy import wrong_tokens
from mpk_ir.bench.reference import Decoder
from mpk_ir.bench.shapes import random_weights
from mpk_ir.codegen.program import Program
from mpk_ir.compiler import compile_model
from mpk_ir.core.errors import KernelTimeoutError
from mpk_ir.core.ranks import Parallel
from mpk_ir.core.target import part_of, target_of
from mpk_ir.executable import Executable
from mpk_ir.frontend import StepOptions, open_checkpoint, weight_shapes
from mpk_ir.runtime.driver import find_device
from mpk_ir.runtime.executor import GpuExecutor, GpuOptions
from tests.codegen.ranked import RANKS, ranked_config, ranked_program

pytestmark = pytest.mark.gpu

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_qwen3" / "checkpoint"
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [7]]
NEW_TOKENS = 24
LAUNCHES = 500


@pytest.fixture(autouse=True)
def gpu() -> None:
    if find_device() is None:
        pytest.skip("no NVIDIA GPU")


@cache
def weights(kv_heads: int) -> dict[str, torch.Tensor]:
    return random_weights(ranked_config(kv_heads), "cpu", seed=1)


@cache
def executable(ranks: int, kv_heads: int = 2, strategy: str = "auto") -> Executable:
    program = ranked_program(ranks, "h200", kv_heads, strategy)
    return Executable(program, GpuExecutor(program, weights(kv_heads)))


def engine_of(subject: Executable) -> GpuExecutor:
    assert isinstance(subject.engine, GpuExecutor)
    return subject.engine


@cache
def first_logits(ranks: int, kv_heads: int, strategy: str) -> np.ndarray:
    """[tokens of the first prompt's first step, vocabulary]: the columns of all ranks side by side."""
    subject = executable(ranks, kv_heads, strategy)
    subject.begin(PROMPTS, NEW_TOKENS)
    subject.engine.run(1)
    parts = [engine_of(subject).read_state("logits", rank) for rank in range(ranks)]
    return np.concatenate(parts, axis=1)[:7]


@pytest.mark.parametrize("strategy", ["push", "two-shot", "off"])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("ranks", [n for n in RANKS if n > 1])
def test_ranks_compute_what_one_computes(ranks: int, kv_heads: int, strategy: str) -> None:
    expected, found = first_logits(1, kv_heads, "auto"), first_logits(ranks, kv_heads, strategy)
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(found - expected).max() < 0.05 * scale


@pytest.mark.parametrize("strategy", ["push", "two-shot", "off"])
@pytest.mark.parametrize("ranks", [n for n in RANKS if n > 1])
def test_all_ranks_agree_on_every_bit_of_every_launch(ranks: int, strategy: str) -> None:
    subject, engine = executable(ranks, 2, strategy), engine_of(executable(ranks, 2, strategy))
    runs: set[tuple[bytes, ...]] = set()
    for launch in range(LAUNCHES):
        if launch % 50 == 0:
            engine.poison()
        subject.begin(PROMPTS, NEW_TOKENS)
        engine.run(12)
        histories = [engine.read_state("history", rank).tobytes() for rank in range(ranks)]
        assert len(set(histories)) == 1, f"launch {launch}: ranks differ"
        logits = tuple(engine.read_state("logits", rank).tobytes() for rank in range(ranks))
        runs.add((histories[0], *logits))
    assert len(runs) == 1, f"{len(runs)} different results in {LAUNCHES} launches"


def test_the_example_model_chooses_the_best_tokens() -> None:
    """Ranks add in another order than one does: each token must be the best, but for what bf16 cannot tell apart."""
    checkpoint, options, prompt = open_checkpoint(EXAMPLE), StepOptions(1, 8, 64, 16), list(b"One day, ")
    tensors = {name: checkpoint.tensor(name).bfloat16() for name in weight_shapes(checkpoint.config)}
    rounded = Decoder(checkpoint.config, tensors)
    for ranks in RANKS:
        target = part_of(target_of("h200"), ranks)
        program = compile_model(EXAMPLE, target, options, parallel=Parallel(ranks)).program
        subject = Executable(program, GpuExecutor(program, checkpoint))
        tokens = subject.generate([prompt], 32).tokens[0]
        assert wrong_tokens(prompt, tokens, (rounded.in_fp32(), rounded)) == [], f"{ranks} ranks"


def test_a_rank_that_never_comes_is_named() -> None:
    """Rank 1 of 2 runs a table without its first pushes: the other ends in time, and the error says who waits."""
    program = ranked_program(2, "h200")
    engine = GpuExecutor(program, weights(2), options=GpuOptions(spin_limit_ns=50_000_000))
    table = engine.ranks[1].tables["tasks"]
    rows = table.read((len(program.tasks),), _task_dtype())
    rows["push_to"][rows["push_to"] != 0] = 0b10  # to itself alone
    table.write(rows)
    subject = Executable(program, engine)
    subject.begin(PROMPTS, 4)
    engine.run(1)
    with pytest.raises(KernelTimeoutError, match=r"on rank 0, SM .* gave up waiting for operand"):
        engine.synchronize()


def _task_dtype() -> np.dtype:
    from mpk_ir.codegen import abi

    return abi.TASK.dtype


def test_time_of_a_step_with_and_without_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    """No judgement: prints microseconds a step, ranks on parts of one GPU sharing its memory bandwidth."""
    for ranks in RANKS:
        for strategy in ("push", "two-shot", "off") if ranks > 1 else ("off",):
            subject, engine = executable(ranks, 2, strategy), engine_of(executable(ranks, 2, strategy))
            subject.begin([[7], [8]], 48)
            step_us = min(1e3 * engine.time_steps(8) / 8 for _ in range(5))
            with capsys.disabled():
                print(f"\n{ranks} ranks, {strategy}: {step_us:.1f} us a step")


def test_programs_are_for_parts_of_the_gpu() -> None:
    program: Program = ranked_program(4, "h200")
    assert program.ranks == 4
    assert program.launch.num_blocks == 33
