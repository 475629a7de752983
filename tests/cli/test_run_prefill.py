"""Which prompts `mpk run` takes through a program of their own on a GPU, and what it says where it cannot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mpk_ir.cli.progress import Progress
from mpk_ir.cli.run_command import _prefill_program
from mpk_ir.core.target import H200
from mpk_ir.frontend import StepOptions

from .conftest import CONFIG

WHOLE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


def rows_of(
    folder: Path,
    lengths: list[int],
    progress: Progress,
    sizes: dict[str, int] | None = None,
    *,
    one_launch: bool = False,
) -> int | None:
    """Rows of a step of the program for prompts of ``lengths``; None if there is none."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(sizes or {})}))
    options, prompts = StepOptions(len(lengths), 8, 128, 64), [[1] * length for length in lengths]
    arguments = argparse.Namespace(model=folder, one_launch=one_launch)
    program = _prefill_program(arguments, options, H200, prompts, progress)
    return None if program is None else int(program.metadata["rows"])


@pytest.mark.parametrize(("lengths", "rows"), [([64], None), ([65], 128), ([100, 90], 256), ([3, 70], 128)])
def test_long_prompts_have_a_program(tmp_path: Path, lengths: list[int], rows: int | None) -> None:
    progress = Told()
    assert rows_of(tmp_path, lengths, progress, WHOLE) == rows
    assert progress.told == []


def test_one_launch_leaves_no_room_for_another(tmp_path: Path) -> None:
    progress = Told()
    assert rows_of(tmp_path, [100], progress, WHOLE, one_launch=True) is None
    assert progress.told == []


def test_a_model_that_has_none_is_told_so(tmp_path: Path) -> None:
    progress = Told()
    assert rows_of(tmp_path, [100], progress) is None
    assert len(progress.told) == 1
    assert progress.told[0].startswith("prompts go through the decoding kernel: no prefill program")
