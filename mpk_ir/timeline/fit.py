"""The timeline's constants from traces: what tasks and hand-offs take is read off, the bandwidth is searched for.

All models of a task (`mpk_ir.tasks.work`) are linear in their times and in the reciprocals of their rates. So what a
constant contributes to each task is found by setting it to one and the others to nothing, and the constants that
explain the measured times best, none of them negative, by linear least squares. An observation is how long a grid of
tasks takes from the end of the last that it waits for to its own last end: it holds how unevenly SMs end, and over the
grids of a step such times add up to it. Each is weighted by its own length: the error is relative. Bandwidth is read
off where tasks stream more than the ring holds, and then varied a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ..codegen.program import Program
from ..core.errors import UsageError
from ..core.target import Costs
from ..tasks.work import Load
from .simulate import predict
from .trace import FloatArray, Trace
from .traffic import demand

OTHERS = (
    *("stream_efficiency", "stream_bytes_per_us", "stream_spread", "ahead_share", "cached_share"),
    *("handoff_loaded_us", "poll_us", "signal_us"),
)
"""Not in the models of tasks: searched for, read off, or as they were."""
WAITS = ("handoff_us",)
TASKS = tuple(one.name for one in fields(Costs) if one.name not in (*OTHERS, *WAITS))
RATE = "_per_us"
MOST_RATE = 1e6
"""Bytes a microsecond: more than any SM moves; what the least squares call infinite."""
SEARCHED = ("stream_efficiency", "handoff_loaded_us", "cached_share", "stream_spread", "ahead_share")
FACTORS = (0.85, 0.94, 1.06, 1.18)
ROUNDS = 4
PARTS = ("stream_efficiency", "ahead_share")
"""Of bandwidth, and of the ring: at most all."""
LEAST_RINGS = 4
"""How often a task must fill the ring to show at what rate weights stream."""
LOADED = 1.0
"""A hand-off under load, beside one without, before it is searched for."""
LEAST_REREAD = 0.05
"""The part of a task's traffic from which on activations count."""
SETTLED_US = 2.0
"""An event that arrived this long before a task began had become visible everywhere."""


@dataclass(frozen=True)
class Sample:
    """A program and what a machine made of it; ``step_us`` without time stamps, under a load of ``context`` positions
    a request on average."""

    program: Program
    measured: Trace
    step_us: float
    context: int

    @property
    def load(self) -> Load:
        return replace(self.measured.facts.load, context=self.context)

    def predicted_us(self, costs: Costs) -> float:
        """The step under ``costs``."""
        return predict(with_costs(self.program, costs), self.load).facts.step_us

    def error(self, costs: Costs) -> float:
        """Of the predicted step, relative to the measured one."""
        return self.predicted_us(costs) / self.step_us - 1.0


def with_costs(program: Program, costs: Costs) -> Program:
    """``program`` on a machine with other costs."""
    return replace(program, target=replace(program.target, costs=costs))


def require_same_plan(program: Program, trace: Trace) -> None:
    """Raise UsageError unless ``trace`` is one of ``program``'s tasks, one by one."""
    tasks = program.tasks
    if len(tasks) != len(trace.sm) or (tasks["sm"] != trace.sm).any() or (tasks["grid"] != trace.grid).any():
        raise UsageError(
            f"the trace of {trace.facts.program} has {len(trace.sm)} tasks, its plan has {len(tasks)}, or other ones",
            advice="fit with the version of mpk-ir that recorded it",
        )


def fit(samples: Sequence[Sample], start: Costs, on_round: Callable[[float, Costs], None] | None = None) -> Costs:
    """Costs under which tasks take what they took in ``samples``, and steps come closest. ``on_round`` gets the error
    and the costs so far."""
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
        if least > 0.99 * before:
            break
    return costs


def leave_one_out(samples: Sequence[Sample], costs: Costs) -> list[float]:
    """For each sample the step that is predicted by what the others' traces show; what is searched for stays that of
    ``costs``."""
    predicted: list[float] = []
    for number, sample in enumerate(samples):
        read_off = observed([*samples[:number], *samples[number + 1 :]])
        kept = {name: value for name, value in read_off.items() if name not in SEARCHED}
        predicted.append(sample.predicted_us(replace(costs, **kept)))
    return predicted


def error(samples: Sequence[Sample], costs: Costs) -> float:
    """Root of the mean square of the steps' errors."""
    return float(np.sqrt(np.mean([sample.error(costs) ** 2 for sample in samples])))


def observed(samples: Sequence[Sample]) -> dict[str, float]:
    """The constants of tasks and waits that explain the traces best; those that nothing depends on are left out."""
    names = (*WAITS, *TASKS)
    found = [_Observations.of(sample) for sample in samples]
    features, times = (np.concatenate([getattr(one, part) for one in found]) for part in ("features", "times"))
    weight = 1.0 / np.maximum(times, 0.1)
    values = least_squares(features * weight[:, None], times * weight)
    constants = {
        name: _constant(name, value)
        for name, value, column in zip(names, values.tolist(), features.T, strict=True)
        if column.any()
    }
    signals = np.concatenate([sample.measured.signalled - sample.measured.computed for sample in samples])
    polls = np.concatenate([_polls(sample) for sample in samples])
    constants["handoff_loaded_us"] = max(constants["handoff_us"], LOADED * constants["handoff_us"])
    constants["signal_us"] = round(float(np.median(signals)), 3)
    if len(polls):
        constants["poll_us"] = round(float(np.median(polls)), 3)
    if rates := [rate for sample in samples if (rate := _stream_rate(sample)) is not None]:
        constants["stream_efficiency"] = round(min(1.0, float(np.median(rates))), 3)
    return constants


def _polls(sample: Sample) -> FloatArray:
    """How long tasks waited for what had arrived long before they began."""
    trace, told = sample.measured, _arrivals(sample)
    settled = (told >= 0.0) & (told < trace.begin - SETTLED_US)
    return (trace.ready - trace.begin)[settled]


def _stream_rate(sample: Sample) -> float | None:
    """The part of bandwidth at which weights come to grids whose tasks stream far more than the ring holds, what
    loaders bring before left out; the median over the grids. None if there are none, or activations stream, too."""
    trace, program = sample.measured, sample.program
    asked = demand(program, trace.facts.load)
    rates: list[float] = []
    for grid in range(len(program.grids)):
        mine = trace.grid == grid
        left = asked.streamed_bytes[mine] - program.target.costs.ahead_share * program.launch.ring_bytes
        many = (left > LEAST_RINGS * program.launch.ring_bytes).all() and len(left) > program.target.num_sms // 2
        if many and (asked.reread_bytes[mine] < LEAST_REREAD * asked.streamed_bytes[mine]).all():
            took_us = trace.computed[mine] - trace.ready[mine]
            rates.append(float((left / took_us).sum() / program.target.bytes_per_us))
    return float(np.median(rates)) if rates else None


def least_squares(features: FloatArray, times: FloatArray) -> FloatArray:
    """[columns]: the vector without negative values for which ``features`` times it comes closest to ``times``: Lawson
    and Hanson's active sets."""
    size = features.shape[1]
    scale = np.maximum(np.linalg.norm(features, axis=0), 1e-30)
    scaled, used, values = features / scale, np.zeros(size, np.bool_), np.zeros(size)
    for _ in range(3 * size):
        gradient = np.where(used, -np.inf, scaled.T @ (times - scaled @ values))
        if gradient.max() <= 1e-9 * max(1.0, float(np.linalg.norm(times))):
            break
        used[int(gradient.argmax())] = True
        while True:
            trial = np.zeros(size)
            trial[used] = np.linalg.lstsq(scaled[:, used], times, rcond=None)[0]
            if (trial[used] > 0).all():
                break
            falling = used & (trial <= 0)
            step = float((values[falling] / np.maximum(values[falling] - trial[falling], 1e-30)).min())
            values = values + step * (trial - values)
            used &= values > 1e-12
        values = trial
    return values / scale


@dataclass(frozen=True)
class _Observations:
    """[observations, constants] how often each of `WAITS` and `TASKS` went by, rates as reciprocals; and how long it
    took."""

    features: FloatArray
    times: FloatArray

    @staticmethod
    def of(sample: Sample) -> _Observations:
        load_us, work_us = _unit_costs(sample)
        told = _arrivals(sample)
        return _Observations(*_grouped(*_hand_overs(sample, told, load_us + work_us)))


def _hand_overs(sample: Sample, told: FloatArray, task_us: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of each grid whose weights can be there before it begins: from when the last of what it waits for has arrived
    until its last task has computed, which is what the next grid waits for."""
    trace, program = sample.measured, sample.program
    streamed = demand(program, trace.facts.load).streamed_bytes
    features, times = list[FloatArray](), list[float]()
    for grid in range(len(program.grids)):
        mine = np.flatnonzero(trace.grid == grid)
        alone = len(np.unique(trace.sm[mine])) == len(mine)
        alone &= bool((program.event_polled[trace.waits[mine]] | (trace.waits[mine] < 0)).all())
        if (
            alone
            and streamed[mine].max() <= program.launch.ring_bytes
            and (told[mine] > trace.begin[mine]).mean() > 0.5
        ):
            last = mine[trace.computed[mine].argmax()]
            features.append(np.concatenate([[1.0], task_us[last]]))
            times.append(float(trace.computed[last] - told[mine].max()))
    return np.array(features).reshape(-1, len(WAITS) + len(TASKS)), np.array(times)


def _grouped(features: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of all observations with the same features the median of their times."""
    rows, group = np.unique(features.round(9), axis=0, return_inverse=True)
    group = group.reshape(-1)
    return rows, np.array([np.median(times[group == number]) for number in range(len(rows))])


def _arrivals(sample: Sample) -> FloatArray:
    """[tasks]: when the last of what a task waits for could be known; -1 if it waits for nothing."""
    program, trace = sample.program, sample.measured
    tasks, places = np.nonzero(trace.signals >= 0)
    events = trace.signals[tasks, places]
    times = np.where(program.event_polled[events], trace.computed[tasks], trace.signalled[tasks])
    arrived = np.full(len(program.event_count), -1.0)
    np.maximum.at(arrived, events, times)
    return np.where(trace.waits >= 0, arrived[trace.waits], -1.0).max(axis=1, initial=-1.0)


def _unit_costs(sample: Sample) -> tuple[FloatArray, FloatArray]:
    """([tasks, constants], [tasks, constants]): what one unit of each of `TASKS` adds to a task's loads, and work."""
    nothing = Costs(**{name: float("inf") if name.endswith(RATE) else 0.0 for name in (*WAITS, *OTHERS, *TASKS)})
    load = sample.measured.facts.load
    columns = [demand(with_costs(sample.program, replace(nothing, **{name: 1.0})), load) for name in TASKS]
    parts = ("activation_us", "compute_us")
    load_us, work_us = (np.stack([getattr(one, part) for one in columns], axis=1) for part in parts)
    return load_us, work_us


def _constant(name: str, value: float) -> float:
    """``value``, of a rate its reciprocal, with three digits."""
    if name.endswith(RATE):
        value = min(MOST_RATE, 1.0 / max(value, 1.0 / MOST_RATE))
    return float(f"{value:.3g}")


def _within(name: str, value: float) -> float:
    return min(value, 1.0) if name in PARTS else value
