"""Tile sizes by trial: what the cost model decides is tried against its neighbours on the timeline simulator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, i64
from xdsl.ir import Operation

from ..codegen.emit import emit
from ..core.target import Target
from ..passes.lower.lower_to_cuda import LowerToCuda
from ..passes.sm.verify import Verify
from ..passes.tile.decisions import OVERRIDE, Decision
from ..passes.tile.names import label
from ..passes.tile.tile import Tile
from ..pipeline import plan_passes
from ..tasks.work import Load
from .simulate import predict

LEAST_GAIN = 0.002
"""Of the step's time: less is not worth leaving what the cost model says."""


@dataclass(frozen=True)
class Trial:
    """All ops that ``operator`` stands for with ``decision`` = ``value``: the step's predicted time.

    ``before``: the value before the search, the cost model's if no attribute says otherwise; ``kept``: the one after.
    """

    operator: str
    decision: str
    value: int
    step_us: float
    before: bool
    kept: bool


OnTrial = Callable[[str], None]
"""Called with the operator whose alternatives are tried next."""


def search_tiles(module: ModuleOp, target: Target, load: Load, on_trial: OnTrial | None = None) -> list[Trial]:
    """Try alternatives of every kind of op in ``module`` (one `tg` function), one kind after another, and keep the best
    as an attribute of the ops. Ops of equal types and properties (those of all layers) get the same.

    Returns all trials, best first for each kind. Raises what planning raises.
    """
    decisions = Tile(target=target.name).decisions(module)
    groups: dict[Hashable, list[Decision]] = defaultdict(list)
    for decision in decisions:
        groups[_key(decision)].append(decision)
    base_us = step_us(module, target, load)
    trials: list[Trial] = []
    for group in groups.values():
        if on_trial is not None:
            on_trial(label(group[0].op))
        found = _try(module, group, base_us, lambda: step_us(module, target, load))
        base_us = next(trial.step_us for trial in found if trial.kept)
        trials += found
    return trials


def step_us(module: ModuleOp, target: Target, load: Load) -> float:
    """The predicted step of ``module``, which stays as it is."""
    copy = module.clone()
    for one in (*plan_passes(target), LowerToCuda()):
        if not isinstance(one, Verify):  # alternatives are proved when one of them is compiled
            one.apply(Context(), copy)
    return predict(emit(copy), load).facts.step_us


def candidates(decision: Decision) -> list[int]:
    """The choices next to the one made, and those half and twice as large."""
    chosen, place = decision.chosen, decision.choices.index(decision.chosen)
    beside = decision.choices[max(place - 1, 0) : place + 2]
    wanted = {chosen // 2, *beside, chosen + chosen // 2, 2 * chosen}
    return sorted(wanted & set(decision.choices) - {chosen})


def _key(decision: Decision) -> Hashable:
    op = decision.op
    types = (*op.operand_types, *op.result_types)
    return decision.name, op.name, types, tuple(op.properties.items())


def _try(module: ModuleOp, group: list[Decision], base_us: float, measure: Callable[[], float]) -> list[Trial]:
    """The trials of one kind of op; its ops end with the best value."""
    first = group[0]
    times = {first.chosen: base_us}
    for value in candidates(first):
        for decision in group:
            override(decision.op, decision.name, value)
        times[value] = measure()
    best = min(times, key=lambda value: (times[value], value))
    if times[best] > (1 - LEAST_GAIN) * base_us:
        best = first.chosen
    for decision in group:
        override(decision.op, decision.name, best)
    name = label(first.op)
    trials = [
        Trial(name, first.name, value, time, value == first.chosen, value == best) for value, time in times.items()
    ]
    return sorted(trials, key=lambda trial: trial.step_us)


def override(op: Operation, name: str, value: int) -> None:
    """Decide ``name`` of ``op`` by attribute."""
    found = op.attributes.get(OVERRIDE)
    others = found.data if isinstance(found, DictionaryAttr) else {}
    op.attributes[OVERRIDE] = DictionaryAttr({**others, name: IntegerAttr(value, i64)})
