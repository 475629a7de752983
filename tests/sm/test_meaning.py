"""The plan means what the tensor graph means: reference interpreter before = simulator after, any interleaving."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.dialects.sm import GraphOp
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.lower.lower_to_cuda import LowerToCuda
from mpk_ir.passes.sm.fuse_events import FuseEvents
from mpk_ir.passes.sm.normalize_events import NormalizeEvents
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.plan_memory import PlanMemory
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.runtime.interleaving import RandomOrder
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions

from .plans import ROWS, GraphPlan, Layer, build, graph_plans, random_params


def plan(module: ModuleOp, *, reduce: bool = True, fuse: bool = True, limit: int = 4, target: str = "sim") -> Program:
    passes = [
        Tile(target=target),
        SynthesizeEvents(reduce=reduce),
        *([FuseEvents()] if fuse else []),
        NormalizeEvents(limit=limit),
        Schedule(),
        Pipeline(),
        PlanMemory(),
        Verify(),
        LowerToCuda(),
    ]
    for one in passes:
        one.apply(Context(), module)
        module.verify()
    return emit(module)


def run(program: Program, params: dict[str, np.ndarray], x: np.ndarray, seed: int) -> np.ndarray:
    tensors = {name: torch.from_numpy(value) for name, value in params.items()}
    options = SimulatorOptions(interleaving=RandomOrder(seed), shared_arena=True)
    simulator = Simulator(program, tensors, options)
    name = next(buffer.name for buffer in program.buffers if buffer.space == "input")
    simulator.write_state(name, x)
    simulator.run(2)  # the second step reuses memory and counters
    return simulator.read_state("result0")


@example(GraphPlan(24, (Layer("slice", 0, 0, 16),)), 0)  # columns of a row, fewer than a task usually takes
@example(GraphPlan(104, (Layer("slice", 0, 1, 72),)), 0)  # and more, but no multiple
@given(graph_plans(), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_simulated_plan_equals_interpreted_graph(drawn: GraphPlan, seed: int) -> None:
    module = build(drawn)
    params = random_params(module, seed)
    x = np.random.default_rng(seed).standard_normal((ROWS, drawn.width)).astype(np.float32)
    x = round_to_bf16(x)
    expected = evaluate(module, [x], params, {})[0]
    found = run(plan(module), params, x, seed)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@given(graph_plans(), st.booleans(), st.booleans(), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_options_of_the_event_passes_do_not_change_the_result(
    drawn: GraphPlan, reduce: bool, fuse: bool, limit: int, seed: int
) -> None:
    x = np.ones((ROWS, drawn.width), np.float32)
    params = random_params(build(drawn), seed)
    expected = run(plan(build(drawn)), params, x, seed)
    found = run(plan(build(drawn), reduce=reduce, fuse=fuse, limit=limit), params, x, seed + 1)
    np.testing.assert_array_equal(found, expected)


@given(graph_plans())
@settings(max_examples=15, deadline=None)
def test_emitted_cuda_and_tables_are_the_same_every_time(drawn: GraphPlan) -> None:
    first, second = (plan(build(drawn), target="h200") for _ in range(2))
    assert first.source == second.source
    assert first.headers == second.headers
    assert first.tasks.tobytes() == second.tasks.tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_interleavings_agree_to_the_bit(seed: int) -> None:
    drawn = GraphPlan(40, tuple(_diamond()))
    params = random_params(build(drawn), 0)
    x = np.random.default_rng(1).standard_normal((ROWS, 40)).astype(np.float32)
    assert np.array_equal(run(plan(build(drawn)), params, x, seed), run(plan(build(drawn)), params, x, 1000 + seed))


def _diamond() -> list[Layer]:
    return [
        Layer("rms_norm", 0, 0, 40),
        Layer("linear", 1, 0, 64),
        Layer("linear", 1, 0, 64),
        Layer("silu_mul", 2, 1, 0),
        Layer("linear", 4, 0, 40),
        Layer("add", 5, 0, 0),
    ]


def test_graph_op_round_trips_through_text() -> None:
    from xdsl.dialects.builtin import Builtin
    from xdsl.dialects.func import Func
    from xdsl.parser import Parser

    from mpk_ir.dialects.sm import Sm

    module = build(GraphPlan(40, tuple(_diamond())))
    for one in (Tile(target="sim"), SynthesizeEvents(), FuseEvents(), Schedule(), Pipeline(), PlanMemory()):
        one.apply(Context(), module)
    context = Context()
    for dialect in (Builtin, Func, Sm):
        context.load_dialect(dialect)
    text = str(module)
    again = Parser(context, text).parse_module()
    again.verify()
    assert str(again) == text
    assert any(isinstance(op, GraphOp) for op in again.body.block.ops)
