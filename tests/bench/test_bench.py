"""`mpk bench` without a GPU: its arguments, its numbers, its JSON and its picture."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mpk_ir.bench.energy import energy_counter
from mpk_ir.bench.floor import floor_ms, step_bytes
from mpk_ir.bench.picture import draw
from mpk_ir.bench.plans import Plan
from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.bench.summary import COLUMNS, Report, Row, Times, line
from mpk_ir.cli.main import main
from mpk_ir.core.errors import MpkError, UsageError
from mpk_ir.core.target import target_of
from mpk_ir.edits import Edits
from mpk_ir.pipeline import plan_passes
from mpk_ir.pipeline_spec import pipeline_text
from mpk_ir.runtime import driver

TIMES = Times.of([0.5, 0.52, 0.51, 0.5, 0.9], 64)
ROW = Row("qwen3-0.6b", 1, 512, 1.25e9, 0.27, TIMES, 0.53, 0.5, {"eager": 8.0, "graph": 3.7})
REPORT = Report("GPU", 4.65, 4.8, (ROW,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "qwen3-0.7b"], "unknown model shape 'qwen3-0.7b'"),
        (["--baseline", "eager,grpah"], "did you mean 'graph'?"),
        (["--batches", "1,0"], "expected integers of 1 or more"),
        (["--contexts", "x"], "expected an integer of 0 or more"),
        (["--from", "x.json"], "found no --png"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert main(["bench", "--models", "tiny"]) == 1
    err = capsys.readouterr().err
    assert "a benchmark needs a GPU" in err
    assert "mpk report" in err


def test_median_and_p99_are_of_launches() -> None:
    assert (TIMES.median_ms, TIMES.launches, TIMES.steps) == (0.51, 5, 64)
    assert 0.52 < TIMES.p99_ms <= 0.9
    with pytest.raises(ValueError, match="4 launches, expected 5 or more"):
        Times.of([1.0] * 4, 64)


@pytest.mark.parametrize("name", ["tiny", "qwen3-0.6b"])
def test_a_step_reads_every_weight_of_a_tied_model_and_its_caches(name: str) -> None:
    config = shape_config(name)
    if name == "tiny":
        weights = sum(tensor.nbytes for tensor in random_weights(config, "cpu").values())
        assert step_bytes(config, 3, 0) == weights
    per_position = 2 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    assert step_bytes(config, 3, 10) - step_bytes(config, 3, 0) == 30 * per_position


def test_floors_are_those_of_the_published_sizes() -> None:
    floors = {name: floor_ms(step_bytes(shape_config(name), 1, 512), 4.65) for name in ("qwen3-0.6b", "qwen3-8b")}
    assert floors == pytest.approx({"qwen3-0.6b": 0.27, "qwen3-8b": 3.27}, rel=0.01)


def test_what_was_wrong_fails_the_row() -> None:
    assert ROW.passed
    right = {"steps": 8, "worst_ratio": 0.9, "wrong": 0}
    assert replace(ROW, accuracy=right, identical=True).passed
    assert not replace(ROW, accuracy=right | {"wrong": 1}, identical=True).passed
    assert not replace(ROW, accuracy=right, identical=False).passed
    assert not replace(ROW, soak={"plain": {"launches": 2, "differing": (1,)}}).passed


def test_a_line_has_a_cell_for_each_column() -> None:
    assert line(ROW).count(" | ") == len(COLUMNS) - 1
    assert "0.510 (0.8" in line(ROW)
    assert "untimed" in line(replace(ROW, mpk=None))


def test_a_report_is_drawn_from_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, png = tmp_path / "r.json", tmp_path / "r.png"
    file.write_text(json.dumps(REPORT.data()))
    assert json.loads(file.read_text())["rows"][0]["mpk"]["median_ms"] == 0.51
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError:
        assert main(["bench", "--from", str(file), "--png", str(png)]) == 2
        assert "needs matplotlib" in capsys.readouterr().err
        return
    assert main(["bench", "--from", str(file), "--png", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_what_is_no_report_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.json"
    file.write_text("[]")
    assert main(["bench", "--from", str(file), "--png", str(tmp_path / "r.png")]) == 2
    assert f"{file}: no report of `mpk bench`" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no row of the report was timed"):
        draw(replace(REPORT, rows=(replace(ROW, mpk=None),)).data(), tmp_path / "r.png")


def test_energy_is_nvmls_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_counter("x") is None
    fake = ModuleType("pynvml")
    calls = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": lambda uuid: uuid}
    for name, call in (calls | {"nvmlDeviceGetTotalEnergyConsumption": lambda handle: 2500}).items():
        setattr(fake, name, call)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    counter = energy_counter("x")
    assert counter is not None
    assert counter() == 2.5


def test_edits_change_the_pipeline() -> None:
    plain = Plan("tiny").compile()
    edited = Plan("tiny", edits=("lower-to-cuda{bulk_loads=false jitter_ns=500}", "no sm-poll-data")).compile()
    assert "kBulkLoads = 0" in edited.headers["mpk/config.cuh"]
    assert "kJitterNs = 500" in edited.headers["mpk/config.cuh"]
    assert "kJitterNs = 0" in plain.headers["mpk/config.cuh"]
    assert np.any([buffer.polled for buffer in plain.buffers])
    assert not np.any([buffer.polled for buffer in edited.buffers])
    with pytest.raises(UsageError, match="no pass 'sm-pol-data' to change"):
        Plan("tiny", edits=("no sm-pol-data",)).compile()


def test_an_edit_keeps_what_it_does_not_name_and_may_replace_a_pass() -> None:
    edits = ('tile{decide="splits=1"}', "sm-schedule: sm-schedule-list", "sm-pipeline{ring_kib=64}")
    edits = (*edits, "sm-pipeline{in_flight=2}")
    change = Edits(edits, target_of("b200"), 1)
    text = pipeline_text(tuple(change(plan_passes(target_of("b200")))))
    assert 'tile{target="b200" decide="splits=1"}' in text
    assert "sm-schedule-list" in text
    assert "sm-schedule," not in text
    assert "ring-kib=64 in-flight=2" in text.replace("_", "-")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ('tile{decide="x"}', "found decision 'x', expected one such as splits=8"),
        ('tile{decide="layers.mlp.down.tiles=1"}', "no 'layers.mlp.down' decides 'tiles'"),
        ("sm-schedule: sm-schedul", "did you mean 'sm-schedule'?"),
        ("sm-schedul: sm-schedule-list", "did you mean 'sm-schedule'?"),
        ("sm-schedule: tile,sm-schedule", "found 'tile,sm-schedule', expected one pass"),
    ],
)
def test_a_wrong_edit_is_told(edit: str, message: str) -> None:
    with pytest.raises(MpkError, match=re.escape(message)):
        Plan("tiny", edits=(edit,)).compile()
