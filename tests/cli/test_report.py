"""`mpk report` reads a model, a program or a trace, and draws each; `mpk trace` wants a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpk_ir.cli.main import main
from mpk_ir.runtime import driver


def report(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["report", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_and_its_saved_trace_tell_the_same(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "t.npz"
    told = report([str(checkpoint), "--context", "50", "--save", str(trace)], capsys)
    assert told["origin"] == "predicted"
    assert {"operators", "exposed_waits", "critical_path", "floor_us", "bandwidth_fraction"} <= set(told)
    again = report([str(trace)], capsys)
    assert again["step_us"] == told["step_us"]
    assert [row["name"] for row in again["operators"]] == [row["name"] for row in told["operators"]]  # type: ignore


def test_a_saved_program_is_read_with_its_own_batch(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "program"
    assert main(["compile", str(checkpoint), "--batch", "2", "-o", str(folder)]) == 0
    capsys.readouterr()
    assert report([str(folder)], capsys)["load"] == {"rows": 2, "context": 127}


def test_tables_name_operators_waits_and_reasons(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(checkpoint), "--target", "b200"]) == 0
    text = capsys.readouterr().out
    for word in (
        "on b200, predicted",
        "Critical path",
        "Worst exposed waits",
        "layers.mlp.down_proj",
        "tiles a task",
        "dealt in turn",
    ):
        assert word in text
    assert text.count("tiles a task") == 5, "layers that were cut alike are one row"


def test_a_trace_is_compared_with_the_prediction(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, page, arrows = (tmp_path / name for name in ("t.npz", "t.html", "t.json"))
    report([str(checkpoint), "--save", str(trace), "--perfetto", str(arrows)], capsys)
    told = report([str(checkpoint), "--compare", str(trace), "--html", str(page)], capsys)
    (step,) = [row for row in told["comparison"] if row["name"] == "step"]  # type: ignore
    assert abs(step["error"]) < 1e-6
    assert page.read_text().count('"numSms":132') == 2
    assert json.loads(arrows.read_text())["traceEvents"]
    assert main(["report", str(checkpoint), "--compare", str(trace)]) == 0
    assert "Predicted and measured" in capsys.readouterr().out


def test_a_picture_is_drawn(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra `plot`")
    file = tmp_path / "t.png"
    report([str(checkpoint), "--png", str(file), "--window", "2:20"], capsys)
    assert file.read_bytes().startswith(b"\x89PNG")
    alone, trace = file.read_bytes(), tmp_path / "t.npz"
    report([str(checkpoint), "--save", str(trace)], capsys)
    report([str(trace), "--compare", str(trace), "--png", str(file)], capsys)
    assert file.read_bytes() != alone, "the other trace is below it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "found neither or both of an input and --shape"),
        (["report", "x", "--shape", "qwen3-8b"], "found neither or both of an input and --shape"),
        (["report", "--shape", "qwen3-9b"], "did you mean 'qwen3-8b'?"),
        (["report", "x", "--window", "20:10"], "--window: found '20:10', expected two times"),
        (["report", "missing.npz"], "missing.npz: no readable trace"),
        (["trace", "-o", "x.npz"], "found neither or both of --model and --shape"),
        (["trace", "--shape", "tiny"], "required: -o/--output"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_trace_without_a_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert main(["trace", "--shape", "tiny", "-o", str(tmp_path / "t.npz")]) == 1
    err = capsys.readouterr().err
    assert "a trace is measured on a GPU" in err
    assert "`mpk report` predicts without one" in err
