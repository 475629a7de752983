"""The simulator runs correct plans alike under every interleaving, and shows what is wrong with the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import BF16, round_to_bf16
from mpk_ir.core.errors import CheckpointError, UsageError, VerificationError
from mpk_ir.core.memory import Space
from mpk_ir.runtime.interleaving import (
    Interleaving,
    Lagging,
    Priorities,
    RandomOrder,
    RoundRobin,
    RunAhead,
    StarvedSm,
)
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.codegen.models import program_of
from tests.runtime.toy import COLUMNS, PARAMETERS, ROWS, expected, toy_program, without_wait

WEIGHTS = {name: torch.from_numpy(values) for name, values in PARAMETERS.items()}
START = np.random.default_rng(0).integers(-8, 8, (ROWS, COLUMNS)).astype(np.float32)
ORDERS: list[Interleaving] = [
    *(RandomOrder(seed) for seed in range(20)),
    RoundRobin(),
    RunAhead(),
    StarvedSm(0),
    StarvedSm(2, RunAhead()),
    Lagging(),
    Lagging(most=True),
    *(Priorities(seed) for seed in range(5)),
]


def results(program: Program, order: Interleaving, steps: int = 3, **options: bool) -> dict[str, np.ndarray]:
    simulator = Simulator(program, WEIGHTS, SimulatorOptions(order, **options))
    simulator.write_state("x", START)
    simulator.run(steps)
    return {name: simulator.read_state(name) for name in simulator.names()}


@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_every_interleaving_gives_the_same_result(order: Interleaving) -> None:
    assert np.array_equal(results(toy_program(), order)["x"], expected(START, 3))


def test_state_and_counters_carry_over_from_run_to_run() -> None:
    simulator = Simulator(toy_program(), WEIGHTS)
    simulator.write_state("x", START)
    for _ in range(3):
        simulator.run(2)
    assert np.array_equal(simulator.read_state("x"), expected(START, 6))
    assert np.array_equal(simulator.read_state("out"), expected(START, 6))


@pytest.mark.parametrize("grid", ["shift", "store"])
def test_a_missing_wait_shows_under_some_interleaving(grid: str) -> None:
    unsafe = without_wait(toy_program(), grid)
    outputs = [results(unsafe, order)["out"] for order in ORDERS]
    assert any(np.isnan(out).any() for out in outputs)


@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_delayed_writes_change_nothing_in_a_correct_plan(order: Interleaving) -> None:
    for shared in (False, True):
        found = results(toy_program(), order, delayed_writes=True, shared_arena=shared)
        assert np.array_equal(found["x"], expected(START, 3))
        assert np.array_equal(found["out"], expected(START, 3))


@pytest.mark.parametrize("grid", ["shift", "store"])
@pytest.mark.parametrize("order", [RoundRobin(), RunAhead(), Lagging(), RandomOrder(7)], ids=repr)
def test_with_delayed_writes_a_missing_wait_shows_whatever_the_order(grid: str, order: Interleaving) -> None:
    assert np.isnan(results(without_wait(toy_program(), grid), order, delayed_writes=True)["out"]).any()


@pytest.mark.parametrize(
    ("instruction", "weak"),
    [
        ("red.release.gpu", "red.relaxed.gpu"),
        ("ld.acquire.gpu", "ld.relaxed.gpu"),
        ("red.release.gpu", "red.release.cta"),
    ],
)
def test_a_missing_release_or_acquire_shows_although_every_count_is_right(instruction: str, weak: str) -> None:
    headers = program_of("qwen3").headers
    text = headers["mpk/atoms.cuh"]
    assert instruction in text
    weakened = {**headers, "mpk/atoms.cuh": text.replace(instruction, weak)}
    sound, broken = (replace(toy_program(), headers=one) for one in (headers, weakened))
    assert np.array_equal(results(sound, RoundRobin(), delayed_writes=True)["x"], expected(START, 3))
    assert np.array_equal(results(broken, RoundRobin())["x"], expected(START, 3)), "not seen with strong memory"
    assert np.isnan(results(broken, RoundRobin(), delayed_writes=True)["x"]).any()


def test_delayed_state_carries_over_from_run_to_run() -> None:
    simulator = Simulator(toy_program(), WEIGHTS, SimulatorOptions(delayed_writes=True))
    simulator.write_state("x", START)
    for _ in range(3):
        simulator.run(2)
    assert np.array_equal(simulator.read_state("x"), expected(START, 6))


def test_saved_tables_run(tmp_path: Path) -> None:
    toy_program().save(tmp_path)
    assert np.array_equal(results(Program.load(tmp_path), RandomOrder(3))["x"], expected(START, 3))


def test_priorities_starve_an_sm_until_they_change() -> None:
    order = Priorities(1, drop_probability=0.0)
    assert len({order.choose([0, 1, 2]) for _ in range(20)}) == 1
    changing = Priorities(1, drop_probability=0.5)
    assert {changing.choose([0, 1, 2]) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize(("most", "turns"), [(False, {0: 5, 1: 5, 2: 5}), (True, {2: 15})])
def test_lagging_evens_out_or_runs_away(most: bool, turns: dict[int, int]) -> None:
    order = Lagging(most=most)
    assert Counter(order.choose([0, 1, 2]) for _ in range(15)) == turns


def test_memory_reused_too_early_shows_only_in_the_shared_arena() -> None:
    plan = toy_program()
    overlapping = tuple(replace(b, offset_bytes=COLUMNS * 4) if b.name == "shifted" else b for b in plan.buffers)
    reused = replace(plan, buffers=overlapping)
    wrong = [not np.array_equal(results(reused, o, shared_arena=True)["x"], expected(START, 3)) for o in ORDERS]
    assert any(wrong)
    assert np.array_equal(results(plan, RunAhead(), shared_arena=True)["x"], expected(START, 3))
    assert np.array_equal(results(reused, RunAhead())["x"], expected(START, 3))


def test_a_deadlock_names_task_event_count_and_target() -> None:
    plan = toy_program()
    tasks = plan.tasks.copy()
    tasks["wait_count"][tasks["grid"] == 1, 0] = ROWS + 1
    with pytest.raises(VerificationError) as caught:
        results(replace(plan, tasks=tasks), RandomOrder())
    text = str(caught.value)
    assert "deadlock: 3 SMs cannot go on" in text
    assert "of grid 'shift' at (" in text
    assert "waits for event 'doubled' (0): count 4, target 5" in text


def test_a_step_that_never_ends_stops_at_the_next_one() -> None:
    plan = toy_program()
    counts = plan.event_count.copy()
    counts[plan.step_event] += 1
    with pytest.raises(VerificationError, match=r"SM 0, step 1: the start of a step waits for event 'step' \(2\)"):
        results(replace(plan, event_count=counts), RandomOrder())


def test_a_body_that_fails_is_named() -> None:
    plan = toy_program()
    tasks = plan.tasks.copy()
    tasks["sizes"][0, 0, 1] = 3
    with pytest.raises(VerificationError, match="task 0 of grid 'double' at"):
        results(replace(plan, tasks=tasks), RandomOrder())


def test_storage_rounding_rounds_what_a_task_writes() -> None:
    plan = toy_program()
    bf16 = tuple(replace(b, dtype=BF16) if b.space is not Space.WEIGHT else b for b in plan.buffers)
    start = {True: 0.0, False: 0.0}
    for rounding in start:
        simulator = Simulator(replace(plan, buffers=bf16), WEIGHTS, SimulatorOptions(storage_rounding=rounding))
        simulator.write_state("x", np.full((ROWS, COLUMNS), 1.0039, np.float32))
        assert np.array_equal(simulator.read_state("x"), round_to_bf16(simulator.read_state("x")))
        simulator.run(3)
        state = simulator.read_state("x")
        assert np.array_equal(state, round_to_bf16(state)) is rounding


def test_weights_are_read_only_and_checked() -> None:
    with pytest.raises(CheckpointError, match=r"no parameter 'p\.bias'"):
        Simulator(toy_program(), {})
    with pytest.raises(CheckpointError, match=r"p\.bias make shape \[2, 2\], expected \[4, 64\]"):
        Simulator(toy_program(), {"p.bias": torch.zeros(2, 2)})


def test_state_is_checked_by_name_and_shape() -> None:
    simulator = Simulator(toy_program(), WEIGHTS)
    with pytest.raises(UsageError, match="no state, input or output 'ou'") as caught:
        simulator.read_state("ou")
    assert "did you mean 'out'?" in str(caught.value)
    with pytest.raises(UsageError, match="expected"):
        simulator.write_state("x", np.zeros((1, 1), np.float32))
