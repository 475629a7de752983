"""Chains move grids, never change what is computed, and only where the cost model gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import GraphOp
from mpk_ir.dialects.sm.expansion import placement
from mpk_ir.passes.base import collect_statistics
from mpk_ir.passes.sm.elide_waits import ElideWaits
from mpk_ir.passes.sm.fuse_chains import FuseChains
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.plan_memory import PlanMemory
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.tasks.work import Load
from mpk_ir.timeline.simulate import predict

from .conftest import PlanDecoder, graph_of
from .oracle import NaivePlan
from .plans import ROWS, GraphPlan, Layer, build, graph_plans, random_params
from .test_meaning import run
from .test_schedule import program_of


def scheduled(drawn: GraphPlan, target: str, *, chains: bool) -> ModuleOp:
    module = build(drawn)
    passes = (Tile(target=target), SynthesizeEvents(), Schedule(), *([FuseChains()] if chains else []))
    for one in (*passes, ElideWaits(), Pipeline(), PlanMemory(), Verify()):
        one.apply(Context(), module)
    return module


def sms_of(graph: GraphOp) -> dict[str, list[int]]:
    num_sms = target_of(graph.target.data).num_sms
    return {grid.sym_name.data: placement(grid, num_sms).tolist() for grid in graph.grids}


@given(graph_plans(), st.sampled_from(("sim", "h200")), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_chains_change_no_bit_and_no_rule(drawn: GraphPlan, target: str, seed: int) -> None:
    params, x = random_params(build(drawn), seed), np.ones((ROWS, drawn.width), np.float32)
    modules = [scheduled(drawn, target, chains=chains) for chains in (False, True)]
    assert NaivePlan(graph_of(modules[1])).broken_rule() is None
    first, second = (run(program_of(module), params, x, seed) for module in modules)
    np.testing.assert_array_equal(first, second)


@given(graph_plans())
@settings(max_examples=25, deadline=None)
def test_what_is_chained_has_no_wait_and_what_is_not_has_not_moved(drawn: GraphPlan) -> None:
    module = build(drawn)
    for one in (Tile(target="h200"), SynthesizeEvents(), Schedule()):
        one.apply(Context(), module)
    before = sms_of(graph_of(module))
    with collect_statistics() as statistics:
        FuseChains().apply(Context(), module)
    graph = graph_of(module)
    chained = [g for g in graph.grids if g.placement_reason and g.placement_reason.data.startswith("in chains")]
    assert len(chained) == statistics.get("sm-fuse-chains", {}).get("chained_grids", 0)
    moved = {name for name, sms in sms_of(graph).items() if sms != before[name]}
    assert moved == {grid.sym_name.data for grid in chained}
    text = str(module)
    FuseChains().apply(Context(), module)
    assert str(module) == text, "a second run finds nothing to move"
    ElideWaits().apply(Context(), module)
    assert not any(grid.wait_uses for grid in graph_of(module).grids if grid.sym_name.data in moved)


CHAIN = GraphPlan(104, tuple(Layer("silu" if n % 2 else "neg", n, 0, 0) for n in range(6)))
NORMS = GraphPlan(64, tuple(Layer(kind, n, 0, 64) for n, kind in enumerate(("linear", "rms_norm", "silu", "linear"))))


@pytest.mark.parametrize("drawn", [CHAIN, NORMS])
def test_the_timeline_agrees_that_chains_gain(drawn: GraphPlan) -> None:
    apart, chained = (program_of(scheduled(drawn, "h200", chains=chains)) for chains in (False, True))
    loaded = replace(apart.target, handoff_idle_us=apart.target.handoff_loaded_us)  # what the pass reckons with
    times = [predict(replace(one, target=loaded), Load(ROWS, 1)).facts.step_us for one in (apart, chained)]
    assert times[1] <= times[0]


def test_an_unfused_decoder_gains_and_a_fused_one_stays(plan_decoder: PlanDecoder) -> None:
    for fused, chained in ((True, False), (False, True)):
        graph = graph_of(plan_decoder("h200", 4, fused=fused))
        reasons = [grid.placement_reason.data for grid in graph.grids if grid.placement_reason is not None]
        assert any(reason.startswith("in chains") for reason in reasons) == chained
