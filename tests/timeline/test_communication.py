"""Predicted steps of several ranks: what communication costs, and that hiding it pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpk_ir.core.target import Link, part_of, target_of
from mpk_ir.tasks.work import Load, communication_costs
from mpk_ir.timeline.communication import Predicted, free_us, step_us, table
from tests.codegen.ranked import ranked_program

LOAD = Load(rows=2, context=48)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_overlap_pays_and_free_links_are_the_least(ranks: int) -> None:
    pushing, bulk = (ranked_program(ranks, "h200", 2, strategy) for strategy in ("push", "off"))
    assert free_us(pushing, LOAD) < step_us(pushing, LOAD) < step_us(bulk, LOAD)


def test_a_slower_link_makes_a_slower_step() -> None:
    program = ranked_program(4, "h200", 2, "push")
    times = [
        step_us(replace(program, target=replace(program.target, link=link)), LOAD)
        for link in (Link(), Link(latency_us=5.0), Link(latency_us=5.0, bytes_per_us=100.0))
    ]
    assert times == sorted(times)
    assert len(set(times)) == 3


def test_two_shot_pays_when_there_is_much_to_send() -> None:
    target = target_of("h100")
    small, large = (communication_costs(target, 8, size) for size in (8 << 10, 8 << 20))
    assert small.one_shot_us < small.two_shot_us
    assert large.two_shot_us < large.one_shot_us


def test_one_rank_has_no_communication() -> None:
    program = ranked_program(1, "h200", 2)
    assert step_us(program, LOAD) == free_us(program, LOAD)


def test_parts_of_a_target_add_up() -> None:
    whole = target_of("h200")
    assert part_of(whole, 1) is whole
    assert target_of("h200/4") == part_of(whole, 4)
    assert part_of(whole, 4).sm_bytes_per_us == pytest.approx(whole.sm_bytes_per_us)


def test_the_table_names_gain_and_exposed_time() -> None:
    text = table([Predicted("m", 4, 1000.0, 300.0, 320.0, 400.0)])
    assert text.splitlines()[-1] == "| m | 4 | 1,000 | 320 | 400 | 20 | 100 | 1.25x |"
