"""sm-verify against a judge in plain loops: damaged plans that are unsafe are rejected by the right rule, no others."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    IntAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    i64,
)
from xdsl.ir.affine import AffineConstantExpr, AffineMap
from xdsl.utils.exceptions import VerifyException

from mpk_ir.core.errors import VerificationError
from mpk_ir.core.memory import Space
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BoxAttr, BufferType, GraphOp, GridOp, SpaceAttr
from mpk_ir.dialects.sm.attributes import CyclicAttr, int_array, ints
from mpk_ir.dialects.sm.ops import EventUse, dense_i32
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.pipeline import plan_passes

from . import mutations
from .conftest import PlanDecoder, graph_of
from .oracle import NaivePlan
from .plans import GraphPlan, build, graph_plans


def rule_of(module: ModuleOp) -> str | None:
    """The rule by which sm-verify rejects ``module``; None if it accepts."""
    try:
        Verify().apply(Context(), module)
    except VerificationError as error:
        return str(error).removeprefix("sm-verify, ").partition(":")[0]
    return None


def planned(drawn: GraphPlan, target: str) -> ModuleOp:
    module = build(drawn)
    for one in plan_passes(target_of(target)):
        one.apply(Context(), module)
    return module


def grid(graph: GraphOp, name: str) -> GridOp:
    (found,) = [g for g in graph.grids if g.sym_name.data == name]
    return found


@given(graph_plans(), st.sampled_from(("sim", "h200")))
@settings(max_examples=15, deadline=None)
def test_plans_are_accepted_and_the_judge_agrees(drawn: GraphPlan, target: str) -> None:
    module = planned(drawn, target)
    assert rule_of(module) is None
    assert NaivePlan(graph_of(module)).broken_rule() is None


@given(graph_plans(), st.sampled_from(mutations.MUTATIONS), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_damaged_random_plans_are_judged_rightly(drawn: GraphPlan, mutation: mutations.Mutation, seed: int) -> None:
    module = planned(drawn, "sim")
    done = mutation(graph_of(module), np.random.default_rng(seed))
    assert rule_of(module) == NaivePlan(graph_of(module)).broken_rule(), done


@pytest.mark.parametrize("mutation", mutations.MUTATIONS)
def test_damaged_decoders_are_judged_rightly(plan_decoder: PlanDecoder, mutation: mutations.Mutation) -> None:
    verdicts: Counter[str | None] = Counter()
    for seed in range(12):
        module = plan_decoder("sim", 1 + 3 * (seed % 2), fused=seed % 4 > 1)
        done = mutation(graph_of(module), np.random.default_rng(seed))
        if done is None:
            continue
        found = rule_of(module)
        assert found == NaivePlan(graph_of(module)).broken_rule(), done
        verdicts[found] += 1
    assert set(verdicts) != {None}, "no seed made an unsafe plan: the test shows nothing"


@pytest.mark.parametrize("mutation", [mutations.drop_wait, mutations.move_box, mutations.alias_buffers])
def test_damaged_decoders_for_the_gpu_are_judged_rightly(
    plan_decoder: PlanDecoder, mutation: mutations.Mutation
) -> None:
    for seed in range(3):
        module = plan_decoder("h200", 4)
        done = mutation(graph_of(module), np.random.default_rng(seed))
        assert rule_of(module) == NaivePlan(graph_of(module)).broken_rule(), done


@pytest.mark.parametrize("target", ["sim", "h200"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("fused", [True, False])
def test_decoders_are_accepted(plan_decoder: PlanDecoder, target: str, batch: int, fused: bool) -> None:
    assert rule_of(plan_decoder(target, batch, fused=fused)) is None


@pytest.fixture
def decoder(plan_decoder: PlanDecoder) -> ModuleOp:
    return plan_decoder("h200", 1)


def test_a_dropped_wait_is_a_race_and_both_tasks_are_named(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "attention")
    chosen.set_events([], chosen.signal_uses)
    where, box = r"\(SM \d+, position \d+\)", r"\[0:8, \d+:\d+\] by operand"
    named = (
        rf"race: nothing orders @\S+q_proj\S+\[\d+\] {where} and @attention\[0, 0, 0\] {where}: "
        rf"of buffer @\S+ the first writes {box} y, the second reads {box} "
    )
    with pytest.raises(VerificationError, match=named):
        Verify().apply(Context(), decoder)


def test_a_dropped_signal_is_a_wrong_count(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "embed_tokens")
    chosen.set_events(chosen.wait_uses, [])
    with pytest.raises(
        VerificationError, match=r"counting: event @embed_tokens->select\S*\[0\] is said to receive \d+ .* give 0"
    ):
        Verify().apply(Context(), decoder)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_changed_count_is_a_wrong_count(decoder: ModuleOp, change: int) -> None:
    event = max(graph_of(decoder).events, key=lambda e: int(e.arrivals[0]))
    mutations.set_count(event.event, 0, change)
    said = int(event.arrivals[0])
    with pytest.raises(
        VerificationError, match=rf"counting: .* receive {said} arrivals a step, its signals give {said - change}"
    ):
        Verify().apply(Context(), decoder)


def test_a_wait_for_an_element_that_does_not_exist_is_named(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "select")
    use = chosen.wait_uses[0]
    chosen.set_events([replace(use, elements=_constant_elements(chosen, 7))], chosen.signal_uses)
    with pytest.raises(
        VerificationError,
        match=r"counting: @select\[0\] \(SM 0, position \d+\) waits on or signals event @\S+\[7\], which",
    ):
        Verify().apply(Context(), decoder)


def test_a_consumer_queued_before_its_producer_is_a_deadlock(plan_decoder: PlanDecoder) -> None:
    module = plan_decoder("sim", 1)
    graph = graph_of(module)
    first, second = grid(graph, "embed_tokens"), grid(graph, "select")
    mutations.swap(graph, first, second)
    with pytest.raises(
        VerificationError,
        match=r"deadlock: \d+ SMs wait for ever; .*@select\[0\] \(SM 0, position \d+\) waits for @\S+ of @embed_tokens",
    ):
        Verify().apply(Context(), module)


def test_a_shifted_read_races_with_the_neighbours_producer(plan_decoder: PlanDecoder) -> None:
    module = plan_decoder("h200", 1)
    graph = graph_of(module)
    chosen = grid(graph, "attention")
    operand = [name.data for name in chosen.operand_names].index("q")
    mutations.set_box(chosen, operand, (0, 8), (0, 0))
    assert rule_of(module) == "race"


def test_a_shifted_write_leaves_elements_unwritten(plan_decoder: PlanDecoder) -> None:
    module = plan_decoder("sim", 1)
    chosen = grid(graph_of(module), "layers.0.mlp.gate_proj+up_proj")
    operand = [name.data for name in chosen.operand_names].index("y")
    mutations.set_box(chosen, operand, (0, 0), (0, -8))
    with pytest.raises(VerificationError, match=r"coverage: @layers.0.mlp.down_proj\[0\] \(.*\) reads by operand x"):
        Verify().apply(Context(), module)


def share_boxes(grid: GridOp, operand: int) -> None:
    """Two neighbours each touch the boxes of both."""
    box = grid.boxes.data[operand]
    rows, columns = ints(box.sizes)
    shared = AffineMap.from_callable(lambda i: (0, i // 2 * (2 * columns)))
    boxes = list(grid.boxes.data)
    boxes[operand] = BoxAttr.of(box.mode, shared, (rows, 2 * columns), ints(box.along))
    grid.boxes = ArrayAttr(boxes)


def test_a_widened_write_overlaps_its_neighbours(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "layers.0.self_attn.o_proj")
    share_boxes(chosen, [name.data for name in chosen.operand_names].index("y"))
    with pytest.raises(VerificationError, match=r"race: .*o_proj\[0\] .*o_proj\[1\] .* by operand y, .* by operand y"):
        Verify().apply(Context(), decoder)


def test_reading_in_place_what_other_tasks_of_the_grid_write_is_a_race(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "layers.0.self_attn.o_proj")
    names = [name.data for name in chosen.operand_names]
    chosen.operands[names.index("residual")] = chosen.data[names.index("y")]
    share_boxes(chosen, names.index("residual"))
    with pytest.raises(VerificationError, match=r"race: .* by operand residual, .* by operand y"):
        Verify().apply(Context(), decoder)


@pytest.mark.parametrize("shift", [-16, 1, 8, 16, 100_000])
def test_a_box_outside_its_buffer_is_named(decoder: ModuleOp, shift: int) -> None:
    chosen = grid(graph_of(decoder), "embed_tokens")
    mutations.set_box(chosen, 0, (0, shift), (0, 0))
    with pytest.raises(
        VerificationError, match=r"bounds: @embed_tokens\[0\] \(SM \d+, position \d+\) touches by operand x the box \["
    ):
        Verify().apply(Context(), decoder)


def test_buffers_in_use_at_once_cannot_share_memory(decoder: ModuleOp) -> None:
    placed = [b for b in graph_of(decoder).buffers if b.offset is not None]
    first, second = placed[0], placed[1]
    assert first.offset is not None
    mutations.place(second, first.offset.value.data)
    names = re.escape(f"buffers @{first.sym_name.data} and @{second.sym_name.data} share bytes")
    with pytest.raises(VerificationError, match=rf"memory: {names} \d+ to \d+ while both are in use, by @.* and @"):
        Verify().apply(Context(), decoder)


def test_a_buffer_past_the_arena_is_named(decoder: ModuleOp) -> None:
    graph = graph_of(decoder)
    assert graph.arena_bytes is not None
    graph.arena_bytes = IntegerAttr(graph.arena_bytes.value.data - 256, i64)
    with pytest.raises(VerificationError, match=r"memory: buffer @\S+ is at bytes \d+ to \d+ of an arena of \d+"):
        Verify().apply(Context(), decoder)


def test_a_task_that_may_outlive_its_step_is_named(decoder: ModuleOp) -> None:
    graph = graph_of(decoder)
    first, last = grid(graph, "embedding"), grid(graph, "advance")
    (step,) = last.signal_uses
    last.set_events(last.wait_uses, [])
    ended = AffineMapAttr(AffineMap(len(first.extent), 0, (AffineConstantExpr(0),)))
    first.set_events(first.wait_uses, [*first.signal_uses, EventUse(step.event, ended)])
    with pytest.raises(VerificationError, match=r"step: @.* may still run when event @step\[0\] ends the step"):
        Verify().apply(Context(), decoder)


def test_a_plan_without_a_step_event_is_rejected(decoder: ModuleOp) -> None:
    graph = graph_of(decoder)
    (step,) = [event for event in graph.events if event.step is not None]
    step.step = None
    with pytest.raises(VerificationError, match="step: expected one step event of one element, found 0"):
        Verify().apply(Context(), decoder)


def test_a_task_on_an_sm_that_does_not_exist_is_named(decoder: ModuleOp) -> None:
    chosen = grid(graph_of(decoder), "embed_tokens")
    chosen.placement = dense_i32([132] * chosen.num_tasks, (chosen.num_tasks,))
    with pytest.raises(
        VerificationError, match=r"resources: @embed_tokens\[0\] is placed on SM 132, h200 has SMs 0 to 131"
    ):
        Verify().apply(Context(), decoder)


def test_what_a_body_reads_before_its_wait_cannot_be_written_in_the_step(plan_decoder: PlanDecoder) -> None:
    module = plan_decoder("sim", 1, fused=False)  # rope cannot poll: what it writes has an event with a counter
    graph = graph_of(module)
    reader = next(g for g in graph.grids if g.kind.data == "attention")
    names, boxes = [name.data for name in reader.operand_names], list(reader.boxes.data)
    early, rotated = names.index("row_count"), names.index("q")
    reader.operands[early], boxes[early] = reader.data[rotated], boxes[rotated]
    reader.boxes = ArrayAttr(boxes)
    with pytest.raises(VerificationError, match=r"memory-model: @.* reads operand row_count before .* @rope"):
        Verify().apply(Context(), module)


def test_a_weight_is_never_written(decoder: ModuleOp) -> None:
    graph = graph_of(decoder)
    chosen = grid(graph, "embed_tokens")
    (y,) = [v for v, box in zip(chosen.data, chosen.boxes, strict=True) if box.mode.writes][:1]
    y.owner.space = SpaceAttr(Space.WEIGHT)  # type: ignore[union-attr]
    with pytest.raises(VerificationError, match=r"memory-model: @embed_tokens\[0\] .* writes weight @"):
        Verify().apply(Context(), decoder)


def test_while_events_alone_order_a_plan_any_placement_is_safe(decoder: ModuleOp) -> None:
    SynthesizeEvents().apply(Context(), decoder)
    for number, one in enumerate(graph_of(decoder).grids):
        one.placement = CyclicAttr(IntAttr(37 * number % 132))
    Pipeline().apply(Context(), decoder)  # how far loads run ahead is another matter
    assert rule_of(decoder) is None


def _constant_elements(chosen: GridOp, element: int) -> DenseIntOrFPElementsAttr:

    return dense_i32([element] * chosen.num_tasks, (chosen.num_tasks, 1))


def test_a_buffer_holds_elements_of_a_type() -> None:
    with pytest.raises(VerifyException, match="expected an element type"):
        BufferType(int_array([4]), StringAttr("bf16"))
