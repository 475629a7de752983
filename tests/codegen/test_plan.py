"""Task tables equal a naive expansion of the grids, task by task."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, DenseIntOrFPElementsAttr, ModuleOp

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.plan import Tables, expand
from mpk_ir.core.errors import PlanError
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BufferType, CyclicAttr, GraphOp, GridOp
from mpk_ir.dialects.sm.attributes import ints
from mpk_ir.dialects.sm.ops import EventOp, EventUse
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.pipeline import plan_passes
from tests.sm.plans import GraphPlan, build, graph_plans

from .models import plan_model

Row = dict[str, Any]


def graph_of(module: ModuleOp) -> GraphOp:
    (graph,) = [op for op in module.body.block.ops if isinstance(op, GraphOp)]
    return graph


def naive_rows(graph: GraphOp) -> list[list[Row]]:
    """Per SM its tasks in order, each as a dictionary."""
    queues: list[list[Row]] = [[] for _ in range(target_of(graph.target.data).num_sms)]
    numbers: dict[tuple[Any, int], int] = {}
    for event in graph.events:
        for element in range(event.size):
            numbers[event.event, element] = len(numbers)
    for grid_number, grid in enumerate(graph.grids):
        for flat, index in enumerate(product(*map(range, grid.shape))):
            row = _row(grid, flat, index, numbers)
            queues[row["sm"](len(queues))].append(row | {"grid": grid_number})
    return queues


def _row(grid: GridOp, flat: int, index: tuple[int, ...], numbers: dict[tuple[Any, int], int]) -> Row:
    boxes = []
    for value, box in zip(grid.data, grid.boxes, strict=True):
        assert isinstance(value.type, BufferType)
        low = box.offset.data.eval(list(index), [])
        high = [min(a + n, size) for a, n, size in zip(low, ints(box.sizes), ints(value.type.shape), strict=True)]
        boxes.append((list(low), [b - a for a, b in zip(low, high, strict=True)]))
    keys = {role: _keys(uses, flat, index) for role, uses in (("waits", grid.wait_uses), ("signals", grid.signal_uses))}
    return {
        "sm": lambda sms: _sm(grid, flat, sms),
        "index": index,
        "boxes": boxes,
        "waits": [(numbers[use.event, e], _count(use, e)) for use, e in keys["waits"]],
        "signals": [numbers[use.event, e] for use, e in keys["signals"]],
    }


def _sm(grid: GridOp, flat: int, sms: int) -> int:
    """Dealt in turn, or listed task by task: where chains put them."""
    rule = grid.placement
    if isinstance(rule, CyclicAttr):
        return (rule.first.data + flat) % sms
    assert isinstance(rule, DenseIntOrFPElementsAttr)
    return int(np.frombuffer(rule.data.data, dtype="<i4")[flat])


def _keys(uses: list[EventUse], flat: int, index: tuple[int, ...]) -> list[tuple[EventUse, int]]:
    found: list[tuple[EventUse, int]] = []
    for use in uses:
        if isinstance(use.elements, AffineMapAttr):
            elements = list(use.elements.data.eval(list(index), []))
        else:
            width = use.elements.get_shape()[1]
            values = list(use.elements.iter_values())
            elements = [int(v) for v in values[flat * width : (flat + 1) * width]]  # pyright: ignore[reportArgumentType]
        found += [(use, element) for element in elements if element >= 0]
    return found


def _count(use: EventUse, element: int) -> int:
    assert isinstance(use.event.owner, EventOp)
    return int(use.event.owner.arrivals[element])


def assert_equals_naive(tables: Tables, graph: GraphOp) -> None:
    queues = naive_rows(graph)
    assert tables.queue_begin.tolist() == np.cumsum([0, *map(len, queues)]).tolist()
    for sm, queue in enumerate(queues):
        tasks = tables.tasks[tables.queue_begin[sm] : tables.queue_begin[sm + 1]]
        for task, row in zip(tasks, queue, strict=True):
            assert (int(task["sm"]), int(task["grid"])) == (sm, row["grid"])
            assert tuple(task["index"][: len(row["index"])]) == row["index"]
            waits = list(zip(task["wait_event"].tolist(), task["wait_count"].tolist(), strict=True))
            assert waits[: int(task["num_waits"])] == row["waits"]
            assert task["signal_event"][: int(task["num_signals"])].tolist() == row["signals"]
            for operand, (low, size) in enumerate(row["boxes"]):
                assert task["offsets"][operand][: len(low)].tolist() == low
                assert task["sizes"][operand][: len(size)].tolist() == size


@given(graph_plans(), st.sampled_from(("sim", "h200")))
@settings(max_examples=25, deadline=None)
def test_tables_of_random_graphs_equal_naive_expansion(drawn: GraphPlan, target: str) -> None:
    module = build(drawn)
    for one in plan_passes(target_of(target)):
        one.apply(Context(), module)
    assert_equals_naive(expand(graph_of(module)), graph_of(module))


@pytest.mark.parametrize("fused", [True, False])
def test_tables_of_a_decoder_equal_naive_expansion(fused: bool) -> None:
    graph = graph_of(plan_model("qwen3", 4, fused=fused))
    tables = expand(graph)
    assert_equals_naive(tables, graph)
    assert tables.event_count.tolist() == [int(n) for event in graph.events for n in event.arrivals]
    assert len(tables.event_names) == len(tables.event_count)


def test_ordered_tasks_are_those_that_touch_memory_of_earlier_grids_without_polling() -> None:
    tables = expand(graph_of(plan_model("qwen3", target="sim")))
    ordered = tables.tasks["flags"] & TaskFlag.ORDERED != 0
    assert 0 < ordered.sum() < len(ordered)
    for number, grid in enumerate(tables.grids):
        mine = [o for o in grid.operands if not tables.buffers[o.buffer].polled]
        earlier = [o for before in tables.grids[:number] for o in before.operands]
        expected = any(a.buffer == b.buffer and (a.access.writes or b.access.writes) for a in mine for b in earlier)
        assert (ordered[tables.tasks["grid"] == number] == expected).all(), grid.name


def test_a_graph_without_a_memory_plan_is_refused() -> None:
    module = build(GraphPlan(24, ()))
    plan = build(GraphPlan(24, tuple(_two_layers())))
    for one in (module, plan):
        Tile(target="sim").apply(Context(), one)
    with pytest.raises(PlanError, match="has no place in the arena") as caught:
        expand(graph_of(plan))
    assert caught.value.advice == "run sm-plan-memory before"


def _two_layers() -> list[Any]:
    from tests.sm.plans import Layer

    return [Layer("rms_norm", 0, 0, 24), Layer("silu", 1, 0, 24)]
