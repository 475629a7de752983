"""Polled data: what may be polled, what it orders, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.memory import Layout
from mpk_ir.core.target import target_of
from mpk_ir.frontend import StepOptions, build_step
from mpk_ir.passes.analysis.dependences import Dependences
from mpk_ir.passes.analysis.order import memory_order, reduce_edges
from mpk_ir.passes.analysis.plan_arrays import plan_of
from mpk_ir.passes.sm.poll_data import PollData
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.pipeline import plan_passes, tensor_passes
from mpk_ir.proof import Plan, Rejection, check
from mpk_ir.proof.order import Order
from mpk_ir.proof.plan import Region

from .conftest import PlanDecoder, graph_of
from .oracle import NaivePlan
from .plans import ROWS, GraphPlan, Layer, build, random_params
from .test_meaning import run
from .test_schedule import planned, program_of


@st.composite
def product_plans(draw: st.DrawFn) -> GraphPlan:
    """Mostly chains of products and slices of what they make, which are what can be polled."""
    widths, position = st.sampled_from((16, 24, 40, 64, 104)), st.integers(0, 7)
    kinds = st.sampled_from(("linear", "linear", "linear", "slice", "silu"))
    layers = draw(st.lists(st.builds(Layer, kinds, position, position, widths), min_size=2, max_size=7))
    return GraphPlan(draw(widths), tuple(layers))


def plan_of_module(module: ModuleOp, target: str) -> Plan:
    for one in plan_passes(target_of(target)):
        one.apply(Context(), module)
    return plan_of(graph_of(module))


@given(product_plans(), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_polling_changes_no_bit_of_the_result(drawn: GraphPlan, seed: int) -> None:
    x = np.ones((ROWS, drawn.width), np.float32)
    params = random_params(build(drawn), seed)
    results: list[np.ndarray] = []
    for polled in (True, False):
        module = build(drawn)
        planned(module, Schedule(), polled=polled)
        results.append(run(program_of(module), params, x, seed))
    np.testing.assert_array_equal(results[0], results[1])


@given(product_plans())
@settings(max_examples=25, deadline=None)
def test_what_is_polled_has_one_writer_and_readers_that_can(drawn: GraphPlan) -> None:
    module = build(drawn)
    graph = planned(module, Schedule())
    for buffer in graph.buffers:
        uses = [(g, n) for g in graph.grids for n, value in enumerate(g.data) if value is buffer.buffer]
        able = all(g.task_kind.operand(g.operand_names.data[n].data).polled for g, n in uses)
        writers = sum(g.boxes.data[n].mode.writes for g, n in uses)
        assert (buffer.polled is not None) == (str(buffer.space.data) == "scratch" and able and writers == 1)
    text = str(module)
    PollData().apply(Context(), module)
    assert str(module) == text


def bits(order: Order) -> list[int]:
    """Per task the set of those that are over when it starts."""
    tasks = np.arange(order.plan.num_tasks)
    over = [order.before(tasks, np.full(len(tasks), task)) for task in tasks.tolist()]
    return [sum(1 << int(task) for task in np.flatnonzero(row)) for row in over]


@given(product_plans(), st.sampled_from(("sim", "h200")))
@settings(max_examples=25, deadline=None)
def test_what_data_tells_is_what_the_judge_says(drawn: GraphPlan, target: str) -> None:
    module = build(drawn)
    order = Order.of(plan_of_module(module, target))
    naive = NaivePlan(graph_of(module))
    assert bits(order) == naive.before()
    assert bits(order.strong) == naive.before(polled=False)
    told = naive.before(telling=True)
    assert told is not None
    assert all(mine & ~judged == 0 for mine, judged in zip(bits(order.told), told, strict=True))


@pytest.mark.parametrize(
    ("target", "batch", "after"), [("sim", 1, "attention.merge"), ("h200", 4, "layers.0.self_attn.o_proj")]
)
def test_of_a_decoder_data_tells_of_products_and_not_of_attention(
    plan_decoder: PlanDecoder, target: str, batch: int, after: str
) -> None:
    plan = plan_of(graph_of(plan_decoder(target, batch)))
    order = Order.of(plan)
    tasks = {grid.name: np.arange(grid.first, grid.end) for grid in plan.grids}

    def told(first: str, second: str) -> bool:
        pairs = np.meshgrid(tasks[first], tasks[second])
        return bool(order.told.before(pairs[0].ravel(), pairs[1].ravel()).all())

    assert told("layers.0.mlp.gate_proj+up_proj", "layers.0.mlp.down_proj")
    assert told("embed_tokens", "select")
    assert not told("attention", after), "a request without rows publishes nothing"
    assert not told("layers.0.self_attn.q_proj+k_proj+v_proj", "attention"), "nor does it read anything"


def test_lookups_that_sms_share_tell_that_ids_are_read() -> None:
    """So `advance` writes the next ids and waits for no counter. Rows in place of columns would not tell: of later rows
    nobody knows whether they are active."""
    config = replace(shape_config("tiny"), hidden_size=2048)
    module = build_step(config, StepOptions(batch=8, rows=8, max_length=64, page_size=16))
    for one in (*tensor_passes(), *plan_passes(target_of("h200"))):
        one.apply(Context(), module)
    graph = graph_of(module)
    assert {event.sym_name.data for event in graph.events if event.polled is None} == {"step"}
    plan = plan_of(graph)
    lookup, product = plan.grids[:2]
    assert lookup.index.tolist() == [[0, block] for block in range(8)]
    later = replace(plan, regions=tuple(map(_without_its_first_row, plan.regions)))
    tasks, readers = np.meshgrid(np.arange(lookup.first + 1, lookup.end), np.arange(product.first, product.end))
    for order, told in ((Order.of(plan), True), (Order.of(later), False)):
        assert order.before(tasks.ravel(), readers.ravel()).all()
        assert (order.told.before(tasks.ravel(), readers.ravel()) == told).all()


def _without_its_first_row(region: Region) -> Region:
    """``region``, if the lookup writes it, as if its tasks after the first wrote no row that is sure to be active."""
    low = region.bounds.low.copy()
    low[1:, 0] += region.grid == 0 and region.writes
    return replace(region, bounds=replace(region.bounds, low=low))


def test_writing_what_an_idle_request_may_still_read_is_a_race(plan_decoder: PlanDecoder) -> None:
    """Attention of a request without rows publishes nothing, so only its SM's later tasks tell that it is done."""
    plan = plan_of(graph_of(plan_decoder("h200", 4)))
    check(plan)
    attention = next(
        grid for grid in reversed(plan.grids) if grid.name.startswith("attention") and "merge" not in grid.name
    )
    task = attention.first
    queue, position = plan.queue.copy(), plan.position.copy()
    position[(queue == queue[task]) & (position > position[task])] -= 1
    queue[task], position[task] = plan.num_queues, 0  # alone on one more SM
    sms = {"queue_sm": np.arange(plan.num_queues + 1), "queue_rank": np.zeros(plan.num_queues + 1, np.int64)}
    with pytest.raises(Rejection, match=rf"race: nothing orders @{attention.name}\[.* and @advance") as caught:
        check(replace(plan, queue=queue, position=position, **sms))
    assert caught.value.places[0].buffer in ("requests", "row_count")


def test_nothing_but_an_appending_task_writes_what_a_later_one_streams(plan_decoder: PlanDecoder) -> None:
    plan = plan_of(graph_of(plan_decoder("sim", 1, fused=False)))
    check(plan)
    written = [replace(region, appends=False) if region.operand == "cache" else region for region in plan.regions]
    with pytest.raises(Rejection, match=r"memory-model: @kv_append\S* .* writes what @attention\S* .* streams ahead"):
        check(replace(plan, regions=tuple(written)))


@pytest.mark.parametrize("change", ["reader", "two writers", "half a word"])
def test_a_buffer_that_cannot_be_polled_is_named(plan_decoder: PlanDecoder, change: str) -> None:
    plan = plan_of(graph_of(plan_decoder("sim", 1)))
    number = next(n for n, buffer in enumerate(plan.buffers) if buffer.polled and buffer.name.endswith("down_proj.out"))
    regions = list(plan.regions)
    mine = [place for place, region in enumerate(regions) if region.buffer == number]
    if change == "half a word":
        rows = {"layout": Layout.ROW_MAJOR}  # panels are of whole words
        buffers = [replace(b, element_bytes=1, **rows) if n == number else b for n, b in enumerate(plan.buffers)]
        regions = [replace(region, **rows) if region.buffer == number else region for region in regions]
        narrow = replace(regions[mine[0]].bounds, high=regions[mine[0]].bounds.high - 1)
        regions[mine[0]] = replace(regions[mine[0]], bounds=narrow)
        plan = replace(plan, buffers=tuple(buffers))
    elif change == "reader":
        regions[mine[-1]] = replace(regions[mine[-1]], polled=False)
    else:
        regions[mine[-1]] = replace(regions[mine[-1]], reads=False, writes=True)
    expected = {"reader": "cannot tell", "two writers": "a word is written once a step", "half a word": "half a word"}
    with pytest.raises(Rejection, match=f"polled: buffer @.*down_proj.out is polled.*{expected[change]}"):
        check(replace(plan, regions=tuple(regions)))


def test_a_decoder_runs_with_polled_data_only(plan_decoder: PlanDecoder) -> None:
    graph = graph_of(plan_decoder("h200", 4))
    Verify().apply(Context(), plan_decoder("h200", 4))
    assert [event.sym_name.data for event in graph.events if event.polled is None] == ["step"]


@given(product_plans())
@settings(max_examples=20, deadline=None)
def test_memory_is_shared_by_the_order_that_reduction_finds(drawn: GraphPlan) -> None:
    module = build(drawn)
    for one in (Tile(target="h200"), PollData()):
        one.apply(Context(), module)
    dependences = Dependences(graph_of(module))
    num_grids = len(dependences.grids)
    found, reduced = memory_order(dependences.edges, num_grids), reduce_edges(dependences.edges, num_grids)[1]
    assert np.array_equal(found.all_before, reduced.all_before)
