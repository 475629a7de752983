"""sm-pipeline: how shared memory is split, what the ring holds, and that a ring which is accepted goes round."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr
from xdsl.utils.exceptions import VerifyException

from mpk_ir.bench.plans import Plan
from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.plan_arrays import constants_of
from mpk_ir.core.errors import PlanError
from mpk_ir.core.memory import BLOCK_ROWS, shared_bytes
from mpk_ir.core.target import H200, target_of
from mpk_ir.dialects.sm import SharedMemoryAttr, StreamAttr
from mpk_ir.frontend import StepOptions
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.prefill import compile_prefill
from mpk_ir.proof import PlanRing, Rejection, TaskRef
from mpk_ir.proof.ring import check_ring
from mpk_ir.tasks import BUILTIN_KINDS
from mpk_ir.tasks.wide_linear import ROW_CHOICES

from .conftest import PlanDecoder, graph_of
from .oracle import NaivePlan
from .ring import Split, Use, goes_round

uses = st.builds(Use, st.integers(1, 9), st.integers(1, 6))
NOWHERE = TaskRef("grid", (0,), 0, 0, 0)


def accepted(stages: int, queue: list[Use]) -> bool:
    takes = tuple(use.at_once for use in queue)
    none = np.zeros(0, np.int64)
    ring = PlanRing(stages, 16, 0, 1 << 20, takes, takes, (0,) * len(queue), (0,) * len(queue), none, none == 1)
    try:
        check_ring(ring, (NOWHERE,) * len(queue))
    except Rejection:
        return False
    return True


@given(st.integers(1, 6), st.lists(uses, min_size=1, max_size=5), st.integers(0, 99))
def test_a_ring_that_is_accepted_goes_round_in_any_order(stages: int, queue: list[Use], seed: int) -> None:
    generator = np.random.default_rng(seed)
    runs = goes_round(stages, queue, lambda able: str(generator.choice(able)))
    if accepted(stages, queue):
        assert runs
    elif all(use.stages >= use.at_once for use in queue):
        assert not runs


@pytest.mark.parametrize("target", ["sim", "h200", "a100"])
def test_the_ring_takes_what_scratch_leaves(plan_decoder: PlanDecoder, target: str) -> None:
    graph = graph_of(plan_decoder(target))
    split, limit = graph.shared_memory, target_of(target).shared_memory_bytes
    assert split is not None
    sizes = split.stages.data, split.stage_bytes.data, split.scratch_bytes.data
    assert shared_bytes(*sizes) <= limit
    assert split.stages.data == 16 or shared_bytes(sizes[0] + 1, *sizes[1:]) > limit
    found = Split.of_graph(graph)
    assert found is not None
    assert not found.is_wrong()


@pytest.mark.parametrize(("target", "ring_kib"), [("h200", 0), ("sim", 0), ("sim", 64)])
def test_loads_run_ahead_as_far_as_a_loader_does_that_is_run_step_by_step(
    plan_decoder: PlanDecoder, target: str, ring_kib: int
) -> None:
    module = plan_decoder(target)
    Pipeline(ring_kib).apply(Context(), module)
    graph = graph_of(module)
    expected = NaivePlan(graph).stages_ahead
    streaming = [(number, grid) for number, grid in enumerate(graph.grids) if grid.task_kind.streams]
    assert [grid for grid in graph.grids if grid.stream is not None] == [grid for _, grid in streaming]
    for number, grid in streaming:
        assert grid.stream is not None
        assert grid.stream.ahead.data == expected[number], grid.sym_name.data
    assert len({expected[number] for number, _ in streaming}) > 1 or target == "sim"


@given(st.data())
def test_a_distance_is_accepted_as_far_as_loads_run_ahead(plan_decoder: PlanDecoder, data: st.DataObject) -> None:
    module = plan_decoder(data.draw(st.sampled_from(["sim", "h200"])))
    graph = graph_of(module)
    grid = data.draw(st.sampled_from([grid for grid in graph.grids if grid.stream is not None]))
    assert grid.stream is not None
    most = grid.stream.ahead.data
    said = data.draw(st.integers(0, 40))
    grid.stream = StreamAttr(grid.stream.keeps, IntAttr(said))
    if said <= most:
        Verify().apply(Context(), module)
        return
    with pytest.raises(
        Rejection, match=rf"ring: while @{re.escape(grid.sym_name.data)}\[.* waits {said} stages"
    ) as caught:
        Verify().apply(Context(), module)
    assert caught.value.tasks[0].grid == grid.sym_name.data


def test_a_ring_too_small_for_a_body_is_not_planned(plan_decoder: PlanDecoder) -> None:
    with pytest.raises(PlanError, match="expected at least 4"):
        Pipeline(ring_kib=32).apply(Context(), plan_decoder())


DAMAGES = {
    "a smaller ring": (lambda s: replace_stages(s, 3), "waits for the loader to fill one"),
    "a ring beyond shared memory": (lambda s: replace_stages(s, 99), "bytes of shared memory, a block has"),
    "less scratch": (
        lambda s: SharedMemoryAttr.of(s.stages.data, s.stage_bytes.data, 16),
        "bytes of scratch, a half has 16",
    ),
}


def replace_stages(split: SharedMemoryAttr, stages: int) -> SharedMemoryAttr:
    return SharedMemoryAttr.of(stages, split.stage_bytes.data, split.scratch_bytes.data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_split_that_cannot_work_is_rejected(plan_decoder: PlanDecoder, damage: str) -> None:
    module = plan_decoder()
    graph = graph_of(module)
    assert graph.shared_memory is not None
    change, text = DAMAGES[damage]
    graph.shared_memory = change(graph.shared_memory)
    found = Split.of_graph(graph)
    assert found is not None
    assert found.is_wrong()
    with pytest.raises(Rejection, match=re.escape(text)) as caught:
        Verify().apply(Context(), module)
    assert caught.value.rule == "ring"


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (None, "has 4 stages of the ring at a time, the plan says 0"),
        (StreamAttr(IntAttr(2), IntAttr(0)), "the plan lets it keep 2"),
        (StreamAttr(IntAttr(99), IntAttr(0)), "may keep 99 stages of a ring of"),
    ],
)
def test_what_a_grid_keeps_must_be_what_its_body_takes(
    plan_decoder: PlanDecoder, stream: StreamAttr | None, text: str
) -> None:
    module = plan_decoder()
    grid = next(grid for grid in graph_of(module).grids if grid.kind.data == "linear")
    grid.stream = stream
    with pytest.raises(Rejection, match=re.escape(text)) as caught:
        Verify().apply(Context(), module)
    assert caught.value.tasks[0].grid == grid.sym_name.data


def test_bodies_take_no_more_stages_at_once_than_they_say() -> None:
    """`acquire_stages` is given an array; what the array holds at most must be what the kind declares."""
    for kind in [kind for kind in BUILTIN_KINDS if kind.streams]:
        text = kind.header()
        taken = {1} if "context.acquire_stage()" in text else set[int]()
        if "kMostGroupVectors" in text:
            taken |= {_most_group_stages(text)}
        elif "context.acquire_up_to<" in text:
            taken |= {_most_round_stages(text)}
        elif "context.acquire_stages(" in text:
            taken |= {_most_step_stages(text)}
        assert taken, kind.name
        assert max(taken) <= kind.stages_at_once, kind.name


def _most_group_stages(text: str) -> int:
    """Of linear: vectors of weights that fit in registers beside one stage of x, in stages."""
    most = int(re.search(r"kMostGroupVectors = (\d+)", text)[1])  # type: ignore[index]
    blocks = 16 * 1024 // 32 // 32 // 8
    return (most - blocks) // (2 * blocks)


def _most_round_stages(text: str) -> int:
    """Of attention: what a round takes is bounded."""
    assert re.search(r"kRoundStages = kLongSplits \? 1 : min_of\(.*, kMostStages\);", text)
    return int(re.search(r"kMostStages = (\d+);", text)[1])  # type: ignore[index]


def _most_step_stages(text: str) -> int:
    """Of wide_linear: weights of both warpgroups, and two blocks of x for 256 rows."""
    warpgroups, blocks = (int(re.search(rf"{n} = (\d+)", text)[1]) for n in ("kWarpgroups", "kStepBlocks"))  # type: ignore[index]
    for taken in ("stages[kWarpgroups];", "x[kHalves];"):
        assert taken in text, "what a step takes"
    return warpgroups + blocks * max(ROW_CHOICES) // BLOCK_ROWS


def test_a_split_is_read_back_from_the_tables(plan_decoder: PlanDecoder) -> None:
    graph = graph_of(plan_decoder())
    split = Split.of_graph(graph)
    assert split is not None
    assert replace(split, stages=0).is_wrong()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(4, 12))
def test_copies_in_flight_are_at_least_one_and_no_more_than_the_ring(few: int, most: int, stages: int) -> None:
    """``in_flight`` of 0 means no limit; what is asked for is cut to what a ring of ``stages`` can have."""
    split = SharedMemoryAttr.of(stages, 16, 0, Pipeline(in_flight=few, most_in_flight=most).limits((3, 5), stages))
    assert 1 <= split.in_flight.data <= split.most_in_flight.data <= stages
    assert (split.in_flight.data == stages) == (few == 0 or few >= stages)
    if few:
        assert split.in_flight.data <= few


@pytest.mark.parametrize(
    ("model", "batch", "few", "most"),
    [
        ("qwen3-0.6b", 1, 1, 6),
        ("qwen3-0.6b", 16, 2, 6),
        ("llama-3.2-1b", 1, 3, 5),
        ("llama-3.2-1b", 16, 2, 6),
        ("qwen3-8b", 16, 3, 5),
    ],
)
def test_the_more_memory_bounds_a_step_the_more_copies_are_in_flight(
    model: str, batch: int, few: int, most: int
) -> None:
    """As measured on an H200 (docs/performance.md); options go before it, one by one."""
    program = Plan(model, batch=batch, context=512).compile()
    constants = constants_of(program)
    assert (constants["kStagesInFlight"], constants["kMostStagesInFlight"]) == (few, most)
    assert Pipeline(in_flight=4).limits((few, most), 9) == (4, max(4, most))
    assert Pipeline(most_in_flight=7).limits((few, most), 9) == (few, 7)


def test_loaders_that_bring_activations_have_no_limit_of_copies() -> None:
    program = compile_prefill(replace(shape_config("tiny"), hidden_size=256), H200, StepOptions(1, 8, 320, 16), 128)
    constants = constants_of(program)
    assert constants["kStagesInFlight"] == constants["kMostStagesInFlight"] == constants["kRingStages"]


@pytest.mark.parametrize(("few", "most"), [(0, 3), (5, 3), (3, 14)])
def test_copies_in_flight_that_no_ring_has_are_refused(few: int, most: int) -> None:
    with pytest.raises(VerifyException, match=rf"expected copies of 1 to 13 stages in flight, found {few} to {most}"):
        SharedMemoryAttr.of(13, 16384, 640, (few, most))
