"""Emitted programs: they compile for Hopper, come out the same every time, and survive a folder."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from mpk_ir.api import parse
from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.compiler import compile_module
from mpk_ir.core.errors import PlanError, UsageError
from mpk_ir.core.target import H200
from mpk_ir.runtime.nvrtc import compile_source
from mpk_ir.tasks import BUILTIN_KINDS

from .models import EXPERT_KINDS, FAMILIES, GENERAL_KINDS, PROMPT_KINDS, RANK_KINDS, program_of

CASES = [(family, batch, fused) for family in FAMILIES for batch in (1, 4) for fused in (True, False)]
QUICK = {("qwen3", 1, True), ("qwen2", 4, False), ("qwen3_moe", 4, True)}
"""Both bias and QK-norm, both ways of fusion, both batch sizes; the other cases are slow."""


def same(first: Program, second: Program) -> bool:
    for field in fields(Program):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            if not np.array_equal(one, two) or one.dtype != two.dtype:
                return False
        elif field.name == "constants":
            if one.keys() != two.keys() or any(not np.array_equal(one[key], two[key]) for key in one):
                return False
        elif one != two:
            return False
    return True


@pytest.mark.parametrize(
    ("family", "batch", "fused"), [pytest.param(*c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]
)
def test_the_kernel_compiles_without_spills_and_fits_an_sm(family: str, batch: int, fused: bool) -> None:
    program = program_of(family, batch, fused=fused)
    kernel = compile_source(program.source, program.headers, program.target.arch)
    resources = kernel.resources[program.launch.kernel]
    assert resources.spill_bytes == 0
    assert resources.registers * program.launch.num_threads <= 65536
    assert resources.static_shared_bytes + program.launch.shared_bytes <= program.target.shared_memory_bytes


def test_attention_with_a_cap_and_a_window_compiles() -> None:
    program = program_of("qwen3", limits=(0.5, 18))
    assert any(re.search(r"8, true, true, true, \d, 18, true>\(", body) for body in program.bodies)
    assert compile_source(program.source, program.headers, program.target.arch).cubin


@pytest.mark.parametrize(("family", "batch", "fused"), CASES)
def test_the_same_model_gives_the_same_program(family: str, batch: int, fused: bool) -> None:
    assert same(program_of(family, batch, fused=fused), program_of(family, batch, fused=fused))


def test_another_batch_is_another_program() -> None:
    assert not same(program_of("qwen3", 1), program_of("qwen3", 4))


def test_fused_and_unfused_graphs_use_every_kind_of_a_decoder() -> None:
    kinds = {grid.kind for fused in (True, False) for grid in program_of("qwen3", fused=fused).grids}
    # an argmax behind a linear is part of it: one of its own is tested below
    others = {"join", "argmax"} | GENERAL_KINDS | RANK_KINDS | EXPERT_KINDS | PROMPT_KINDS
    assert kinds == {kind.name for kind in BUILTIN_KINDS} - others


ARGMAX = """
func.func @step(%x: tensor<8x288xf32>) -> tensor<8xi32> {
  %y = tg.neg %x : (tensor<8x288xf32>) -> tensor<8x288xf32>
  %t = tg.argmax %y : (tensor<8x288xf32>) -> tensor<8xi32>
  func.return %t : tensor<8xi32>
}
"""


def test_an_argmax_of_what_is_no_product_has_grids_of_its_own_and_compiles() -> None:
    program = compile_module(parse(ARGMAX), H200).program
    assert {"argmax", "select"} <= {grid.kind for grid in program.grids}
    verify_program(program)
    assert compile_source(program.source, program.headers, program.target.arch).resources


def test_layers_share_bodies() -> None:
    program = program_of("llama3")
    assert len(program.bodies) < len(program.grids)
    streaming = sum(body.startswith(("mpk::Linear<", "mpk::Attention<")) for body in program.bodies)
    assert program.source.count("case ") == len(program.bodies) + streaming


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_program_survives_its_folder(family: str, tmp_path: Path) -> None:
    program = program_of(family, 4)
    program.save(tmp_path / "program")
    assert same(Program.load(tmp_path / "program"), program)


def test_metadata_and_constants_survive_too(tmp_path: Path) -> None:
    program = replace(program_of("qwen3"), metadata={"batch": 1, "stop_tokens": [3, 4]})
    program.save(tmp_path)
    assert Program.load(tmp_path).metadata == program.metadata
    assert program.constants


@pytest.mark.parametrize("missing", ["program.json", "tables.npz", "constants.npz", "kernel.cu"])
def test_a_folder_with_a_file_missing_is_refused(missing: str, tmp_path: Path) -> None:
    program_of("qwen3").save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UsageError, match="no readable program") as caught:
        Program.load(tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("damaged", ["program.json", "tables.npz", "constants.npz"])
def test_a_truncated_file_is_refused(damaged: str, tmp_path: Path) -> None:
    program_of("qwen3").save(tmp_path)
    whole = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="no readable program"):
        Program.load(tmp_path)


def test_emitting_before_lowering_is_refused() -> None:
    from xdsl.dialects.builtin import ModuleOp

    from mpk_ir.codegen.emit import emit

    with pytest.raises(PlanError, match=r"expected one cuda\.source, found 0"):
        emit(ModuleOp([]))
