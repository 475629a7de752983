"""Several points are measured and traced into one file; one that fails does not hide the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpk_ir.bench import traces
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import DeviceError, UsageError
from mpk_ir.core.target import H200
from mpk_ir.runtime import driver, executor
from mpk_ir.runtime.driver import Device
from mpk_ir.tasks.work import Load
from mpk_ir.timeline import record
from mpk_ir.timeline.recording import Recording, load_all
from mpk_ir.timeline.simulate import predict
from tests.timeline.profiles import profile_of


class FakeExecutor:
    """Runs as a prediction says, on no GPU."""

    device_name = "fake"

    def __init__(
        self, program: Program, weights: object, device: object = None, options: object = None, pool: object = None
    ) -> None:
        assert bool(program.metadata["profile"]) == (options is not None)
        if program.metadata["batch"] == 3:
            raise DeviceError("no")
        self.program = program

    def run(self, steps: int) -> None:
        self.steps = steps

    def profile(self, steps: int, rank: int) -> np.ndarray:
        assert (steps, rank) == (self.steps, 0)
        return profile_of(predict(self.program, Load(1, 64)), [1000.0] * (steps - 1))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 that runs as predicted, 100 us slower without time stamps for every request."""
    monkeypatch.setattr(executor, "GpuExecutor", FakeExecutor)
    monkeypatch.setattr(record, "set_context", lambda engine, context: None)
    monkeypatch.setattr(record, "kernel_ms", lambda engine, context: [0.4, 0.5, 0.6])
    monkeypatch.setattr(traces, "random_weights", lambda config, device: {})
    monkeypatch.setattr(traces, "read_bandwidth_tb_s", lambda: 4.2)
    monkeypatch.setattr(traces, "compile_all", lambda plans: [plan.compile() for plan in plans])
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: Device(0, "NVIDIA H200", 132, (9, 0), 1))


@pytest.mark.usefixtures("machine")
def test_points_go_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    monkeypatch.setattr("sys.argv", ["traces", "tiny:1,3", "tiny:2@64", "-o", str(file)])
    assert traces.main() == 1
    told = capsys.readouterr()
    assert [line.split(" | ")[:3] for line in told.out.splitlines()[2:]] == [
        ["| tiny", "1", "512"],
        ["| tiny", "2", "64"],
    ]
    assert told.err == "tiny batch 3: DeviceError: no\n"
    found = Recording.load(file)
    assert (found.device, found.read_tb_s) == ("NVIDIA H200", 4.2)
    assert [point.name for point in found.points] == ["tiny batch 1", "tiny batch 2 at 64"]
    assert (found.points[1].step_us, found.points[1].trace.facts.load) == (500.0, Load(2, 64))
    assert len(load_all([file, file])) == 4


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    for text in ("", "{}", '{"version": 99}', '{"version": 1, "device": "", "read_tb_s": 1, "points": [{"steps": 1}]}'):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"r\.json: no readable recording"):
            Recording.load(file)
    Recording("none", 1.0).save(file)
    with pytest.raises(UsageError, match="have no points"):
        load_all([file])


@pytest.mark.parametrize("text", ["tiny", "tiny:", "tiny:x", "tiny:1@y", "nothing:1"])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        traces.parse_points(text, H200)


def test_traces_without_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    monkeypatch.setattr("sys.argv", ["traces", "-o", str(tmp_path / "out")])
    assert traces.main() == 1
    assert "error: traces are measured on a GPU; simulated on the CPU: no GPU found" in capsys.readouterr().err
