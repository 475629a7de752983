"""The program that takes prompts, on a GPU: tests/emulation/test_prefill.py at the kernel's own speed and order."""

from __future__ import annotations

import pytest

from mpk_ir.bench.accuracy import wrong_tokens
from mpk_ir.bench.prefill import check_prompts
from mpk_ir.compiler import compile_step
from mpk_ir.core.target import H200
from mpk_ir.executable import Executable
from mpk_ir.frontend import StepOptions
from mpk_ir.prefill import Prefill, compile_prefill
from mpk_ir.runtime.driver import find_device
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.weight_pool import WeightPool
from tests.emulation.test_prefill import config_of, decoders_of, prompts_of, require_exact, weights_of

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> None:
    if find_device() is None:
        pytest.skip("no NVIDIA GPU")


@pytest.mark.parametrize(
    ("family", "rows", "lengths"),
    [("qwen3", 256, (255,)), ("qwen2", 136, (150, 60)), ("llama3", 160, (100, 60))],
    ids=str,
)
def test_keys_and_values_are_as_exact_as_torchs(family: str, rows: int, lengths: tuple[int, ...]) -> None:
    options = StepOptions(batch=len(lengths), rows=rows, max_length=320, page_size=16)
    program = compile_prefill(config_of(family), H200, options, rows)
    engine = GpuExecutor(program, weights_of(family))
    require_exact(check_prompts(program, engine, decoders_of(family), prompts_of(*lengths)))


def test_decoding_goes_on_from_what_the_prefill_left() -> None:
    options = StepOptions(batch=2, rows=8, max_length=128, page_size=16)
    programs = (
        compile_step(config_of("qwen3"), H200, options).program,
        compile_prefill(config_of("qwen3"), H200, options, 128),
    )
    pool = WeightPool(states=True)
    decode, prompts = (GpuExecutor(one, weights_of("qwen3"), pool=pool) for one in programs)
    subject = Executable(programs[0], decode, prefill=Prefill(programs[1], prompts))
    tokens = prompts_of(90, 20)
    for prompt, new in zip(tokens, subject.generate(tokens, 6).tokens, strict=True):
        assert len(new) == 6
        assert not wrong_tokens(prompt, new, decoders_of("qwen3"))


def test_one_launch_takes_long_prompts_and_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    options = StepOptions(batch=2, rows=8, max_length=192, page_size=16, stop_tokens=(1000,))
    program = compile_step(config_of("qwen3"), H200, options).program
    engine = GpuExecutor(program, weights_of("qwen3"))
    launches: list[int] = []
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda steps: (launches.append(steps), run(steps)))
    tokens = prompts_of(100, 20)
    generation = Executable(program, engine).generate(tokens, 80, one_launch=True)
    assert launches == [generation.timings.steps]
    assert launches[0] >= 90
    for prompt, new in zip(tokens, generation.tokens, strict=True):
        assert len(new) == 80 or new[-1] == 1000
        assert not wrong_tokens(prompt, new, decoders_of("qwen3"))
