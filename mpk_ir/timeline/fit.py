"""The constants of the timeline from traces: what shows directly is read off, the rest is searched for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..codegen.program import Program
from ..core.target import Costs
from .analysis import Analysis, compare
from .simulate import predict
from .trace import FloatArray, Trace

FACTORS = (0.6, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.6)
ROUNDS = 6
OPERATOR_WEIGHT = 0.5
"""An operator's error counts half as much as the step's, both relative to the step."""
SEARCHED = (
    "stream_efficiency",
    "activation_us",
    "activation_bytes_per_us",
    "weights_bytes_per_us",
    "tile_us",
    "tile_row_us",
    "attention_us",
    "attention_round_us",
)
SETTLED_US = 2.0
"""An event that arrived this long before a task began had become visible everywhere."""
BUSY = 0.5
"""Of the SMs: when more work while a hand-off happens, memory is in use."""


@dataclass(frozen=True)
class Sample:
    """A program and what a machine made of it."""

    program: Program
    measured: Trace


def fit(samples: Sequence[Sample], start: Costs, on_round: Callable[[float, Costs], None] | None = None) -> Costs:
    """Costs under which the predictions come closest to ``samples``. ``on_round`` gets the error and costs so far."""
    costs = replace(start, **observed(samples))
    least = error(samples, costs)
    for _ in range(ROUNDS):
        before = least
        for name in SEARCHED:
            for factor in FACTORS:
                trial = replace(costs, **{name: _within(name, factor * getattr(costs, name))})
                found = error(samples, trial)
                if found < least:
                    least, costs = found, trial
        if on_round is not None:
            on_round(least, costs)
        if least > 0.995 * before:
            break
    return costs


def observed(samples: Sequence[Sample]) -> dict[str, float]:
    """What traces show without a model: medians of hand-offs, polls, signals and of small tasks."""
    idle, loaded, polls, signals, small = (list[FloatArray]() for _ in range(5))
    for sample in samples:
        trace, analysis = sample.measured, Analysis(sample.measured)
        polled = (sample.program.event_polled[trace.waits] | (trace.waits < 0)).all(axis=1)
        there = np.where(polled, trace.computed[analysis.awaited], trace.signalled[analysis.awaited])
        told = np.where(analysis.awaited >= 0, there, np.nan)
        waited = told > trace.begin
        handoff = trace.ready - told
        busy = _busy_sms(trace, trace.ready) > BUSY * trace.num_sms
        idle.append(handoff[waited & ~busy])
        loaded.append(handoff[waited & busy])
        polls.append((trace.ready - trace.begin)[told < trace.begin - SETTLED_US])
        signals.append(trace.signalled - trace.computed)
        kinds = np.array([grid.kind in ("select", "advance") for grid in trace.grids])[trace.grid]
        small.append((trace.computed - trace.ready)[kinds])
    columns = {
        "handoff_us": idle,
        "handoff_loaded_us": loaded,
        "poll_us": polls,
        "signal_us": signals,
        "small_us": small,
    }
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return {name: round(float(np.median(values)), 3) for name, values in joined.items() if len(values)}


def error(samples: Sequence[Sample], costs: Costs) -> float:
    """Root of the mean square error, relative to each step: of the step, and of each operator with half the weight."""
    squares: list[float] = []
    for sample in samples:
        program = replace(sample.program, target=replace(sample.program.target, costs=costs))
        *operators, step = compare(predict(program, sample.measured.facts.load), sample.measured)
        parts = [OPERATOR_WEIGHT * (row.predicted_us - row.measured_us) / step.measured_us for row in operators]
        squares.append((step.error or 0.0) ** 2 + sum(part**2 for part in parts))
    return float(np.sqrt(np.mean(squares)))


def _busy_sms(trace: Trace, times: FloatArray) -> FloatArray:
    """[times]: how many SMs work on a task of theirs at each time."""
    begun, ended = np.sort(trace.ready), np.sort(trace.computed)
    return (np.searchsorted(begun, times, "left") - np.searchsorted(ended, times, "right")).astype(np.float64)


def _within(name: str, value: float) -> float:
    return min(value, 1.0) if name == "stream_efficiency" else value
