"""Dropping edges and waits leaves exactly the order there was, and nothing that could still be dropped."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, bf16
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from mpk_ir.core.target import target_of
from mpk_ir.dialects import tg
from mpk_ir.passes.analysis.dependences import Dependence, Dependences
from mpk_ir.passes.analysis.order import reduce_edges
from mpk_ir.passes.base import collect_statistics
from mpk_ir.passes.sm.elide_waits import ElideWaits
from mpk_ir.passes.sm.fuse_events import FuseEvents
from mpk_ir.passes.sm.normalize_events import NormalizeEvents
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.pipeline import plan_passes

from .conftest import PlanDecoder, graph_of
from .oracle import Key, NaivePlan
from .plans import GraphPlan, Layer, build, graph_plans


def scheduled(drawn: GraphPlan, target: str, *, reduce: bool) -> ModuleOp:
    module = build(drawn)
    passes = (Tile(target=target), SynthesizeEvents(reduce=reduce), FuseEvents(), NormalizeEvents(), Schedule())
    for one in passes:
        one.apply(Context(), module)
    return module


def over(plan: NaivePlan) -> list[int]:
    """Per task, as bits, the tasks that are over when it starts."""
    before = plan.before()
    assert before is not None
    return before


def superfluous(plan: NaivePlan) -> list[tuple[int, Any]]:
    """Waits and arrivals that the rest implies, in plain loops."""
    before, found = over(plan), list[tuple[int, Any]]()
    signallers: dict[Key, list[int]] = defaultdict(list)
    for task, keys in enumerate(plan.signals):
        for key in keys:
            signallers[key].append(task)
    latest: dict[int, int] = {}
    for task, keys in enumerate(plan.waits):
        for dropped in keys:
            known = 0
            others = [t for key in keys if key != dropped for t in signallers[key]]
            for other in [*others, *([latest[plan.sm[task]]] if plan.sm[task] in latest else [])]:
                known |= before[other] | 1 << other
            if all(known >> t & 1 for t in signallers[dropped]):
                found.append((task, dropped))
        latest[plan.sm[task]] = task
    found += [
        (task, key) for key, tasks in signallers.items() for task in tasks if any(before[t] >> task & 1 for t in tasks)
    ]
    return found


@given(graph_plans(), st.sampled_from(("sim", "h200")), st.booleans())
@settings(max_examples=40, deadline=None)
def test_eliding_keeps_the_order_and_leaves_nothing_to_elide(drawn: GraphPlan, target: str, reduce: bool) -> None:
    module = scheduled(drawn, target, reduce=reduce)
    before = NaivePlan(graph_of(module))
    ElideWaits().apply(Context(), module)
    module.verify()
    Verify().apply(Context(), module)
    after = NaivePlan(graph_of(module))
    assert over(after) == over(before)
    assert superfluous(after) == []
    assert all(signals for signals in _arrivals(after).values())
    text = str(module)
    ElideWaits().apply(Context(), module)
    assert str(module) == text


def _arrivals(plan: NaivePlan) -> dict[Key, int]:
    found = dict.fromkeys(plan.said, 0)
    for keys in plan.signals:
        for key in keys:
            found[key] += 1
    return found


@given(graph_plans(), st.sampled_from(("sim", "h200")))
@settings(max_examples=20, deadline=None)
def test_each_option_alone_keeps_the_order(drawn: GraphPlan, target: str) -> None:
    module = scheduled(drawn, target, reduce=False)
    before = over(NaivePlan(graph_of(module)))
    for one in (ElideWaits(waits=False), ElideWaits(arrivals=False)):
        changed = module.clone()
        one.apply(Context(), changed)
        assert over(NaivePlan(graph_of(changed))) == before


@pytest.mark.parametrize("fused", [True, False])
def test_a_decoder_waits_less_and_its_statistics_say_so(plan_decoder: PlanDecoder, fused: bool) -> None:
    module = plan_decoder("sim", 2, fused=fused)
    SynthesizeEvents().apply(Context(), module)
    with collect_statistics() as statistics:
        ElideWaits().apply(Context(), module)
    Verify().apply(Context(), module)
    counts = statistics["sm-elide-waits"]
    for name in ("waits", "arrivals", "events"):
        assert counts[name] < counts[f"{name}_before"]
    assert counts["waits"] == sum(map(len, NaivePlan(graph_of(module)).waits))


def task_closure(edges: list[Dependence], sizes: list[int]) -> np.ndarray:
    """[tasks, tasks]: whether a path of edges leads from one to the other."""
    first = np.cumsum([0, *sizes])
    reach = np.zeros((first[-1], first[-1]), np.bool_)
    for edge in sorted(edges, key=lambda e: e.consumer):
        rows = slice(first[edge.producer], first[edge.producer + 1])
        columns = slice(first[edge.consumer], first[edge.consumer + 1])
        reach[rows, columns] |= edge.relation
        reach[:, columns] |= (reach[:, rows].astype(np.int32) @ edge.relation.astype(np.int32)) > 0
    return reach


@given(graph_plans())
@settings(max_examples=40, deadline=None)
def test_edges_that_are_kept_imply_the_others_and_not_each_other(drawn: GraphPlan) -> None:
    module = build(drawn)
    Tile(target="h200").apply(Context(), module)
    dependences = Dependences(graph_of(module))
    sizes = [grid.num_tasks for grid in dependences.grids]
    kept, _ = reduce_edges(dependences.edges, len(sizes))
    assert np.array_equal(task_closure(kept, sizes), task_closure(dependences.edges, sizes))
    whole, first = task_closure(kept, sizes), np.cumsum([0, *sizes])
    for edge in kept:
        rest = task_closure([e for e in kept if e is not edge], sizes)
        block = np.ix_(
            np.arange(first[edge.producer], first[edge.producer + 1]),
            np.arange(first[edge.consumer], first[edge.consumer + 1]),
        )
        assert (whole[block] & edge.relation & ~rest[block]).any(), "an edge that the others imply"


DIAMOND = (Layer("silu", 0, 0, 0), Layer("silu", 1, 0, 0), Layer("rms_norm", 1, 0, 0), Layer("add", 2, 1, 0))
SHAPES: dict[str, tuple[Layer, ...]] = {
    "fork": tuple(Layer("linear", 0, 0, width) for width in (16, 24, 40, 64, 104)),
    "join": (*(Layer("silu", 0, 0, 0) for _ in range(5)), *(Layer("add", n, n + 1, 0) for n in range(1, 5))),
    "diamond": DIAMOND,
    "two diamonds": (*DIAMOND, Layer("silu", 4, 0, 0), Layer("rms_norm", 4, 0, 0), Layer("mul", 5, 5, 0)),
    "residual": (Layer("rms_norm", 0, 0, 0), Layer("linear", 1, 0, 40), Layer("add", 0, 1, 0), Layer("add", 3, 0, 0)),
    "chain": tuple(Layer("silu", n, 0, 0) for n in range(6)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", ["sim", "h200"])
@pytest.mark.parametrize("limit", [2, 4])
def test_every_shape_of_graph_is_legal(shape: str, target: str, limit: int) -> None:
    module = build(GraphPlan(40, SHAPES[shape]))
    for one in plan_passes(target_of(target)):
        (NormalizeEvents(limit=limit) if isinstance(one, NormalizeEvents) else one).apply(Context(), module)
    module.verify()
    assert NaivePlan(graph_of(module)).broken_rule() is None


@pytest.mark.parametrize("limit", [2, 4])
def test_unfused_projections_of_a_shared_norm_are_legal(limit: int) -> None:
    """One norm read by q, k and v, and by gate and up: the fork that operator-level compilers refuse."""
    block = Block(arg_types=[tg.tensor((8, 64), bf16)])
    weight = tg.ParamOp("norm", tg.tensor((64,), bf16))
    norm = tg.RmsNormOp(block.args[0], weight.result, 1e-6)
    block.add_ops([weight, norm])
    parts = []
    for name in ("q", "k", "v", "gate", "up"):
        param = tg.ParamOp(name, tg.tensor((64, 64), bf16))
        linear = tg.LinearOp(norm.result, param.result)
        block.add_ops([param, linear])
        parts.append(linear.result)
    joined = parts[0]
    for part in parts[1:]:
        both = tg.AddOp(joined, part)
        block.add_op(both)
        joined = both.result
    block.add_op(ReturnOp(joined))
    module = ModuleOp([FuncOp("step", ([block.args[0].type], [joined.type]), Region(block))])
    for one in plan_passes(target_of("h200")):
        (NormalizeEvents(limit=limit) if isinstance(one, NormalizeEvents) else one).apply(Context(), module)
    module.verify()
    assert NaivePlan(graph_of(module)).broken_rule() is None
