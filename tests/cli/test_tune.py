"""`mpk tune` without a GPU: what is tried, what wins, and that later plans follow it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mpk_ir import program_cache
from mpk_ir.bench import measure, tune
from mpk_ir.bench.plans import Plan
from mpk_ir.bench.shapes import shape_config
from mpk_ir.bench.summary import Report, Row, Times
from mpk_ir.bench.tune import BASE, FLIGHTS, asked, best_predicted, choices, winner
from mpk_ir.cli.main import main
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import DeviceError, MpkError, UsageError
from mpk_ir.core.target import H200
from mpk_ir.frontend import load_config
from mpk_ir.program_cache import ProgramCache, Trial, Tuned
from mpk_ir.runtime import driver
from mpk_ir.runtime.driver import Device
from mpk_ir.tasks import BUILTIN_KINDS

LIST = ("sm-schedule: sm-schedule-list",)
SPLITS = ('tile{decide="fused_attention.splits=2"}',)
GPU = Device(0, "NVIDIA H200", H200.num_sms, (9, 0), 1 << 37)
ROW = Row("m", 1, 512, 1e9, 0.2, Times(0.5, 0.5, 5, 64), 0.4, 0.4, accuracy={"wrong": 0}, identical=True)


def compile_here(plans: Sequence[Plan]) -> list[Program | MpkError]:
    return [plan.compile() for plan in plans]


class FakeBench:
    """Two splits take 450 us, what is scheduled by list is wrong, the rest takes 500."""

    def __init__(self, what: object) -> None:
        self.report = Report("GPU", 4.6, 4.8)

    def measure(self, plan: Plan, program: Program) -> Row:
        if plan.edits == SPLITS:
            return replace(ROW, mpk=Times(0.45, 0.45, 5, 64))
        return replace(ROW, identical=plan.edits != LIST)


@pytest.fixture(autouse=True)
def no_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other tests registered: with extensions nothing is kept."""
    monkeypatch.setattr(program_cache, "registered_kinds", lambda: BUILTIN_KINDS)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that times as `FakeBench` does."""
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: GPU)
    monkeypatch.setattr(measure, "Bench", FakeBench)
    monkeypatch.setattr(tune, "compile_each", compile_here)


def test_every_choice_is_an_edit_that_makes_a_plan() -> None:
    tried = choices(Plan("tiny"))
    assert ('tile{decide="fused_attention.splits=8"}',) in tried
    assert len(set(tried)) == len(tried)
    for edits in tried:
        assert "given; by cost" in "".join(grid.reason for grid in Plan("tiny", edits=edits).compile().grids)


def test_the_best_predicted_come_after_the_plan_of_the_cost_model() -> None:
    found = best_predicted(Plan("tiny"), 30)
    assert found[0][0] == BASE
    tried, times = zip(*found[1:], strict=True)
    assert list(times) == sorted(times)
    assert len(set(tried)) == len(tried)
    assert LIST in tried
    assert set(FLIGHTS) <= set(tried)
    assert best_predicted(Plan("tiny"), 2) == found[:3]


def test_what_makes_no_plan_is_left_out_unless_it_is_the_base() -> None:
    assert [edits for edits, _ in asked(Plan("tiny"), [('tile{decide="x"}',), LIST])] == [BASE, LIST]
    with pytest.raises(UsageError, match="unknown model shape"):
        asked(Plan("tinny"), [])


def test_the_winner_must_gain_more_than_launches_differ() -> None:
    base, better, best = Trial(BASE, 1.0, 500.0), Trial(LIST, 1.0, 498.0), Trial(SPLITS, 1.0, 490.0)
    assert winner([base, better]) is base
    assert winner([base, better, best]) is best


@pytest.mark.usefixtures("timed")
def test_a_wrong_plan_never_wins_and_a_wrong_base_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, found = tune.tune(Plan("tiny"), [(BASE, 1.0), (LIST, 0.5), (SPLITS, 2.0)])
    assert found.edits == SPLITS
    assert [trial.edits for trial in found.trials] == [BASE, SPLITS]
    monkeypatch.setattr(FakeBench, "measure", lambda self, plan, program: replace(ROW, identical=False))
    with pytest.raises(DeviceError, match="wrong by fp32 or differs"):
        list(tune.tune(Plan("tiny"), [(BASE, 1.0)]))


@pytest.mark.usefixtures("timed")
def test_later_plans_and_reports_follow_what_was_found(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, plan = load_config(checkpoint), Plan(str(checkpoint), context=64)
    before = ProgramCache().step(config, H200, plan.options)
    tried = ["--try", *LIST, "--try", *SPLITS, "--json", str(tmp_path / "t.json")]
    assert main(["tune", str(checkpoint), "--context", "64", *tried]) == 0
    assert "kept" in capsys.readouterr().out
    assert tuple(json.loads((tmp_path / "t.json").read_text())["edits"]) == SPLITS
    after = ProgramCache().step(config, H200, plan.options)
    assert after.digest() != before.digest()
    assert after.digest() == Plan(str(checkpoint), context=64, edits=SPLITS).compile().digest()
    longer = ProgramCache().step(config, H200, replace(plan.options, max_length=96))
    assert "splits = 2 given; by cost" in "".join(grid.reason for grid in longer.grids)
    others = ProgramCache().tuned(config, H200, replace(plan.options, batch=2))
    assert others is None, "it was tuned for one request"
    assert main(["report", str(checkpoint), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert tuple(told["tuned"]["edits"]) == SPLITS
    assert main(["report", str(checkpoint)]) == 0
    assert "Tuned on GPU" in capsys.readouterr().out
    assert main(["report", str(checkpoint), "--search", "--json"]) == 0
    assert "tuned" not in json.loads(capsys.readouterr().out)


def test_wrong_usage_and_no_gpu_are_told(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert main(["tune"]) == 2
    assert main(["tune", str(checkpoint)]) == 1
    assert "plans are timed on a GPU" in capsys.readouterr().err


def test_tuned_survives_its_file() -> None:
    found = Tuned("GPU", SPLITS, (Trial(BASE, 1.5, 500.25), Trial(SPLITS, 2.0, 450.0)))
    config, options = shape_config("tiny"), Plan("tiny").options
    ProgramCache().keep_tuned(found, config, H200, options)
    assert ProgramCache().tuned(config, H200, options) == found
