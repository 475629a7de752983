"""The predicted timeline obeys the plan it is made from, and the arithmetic of the machine it is made for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import PlanError
from mpk_ir.core.target import H200, target_of
from mpk_ir.tasks.work import Load
from mpk_ir.timeline.analysis import Analysis
from mpk_ir.timeline.record import Point
from mpk_ir.timeline.simulate import predict
from mpk_ir.timeline.trace import Trace
from tests.sm.plans import GraphPlan, build, graph_plans
from tests.sm.test_meaning import plan


@pytest.fixture(scope="module")
def program() -> Program:
    return Point("tiny", shape_config("tiny"), 1, 64, H200).program()


@pytest.fixture(scope="module")
def llama() -> Program:
    return Point("llama-3.2-1b", shape_config("llama-3.2-1b"), 1, 512, H200).program()


def require_order(program: Program, trace: Trace) -> None:
    """Phases follow each other, tasks of an SM too, and no task is ready before all it waits for has signalled, or for
    polled data has been computed."""
    for earlier, later in (("begin", "ready"), ("ready", "computed"), ("computed", "signalled")):
        assert (getattr(trace, earlier) <= getattr(trace, later)).all()
    same_sm = trace.sm[1:] == trace.sm[:-1]
    assert (trace.begin[1:] >= trace.computed[:-1])[same_sm].all()
    arrived = np.zeros(len(program.event_count))
    tasks, columns = np.nonzero(trace.signals >= 0)
    events = trace.signals[tasks, columns]
    np.maximum.at(
        arrived, events, np.where(program.event_polled[events], trace.computed[tasks], trace.signalled[tasks])
    )
    tasks, columns = np.nonzero(trace.waits >= 0)
    assert (trace.ready[tasks] >= arrived[trace.waits[tasks, columns]]).all()
    assert trace.facts.step_us >= trace.signalled.max()


@given(graph_plans(), st.sampled_from(["h200", "sim", "b200"]), st.integers(1, 8))
@settings(max_examples=25)
def test_a_prediction_keeps_the_order_of_queues_and_events(drawn: GraphPlan, target: str, rows: int) -> None:
    program = plan(build(drawn), target=target)
    trace = predict(program, Load(rows, 1))
    require_order(program, trace)
    links = Analysis(trace).critical_path
    assert sum(link.total_us for link in links) == pytest.approx(trace.computed[links[-1].task])


def test_a_decoder_keeps_the_order_too(program: Program) -> None:
    require_order(program, predict(program, Load(1, 64)))


def test_polled_data_need_not_be_signalled(program: Program) -> None:
    counted = replace(program, event_polled=np.zeros_like(program.event_polled))
    polled_us, counted_us = (predict(one, Load(1, 64)).facts.step_us for one in (program, counted))
    assert counted_us > polled_us + H200.costs.signal_us


def test_the_same_program_has_the_same_timeline(program: Program, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("program")
    program.save(folder)
    first, second = predict(program, Load(1, 64)), predict(Program.load(folder), Load(1, 64))
    assert first.computed.tobytes() == second.computed.tobytes()


def test_a_step_is_not_faster_than_memory(llama: Program) -> None:
    trace = predict(llama, Load(1, 512))
    analysis = Analysis(trace)
    config = shape_config("llama-3.2-1b")
    assert analysis.moved_bytes > 2 * config.vocab_size * config.hidden_size
    assert trace.facts.step_us > analysis.floor_us
    assert sum(row.moved_bytes for row in analysis.operators) == pytest.approx(analysis.moved_bytes)
    ends = [trace.computed[trace.sm == sm].max() for sm in range(trace.num_sms)]
    assert sum(row.time_us for row in analysis.operators) == pytest.approx(float(np.mean(ends)))


def test_a_machine_with_half_the_bandwidth_takes_longer(llama: Program) -> None:
    slow = replace(llama, target=replace(H200, read_bandwidth_tb_s=H200.read_bandwidth_tb_s / 2))
    assert predict(slow, Load(1, 512)).facts.step_us > 1.5 * predict(llama, Load(1, 512)).facts.step_us


def test_loaders_that_run_less_far_ahead_take_longer_but_end(llama: Program) -> None:
    """Even with less room than a task's weights occupy: a task that works gives its stages back."""
    times = []
    for share in (1.0, 0.4, 0.01):
        target = replace(H200, costs=replace(H200.costs, ahead_share=share, stream_spread=0.0))
        times.append(predict(replace(llama, target=target), Load(1, 512)).facts.step_us)
    assert times == sorted(times)
    assert times[0] < times[1] < times[2]


def test_more_positions_and_more_rows_take_longer() -> None:
    program = Point("qwen3-0.6b", shape_config("qwen3-0.6b"), 4, 4096, target_of("h200")).program()
    times = [predict(program, load).facts.step_us for load in (Load(1, 64), Load(1, 4096), Load(4, 4096))]
    assert times == sorted(times)
    assert times[0] < times[1] < times[2]


def test_tasks_that_wait_for_each_other_are_an_error(program: Program) -> None:
    tasks = program.tasks.copy()
    awaited = set(tasks["wait_event"][tasks["num_waits"] > 0, 0].tolist())
    task = next(t for t in range(len(tasks)) if tasks["num_signals"][t] and tasks["signal_event"][t, 0] in awaited)
    tasks["num_signals"][task] = 0
    with pytest.raises(PlanError, match=r"the timeline stops with .* tasks left, first .* on SM"):
        predict(replace(program, tasks=tasks), Load(1, 64))
