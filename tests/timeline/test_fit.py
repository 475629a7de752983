"""Constants that made a trace are found in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpk_ir.bench import fit as command
from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.errors import UsageError
from mpk_ir.core.target import H200, Costs
from mpk_ir.timeline import fit as fitting
from mpk_ir.timeline.fit import Sample, error, fit, least_squares, leave_one_out, observed, with_costs
from mpk_ir.timeline.record import Point
from mpk_ir.timeline.recording import RecordedPoint, Recording
from mpk_ir.timeline.simulate import predict

TRUE = replace(
    Costs(),
    handoff_us=0.9,
    handoff_loaded_us=0.9,
    signal_us=0.8,
    small_us=2.5,
    tile_us=0.3,
    pass_us=0.7,
    attention_us=2.2,
    stream_efficiency=0.8,
    stream_spread=0.0,
    ahead_share=1.0,
)
"""Of a machine whose rings are full before each grid, as reading off takes them to be."""
POINTS = (("tiny", 1), ("qwen3-0.6b", 1), ("qwen3-0.6b", 16), ("llama-3.2-1b", 4))


def sample_of(model: str, batch: int) -> Sample:
    """A program and its timeline on a machine whose costs are ``TRUE``."""
    point = Point(model, shape_config(model), batch, 512, H200)
    program = point.program()
    made = predict(with_costs(program, TRUE), point.load, model)
    return Sample(program, replace(made, facts=replace(made.facts, target=H200)), made.facts.step_us, point.context)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample_of(*point) for point in POINTS]


def test_what_tasks_and_hand_offs_take_is_read_off(samples: list[Sample]) -> None:
    found = observed(samples)
    assert found["signal_us"] == pytest.approx(TRUE.signal_us, abs=0.001)
    assert found["stream_efficiency"] == pytest.approx(TRUE.stream_efficiency, rel=0.1)

    def a_tile(costs: Costs) -> float:
        """From the end of what a product of one tile of 1,024 columns waits for to its own."""
        arrives_us = costs.handoff_us + costs.activation_us
        return arrives_us + costs.pass_us + costs.tile_us + 32768 / costs.weights_bytes_per_us

    assert a_tile(replace(Costs(), **found)) == pytest.approx(a_tile(TRUE), rel=0.1)


def test_the_true_costs_have_no_error_and_a_fit_comes_close(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SEARCHED", ("stream_efficiency", "ahead_share"))
    assert error(samples, TRUE) == pytest.approx(0.0, abs=1e-9)
    assert error(samples, Costs()) > 0.1
    errors: list[float] = []
    costs = fit(samples, Costs(), lambda found, _: errors.append(found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == error(samples, costs) < 0.05
    assert costs.stream_efficiency <= 1.0


def test_a_point_is_predicted_by_the_others(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SEARCHED", ())
    for sample, predicted_us in zip(samples, leave_one_out(samples, TRUE), strict=True):
        assert predicted_us == pytest.approx(sample.step_us, rel=0.2)


@given(st.integers(1, 5), st.integers(0, 99))
def test_least_squares_find_what_made_the_times_and_nothing_negative(columns: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.random((30, columns))
    true = np.where(generator.random(columns) < 0.3, 0.0, generator.random(columns))
    assert least_squares(features, features @ true) == pytest.approx(true, abs=1e-6)
    noisy = least_squares(features, features @ true + generator.normal(0.0, 0.5, 30))
    assert (noisy >= 0.0).all()


@pytest.fixture
def recording(samples: list[Sample], tmp_path: Path) -> Path:
    points = [RecordedPoint(2, (sample.step_us,) * 3, sample.measured) for sample in samples[:2]]
    Recording("a machine with the true costs", 4.65, tuple(points)).save(tmp_path / "r.json")
    return tmp_path / "r.json"


def test_the_command_prints_errors_and_constants(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "SEARCHED", ())
    data = recording.parent / "fit.json"
    assert command.main([str(recording), "--json", str(data)]) == 0
    told = capsys.readouterr().out
    assert "    signal_us: float = 0.8\n" in told
    assert "| tiny | 1 | 512 |" in told
    assert "fitted to the others: mean error " in told
    found = json.loads(data.read_text())
    assert [point["model"] for point in found["points"]] == ["tiny", "qwen3-0.6b"]
    assert found["costs"]["signal_us"] == 0.8
    assert command.main([str(recording), "--as-is"]) == 0
    assert f"    signal_us: float = {Costs().signal_us:.4g}\n" in capsys.readouterr().out


def test_a_trace_of_another_plan_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match="fit with the version of mpk-ir that recorded it"):
        fitting.require_same_plan(samples[0].program, samples[1].measured)
