"""The planning benchmark counts what the compiler made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpk_ir.bench import planning
from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.target import H200


def test_counts_are_those_of_the_plan() -> None:
    config = shape_config("tiny")
    row = planning.measure("tiny", config, H200, repeats=1)
    assert row.layers == config.num_layers == 2
    assert row.operators == 2 * 5 + 4  # qkv, attention, o, gate+up, down; embedding, head, argmax, advance
    assert row.grids == 2 * 6 + 4  # attention is followed by its merge; the head does argmax, its grid is select
    assert row.fusion == row.dependencies / row.events > 1
    assert row.verify_seconds > 0
    assert row.plan_seconds > 0


def test_a_row_for_each_model_and_number_of_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "SCALED", "tiny")
    file = tmp_path / "rows.json"
    given = ["planning", "--models", "tiny", "--layers", "1,3", "--repeats", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", given)
    assert planning.main() == 0
    rows = json.loads(file.read_text())
    assert [row["layers"] for row in rows] == [2, 1, 3]
    tasks = {row["layers"]: row["tasks"] for row in rows}
    assert tasks[3] - tasks[2] == tasks[2] - tasks[1], "every layer has as many tasks"
    assert capsys.readouterr().out.count("| tiny | 2 |") == 1


def test_a_mistyped_model_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["planning", "--models", "tinny"])
    assert planning.main() == 2
    assert "did you mean 'tiny'?" in capsys.readouterr().err
