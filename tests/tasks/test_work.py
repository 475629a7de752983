"""The cost model knows every built-in kind, and grows with what a task is asked to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpk_ir.core.target import A100, H200
from mpk_ir.tasks import BUILTIN_KINDS, task_kind
from mpk_ir.tasks.attention import AttentionParams, split_range
from mpk_ir.tasks.linear import MOST_MANY_VECTORS, MOST_SEGMENT_VECTORS, LinearParams, x_segments
from mpk_ir.tasks.work import _MODELS, Load, work_of

LINEAR = LinearParams(
    n=200,
    k=4096,
    tiles=2,
    pass_tiles=2,
    rows=16,
    norm=True,
    eps=1e-6,
    bias=False,
    residual=False,
    best=False,
    activation="none",
    out="bf16",
)
ATTENTION = AttentionParams(
    heads=32,
    kv_heads=8,
    head_dim=128,
    page_size=64,
    max_pages=128,
    splits=16,
    rows=8,
    scale=0.1,
    append=True,
    norm=True,
    eps=1e-6,
    rotary=True,
    rotary_scaling=1.0,
)


def splits_of(params: AttentionParams) -> np.ndarray:
    return np.array([[0, 0, split] for split in range(params.splits)])


GENERAL_KINDS = {"gather", "index_copy", "map", "matmul", "normalize", "reduce"}
"""Of graphs that are no decoders: never traced, they cost what they say themselves."""


def test_every_kind_of_a_decoder_step_has_a_model() -> None:
    assert {kind.name for kind in BUILTIN_KINDS} - GENERAL_KINDS == set(_MODELS)


def test_a_kind_without_a_model_costs_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_MODELS, "linear")
    kind = task_kind("linear")
    assert work_of(kind, LINEAR, np.zeros((1, 1), np.int64), Load(), A100).compute_us == kind.cost_us(LINEAR, A100)


def test_the_last_task_of_a_product_may_have_fewer_tiles() -> None:
    target = replace(H200, costs=replace(H200.costs, pass_us=0.5))
    work = work_of(task_kind("linear"), LINEAR, np.arange(7)[:, None], Load(), target)
    whole, one = (np.asarray(work.compute_us)[at] for at in (0, 6))
    assert one < whole < 2 * one, "the pass ends once, whatever its tiles"


def test_x_is_cut_where_registers_end() -> None:
    """As the device code cuts it, which has their number too."""
    text = task_kind("linear").header()
    assert f"kMostSegmentVectors = {MOST_SEGMENT_VECTORS};" in text
    assert f"kMostManyVectors = {MOST_MANY_VECTORS};" in text
    for rows, k, segments in (
        (8, 1024, 1),
        (8, 3072, 1),
        (8, 4096, 2),
        (8, 12288, 4),
        (16, 1024, 1),
        (16, 2048, 1),
        (16, 4096, 3),
    ):
        assert x_segments(replace(LINEAR, rows=rows, k=k)) == segments
    assert x_segments(replace(LINEAR, k=4096, norm=False)) == 2, "no norm: more registers for x"
    assert x_segments(replace(LINEAR, rows=8, k=4096, norm=False)) == 2


@given(st.integers(1, 15), st.integers(64, 8192))
def test_more_rows_and_more_columns_cost_more(rows: int, k: int) -> None:
    def total(params: LinearParams, load: Load) -> float:
        work = work_of(task_kind("linear"), params, np.zeros((1, 1), np.int64), load, H200)
        return work.activation_us + float(np.asarray(work.compute_us)[0])

    params = replace(LINEAR, k=k)
    assert total(params, Load(rows)) < total(params, Load(rows + 1))
    assert total(params, Load(rows)) < total(replace(params, k=k + 64), Load(rows))


@given(st.integers(1, 8191), st.integers(1, 32))
def test_splits_together_read_the_cache_once(context: int, splits: int) -> None:
    params = replace(ATTENTION, splits=splits)
    work = work_of(task_kind("attention"), params, splits_of(params), Load(1, context), H200)
    length = context + 1
    positions = [end - begin for begin, end in (split_range(length, splits, split) for split in range(splits))]
    assert (np.asarray(work.cache_bytes) == 4.0 * np.array(positions) * params.head_dim).all()
    least = np.asarray(work.compute_us)[np.array(positions) == 0]
    assert (least == H200.costs.small_us).all(), "a split without positions only waits and signals"
