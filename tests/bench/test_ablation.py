"""Every switch changes the plan, and the table says what each is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpk_ir.bench import ablation
from mpk_ir.bench.plans import Plan
from mpk_ir.bench.summary import Report, Row, Times
from mpk_ir.runtime import driver

ROW = Row("m", 1, 512, 1e9, 0.2, Times(0.5, 0.5, 5, 64), 0.4, 0.4, accuracy={"wrong": 0}, identical=True)


@pytest.mark.parametrize("name", ablation.SWITCHES)
def test_every_switch_makes_a_plan_that_is_proved(name: str) -> None:
    program = Plan("tiny", edits=ablation.SWITCHES[name]).compile()
    assert len(program.tasks) > 100


def test_the_table_tells_how_much_longer_and_what_is_wrong() -> None:
    slow = replace(ROW, mpk=Times(0.6, 0.6, 5, 64))
    reports = {
        "all on": Report("GPU", 4.6, 4.8, (ROW,)),
        "a": Report("GPU", 4.6, 4.8, (slow,)),
        "b": Report("GPU", 4.6, 4.8, (replace(slow, identical=False),)),
        "c": Report("GPU", 4.6, 4.8),
    }
    lines = ablation.table(reports).splitlines()[2:]
    assert lines[0] == "| all on | 0.500 | right |"
    assert lines[1] == "| a | 0.600 (+20%) | right |"
    assert lines[2].endswith("WRONG OR UNCHECKED |")
    assert lines[3] == "| c | - | WRONG OR UNCHECKED |"


def test_without_a_gpu_and_for_a_wrong_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert ablation.main(["--models", "tiny"]) == 1
    assert "timed on a GPU" in capsys.readouterr().err
    assert ablation.main(["--switches", "pulled data"]) == 2
    assert "did you mean 'polled data'?" in capsys.readouterr().err
