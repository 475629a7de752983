"""The program that takes prompts: what it is made of, and what the assembler makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.memory_model import check_ordering
from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.core.errors import UnsupportedError
from mpk_ir.core.target import H200
from mpk_ir.frontend import ModelConfig, StepOptions
from mpk_ir.prefill import compile_prefill, is_worth, rows_for
from mpk_ir.proof import Rejection
from mpk_ir.runtime.nvrtc import compile_source

from .models import FAMILIES, PROMPT_KINDS, family_config

SERIALIZED = "C75"
"""How the assembler's numbers begin for products of a warpgroup that it makes wait for each other."""


def config_of(family: str) -> ModelConfig:
    return replace(family_config(family), hidden_size=256)


def prefill_of(family: str, rows: int = 256, batch: int = 2) -> Program:
    return compile_prefill(config_of(family), H200, StepOptions(batch, 8, 512, 64), rows)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen3_moe"}))
def test_its_tables_are_proved(family: str) -> None:
    program = prefill_of(family)
    assert {grid.kind for grid in program.grids} >= PROMPT_KINDS
    verify_program(program)


@pytest.mark.parametrize(("family", "rows", "batch"), [("qwen3", 256, 1), ("qwen2", 136, 2)])
def test_products_of_a_warpgroup_do_not_wait_for_each_other(family: str, rows: int, batch: int) -> None:
    program = prefill_of(family, rows, batch)
    log = compile_source(program.source, program.headers, program.target.arch).log
    assert "Used" in log, "the assembler says what it did"
    assert [line for line in log.splitlines() if SERIALIZED in line] == []


def test_all_products_share_one_body() -> None:
    program = prefill_of("qwen3")
    bodies = {grid.body for grid in program.grids if grid.kind == "wide_linear"}
    assert len(bodies) == 1 < len({str(grid.params) for grid in program.grids if grid.kind == "wide_linear"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("store_release_block(&", "store_plain(&"),
        ("load_acquire_block(&", "load_plain(&"),
        ("if (!wait_for_consumers(loader)) return false;", ""),
        ("  fence_proxy_async_global();  // other", "  // other"),
    ],
)
def test_what_the_loader_fetches_must_be_ordered(before: str, after: str) -> None:
    program, name = prefill_of("qwen3"), "mpk/runtime/fetch.cuh"
    check_ordering(program.headers)
    assert before in program.headers[name]
    with pytest.raises(Rejection, match="begin_fetch"):
        check_ordering({**program.headers, name: program.headers[name].replace(before, after)})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (replace(shape_config("tiny"), hidden_size=192), "matmul"),  # 192 columns are no whole steps
        (shape_config("tiny-experts"), "other task kinds"),
    ],
)
def test_other_models_keep_to_the_decoding_program(config: ModelConfig, reason: str) -> None:
    with pytest.raises(UnsupportedError, match="no prefill program") as caught:
        compile_prefill(config, H200, StepOptions(1, 8, 512, 64), 256)
    assert reason in str(caught.value)


def test_rows_suit_the_prompts() -> None:
    assert [rows_for(lengths) for lengths in ([65], [512], [300, 300], [5000])] == [128, 512, 640, 2048]
    assert is_worth([65, 3])
    assert not is_worth([64])
