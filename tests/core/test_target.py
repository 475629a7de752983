"""Targets are data; every figure says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpk_ir.core.errors import UnsupportedError, UsageError
from mpk_ir.core.target import A100, B200, H200, SIM, TARGETS, Source, Target, architecture, target_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_figures_are_positive_and_sources_name_figures(target: Target) -> None:
    assert all(value > 0 for value in target.figures().values())
    assert set(target.sources) <= {*target.figures(), "costs", "link"}


def test_only_the_h200_is_measured() -> None:
    measured = {name for name, t in TARGETS.items() if t.source("read_bandwidth_tb_s") is Source.MEASURED}
    assert measured == {"h200"}
    assert H200.source("num_sms") is Source.DATASHEET
    assert B200.source("handoff_loaded_us") is Source.TAKEN_OVER
    assert B200.costs == H200.costs


def test_shares_add_up() -> None:
    assert H200.sm_bytes_per_us * H200.num_sms == pytest.approx(H200.bytes_per_us)


def test_an_a100_can_be_planned_for_but_not_compiled_for() -> None:
    assert not A100.runs_kernel
    with pytest.raises(UnsupportedError, match=r"'a100': the kernel needs .* of sm_90, found sm_80") as caught:
        A100.require_kernel()
    assert "mpk report" in str(caught.value)
    for target in (H200, B200, SIM):
        target.require_kernel()


@pytest.mark.parametrize(("name", "number"), [("sm_80", 80), ("sm_90a", 90), ("sm_100a", 100), ("sm_120f", 120)])
def test_architectures_are_numbers(name: str, number: int) -> None:
    assert architecture(name) == number


@pytest.mark.parametrize("name", ["90", "sm_", "sm_x", "compute_90"])
def test_what_is_no_architecture_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"found architecture '{name}'")):
        architecture(name)


def test_a_mistyped_target_is_guessed() -> None:
    with pytest.raises(UsageError, match="unknown target 'h2o0'") as caught:
        target_of("h2o0")
    assert caught.value.advice == "did you mean 'h200'?"


def test_the_page_of_targets_shows_these_figures() -> None:
    page = ROOT.joinpath("docs/targets.md").read_text()
    for target in TARGETS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {target.name} ")]
        for figure in (target.arch, target.num_sms, target.shared_memory_bytes // 1024, target.read_bandwidth_tb_s):
            assert f" {figure} " in row, f"{target.name}: {figure} is not in docs/targets.md"
