"""`mpk compile` writes every level, needs no weights, and says what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpk_ir.cli.main import main
from mpk_ir.codegen.program import Program
from tests.cli.conftest import CONFIG

STATS = {"grids", "tasks", "dependencies", "events_unfused", "events", "signatures", "bytes", "seconds", "resources"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.mark.parametrize(
    ("level", "sign"), [("tg", "tg.update @history"), ("sm", "sm.grid"), ("cuda", "cuda."), ("cu", '#include "mpk/')]
)
def test_each_level_is_text(config: Path, level: str, sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(config), "--emit", level]) == 0
    printed = capsys.readouterr().out
    assert sign in printed
    output = config.parent / "out"
    assert main(["compile", str(config), "--emit", level, "-o", str(output)]) == 0
    assert output.read_text() == printed
    assert capsys.readouterr().out == ""


def test_a_program_folder_can_be_loaded(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    assert main(["compile", str(config), "--target", "sim", "--batch", "2", "-o", str(folder)]) == 0
    program = Program.load(folder)
    assert program.target.name == "sim"
    assert program.buffer("history").shape == (2, 128), "the model's own length, being under the default"


def test_a_cubin_comes_with_stats(config: Path, cache_folder: Path) -> None:
    cubin, stats = config.parent / "kernel.cubin", config.parent / "stats.json"
    assert main(["compile", str(config), "--emit", "cubin", "-o", str(cubin), "--stats", str(stats)]) == 0
    assert cubin.read_bytes().startswith(b"\x7fELF")
    assert len(list(cache_folder.iterdir())) == 1
    facts = json.loads(stats.read_text())
    assert set(facts) == STATS
    assert facts["tasks"] >= facts["grids"] > facts["signatures"] > 0
    assert facts["events_unfused"] > facts["events"] > 0
    assert facts["seconds"]["nvrtc"] > 0
    assert facts["seconds"]["sm-verify"] > 0
    assert 32 <= facts["resources"]["registers"] <= 255
    assert facts["resources"]["spill_bytes"] >= 0
    assert facts["resources"]["dynamic_shared_bytes"] > 1 << 16


def test_an_a100_gets_a_plan_but_no_program(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(config), "--target", "a100", "--emit", "sm"]) == 0
    assert 'target "a100"' in capsys.readouterr().out
    for emit in ("cu", "cubin", "program"):
        assert main(["compile", str(config), "--target", "a100", "--emit", emit, "-o", str(config.parent / "x")]) == 1
        assert "target 'a100': the kernel needs" in capsys.readouterr().err
    assert main(["report", str(config), "--target", "a100"]) == 0


def test_a_kernel_for_a_b200_compiles(config: Path) -> None:
    cubin = config.parent / "kernel.cubin"
    assert main(["compile", str(config), "--target", "b200", "--emit", "cubin", "-o", str(cubin)]) == 0
    assert cubin.read_bytes().startswith(b"\x7fELF")
