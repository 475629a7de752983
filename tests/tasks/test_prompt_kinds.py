"""The kinds of steps of many rows mean what the kinds of few rows mean: the one against the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpk_ir.core.requests import RequestColumn, assign_rows, last_rows
from mpk_ir.tasks.attention import Attention, AttentionParams
from mpk_ir.tasks.block_rows import BlockRows, BlockRowsParams
from mpk_ir.tasks.last_rows import LastRows, LastRowsParams
from mpk_ir.tasks.linear import Linear, LinearParams
from mpk_ir.tasks.prompt_attention import PromptAttention, PromptAttentionParams
from mpk_ir.tasks.rms_norm import RmsNorm, RmsNormParams
from mpk_ir.tasks.rope_append import RopeAppend, RopeAppendParams
from mpk_ir.tasks.wide_linear import WideLinear, WideLinearParams

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)
HEADS, KV_HEADS, DIM, PAGE, ROWS = 4, 2, 32, 16, 160
COLUMNS = (HEADS + 2 * KV_HEADS) * DIM
LENGTHS = st.lists(st.integers(0, 80), min_size=2, max_size=2).filter(any)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(SEEDS, st.booleans(), st.booleans(), st.sampled_from(("none", "silu_mul", "gelu_mul")))
def test_wide_linear_is_a_linear(seed: int, bias: bool, residual: bool, activation: str) -> None:
    columns = 32 if activation == "none" else 16
    views = {"x": normal(seed, 5, 64), "weight": normal(seed + 1, 32, 64), "bias": normal(seed + 2, 32)}
    views["residual"] = normal(seed + 3, 5, columns)
    found, expected = np.zeros((5, columns), np.float32), np.zeros((5, columns), np.float32)
    WideLinear().reference(
        WideLinearParams(32, 64, 128, 5, bias, residual, activation, blocked=False), {**views, "y": found}, (0, 0)
    )
    linear = LinearParams(32, 64, 2, 2, 5, False, 0.0, bias, residual, False, activation, "f32")
    Linear().reference(linear, {**views, "y": expected}, (0,))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@given(SEEDS)
def test_block_rows_is_a_norm_or_a_copy(seed: int) -> None:
    views = {"x": normal(seed, 3, 64), "weight": normal(seed + 1, 64)}
    found, expected = np.zeros((3, 64), np.float32), np.zeros((3, 64), np.float32)
    BlockRows().reference(BlockRowsParams(64, 3, 128, True, 1e-6), {**views, "y": found}, (0,))
    RmsNorm().reference(RmsNormParams(64, 1, 3, 1e-6), {**views, "y": expected}, (0,))
    np.testing.assert_array_equal(found, expected)
    BlockRows().reference(BlockRowsParams(64, 3, 128, False, 0.0), {**views, "y": found}, (0,))
    np.testing.assert_array_equal(found, views["x"])


@given(SEEDS, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_last_rows_follow_each_other(seed: int, counts: list[int]) -> None:
    requests = np.zeros((4, len(RequestColumn)), np.int32)
    requests[:, RequestColumn.NUM_ROWS] = counts
    requests[:, RequestColumn.FIRST_ROW] = np.cumsum(counts) - counts
    x, y = normal(seed, 12, 8), np.full((4, 8), 7.0, np.float32)
    LastRows().reference(LastRowsParams(8, 4), {"x": x, "requests": requests, "y": y}, (0,))
    expected = [x[sum(counts[: r + 1]) - 1] for r, count in enumerate(counts) if count]
    assert len(last_rows(requests)) == len(expected)
    np.testing.assert_array_equal(y, [*expected, *np.zeros((4 - len(expected), 8), np.float32)])


def step_views(seed: int, cached: list[int], lengths: list[int]) -> dict[str, Array]:
    """What a step of ``lengths`` new rows of each request reads, behind ``cached`` positions."""
    batch, pages = len(lengths), 12
    views = {"qkv": normal(seed, ROWS, COLUMNS), "q_norm": normal(seed + 1, DIM), "k_norm": normal(seed + 2, DIM)}
    for name in ("k_cache", "v_cache"):
        views[name] = normal(seed + len(name), batch * pages, KV_HEADS, PAGE, DIM)
    views["inv_freq"] = np.linspace(1.0, 0.01, DIM // 2).astype(np.float32)
    views["page_table"] = np.random.default_rng(seed).permutation(batch * pages).astype(np.int32).reshape(batch, pages)
    requests = np.zeros((batch, len(RequestColumn)), np.int32)
    requests[:, RequestColumn.CACHED] = cached
    requests[:, RequestColumn.KNOWN] = np.add(cached, lengths)
    requests[:, RequestColumn.STOP_LENGTH] = np.add(cached, lengths) + 1
    views |= {"requests": requests, "rows": np.zeros((ROWS, 4), np.int32), "row_count": np.zeros(1, np.int32)}
    assign_rows(np.zeros((batch, pages * PAGE), np.int32), requests, views["rows"], views["row_count"])
    return views


@pytest.mark.parametrize(("softcap", "window"), [(0.0, 0), (5.0, 0), (0.0, 20)])
@given(SEEDS, LENGTHS, st.tuples(st.integers(0, 30), st.integers(0, 30)), st.booleans())
def test_rope_append_and_prompt_attention_are_attention(
    softcap: float, window: int, seed: int, lengths: list[int], cached: tuple[int, int], norm: bool
) -> None:
    views = step_views(seed, list(cached), lengths)
    expected = {name: array.copy() for name, array in views.items()}
    few = AttentionParams(
        *(HEADS, KV_HEADS, DIM, PAGE, 12, 1, ROWS, 0.2),
        append=True,
        norm=norm,
        eps=1e-6,
        rotary=True,
        rotary_scaling=1.0,
        softcap=softcap,
        window=window,
    )
    out = np.zeros((ROWS, HEADS * DIM), np.float32)
    for request in range(2):
        for head in range(KV_HEADS):
            Attention().reference(few, attention_views(expected, out, request, head), (request, head, 0))
    RopeAppend().reference(
        RopeAppendParams(HEADS, KV_HEADS, DIM, PAGE, ROWS, norm, 1e-6, rotary=True, rotary_scaling=1.0), views, (0,)
    )
    for name in ("k_cache", "v_cache"):
        np.testing.assert_allclose(views[name], expected[name], rtol=1e-4, atol=1e-4)
    many = PromptAttentionParams(HEADS, KV_HEADS, DIM, PAGE, 2, 2, ROWS, 0.2, softcap, window)
    found = np.zeros_like(out)
    for block in range(many.blocks):
        for group in range(HEADS // 2):
            first, columns = (many.blocks - 1 - block) * many.rows, slice(group * 2 * DIM, (group + 1) * 2 * DIM)
            mine = {name: views[name] for name in ("requests", "page_table")}
            mine |= {name: views[name][:, group : group + 1] for name in ("k_cache", "v_cache")}
            mine |= {"q": views["qkv"][first:, columns], "out": found[first : first + many.rows, columns]}
            PromptAttention().reference(many, mine, (block, group))
    np.testing.assert_allclose(found, out, rtol=1e-3, atol=1e-4)


def attention_views(views: dict[str, Array], out: Array, request: int, head: int) -> dict[str, Array]:
    """Of one request and KV head, as `attention` has them."""
    group = HEADS // KV_HEADS * DIM
    k, v = HEADS * DIM + head * DIM, (HEADS + KV_HEADS) * DIM + head * DIM
    mine = {name: views[name] for name in ("q_norm", "k_norm", "inv_freq")}
    mine |= {name: views[name][request : request + 1] for name in ("requests", "page_table")}
    mine |= {name: views[name][:, head : head + 1] for name in ("k_cache", "v_cache")}
    mine |= {"q": views["qkv"][:, head * group : (head + 1) * group], "k": views["qkv"][:, k : k + DIM]}
    return mine | {"v": views["qkv"][:, v : v + DIM], "out": out[:, head * group : (head + 1) * group]}
