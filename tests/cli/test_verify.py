"""`mpk verify` proves IR and saved programs, and says what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpk_ir.cli.main import main
from tests.cli.conftest import CONFIG


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def ir(config: Path, tmp_path: Path) -> Path:
    path = tmp_path / "step.mlir"
    assert main(["compile", str(config), "--emit", "sm", "-o", str(path)]) == 0
    return path


@pytest.fixture
def program(config: Path, tmp_path: Path) -> Path:
    path = tmp_path / "program"
    assert main(["compile", str(config), "-o", str(path)]) == 0
    return path


def test_ir_and_program_of_one_model_are_safe_and_say_the_same(
    ir: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = []
    for path in (ir, program):
        assert main(["verify", str(path), "--json"]) == 0
        verdict = json.loads(capsys.readouterr().out)
        assert verdict["safe"] is True
        facts.append(verdict["plans"])
    assert facts[0] == facts[1]
    assert main(["verify", str(program)]) == 0
    assert "step is safe: " in capsys.readouterr().out


def damage(program: Path) -> None:
    """Drop the waits of the first task of SM 1."""
    with np.load(program / "tables.npz") as file:
        tables = dict(file.items())
    tables["tasks"]["num_waits"][tables["queue_begin"][1]] = 0
    np.savez_compressed(program / "tables.npz", allow_pickle=False, **tables)


def test_an_unsafe_program_is_told_for_people(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(program)
    assert main(["verify", str(program)]) == 1
    done = capsys.readouterr()
    assert done.out == ""
    assert "mpk: error: sm-verify, race: " in done.err
    assert "SM 1, position 0" in done.err


def test_an_unsafe_program_is_told_for_machines(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(program)
    assert main(["verify", str(program), "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["safe"] is False
    assert verdict["rejection"]["rule"] == "race"
    assert [sorted(task) for task in verdict["rejection"]["tasks"]] == [["grid", "index", "position", "rank", "sm"]] * 2
    assert [sorted(place) for place in verdict["rejection"]["places"]] == [["box", "buffer"]] * 2


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (None, 2, "no such file or folder"),
        ("# no IR", 1, "x.mlir:1:1: "),
        ("builtin.module {}", 2, "found no sm.graph to verify"),
        (b"\xff\xfe\x00", 2, "not text"),
    ],
)
def test_what_is_no_plan_is_refused(
    text: str | bytes | None, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mlir"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["verify", str(path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "internal" not in error


def test_a_folder_without_a_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "no readable program" in capsys.readouterr().err
