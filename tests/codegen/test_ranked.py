"""Programs for several ranks: each way to exchange compiles for Hopper without spills, is proved, survives a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.runtime.nvrtc import compile_source

from .ranked import ranked_program


@pytest.mark.parametrize("strategy", ["push", "two-shot", "multicast", "off"])
def test_a_program_of_ranks_compiles_and_survives_its_folder(strategy: str, tmp_path: Path) -> None:
    program = ranked_program(4, "h200", 2, strategy)
    assert program.multicasts == (strategy == "multicast")
    kernel = compile_source(program.source, program.headers, program.target.arch)
    assert kernel.resources[program.launch.kernel].spill_bytes == 0
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.grids == program.grids
    assert loaded.digest() == program.digest()
    verify_program(loaded)
