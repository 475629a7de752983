"""Whatever a schedule or memory plan decides, the result of the program stays the same and the plan is proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import PlanError
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import GraphOp, GridOp
from mpk_ir.dialects.sm.expansion import placement
from mpk_ir.frontend import StepOptions, build_step
from mpk_ir.passes.base import MpkPass, collect_statistics
from mpk_ir.passes.lower.lower_to_cuda import LowerToCuda
from mpk_ir.passes.sm.elide_waits import ElideWaits
from mpk_ir.passes.sm.fuse_events import FuseEvents
from mpk_ir.passes.sm.normalize_events import NormalizeEvents
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.plan_memory import ALIGNMENT_BYTES, PlanMemory
from mpk_ir.passes.sm.poll_data import PollData
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.schedule_list import ScheduleList
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.pipeline import tensor_passes
from mpk_ir.tasks.attention import AttentionParams

from .conftest import PlanDecoder, graph_of
from .plans import ROWS, GraphPlan, build, graph_plans, random_params
from .test_meaning import run

SCHEDULES: tuple[MpkPass, ...] = (Schedule(chain=False), Schedule(rotate=False), ScheduleList())


def planned(
    module: ModuleOp, schedule: MpkPass, target: str = "sim", *, reuse: bool = True, polled: bool = True
) -> GraphOp:
    events = (SynthesizeEvents(), FuseEvents(), NormalizeEvents())
    passes = [Tile(target=target), *([PollData()] if polled else []), *events, schedule, Pipeline(), PlanMemory(reuse)]
    for one in (*passes, Verify()):
        one.apply(Context(), module)
    return graph_of(module)


def program_of(module: ModuleOp) -> Program:
    LowerToCuda().apply(Context(), module)
    return emit(module)


@given(graph_plans(), st.sampled_from(SCHEDULES), st.integers(0, 99))
@settings(max_examples=25)
def test_every_schedule_gives_the_same_bits(drawn: GraphPlan, schedule: MpkPass, seed: int) -> None:
    x = np.ones((ROWS, drawn.width), np.float32)
    params = random_params(build(drawn), seed)
    first, second = build(drawn), build(drawn)
    planned(first, Schedule())
    planned(second, schedule)
    found = run(program_of(second), params, x, seed)
    np.testing.assert_array_equal(found, run(program_of(first), params, x, seed + 1))


@given(graph_plans(), st.sampled_from(["h200", "sim", "a100"]))
@settings(max_examples=25)
def test_list_scheduling_uses_sms_that_exist_and_says_why(drawn: GraphPlan, target: str) -> None:
    num_sms = target_of(target).num_sms
    module = build(drawn)
    graph = planned(module, ScheduleList(), target)
    for grid in graph.grids:
        sms = placement(grid, num_sms)
        assert ((sms >= 0) & (sms < num_sms)).all()
        assert grid.placement_reason is not None
        assert "earliest end" in grid.placement_reason.data
    text = str(module)
    ScheduleList().apply(Context(), module)
    assert str(module) == text, "a second run decides the same"


def test_list_scheduling_spreads_tasks_of_equal_cost_evenly(plan_decoder: PlanDecoder) -> None:
    module = plan_decoder("h200")
    for one in (
        SynthesizeEvents(),
        ScheduleList(),
        ElideWaits(),
        Pipeline(),
        Verify(),
    ):  # events that no old schedule made elide
        one.apply(Context(), module)
    for grid in graph_of(module).grids:
        if grid.kind.data == "linear":
            most = np.bincount(placement(grid, 132)).max()
            assert most == -(-grid.num_tasks // 132), grid.sym_name.data


@pytest.mark.parametrize("schedule", [Schedule(), ScheduleList()])
def test_a_graph_without_tasks_is_refused(schedule: MpkPass) -> None:
    from xdsl.ir import Block

    module = ModuleOp([GraphOp("empty", "sim", {}, Block())])
    with pytest.raises(PlanError, match=f"{schedule.name}: graph @empty has no tasks"):
        schedule.apply(Context(), module)


@given(graph_plans(), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_the_arena_lies_between_what_is_live_and_all_buffers(drawn: GraphPlan, reuse: bool, polled: bool) -> None:
    module = build(drawn)
    with collect_statistics() as statistics:
        graph = planned(module, Schedule(), reuse=reuse, polled=polled)
    found = statistics["sm-plan-memory"]
    assert found["together_bytes"] <= found["arena_bytes"] <= found["scratch_bytes"]
    assert reuse or found["arena_bytes"] == found["scratch_bytes"]
    assert graph.arena_bytes is not None
    assert graph.arena_bytes.value.data == found["arena_bytes"]
    offsets = [buffer.offset.value.data for buffer in graph.buffers if buffer.offset is not None]
    assert all(offset % ALIGNMENT_BYTES == 0 for offset in offsets)
    assert polled or not found["polled_bytes"]


def arena_of(num_layers: int, *, polled: bool, batch: int = 8) -> int:
    """Bytes of the arena of a decoder of many layers."""
    config = replace(shape_config("tiny"), num_layers=num_layers)
    module = build_step(config, StepOptions(batch=batch, rows=8, max_length=64, page_size=16))
    for one in tensor_passes():
        one.apply(Context(), module)
    graph = planned(module, Schedule(), "h200", polled=polled)
    assert graph.arena_bytes is not None
    return graph.arena_bytes.value.data


def test_without_polled_data_many_layers_need_the_memory_of_one() -> None:
    assert arena_of(6, polled=False) == arena_of(2, polled=False)


def test_polled_data_need_two_copies_of_what_a_layer_hands_on_and_no_more() -> None:
    two, three, six = (arena_of(layers, polled=True) for layers in (2, 3, 6))
    rows, heads, kv_heads, dim, hidden, inner = 8, 4, 2, 32, 192, 384
    splits = next(g.task_params.splits for g in _grids_of_layers() if isinstance(g.task_params, AttentionParams))
    handed_on = rows * (
        2 * (heads + 2 * kv_heads) * dim  # queries, keys, values, of two bytes an element
        + (4 * splits * heads * (dim + 2) if splits > 1 else 0)  # parts of attention, a maximum and a sum each
        + 2 * heads * dim  # merged, or whole at once
        + 2 * 2 * hidden  # the residual stream behind attention and behind the MLP
        + 2 * inner
    )
    layer = three - two
    assert six - two == 4 * layer, "layers are alike"
    assert 2 * handed_on <= layer <= 2 * (handed_on + 7 * ALIGNMENT_BYTES)


def _grids_of_layers() -> list[GridOp]:
    module = build_step(shape_config("tiny"), StepOptions(batch=8, rows=8, max_length=64, page_size=16))
    for one in tensor_passes():
        one.apply(Context(), module)
    return planned(module, Schedule(), "h200").grids
