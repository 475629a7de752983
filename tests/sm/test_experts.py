"""Mixture of experts: work dealt at run time is planned, proved, and computed alike whoever gets it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineMap
from xdsl.utils.exceptions import VerifyException

from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.requests import assign_rows
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BoxAttr, GridOp
from mpk_ir.dialects.sm.attributes import ints
from mpk_ir.dialects.sm.expansion import event_elements
from mpk_ir.dialects.sm.ops import EventUse, dense_i32
from mpk_ir.frontend import StepOptions, build_step, weight_shapes
from mpk_ir.interpreter import initial_state, run_step
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.pipeline import lowering_passes, plan_passes, tensor_passes
from mpk_ir.proof import Rejection
from mpk_ir.runtime.interleaving import Interleaving, Lagging, Priorities, RandomOrder, RunAhead, StarvedSm
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions

from .conftest import graph_of
from .oracle import NaivePlan

CONFIG = shape_config("tiny-experts")
OPTIONS = StepOptions(batch=3, rows=8, max_length=64, page_size=16)
ORDERS: tuple[Interleaving, ...] = (
    RandomOrder(1),
    RunAhead(),
    Lagging(),
    Lagging(most=True),
    StarvedSm(1),
    Priorities(2),
)
PROMPTS = ([5, 1, 88], [7], [2, 9, 40, 61])


def planned(target: str = "sim") -> ModuleOp:
    module = build_step(CONFIG, OPTIONS)
    for one in (*tensor_passes(), *plan_passes(target_of(target))):
        one.apply(Context(), module)
    return module


def program_of(target: str) -> Program:
    module = planned(target)
    for one in lowering_passes():
        one.apply(Context(), module)
    return emit(module)


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = weight_shapes(CONFIG)
    drawn = {name: generator.standard_normal(shape) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    return {name: round_to_bf16(values.astype(np.float32)) for name, values in drawn.items()}


def requests(state: dict[str, np.ndarray]) -> None:
    """Requests of different length: prefill and decode in one step, and rows that hold none."""
    pages = state["page_table"]
    pages[:] = np.arange(pages.size).reshape(pages.shape)
    for request, prompt in enumerate(PROMPTS):
        state["history"][request, : len(prompt)] = prompt
        state["requests"][request] = (0, 0, 0, len(prompt), len(prompt), len(prompt) + 4)
    assign_rows(*(state[name] for name in ("history", "requests", "rows", "row_count")))


def expected(steps: int) -> list[np.ndarray]:
    """Logits of the active rows of each step, and the tokens in the end, by the interpreter."""
    module, found = build_step(CONFIG, OPTIONS), list[np.ndarray]()
    state = initial_state(module)
    requests(state)
    for _ in range(steps):
        count = int(state["row_count"][0])
        run_step(module, weights(), state)
        found.append(state["logits"][:count].copy())
    return [*found, state["history"].copy()]


@pytest.mark.parametrize("target", ["sim", "h200"])
def test_a_step_with_experts_is_what_the_interpreter_says_in_any_order(target: str) -> None:
    program, parameters = program_of(target), {name: torch.from_numpy(v) for name, v in weights().items()}
    wanted = expected(3)
    for order in ORDERS if target == "sim" else ORDERS[:2]:
        simulator = Simulator(program, parameters, SimulatorOptions(order, shared_arena=True, delayed_writes=True))
        state = initial_state(build_step(CONFIG, OPTIONS))
        requests(state)
        for name in ("history", "requests", "rows", "row_count", "page_table"):
            simulator.write_state(name, state[name])
        for logits in wanted[:-1]:
            simulator.run(1)
            np.testing.assert_allclose(simulator.read_state("logits")[: len(logits)], logits, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(simulator.read_state("history"), wanted[-1])


def test_static_is_the_default_and_dynamic_has_a_reason() -> None:
    for grid in graph_of(planned()).grids:
        assert (grid.dynamic is not None) == (grid.kind.data == "grouped_linear")
        assert grid.placement_reason is not None
        if grid.dynamic is not None:
            assert "when the step has chosen them" in grid.dynamic.data
            assert grid.reason is not None
            assert "columns an item" in grid.reason.data


def first_dealt(module: ModuleOp) -> GridOp:
    return next(grid for grid in graph_of(module).grids if grid.dynamic is not None)


def deal_to_five(grid: GridOp) -> None:
    grid.params = DictionaryAttr(grid.params.data | {"takers": IntegerAttr(5, i64)})


def set_result_box(grid: GridOp, change: Callable[[BoxAttr], BoxAttr]) -> None:
    boxes = list(grid.boxes.data)
    number = [name.data for name in grid.operand_names].index("y")
    boxes[number] = change(boxes[number])
    grid.boxes = ArrayAttr(boxes)


def part_of_its_own(grid: GridOp) -> None:
    width = 8
    offset = AffineMap(1, 0, (AffineConstantExpr(0), AffineDimExpr(0) * width))
    set_result_box(grid, lambda box: BoxAttr.of(box.mode, offset, (ints(box.sizes)[0], width)))


def unexplained_overlap(grid: GridOp) -> None:
    set_result_box(grid, lambda box: BoxAttr.of(box.mode, box.offset.data, ints(box.sizes)))


def one_taker_unheard(grid: GridOp) -> None:
    """Who waits for the grid no longer waits for one of its tasks."""
    uses = grid.signal_uses
    table = event_elements(grid, uses[0]).copy()
    element = int(table[1, 0])
    table[1, 0] = -1
    grid.set_events(grid.wait_uses, [EventUse(uses[0].event, dense_i32(table, table.shape)), *uses[1:]])
    event = uses[0].event.owner
    counts = event.arrivals.copy()  # type: ignore[union-attr]
    counts[element] -= 1
    event.counts = dense_i32(counts, counts.shape)  # type: ignore[union-attr]


DAMAGES: dict[Callable[[GridOp], None], tuple[str, str]] = {
    deal_to_five: ("dealing", "has 4 tasks, its body deals the work to 5"),
    part_of_its_own: ("dealing", "which part is whose is found at run time only"),
    unexplained_overlap: ("race", "nothing orders"),
    one_taker_unheard: ("race", "nothing orders"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_plan_that_relies_on_who_does_what_is_rejected(damage: Callable[[GridOp], None]) -> None:
    module = planned()
    damage(first_dealt(module))
    rule, text = DAMAGES[damage]
    assert NaivePlan(graph_of(module)).broken_rule() == rule
    with pytest.raises(Rejection, match=re.escape(text)) as caught:
        Verify().apply(Context(), module)
    assert caught.value.rule == rule


def test_only_kinds_that_deal_are_dynamic() -> None:
    module = planned()
    grid = next(grid for grid in graph_of(module).grids if grid.kind.data == "linear")
    grid.dynamic = StringAttr("because")
    with pytest.raises(VerifyException, match="kind 'linear' deals nothing at run time"):
        grid.verify()
