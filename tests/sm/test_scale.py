"""Planning and proving stay fast: limits for a whole 8B model, and growth with the number of layers."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest

from mpk_ir.bench.shapes import SHAPES
from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.compiler import Compilation, compile_step
from mpk_ir.core.target import target_of
from mpk_ir.frontend import StepOptions, config_from
from mpk_ir.proof import check

pytestmark = pytest.mark.slow


def compiled(layers: int) -> tuple[Compilation, float]:
    """Qwen3-8B's shapes with ``layers`` layers, and the CPU seconds from config to tables."""
    config = config_from(SHAPES["qwen3-8b"] | {"num_hidden_layers": layers}, where="qwen3-8b")
    begin = process_time()
    result = compile_step(config, target_of("h200"), StepOptions(batch=1, rows=8, max_length=2048, page_size=64))
    return result, process_time() - begin


def test_qwen3_8b_is_planned_in_five_seconds_and_proved_in_two(tmp_path: Path) -> None:
    compilation, seconds = compiled(36)
    assert seconds < 5
    assert compilation.seconds["sm-verify"] < 2
    compilation.program.save(tmp_path)
    program = Program.load(tmp_path)
    begin = process_time()
    plan = verify_program(program)
    assert process_time() - begin < 2
    begin = process_time()
    check(plan)
    assert process_time() - begin < 2


def test_seconds_grow_little_faster_than_layers() -> None:
    few, many = compiled(9), compiled(72)
    assert many[1] < 1.5 * 8 * few[1]
    verify = [compilation.seconds["sm-verify"] for compilation, _ in (few, many)]
    assert verify[1] < 1.5 * 8 * verify[0]
