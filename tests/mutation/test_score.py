"""The mutation score on a small scale: no unsafe plan is accepted, few safe ones refused (in full: make mutation)."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from .judge import adversaries, run, shown_wrong, why_unsafe
from .score import MAX_REFUSED, Score, Tally, measure, table, totals
from .subjects import Subject, decoders, random_subjects
from .tables import DAMAGES, drop_waits_of_a_grid
from .text import WEAKENINGS


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [*islice(decoders(large=False), 4), *random_subjects(8, 5)]


@pytest.fixture(scope="module")
def score(subjects: list[Subject]) -> Score:
    return measure(subjects, 520, 11, simulate_every=4)


def test_no_unsafe_plan_is_accepted(score: Score) -> None:
    whole, _, _ = totals(score)
    assert whole.accepted == []
    assert whole.unsafe >= 520


def test_no_plan_goes_wrong_that_the_judge_calls_safe(score: Score) -> None:
    whole, _, _ = totals(score)
    assert whole.contradicted == []
    assert whole.shown > 0


def test_few_safe_variants_are_refused(score: Score) -> None:
    _, safe, refused = totals(score)
    assert safe > 50
    assert refused <= MAX_REFUSED * safe


def test_at_least_thirty_kinds_of_damage_made_an_unsafe_plan(score: Score) -> None:
    kinds = [name for name, tally in score.items() if tally.unsafe and not name.startswith("variant")]
    assert len(kinds) >= 30
    assert len(kinds) >= 0.8 * (len(DAMAGES) + len(WEAKENINGS))


def test_the_table_names_what_was_accepted() -> None:
    score: Score = {"tables: drop_wait": Tally()}
    score["tables: drop_wait"].note("race", None, "a plan")
    score["tables: drop_wait"].note(None, "race", "another")
    text = table(score)
    assert "a plan: race" in text
    assert "1 unsafe plans of 1 kinds, 1 accepted" in text


def test_subjects_are_safe_and_run_alike_under_every_adversary(subjects: list[Subject]) -> None:
    for subject in subjects:
        assert why_unsafe(subject.program) is None, subject.name
        if subject.drawn is not None:
            expected = run(subject.program, subject.drawn, adversaries()[0])
            assert expected is not None
            assert not np.isnan(expected).any()
            assert not shown_wrong(subject.program, subject.drawn, expected), subject.name


def test_a_run_shows_a_dropped_edge(subjects: list[Subject]) -> None:
    shown = 0
    for subject in subjects:
        program = drop_waits_of_a_grid(subject.program, np.random.default_rng(0))
        if program is None or subject.drawn is None or why_unsafe(program) is None:
            continue
        expected = run(subject.program, subject.drawn, adversaries()[0])
        assert expected is not None
        shown += shown_wrong(program, subject.drawn, expected)
    assert shown > 0
