"""The device code, run on the host: as exact as torch in bf16, whatever turns threads and copies take."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from mpk_ir.bench.accuracy import Accuracy, check
from mpk_ir.bench.exported import agreement
from mpk_ir.bench.reference import Decoder
from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.codegen.program import Program
from mpk_ir.compiler import compile_step, step_module
from mpk_ir.core.errors import RankError
from mpk_ir.core.ranks import ALONE, Parallel
from mpk_ir.core.target import SIM, TARGETS, Target
from mpk_ir.edits import compile_edited
from mpk_ir.executable import Executable
from mpk_ir.frontend import ModelConfig, StepOptions
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.decoder import compile_decoder
from mpk_ir.runtime.executor import GpuExecutor
from tests.codegen.models import family_config
from tests.gpu.test_general_kinds import CASES
from tests.pytorch.hugging_face import tiny
from tests.pytorch.test_module import Mixer

from .gpu import COMPILER, EmulatedGpu, device_of, executor, install

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which compiles the device code for the host")

RATIO_LIMIT = 1.2
"""Of the kernel's mean error to that of torch in bf16, both against fp32."""
LONG = ((1, 4096, 320), (16, 2048, 320), (16, 4608, 320), (1, 64, 8192), (16, 64, 5120))
"""(batch, columns of x, of the products behind): rows that fill a lane's registers, and longer ones, of products of one
pass and of several, with a norm or a residual."""


@pytest.fixture
def gpu(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    folder: Path = tmp_path_factory.getbasetemp() / "emulated"
    return install(monkeypatch, folder)


@cache
def weights_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    return random_weights(config, "cpu", seed=1)


def program_of(
    config: ModelConfig, batch: int, parallel: Parallel = ALONE, target: Target = SIM, rows: int = 8
) -> Program:
    options = StepOptions(batch=batch, rows=max(rows, batch), max_length=128, page_size=16)
    return compile_step(config, target, options, parallel=parallel).program


def accuracy(
    config: ModelConfig, batch: int, steps: int, parallel: Parallel = ALONE, target: Target = SIM, rows: int = 8
) -> Accuracy:
    weights, program = weights_of(config), program_of(config, batch, parallel, target, rows)
    decoders = Decoder(config, {name: tensor.float() for name, tensor in weights.items()}), Decoder(config, weights)
    prompts = [[7 + request] * (1 + request % 5) for request in range(batch)]
    return check(Executable(program, executor(program, weights), None), decoders, prompts, steps)


def require_exact(found: Accuracy) -> None:
    assert found.mean_torch_error > 0, "the yardstick is torch's own rounding"
    assert found.mean_error <= RATIO_LIMIT * found.mean_torch_error, found
    assert found.wrong == 0, found


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama3"])
def test_logits_are_as_exact_as_torchs(gpu: EmulatedGpu, family: str) -> None:
    require_exact(accuracy(family_config(family), 4, 8))


def test_more_requests_than_a_warp_has_lanes_get_their_rows(gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 rows for 35 prompts of 1 to 5 tokens: the first prompts get the five rows left, those of later lanes none."""
    target = replace(SIM, num_sms=8)
    monkeypatch.setitem(TARGETS, SIM.name, target)
    config = replace(family_config("llama3"), num_layers=1)
    require_exact(accuracy(config, 35, 3, target=target, rows=40))


@pytest.mark.parametrize(("batch", "columns", "inner"), LONG)
def test_rows_too_long_for_registers_are_as_exact(gpu: EmulatedGpu, batch: int, columns: int, inner: int) -> None:
    """Their products take a row in pieces, and again in each pass over their tiles: its squares count once."""
    config = replace(shape_config("tiny"), hidden_size=columns, intermediate_size=inner, num_layers=1)
    require_exact(accuracy(config, batch, 2))


@pytest.mark.parametrize("batch", [1, 3])
def test_splits_are_merged_row_by_row(gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """With SMs enough that every head's positions are split; prompts of several rows, then a row a request."""
    wide = replace(SIM, num_sms=12)
    monkeypatch.setitem(TARGETS, SIM.name, wide)
    merges = {one.extent for one in program_of(RANKED, batch, target=wide).grids if one.kind == "attention_merge"}
    assert merges == {(RANKED.num_heads, 1 if batch == 1 else 8)}
    require_exact(accuracy(RANKED, batch, 6, target=wide))


RANKED = replace(family_config("qwen3"), vocab_size=1000)
"""In equal parts."""


@pytest.mark.parametrize("parallel", [ALONE, Parallel(2, "push")], ids=["alone", "ranks"])
def test_lookups_that_sms_share_are_as_exact(gpu: EmulatedGpu, parallel: Parallel) -> None:
    """Each has half the columns of 8 rows, a vector a thread."""
    config = replace(RANKED, hidden_size=512, num_layers=1)
    grids = program_of(config, 3, parallel).grids
    assert {one.extent for one in grids if one.kind in ("embedding", "shard_embedding")} == {(1, 2)}
    require_exact(accuracy(config, 3, 4, parallel))


@pytest.mark.parametrize("strategy", ["push", "two-shot", "multicast", "off"])
def test_ranks_in_one_launch_are_as_exact(gpu: EmulatedGpu, strategy: str) -> None:
    require_exact(accuracy(RANKED, 1, 4, Parallel(2, strategy)))


def test_all_ranks_get_the_same_bits_by_every_strategy(gpu: EmulatedGpu) -> None:
    """Sums are made in the order of ranks, whoever carries what is added; in any turn of threads and copies."""
    found: set[bytes] = set()
    for seed, strategy in enumerate(("push", "multicast", "multicast", "off")):
        gpu.seed = seed
        program = program_of(RANKED, 1, Parallel(2, strategy))
        subject = Executable(program, executor(program, weights_of(RANKED)), None)
        subject.generate([[3, 1, 4]], 6)
        assert isinstance(subject.engine, GpuExecutor)
        histories = [subject.engine.read_state("history", rank).tobytes() for rank in range(2)]
        assert histories[0] == histories[1]
        logits = [subject.engine.read_state("logits", rank).tobytes() for rank in range(2)]
        found.add(histories[0] + b"".join(logits))
    assert len(found) == 1


def test_a_device_without_multicast_is_an_error_that_says_what_to_do(gpu: EmulatedGpu) -> None:
    program = program_of(RANKED, 1, Parallel(2, "multicast"))
    with pytest.raises(RankError, match=r"rank 0 has no multicast memory: it needs GPUs .*\n.*--overlap push"):
        GpuExecutor(program, weights_of(RANKED), device_of(2 * SIM.num_sms))


def test_rows_that_fill_no_block_stay_their_own(gpu: EmulatedGpu) -> None:
    """24 rows in blocks of 16, of which the last wrote 8 rows of its neighbours in memory."""
    model, x = Mixer().eval().bfloat16(), torch.randn(4, 6, 16, dtype=torch.bfloat16)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = Mixer().eval()(x.float())
        for want, got in zip(expected, torch.compile(model, backend=mpk)(x), strict=True):
            torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)
    torch._dynamo.reset()
    gc.collect()  # regions free their memory while the fake is there


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_general_kinds_compute_what_eager_computes(gpu: EmulatedGpu, dtype: torch.dtype) -> None:
    """All of them in one graph."""

    def everything(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x) for _, function in CASES.values())

    x = torch.randn(6, 5, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    torch._dynamo.reset()
    with torch.no_grad():
        for name, want, got in zip(CASES, everything(x), torch.compile(everything, backend=mpk)(x), strict=True):
            torch.testing.assert_close(
                got, want, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
            )
    torch._dynamo.reset()
    gc.collect()


@pytest.mark.parametrize("family", ["gpt2", "glm4", "phi3", "olmo2", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_a_transformers_model_generates_what_eager_generates(gpu: EmulatedGpu, family: str) -> None:
    """GPT-2 looks up positions, a column of the rows of a step: a body must not take it for a whole buffer. GLM 4 turns
    neighbours of half a head. Phi 3 has heads of 48: three quarters of a tensor-core product. OLMo 2 norms before it
    adds."""
    model = tiny(family, torch.bfloat16)
    subject = compile_decoder(model, SIM, StepOptions(2, 8, 48, 16), device_of(SIM.num_sms))
    prompts = [[3, 7, 5, 9, 11, 4, 6, 8, 90, 12], [8, 4]]
    found = agreement(model, prompts, subject.generate(prompts, 20).tokens)
    assert found.wrong == 0
    assert found.as_fp32 >= 0.9 * found.tokens


@pytest.mark.parametrize(
    ("parallel", "splits", "kinds"),
    [
        (ALONE, 2, {"embedding", "attention_merge", "linear"}),
        (Parallel(2, "push"), 1, {"attention", "linear", "rank_sum"}),
    ],
    ids=["alone", "ranks"],
)
def test_rows_in_panels_give_the_same_bits(gpu: EmulatedGpu, parallel: Parallel, splits: int, kinds: set[str]) -> None:
    """8 rows for 3 requests: prompts of several rows, then a row a request, which leaves panels half empty."""
    module = step_module(RANKED, StepOptions(batch=3, rows=8, max_length=128, page_size=16))
    found: set[bytes] = set()
    for rows in (1, 2, 4, 8):
        edit = "no sm-panel-rows" if rows == 1 else f"sm-panel-rows{{rows={rows}}}"
        edits = [f'tile{{decide="splits={splits}"}}', edit]
        program = compile_edited(module.clone(), SIM, edits, parallel).program
        assert in_panels(program, rows) >= (kinds if rows > 1 else set())
        subject = Executable(program, executor(program, weights_of(RANKED)), None)
        tokens = subject.generate([[7 + request] * (1 + request) for request in range(3)], 4).tokens
        found.add(repr(tokens).encode() + subject.engine.read_state("logits").tobytes())
    assert len(found) == 1


def in_panels(program: Program, rows: int) -> set[str]:
    """Kinds of which a grid touches a buffer in panels of ``rows``; no buffer lies in others."""
    assert {buffer.layout.panel_rows for buffer in program.buffers} <= {1, rows}
    touched = ((grid.kind, program.buffers[operand.buffer]) for grid in program.grids for operand in grid.operands)
    return {kind for kind, buffer in touched if rows > 1 and buffer.layout.panel_rows == rows}


def test_turns_taken_at_random_give_the_same_bits(gpu: EmulatedGpu) -> None:
    config = family_config("qwen3")
    program = program_of(config, 2)
    found: set[bytes] = set()
    for seed in range(5):
        gpu.seed = seed
        subject = Executable(program, executor(program, weights_of(config)), None)
        tokens = subject.generate([[3, 1, 4], [5]], 6).tokens
        found.add(repr(tokens).encode() + subject.engine.read_state("logits").tobytes())
    assert len(found) == 1
