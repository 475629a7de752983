"""Constants that made a trace are found in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mpk_ir.bench import fit as command
from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.target import H200, Costs
from mpk_ir.timeline import fit as fitting
from mpk_ir.timeline.fit import Sample, error, fit, observed
from mpk_ir.timeline.record import Point
from mpk_ir.timeline.simulate import predict
from mpk_ir.timeline.trace import Trace

TRUE = replace(Costs(), handoff_us=0.9, handoff_loaded_us=0.9, poll_us=0.3, signal_us=0.8, small_us=2.5, tile_us=1.5)


@pytest.fixture(scope="module")
def sample() -> Sample:
    """A program and its timeline on a machine whose costs are ``TRUE``."""
    point = Point("tiny", shape_config("tiny"), 1, 64, H200)
    program = point.program()
    machine = replace(program, target=replace(H200, costs=TRUE))
    made = predict(machine, point.load, "tiny")
    return Sample(program, replace(made, facts=replace(made.facts, target=H200)))


def test_hand_offs_polls_and_signals_are_read_off(sample: Sample) -> None:
    found = observed([sample])
    assert found["signal_us"] == pytest.approx(TRUE.signal_us, abs=0.001)
    assert found["handoff_us"] == pytest.approx(TRUE.handoff_us, abs=0.001)
    assert found["small_us"] == pytest.approx(TRUE.small_us, abs=0.001)


def test_the_true_costs_have_no_error(sample: Sample) -> None:
    assert error([sample], TRUE) == pytest.approx(0.0, abs=1e-9)
    assert error([sample], Costs()) > 0.05


def test_a_fit_comes_close(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "ROUNDS", 2)
    monkeypatch.setattr(fitting, "SEARCHED", ("tile_us", "stream_efficiency"))
    errors: list[float] = []
    costs = fit([sample], Costs(), lambda found, _: errors.append(found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * error([sample], Costs())
    assert costs.tile_us > Costs().tile_us
    assert costs.stream_efficiency <= 1.0


def test_the_command_prints_constants(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "SEARCHED", ("tile_us",))
    sample.measured.save(tmp_path / "tiny.npz")
    assert Trace.load(tmp_path / "tiny.npz").facts.program == "tiny"
    monkeypatch.setattr("sys.argv", ["fit", str(tmp_path / "tiny.npz")])
    assert command.main() == 0
    assert "    signal_us: float = 0.8\n" in capsys.readouterr().out
