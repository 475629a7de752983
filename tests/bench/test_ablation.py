"""Every switch changes the plan, and the table says what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mpk_ir.bench import ablation, measure
from mpk_ir.bench.plans import Plan
from mpk_ir.bench.summary import Row, Times
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import KernelTimeoutError, MpkError
from mpk_ir.runtime import driver

MANY_TILES = "small passes of many rows"
ROW = Row("m", 1, 512, 1e9, 0.2, Times(0.5, 0.5, 5, 64), 0.4, 0.4, accuracy={"wrong": 0}, identical=True)


@pytest.mark.parametrize("name", ablation.SWITCHES)
def test_every_switch_makes_a_plan_that_is_proved(name: str) -> None:
    program = Plan("tiny", edits=ablation.SWITCHES[name]).compile()
    assert len(program.tasks) > 100


def test_the_table_tells_how_much_longer_and_what_is_wrong() -> None:
    slow = replace(ROW, mpk=Times(0.6, 0.6, 5, 64))
    cells = {
        "all on": [ROW, ROW],
        "a": [slow, ablation.SAME],
        "b": [replace(slow, identical=False), "no plan: because"],
        "c": [replace(slow, accuracy=None), slow],
    }
    lines = ablation.table(["m 1", "m 4"], cells).splitlines()
    assert lines[0] == "| without | m 1 | m 4 |"
    assert lines[2:] == [
        "| all on | 0.500 | 0.500 |",
        "| a | 0.600 (+20.0%) | same plan |",
        "| b | 0.600 (+20.0%) WRONG OR UNCHECKED | no plan: because |",
        "| c | 0.600 (+20.0%) WRONG OR UNCHECKED | 0.600 (+20.0%) |",
    ]


class FakeBench:
    """Measures what it is told, and fails at plans without polled data."""

    def __init__(self, what: object) -> None:
        self.measured: list[tuple[str, ...]] = []

    def measure(self, plan: Plan, program: Program) -> Row:
        self.measured.append(plan.edits)
        if plan.edits == ("no sm-poll-data",):
            raise KernelTimeoutError("stalled")
        return ROW


def test_what_is_no_plan_the_same_plan_or_fails_costs_only_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "Bench", FakeBench)
    monkeypatch.setitem(ablation.SWITCHES, "nothing", ('tile{decide="rows=16"}',))  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(ablation.SWITCHES, "misspelt", ("no sm-pol-data",))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(ablation, "compile_each", compile_here)
    switches = ["polled data", "nothing", "misspelt", "elided waits"]
    *_, cells = ablation.run([Plan("tiny"), Plan("tiny", 2)], switches, 1)
    assert [len(row) for row in cells.values()] == [2] * 5
    assert cells["all on"] == [ROW, ROW]
    assert cells["polled data"][0] == "failed: stalled"
    assert cells["nothing"] == [ablation.SAME] * 2
    assert cells["misspelt"][0] == "no plan: the pipeline has no pass 'sm-pol-data' to change"
    assert cells["elided waits"] == [ROW, ROW]


def compile_here(plans: Sequence[Plan]) -> list[Program | MpkError]:
    """As `compile_each` in this process, without the kernels."""
    made: list[Program | MpkError] = []
    for plan in plans:
        try:
            made.append(plan.compile())
        except MpkError as error:
            made.append(error)
    return made


def test_every_switch_changes_a_plan_of_some_shape() -> None:
    points = (Plan("tiny"), Plan("tiny", 16))
    base = [point.compile().digest() for point in points]
    for name, edits in ablation.SWITCHES.items():
        if name in ("fused chains", MANY_TILES):
            continue  # nothing to gain in a fused decoder: its tests have graphs that do; below
        changed = [replace(point, edits=edits).compile().digest() for point in points]
        assert changed != base, name


def test_passes_are_small_where_tasks_have_many_tiles() -> None:
    point = Plan("llama-3.2-1b", 16)
    assert replace(point, edits=ablation.SWITCHES[MANY_TILES]).compile().digest() != point.compile().digest()


def test_without_a_gpu_and_for_a_wrong_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert ablation.main(["--models", "tiny"]) == 1
    assert "timed on a GPU" in capsys.readouterr().err
    assert ablation.main(["--switches", "pulled data"]) == 2
    assert "did you mean 'polled data'?" in capsys.readouterr().err
