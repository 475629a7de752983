"""The benchmark of ranks without a GPU: what it compiles, how it judges launches, what a row says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpk_ir.bench.plans import ROOM
from mpk_ir.bench.ranks import COLUMNS, CONTEXT, Row, line, plans
from mpk_ir.bench.soak import Snapshot, Soaked, soak
from mpk_ir.core.errors import UsageError
from mpk_ir.core.memory import Space
from mpk_ir.core.target import target_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_qwen3" / "checkpoint"
ROW = Row("qwen3-0.6b", 2, "push", "GPU", 0.5, [0.49, 0.5, 0.52], 0, 24)


def test_one_rank_stands_beside_all_strategies_of_several() -> None:
    found = plans(["tiny", str(EXAMPLE)], [1, 2], ["push", "off"], target_of("h200"), whole=False)
    told = [(one.ranks, one.parallel.strategy, one.rank_target.name) for one in found]
    assert told == [(1, "off", "h200"), (2, "push", "h200/2"), (2, "off", "h200/2")] * 2
    assert [one.context for one in found] == [CONTEXT] * 3 + [512 - ROOM] * 3
    assert {one.rank_target.name for one in plans(["tiny"], [2], ["off"], target_of("h200"), whole=True)} == {"h200"}
    with pytest.raises(UsageError, match="unknown model shape 'tinny'"):
        plans(["tinny"], [1], [], target_of("h200"), whole=False)


def test_a_row_says_what_was_judged_and_what_failed() -> None:
    assert line(ROW).count(" | ") == len(COLUMNS) - 1
    assert "unchecked" in line(replace(ROW, wrong_tokens=None))
    assert ROW.passed
    assert not replace(ROW, wrong_tokens=1).passed
    soaked = Soaked(500, 4, (7,), 100, 1.0)
    assert not replace(ROW, soaked={"plain": soaked}).passed
    assert "500 plain, 1 differ" in line(replace(ROW, soaked={"plain": soaked}))


@dataclass
class _Buffer:
    space: Space
    number: int


class _Engine:
    """Two ranks whose launches add one to every state; that number ``wrong`` adds two somewhere."""

    def __init__(self, wrong: int | None) -> None:
        self.program: Any = type("Program", (), {"buffers": (_Buffer(Space.STATE, 0), _Buffer(Space.SCRATCH, 1))})
        self.ranks = [self, self]
        self.memory = [torch.zeros(3, dtype=torch.int32), torch.zeros(2)]
        self.wrong = wrong
        self.launches = 0
        self.poisoned: list[int] = []

    def tensor(self, buffer: _Buffer) -> torch.Tensor:
        return self.memory[buffer.number]

    def poison(self) -> None:
        self.poisoned.append(self.launches)

    def synchronize(self) -> None:
        pass

    def run(self, steps: int) -> None:
        self.memory[0] += steps
        self.memory[0][1] += self.launches == self.wrong
        self.launches += 1


@pytest.mark.parametrize("wrong", [None, 60])
def test_a_launch_that_leaves_other_bits_is_numbered(wrong: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    engine: Any = _Engine(wrong)
    found = soak(engine, Snapshot(engine), 100, 4)
    assert found.differing == (() if wrong is None else (wrong,))
    assert found.compared_bytes == 2 * 12
    assert engine.poisoned == [0, 50]
    assert torch.equal(engine.memory[0], torch.full((3,), 4, dtype=torch.int32)), "each launch starts from the start"
