"""Whatever the tiles, the program computes the same; what cannot be is refused with the choices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, StringAttr, i64

from mpk_ir.bench.plans import Plan
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import PlanError
from mpk_ir.core.target import H200, SIM, Target
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.tile.decisions import OVERRIDE
from mpk_ir.passes.tile.expand import MAX_ROWS
from mpk_ir.passes.tile.simple import lookup_block
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.tasks.linear import MAX_TILES, LinearParams, x_segments

from .conftest import graph_of
from .plans import ROWS, GraphPlan, Layer, build, graph_plans, random_params
from .test_meaning import plan, run


@given(graph_plans(), st.data())
@settings(max_examples=20)
def test_any_choice_of_tiles_computes_the_same(drawn: GraphPlan, data: st.DataObject) -> None:
    module = build(drawn)
    params = random_params(module, 0)
    x = round_to_bf16(np.random.default_rng(0).standard_normal((ROWS, drawn.width)).astype(np.float32))
    expected = evaluate(module, [x], params, {})[0]
    wanted: list[int] = []
    for decision in Tile(target="sim").decisions(module):
        wanted.append(data.draw(st.sampled_from(decision.choices)))
        decision.op.attributes[OVERRIDE] = DictionaryAttr({decision.name: IntegerAttr(wanted[-1], i64)})
    assert [decision.chosen for decision in Tile(target="sim").decisions(module)] == wanted
    np.testing.assert_allclose(run(plan(module), params, x, 1), expected, rtol=2e-4, atol=2e-4)


def test_asking_for_decisions_changes_nothing() -> None:
    module = build(GraphPlan(40, (Layer("linear", 0, 0, 64), Layer("silu", 1, 0, 64))))
    text = str(module)
    decisions = Tile(target="h200").decisions(module)
    assert str(module) == text
    assert [(decision.name, decision.choices, decision.chosen) for decision in decisions] == [
        ("tiles", tuple(range(1, 5)), 1)  # of 16 rows: from one up to all of them in one task
    ]


@given(st.integers(1, MAX_ROWS), st.integers(1, 1024), st.sampled_from([H200, SIM]))
def test_sms_share_a_lookup_until_a_thread_has_one_vector(rows: int, vectors: int, target: Target) -> None:
    columns = 8 * vectors
    tasks = {n for n in range(1, target.num_sms + 1) if vectors % n == 0}
    found_rows, found = lookup_block(rows, columns, target)
    assert found_rows == rows, "each task has the first row"
    assert columns // found in tasks
    assert columns % found == 0
    fewest = min((n for n in tasks if rows * vectors <= 256 * n), default=max(tasks))
    assert columns // found == fewest


def test_many_rows_are_dealt_to_sms_with_all_their_columns() -> None:
    assert lookup_block(1000, 2048, H200) == (8, 2048)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (IntegerAttr(2, i64), "expected a dictionary such as"),
        (DictionaryAttr({"tiles": StringAttr("2")}), "expected an integer for tiles, found"),
        (DictionaryAttr({"tiles": IntegerAttr(0, i64)}), "tiles = 0, expected 1 to 4"),
        (DictionaryAttr({"tile": IntegerAttr(2, i64)}), "'tg.linear' decides nothing called 'tile'"),
    ],
)
def test_an_override_that_is_none_is_refused(attribute: DictionaryAttr | IntegerAttr, message: str) -> None:
    module = build(GraphPlan(40, (Layer("linear", 0, 0, 64),)))
    next(op for op in module.walk() if op.name == "tg.linear").attributes[OVERRIDE] = attribute
    with pytest.raises(PlanError, match=message):
        Tile(target="h200").apply(Context(), module)


@pytest.mark.parametrize("tiles", [1, 4, 5, 7])
def test_any_number_of_tiles_is_done_in_passes_that_registers_hold(tiles: int) -> None:
    module = build(GraphPlan(40, (Layer("linear", 0, 0, 104),)))
    next(op for op in module.walk() if op.name == "tg.linear").attributes[OVERRIDE] = DictionaryAttr(
        {"tiles": IntegerAttr(tiles, i64)}
    )
    Tile(target="h200").apply(Context(), module)
    params = graph_of(module).grids[0].task_params
    assert isinstance(params, LinearParams)
    assert params.tiles == tiles
    assert params.pass_tiles <= MAX_TILES
    assert -(-tiles // params.pass_tiles) == -(-tiles // MAX_TILES), "as few passes as can be"


@pytest.mark.parametrize(
    ("tiles", "k", "rows", "at_once", "asked"),
    [
        (8, 2048, 16, 2, None),
        (7, 2048, 16, 2, None),
        (5, 2048, 16, 3, None),
        (8, 2048, 8, 4, None),
        (8, 4096, 16, 4, None),
        (8, 2048, 16, 4, 4),
        (5, 2048, 16, 2, 2),
    ],
)
def test_sums_of_many_rows_leave_memory_to_the_ring(
    tiles: int, k: int, rows: int, at_once: int, asked: int | None
) -> None:
    """But not where each pass would load x again."""
    module = build(GraphPlan(k, (Layer("linear", 0, 0, 16 * tiles),)), rows)
    op = next(op for op in module.walk() if op.name == "tg.linear")
    given = {"tiles": tiles} | ({"rows": rows} if rows > 8 else {}) | ({} if asked is None else {"pass_tiles": asked})
    op.attributes[OVERRIDE] = DictionaryAttr({name: IntegerAttr(value, i64) for name, value in given.items()})
    Tile(target="h200").apply(Context(), module)
    grid = graph_of(module).grids[0]
    assert isinstance(grid.task_params, LinearParams)
    assert grid.task_params.rows == rows
    assert grid.task_params.pass_tiles == at_once
    assert ("tiles a pass" in str(grid.reason)) == (rows > 8 and k == 2048)


@pytest.mark.parametrize("rows", [17, 40])
def test_the_simulator_takes_more_rows_than_a_kernel(rows: int) -> None:
    module = build(GraphPlan(64, (Layer("linear", 0, 0, 640),)), rows)
    Tile(target="sim").apply(Context(), module)
    params = graph_of(module).grids[0].task_params
    assert isinstance(params, LinearParams)
    assert params.rows == rows
    assert x_segments(params) == 1


@pytest.mark.parametrize(
    ("model", "batch", "context", "splits"),
    [
        ("llama-3.2-1b", 4, 512, 4),
        ("llama-3.2-1b", 8, 512, 1),  # 256 heads to merge are two turns of the SMs
        ("llama-3.2-1b", 8, 4096, 2),  # but not where there is much to split
        ("qwen3-0.6b", 8, 512, 2),  # 128 heads are one
    ],
)
def test_positions_are_split_where_that_saves_more_than_merging_takes(
    model: str, batch: int, context: int, splits: int
) -> None:
    program = Plan(model, batch=batch, context=context).compile()
    grid = next(grid for grid in program.grids if grid.kind == "attention")
    assert grid.params["splits"] == splits
    assert ("would save less than merging" in grid.reason) == (splits == 1)
