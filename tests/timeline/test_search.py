"""A search keeps what the simulator likes best, and the cost model's word where it makes no difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from xdsl.context import Context

from mpk_ir.cli.main import main
from mpk_ir.core.target import H200, target_of
from mpk_ir.passes.tile.decisions import OVERRIDE
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.tasks.work import Load
from mpk_ir.timeline.search import LEAST_GAIN, candidates, override, search_tiles, step_us
from tests.cli.conftest import CONFIG
from tests.sm.plans import GraphPlan, Layer, build, graph_plans

LOAD = Load(8, 1)


@given(graph_plans())
@settings(max_examples=10)
def test_a_search_never_ends_worse_than_it_began(drawn: GraphPlan) -> None:
    module = build(drawn)
    before = step_us(module, H200, LOAD)
    text = str(module)
    trials = search_tiles(module, H200, LOAD)
    after = step_us(module, H200, LOAD)
    assert after <= before
    kept = [trial for trial in trials if trial.kept]
    assert len(kept) == len({(trial.operator, trial.decision) for trial in trials})
    assert not kept or kept[-1].step_us == pytest.approx(after)
    again = build(drawn)
    assert str(again) == text
    search_tiles(again, H200, LOAD)
    assert str(again) == str(module), "a search is deterministic"


def test_a_bad_choice_is_found_and_mended() -> None:
    module = build(GraphPlan(104, (Layer("linear", 0, 0, 104),)))
    (decision,) = Tile(target="h200").decisions(module)
    assert decision.chosen == 1
    override(decision.op, "tiles", 7)
    worse = step_us(module, H200, LOAD)
    trials = search_tiles(module, H200, LOAD)
    (kept,) = [trial for trial in trials if trial.kept]
    assert kept.value < 7
    assert kept.step_us < (1 - LEAST_GAIN) * worse
    assert f"{OVERRIDE} = {{tiles = {kept.value} : i64}}" in str(module)
    Tile(target="h200").apply(Context(), module)
    assert f"tiles = {kept.value} : i64" in str(module)


def test_alternatives_lie_around_the_choice() -> None:
    module = build(GraphPlan(104, (Layer("linear", 0, 0, 104),)))
    (decision,) = Tile(target="h200").decisions(module)
    assert decision.choices == tuple(range(1, 8))
    assert candidates(decision) == [2]
    override(decision.op, "tiles", 4)
    (decision,) = Tile(target="h200").decisions(module)
    assert candidates(decision) == [2, 3, 5, 6]


def test_other_targets_are_searched_for_too() -> None:
    module = build(GraphPlan(64, (Layer("linear", 0, 0, 64), Layer("linear", 1, 0, 24))))
    trials = search_tiles(module, target_of("a100"), LOAD)
    assert {trial.operator for trial in trials} == {"w0", "w1"}


def test_the_command_line_shows_what_was_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG | {"max_position_embeddings": 1024}))  # so many are worth splitting
    assert main(["report", str(config), "--search", "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert {trial["decision"] for trial in trials} == {"merge_rows", "splits", "tiles"}
    assert main(["report", str(config), "--search"]) == 0
    assert "Tiles tried" in capsys.readouterr().out
    assert main(["compile", str(config), "--search", "--emit", "tg"]) == 0
    assert OVERRIDE in capsys.readouterr().out
    assert main(["compile", str(config), "--max-length", "64", "-o", str(tmp_path / "program")]) == 0
    assert main(["report", str(tmp_path / "program"), "--search"]) == 2
    assert "--search: found a plan that is made, expected a model" in capsys.readouterr().err
