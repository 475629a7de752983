"""The best plan of a model by time on the device: what is predicted to be fast is timed, the fastest kept."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from xdsl.context import Context

from ..compiler import step_module
from ..core.errors import DeviceError, MpkError
from ..pass_manager import PassManager
from ..passes.sm.pipeline import USUAL_LIMITS
from ..passes.tile.names import label
from ..passes.tile.tile import Tile
from ..pipeline import tensor_passes
from ..program_cache import Trial, Tuned
from ..tasks.work import Load
from ..timeline.search import candidates
from ..timeline.simulate import predict
from .plans import Plan, compile_each
from .shapes import shape_config

if TYPE_CHECKING:
    from .summary import Row

Edits = tuple[str, ...]

LEAST_GAIN = 0.005
"""Of the measured step: launches of one plan differ by so much."""
NEAR = 1.01
"""A choice of tiles that is predicted to take up to so many times the step with the one made is worth a try."""
SCHEDULES: tuple[Edits, ...] = ((), ("sm-schedule: sm-schedule-list",))
FLIGHTS: tuple[Edits, ...] = tuple(
    (f"sm-pipeline{{in_flight={few} most_in_flight={most}}}",) for few, most in USUAL_LIMITS
)
"""How many copies are under way, which only the device can tell apart: `sm-pipeline` chooses among these."""
CHECK_STEPS, IDENTICAL_RUNS = 4, 3
BASE: Edits = ()
"""The plan as the cost model makes it."""


def best_predicted(plan: Plan, most: int) -> list[tuple[Edits, float]]:
    """The plan of the cost model, then up to ``most`` others that may be faster, with their predicted microseconds.

    They are: each choice of tiles beside the one made that is predicted to be near it or better, and the best two,
    three and so on together; each with every schedule; and the plan of the cost model with other copies in flight.
    """
    alone = predicted(plan, [BASE, *choices(plan)])
    base_us = _time_of(BASE, alone, plan)
    near = [edits for edits, time in alone if edits != BASE and time <= NEAR * base_us]
    better = [edits for edits, time in alone if time < base_us]
    together = [_joined(better[:count]) for count in range(2, len(better) + 1)]
    tiles = dict.fromkeys((BASE, *together, *near))
    tried = [*((*one, *schedule) for one in tiles for schedule in SCHEDULES), *FLIGHTS]
    times = dict(alone) | dict(predicted(plan, [edits for edits in tried if edits not in dict(alone)]))
    ranked = sorted((edits for edits in tried if edits != BASE and edits in times), key=times.__getitem__)
    return [(BASE, base_us), *((edits, times[edits]) for edits in ranked[:most])]


def asked(plan: Plan, tried: Sequence[Edits]) -> list[tuple[Edits, float]]:
    """The plan of the cost model, then ``tried``, with the microseconds they should take."""
    times = predicted(plan, [BASE, *tried])
    return [(BASE, _time_of(BASE, times, plan)), *(pair for pair in times if pair[0] != BASE)]


def _time_of(edits: Edits, times: Sequence[tuple[Edits, float]], plan: Plan) -> float:
    """Raises what keeps ``plan`` from being made."""
    found = dict(times).get(edits)
    return predict(replace(plan, edits=edits).compile(), _load(plan)).facts.step_us if found is None else found


def choices(plan: Plan) -> list[Edits]:
    """An edit for each choice of tiles beside one made, of each operator, and for all that have the same one."""
    module = step_module(shape_config(plan.model), plan.options)
    PassManager(tensor_passes(plan.ranks), verify_each=False).run(Context(), module)
    operators: dict[tuple[str, int], dict[str, None]] = defaultdict(dict)
    for decision in Tile(target=plan.rank_target.name).decisions(module):
        for value in candidates(decision):
            operators[decision.name, value][label(decision.op)] = None
    alone = [_decide(f"{one}.{name}={value}") for (name, value), named in operators.items() for one in named]
    return alone + [_decide(f"{name}={value}") for (name, value), named in operators.items() if len(named) > 1]


def _decide(*chosen: str) -> Edits:
    return ("tile{decide=" + ",".join(f'"{one}"' for one in chosen) + "}",)


def _joined(tiles: Sequence[Edits]) -> Edits:
    """Edits of tiles, the best first, as one; of several choices of one thing the best."""
    chosen: dict[str, str] = {}
    for (edit,) in tiles:
        what, value = edit.split('"')[1].split("=")
        chosen.setdefault(what, value)
    return _decide(*(f"{what}={value}" for what, value in chosen.items()))


def predicted(plan: Plan, tried: Sequence[Edits]) -> list[tuple[Edits, float]]:
    """Each of ``tried`` with the microseconds that its step should take, the fastest first; those that make no plan are
    left out."""
    if not tried:
        return []
    plans = [replace(plan, edits=edits) for edits in tried]
    workers = min(len(plans), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        times = list(pool.map(_predicted_us, plans))
    found = [(edits, time) for edits, time in zip(tried, times, strict=True) if time is not None]
    return sorted(found, key=lambda pair: pair[1])


def _predicted_us(plan: Plan) -> float | None:
    try:
        return predict(plan.compile(), _load(plan)).facts.step_us
    except MpkError:
        return None


def _load(plan: Plan) -> Load:
    return Load(plan.batch, plan.context)


def tune(plan: Plan, tried: Sequence[tuple[Edits, float]]) -> Iterator[Tuned]:
    """Time ``tried``, of which the first is the plan of the cost model, each compared with fp32 before: what was found
    so far, after each. Plans that fail or are wrong are left out.

    Raises DeviceError if the first of them is.
    """
    from .measure import Bench, What

    bench = Bench(What(CHECK_STEPS, energy=False, identical_runs=IDENTICAL_RUNS))
    plans = [replace(plan, edits=edits) for edits, _ in tried]
    trials: list[Trial] = []
    seen: set[str] = set()
    for one, program, (edits, time) in zip(plans, compile_each(plans), tried, strict=True):
        if isinstance(program, MpkError) or program.digest() in seen:
            continue
        seen.add(program.digest())
        try:
            row = bench.measure(one, program)
        except MpkError as error:
            if edits == BASE:
                raise DeviceError(f"{plan.model}: the plan of the cost model failed: {error}") from error
            continue
        measured = _right_us(row)
        if measured is not None:
            trials.append(Trial(edits, time, measured))
            yield Tuned(bench.report.device, winner(trials).edits, tuple(trials))
        elif edits == BASE:
            raise DeviceError(f"{plan.model}: the plan of the cost model is wrong by fp32 or differs between runs")


def _right_us(row: Row) -> float | None:
    return 1000.0 * row.mpk.median_ms if row.passed and row.mpk else None


def winner(trials: Sequence[Trial]) -> Trial:
    """The fastest, if it gains enough over the plan of the cost model, which is among ``trials``."""
    base = next((trial for trial in trials if trial.edits == BASE), trials[0])
    best = min(trials, key=lambda trial: trial.measured_us)
    return best if best.measured_us < (1 - LEAST_GAIN) * base.measured_us else base
