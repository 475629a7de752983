"""What holds of every plan: its passes in any legal order, its runs in any order of SMs and with the weakest memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.target import target_of
from mpk_ir.executable import Executable
from mpk_ir.frontend import open_checkpoint
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.lower.lower_to_cuda import LowerToCuda
from mpk_ir.passes.sm.elide_waits import ElideWaits
from mpk_ir.passes.sm.fuse_events import FuseEvents
from mpk_ir.passes.sm.normalize_events import NormalizeEvents
from mpk_ir.passes.sm.panel_rows import PanelRows
from mpk_ir.passes.sm.pipeline import Pipeline
from mpk_ir.passes.sm.plan_memory import PlanMemory
from mpk_ir.passes.sm.schedule import Schedule
from mpk_ir.passes.sm.synthesize_events import SynthesizeEvents
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.passes.tile.tile import Tile
from mpk_ir.pipeline import plan_passes
from mpk_ir.runtime.interleaving import Interleaving, Lagging, Priorities, RandomOrder, RoundRobin, RunAhead, StarvedSm
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.mutation.subjects import EXAMPLE
from tests.project.files import ROOT

from .plans import ROWS, GraphPlan, build, graph_plans, random_params

BEFORE: dict[type[ModulePass], tuple[type[ModulePass], ...]] = {
    SynthesizeEvents: (),
    Schedule: (),
    PlanMemory: (),
    PanelRows: (),
    FuseEvents: (SynthesizeEvents,),
    NormalizeEvents: (SynthesizeEvents,),
    ElideWaits: (SynthesizeEvents, Schedule, NormalizeEvents),
    Pipeline: (Schedule, NormalizeEvents),
}
"""Each pass with those that must have run: all else is free. A join that Schedule did not see runs where joins run."""

ORDERS: dict[str, Callable[[], Interleaving]] = {
    "random": lambda: RandomOrder(1),
    "round robin": RoundRobin,
    "run ahead": RunAhead,
    "slowest first": Lagging,
    "fastest first": lambda: Lagging(most=True),
    "starved": lambda: StarvedSm(0, RunAhead()),
    "priorities": lambda: Priorities(3),
}


@st.composite
def legal_orders(draw: st.DrawFn) -> list[ModulePass]:
    """The sm passes in an order that ``BEFORE`` allows; passes that only improve a plan may be missing or run twice."""
    order: list[type[ModulePass]] = []
    for one in draw(st.permutations(list(BEFORE))):
        for needed in (*BEFORE[one], one):
            if needed not in order:
                order.append(needed)
    dropped = draw(st.sets(st.sampled_from([FuseEvents, ElideWaits, PanelRows])))
    again = draw(st.sampled_from([[], [PlanMemory], [Pipeline], [ElideWaits], [FuseEvents, ElideWaits]]))
    return [one() for one in [*(one for one in order if one not in dropped), *again]]


def planned(drawn: GraphPlan, passes: list[ModulePass], target: str) -> ModuleOp:
    module = build(drawn)
    for one in (Tile(target=target), *passes, Verify()):
        one.apply(Context(), module)
        module.verify()
    return module


def program_of(module: ModuleOp) -> Program:
    lowered = module.clone()
    LowerToCuda().apply(Context(), lowered)
    program = emit(lowered)
    verify_program(program)
    return program


def run(program: Program, drawn: GraphPlan, order: Interleaving, *, delayed: bool = True) -> np.ndarray:
    params = {name: torch.from_numpy(value) for name, value in random_params(build(drawn), 0).items()}
    options = SimulatorOptions(order, shared_arena=True, delayed_writes=delayed)
    simulator = Simulator(program, params, options)
    simulator.write_state(next(b.name for b in program.buffers if b.space == "input"), inputs(drawn))
    simulator.run(2)
    return simulator.read_state("result0")


def inputs(drawn: GraphPlan) -> np.ndarray:
    return round_to_bf16(np.random.default_rng(0).standard_normal((ROWS, drawn.width)).astype(np.float32))


@given(graph_plans(), legal_orders(), st.sampled_from(("sim", "h200")))
@settings(max_examples=30, deadline=None)
def test_passes_in_any_legal_order_give_the_same_result(
    drawn: GraphPlan, passes: list[ModulePass], target: str
) -> None:
    usual = program_of(planned(drawn, list(plan_passes(target_of(target))[1:-1]), target))
    other = program_of(planned(drawn, passes, target))
    assert np.array_equal(run(usual, drawn, RoundRobin()), run(other, drawn, RunAhead()), equal_nan=True)


@given(graph_plans(), st.sampled_from(sorted(ORDERS)), st.sampled_from(("sim", "h200")), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_accepted_runs_to_the_right_answer_in_any_order(
    drawn: GraphPlan, order: str, target: str, delayed: bool
) -> None:
    program = program_of(planned(drawn, list(plan_passes(target_of(target))[1:-1]), target))
    expected = evaluate(build(drawn), [inputs(drawn)], random_params(build(drawn), 0), {})[0]
    found = run(program, drawn, ORDERS[order](), delayed=delayed)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


IDEMPOTENT = (
    PanelRows,
    SynthesizeEvents,
    FuseEvents,
    NormalizeEvents,
    Schedule,
    ElideWaits,
    Pipeline,
    PlanMemory,
    Verify,
)


@given(graph_plans(), st.sampled_from(IDEMPOTENT), st.sampled_from(("sim", "h200")))
@settings(max_examples=30, deadline=None)
def test_a_pass_run_twice_in_a_row_has_nothing_left_to_do(
    drawn: GraphPlan, kind: type[ModulePass], target: str
) -> None:
    module = build(drawn)
    for one in plan_passes(target_of(target)):
        one.apply(Context(), module)
        if isinstance(one, kind):
            before = str(module)
            one.apply(Context(), module)
            module.verify()
            assert str(module) == before


@cache
def example() -> Program:
    from mpk_ir.compiler import compile_model
    from mpk_ir.frontend import StepOptions

    return compile_model(EXAMPLE, target_of("sim"), StepOptions(2, 8, 32, 16)).program


@pytest.mark.parametrize("order", ORDERS)
def test_the_example_model_writes_the_same_under_every_adversary(order: str) -> None:
    def generate(options: SimulatorOptions) -> list[list[int]]:
        engine = Simulator(example(), open_checkpoint(EXAMPLE).tensor, options)
        return Executable(example(), engine, None).generate([[40, 50, 60], [70]], max_new_tokens=5).tokens

    adverse = SimulatorOptions(ORDERS[order](), shared_arena=True, delayed_writes=True)
    assert generate(adverse) == generate(SimulatorOptions())


PRINT_EVERYTHING = """
import hashlib
from tests.codegen.models import plan_model, program_of
from tests.sm.plans import GraphPlan, Layer, build
program = program_of("qwen3", 2)
parts = [program.source, *sorted(program.headers.items()), program.tasks.tobytes(), program.event_count.tobytes()]
print(hashlib.sha256(repr(parts).encode()).hexdigest())
print(hashlib.sha256(str(plan_model("llama3", 1, fused=False)).encode()).hexdigest())
"""


def test_text_and_tables_are_the_same_in_every_process() -> None:
    outputs = set()
    for seed in ("0", "1", "4711"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""}
        command = [sys.executable, "-c", PRINT_EVERYTHING]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 2
