"""The numpy meaning of each task kind against a formula written another way, one element at a time or by torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpk_ir.core.requests import RequestColumn, RowColumn
from mpk_ir.tasks import BUILTIN_KINDS
from mpk_ir.tasks.advance import Advance, AdvanceParams
from mpk_ir.tasks.argmax import Argmax, ArgmaxParams
from mpk_ir.tasks.attention import Attention, AttentionParams, split_range
from mpk_ir.tasks.attention_merge import AttentionMerge, AttentionMergeParams
from mpk_ir.tasks.block_rows import BlockRows
from mpk_ir.tasks.elementwise import BINARY, FUNCTIONS, Elementwise, ElementwiseParams
from mpk_ir.tasks.embedding import Embedding, EmbeddingParams
from mpk_ir.tasks.expert_sum import ExpertSum, ExpertSumParams
from mpk_ir.tasks.gather import Gather
from mpk_ir.tasks.grouped_linear import GroupedLinear, GroupedLinearParams, items_of
from mpk_ir.tasks.index_copy import IndexCopy
from mpk_ir.tasks.join import Join, JoinParams
from mpk_ir.tasks.kv_append import KvAppend, KvAppendParams
from mpk_ir.tasks.last_rows import LastRows
from mpk_ir.tasks.linear import Linear, LinearParams
from mpk_ir.tasks.map import Map
from mpk_ir.tasks.matmul import Matmul
from mpk_ir.tasks.normalize import Normalize
from mpk_ir.tasks.prompt_attention import PromptAttention
from mpk_ir.tasks.push import Push, PushParams
from mpk_ir.tasks.rank_sum import RankSum, RankSumParams
from mpk_ir.tasks.reduce import Reduce
from mpk_ir.tasks.rms_norm import RmsNorm, RmsNormParams
from mpk_ir.tasks.rope import Rope, RopeParams
from mpk_ir.tasks.rope_append import RopeAppend
from mpk_ir.tasks.select import Select, SelectParams
from mpk_ir.tasks.shard_embedding import ShardEmbedding, ShardEmbeddingParams
from mpk_ir.tasks.top_k_gate import TopKGate, TopKGateParams
from mpk_ir.tasks.wide_linear import WideLinear

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)
TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "silu": torch.nn.functional.silu,
    "gelu_tanh": lambda a: torch.nn.functional.gelu(a, approximate="tanh"),
    "exp": torch.exp,
    "neg": torch.neg,
    "silu_mul": lambda a, b: torch.nn.functional.silu(a) * b,
    "gelu_tanh_mul": lambda a, b: torch.nn.functional.gelu(a, approximate="tanh") * b,
}


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(found: Array, expected: Any) -> None:
    np.testing.assert_allclose(found, np.asarray(expected, dtype=np.float32), rtol=2e-5, atol=2e-5)


def test_every_kind_is_tested_here() -> None:
    tested = (Advance, Argmax, Attention, AttentionMerge, Elementwise, Embedding)
    tested += (Join, KvAppend, Linear, Push, RankSum, RmsNorm, Rope, Select, ShardEmbedding)
    tested += (TopKGate, GroupedLinear, ExpertSum)
    general = (Map, Reduce, Normalize, Matmul, Gather, IndexCopy)  # in test_general_kinds.py
    prompts = (WideLinear, BlockRows, RopeAppend, PromptAttention, LastRows)  # in test_prompt_kinds.py
    assert {type(kind) for kind in BUILTIN_KINDS} == {*tested, *general, *prompts}


@given(SEEDS, st.integers(0, 2))
def test_push_copies_the_columns_of_its_block(seed: int, block: int) -> None:
    x, y = normal(seed, 3, 20), np.zeros((3, 8 if block < 2 else 4), np.float32)
    Push().reference(PushParams(8, 3, 20, 4), {"x": x, "y": y}, (block,))
    assert y.tolist() == [row[8 * block : 8 * block + 8] for row in x.tolist()]


@given(SEEDS, st.integers(1, 8), st.booleans())
def test_rank_sum_adds_in_the_order_of_ranks(seed: int, ranks: int, residual: bool) -> None:
    slots, rest, y = normal(seed, ranks * 3, 8), normal(seed + 1, 3, 8), np.zeros((3, 8), np.float32)
    views = {"slots": slots, "y": y} | ({"residual": rest} if residual else {})
    RankSum().reference(RankSumParams(ranks, 8, 3, 8, residual), views, (0,))
    for row in range(3):
        for column in range(8):
            total = slots[row, column]
            for rank in range(1, ranks):
                total = total + slots[3 * rank + row, column]
            assert y[row, column] == (total + rest[row, column] if residual else total)


@given(SEEDS, st.lists(st.integers(0, 11), min_size=5, max_size=5), st.integers(0, 2), st.integers(0, 2))
def test_shard_embedding_gives_rows_of_its_part_and_zeros(seed: int, tokens: list[int], rank: int, block: int) -> None:
    table, ids, y = normal(seed, 4, 24), np.zeros((5, len(RowColumn)), np.int32), np.zeros((5, 8), np.float32)
    ids[:, RowColumn.TOKEN] = tokens
    views = {"table": table, "ids": ids, "first": np.array([4 * rank], np.int32), "y": y}
    ShardEmbedding().reference(ShardEmbeddingParams(8, 5, len(RowColumn), False, 4), views, (0, block))
    mine = table[:, 8 * block : 8 * block + 8]
    for row, token in enumerate(tokens):
        expected = mine[token - 4 * rank] if token // 4 == rank else np.zeros(8, np.float32)
        assert y[row].tolist() == expected.tolist()


def test_select_counts_columns_from_the_first_of_their_rank() -> None:
    value, column = np.array([[1, 5, 9, 2], [7, 7, 3, 7]], np.float32), np.array([[0, 3, 1, 2]] * 2, np.int32)
    y = np.zeros(2, np.int32)
    Select().reference(SelectParams(4, 2, 2, 100), {"value": value, "column": column, "y": y}, (0,))
    assert y.tolist() == [101, 0]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(seed=SEEDS)
def test_elementwise(name: str, seed: int) -> None:
    a, b, y = normal(seed, 3, 8), normal(seed + 1, 3, 8), np.zeros((3, 8), np.float32)
    views = {"a": a, "y": y} | ({"b": b} if name in BINARY else {})
    Elementwise().reference(ElementwiseParams(name, 8, 3, 8), views, (0,))
    operands = [torch.from_numpy(views[key]) for key in ("a", "b") if key in views]
    close(y, TORCH[name](*operands).numpy())


@given(SEEDS, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(("none", "silu_mul", "gelu_mul")))
def test_linear(seed: int, norm: bool, bias: bool, residual: bool, activation: str) -> None:
    rows, k, gated = 3, 24, activation != "none"
    width = 16 if gated else 32
    params = LinearParams(32, k, 4, 4, rows, norm, 1e-5, bias, residual, False, activation, "bf16")
    weight, add = normal(seed, 32, k), normal(seed + 1, 32)
    x, scale, rest = normal(seed + 2, rows, k), normal(seed + 3, k), normal(seed + 4, rows, width)
    y = np.zeros((rows, width), np.float32)
    views = {"x": x, "weight": weight, "bias": add, "norm_weight": scale, "residual": rest, "y": y}
    Linear().reference(params, views, (0,))
    wide = torch.from_numpy(x)
    if norm:
        wide = torch.nn.functional.rms_norm(wide, (k,), torch.from_numpy(scale), 1e-5)
    out = torch.nn.functional.linear(wide, torch.from_numpy(weight), torch.from_numpy(add) if bias else None)
    if gated:  # a tile of 8 gate rows, then one of their 8 up rows
        gate = torch.cat([out[:, 0:8], out[:, 16:24]], dim=1)
        up = torch.cat([out[:, 8:16], out[:, 24:32]], dim=1)
        out = TORCH["silu_mul" if activation == "silu_mul" else "gelu_tanh_mul"](gate, up)
    close(y, (out + torch.from_numpy(rest) if residual else out).numpy())


@given(SEEDS, st.integers(1, 3), st.booleans())
def test_rms_norm(seed: int, groups: int, residual: bool) -> None:
    x, weight, y = normal(seed, 2, 16 * groups), normal(seed + 1, 16), np.zeros((2, 16 * groups), np.float32)
    rest = normal(seed + 2, 2, 16 * groups)
    views = {"x": x, "weight": weight, "y": y} | ({"residual": rest} if residual else {})
    RmsNorm().reference(RmsNormParams(16, groups, 2, 1e-6, residual), views, (0,))
    y -= rest * residual
    for row in range(2):
        for group in range(groups):
            part = x[row, 16 * group : 16 * group + 16].tolist()
            rms = math.sqrt(sum(value * value for value in part) / 16 + 1e-6)
            expected = [value / rms * w for value, w in zip(part, weight.tolist(), strict=True)]
            close(y[row, 16 * group : 16 * group + 16], expected)


def rotated(x: Array, position: int, inv_freq: Array, scaling: float = 1.0) -> Array:
    """Halves as real and imaginary parts of complex numbers, turned by position times frequency."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * position * inv_freq.astype(np.float64)) * scaling
    return np.concatenate([turned.real, turned.imag], axis=-1)


@given(SEEDS, st.lists(st.integers(0, 500), min_size=2, max_size=2), st.sampled_from((1.0, 0.5)), st.booleans())
def test_rope(seed: int, positions: list[int], scaling: float, interleaved: bool) -> None:
    x, y, inv_freq = normal(seed, 2, 24), np.zeros((2, 24), np.float32), np.array([1.0, 0.1, 0.01, 0.001], np.float32)
    rows = np.array([(0, 0, position, 0) for position in positions], np.int32)
    params = RopeParams(3, 8, 2, scaling, interleaved)
    Rope().reference(params, {"x": x, "rows": rows, "inv_freq": inv_freq, "y": y}, (0,))
    halves = np.arange(8).reshape(4, 2).T.ravel() if interleaved else np.arange(8)  # where they stand
    for row, position in enumerate(positions):
        expected = np.empty((3, 8))
        expected[:, halves] = rotated(x[row].reshape(3, 8)[:, halves], position, inv_freq, scaling)
        expected = expected.ravel()
        np.testing.assert_allclose(y[row], expected, atol=2e-4)  # the angle is rounded to float32


@given(SEEDS, st.integers(1, 8), st.integers(0, 1), st.integers(0, 2))
def test_embedding_leaves_inactive_rows_alone(seed: int, count: int, row_block: int, column_block: int) -> None:
    table, y = normal(seed, 10, 24), np.full((4, 8), 7.0, np.float32)
    rows = np.random.default_rng(seed).integers(0, 10, (4, 4)).astype(np.int32)
    views = {"table": table, "ids": rows, "row_count": np.array([count], np.int32), "y": y}
    Embedding().reference(EmbeddingParams(8, 4, 4, False), views, (row_block, column_block))
    mine = table[:, 8 * column_block : 8 * column_block + 8]
    for row in range(4):
        active = 4 * row_block + row < count
        assert y[row].tolist() == (mine[rows[row, RowColumn.TOKEN]].tolist() if active else [7.0] * 8)


@given(SEEDS, st.integers(1, 4))
def test_argmax_of_chunks_then_select_is_the_first_largest(seed: int, chunks: int) -> None:
    logits = np.random.default_rng(seed).integers(0, 4, (3, 8 * chunks - 3)).astype(np.float32)  # many ties
    value, column = np.zeros((3, chunks), np.float32), np.zeros((3, chunks), np.int32)
    for chunk in range(chunks):
        own = slice(chunk, chunk + 1)
        views = {"x": logits[:, 8 * chunk : 8 * chunk + 8], "value": value[:, own], "column": column[:, own]}
        Argmax().reference(ArgmaxParams(logits.shape[1], 8, 3), views, (chunk,))
    y = np.zeros(3, np.int32)
    Select().reference(SelectParams(chunks, 3), {"value": value, "column": column, "y": y}, (0,))
    assert y.tolist() == [row.index(max(row)) for row in logits.tolist()]


@given(SEEDS, st.permutations(range(4)), st.integers(0, 10))
def test_kv_append(seed: int, pages: list[int], first: int) -> None:
    cache, new = normal(seed, 4, 1, 4, 8), normal(seed + 1, 3, 8)
    before = cache.copy()
    rows = np.array([(0, 0, first, 0), (0, 0, first + 1, 0), (0, -1, 0, 0)], np.int32)
    views = {"cache": cache, "new": new, "rows": rows, "page_table": np.array([pages], np.int32)}
    KvAppend().reference(KvAppendParams(8, 4, 3), views, (0,))
    for row in range(2):
        page, slot = divmod(first + row, 4)
        before[pages[page], 0, slot] = new[row]
    np.testing.assert_array_equal(cache, before)


HEADS, KV_HEADS, DIM, PAGE, PAGES, ROWS = 4, 2, 8, 16, 4, 4
GROUP = HEADS // KV_HEADS
INV_FREQ = np.array([1.0, 0.3, 0.1, 0.03], np.float32)


def attention_views(seed: int, cached: int, count: int, splits: int) -> dict[str, Array]:
    """Views of one (request, KV head) task; the request has rows 1 .. count."""
    request = np.zeros((1, len(RequestColumn)), np.int32)
    columns = (RequestColumn.FIRST_ROW, RequestColumn.NUM_ROWS, RequestColumn.CACHED)
    request[0, columns] = (1, count, cached)
    return {
        "q": normal(seed, ROWS, GROUP * DIM),
        "k": normal(seed + 1, ROWS, DIM),
        "v": normal(seed + 2, ROWS, DIM),
        "k_cache": normal(seed + 3, PAGES, 1, PAGE, DIM),
        "v_cache": normal(seed + 4, PAGES, 1, PAGE, DIM),
        "requests": request,
        "page_table": np.array([[2, 0, 3, 1]], np.int32),
        "q_norm": normal(seed + 5, DIM),
        "k_norm": normal(seed + 6, DIM),
        "inv_freq": INV_FREQ,
        "out": np.zeros((ROWS, GROUP * DIM if splits == 1 else splits * GROUP * DIM), np.float32),
        "max_sum": np.zeros((ROWS, splits * GROUP * 2), np.float32),
    }


def attended(views: dict[str, Array], cached: int, params: AttentionParams, count: int) -> Array:
    """[count, group * dim]: softmax over the visible positions of keys in order, by torch."""
    fused = params.append
    order = views["page_table"][0]
    keys, values = (views[name][order, 0].reshape(-1, DIM).astype(np.float64).copy() for name in ("k_cache", "v_cache"))
    queries = views["q"][1 : 1 + count].reshape(count, GROUP, DIM).astype(np.float64)

    def prepared(x: Array, norm: str, position: int) -> Array:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * views[norm]
        return rotated(x, position, INV_FREQ)

    out = []
    for row in range(count):
        position = cached + row
        if fused:
            keys[position] = prepared(views["k"][1 + row].astype(np.float64), "k_norm", position)
            values[position] = views["v"][1 + row]
        q = prepared(queries[row], "q_norm", position) if fused else queries[row]
        seen = slice(max(0, position + 1 - params.window) if params.window else 0, position + 1)
        scores = torch.from_numpy(q @ keys[seen].T * 0.3)
        if params.softcap:
            scores = torch.tanh(scores / params.softcap) * params.softcap
        out.append((torch.softmax(scores, dim=-1).numpy() @ values[seen]).ravel())
    return np.array(out)


SOFTCAPS, WINDOWS = st.sampled_from((0.0, 0.5)), st.sampled_from((0, 1, 5, 30))


@given(SEEDS, st.integers(0, 60), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.tuples(SOFTCAPS, WINDOWS))
def test_attention_in_splits_and_merged(
    seed: int, cached: int, count: int, splits: int, fused: bool, limits: tuple[float, int]
) -> None:
    views = attention_views(seed, cached, count, splits)
    shape = (HEADS, KV_HEADS, DIM, PAGE, PAGES, splits, ROWS, 0.3)
    plain = AttentionParams(*shape, append=fused, norm=fused, eps=1e-6, rotary=fused, rotary_scaling=1.0)
    params = replace(plain, softcap=limits[0], window=limits[1])
    expected = attended(views, cached, params, count)
    for split in range(splits):
        part = slice(split * GROUP * DIM, (split + 1) * GROUP * DIM)
        sums = slice(split * GROUP * 2, (split + 1) * GROUP * 2)
        own = views | {"out": views["out"][:, part], "max_sum": views["max_sum"][:, sums]}
        Attention().reference(params, own, (0, 0, split))
    out = views["out"][1 : 1 + count]
    if splits > 1:
        merged = np.zeros((count, GROUP * DIM), np.float32)
        parts = {"partial": out, "max_sum": views["max_sum"][1 : 1 + count], "out": merged}
        for head in range(GROUP):
            own = parts | {"out": merged[:, head * DIM : (head + 1) * DIM]}
            AttentionMerge().reference(AttentionMergeParams(GROUP, DIM, splits, count), own, (head, 0))
        out = merged
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-4)


@given(st.integers(1, 400), st.integers(1, 9))
def test_splits_cover_every_position_once_in_whole_blocks(length: int, splits: int) -> None:
    ranges = [split_range(length, splits, split) for split in range(splits)]
    assert [position for begin, end in ranges for position in range(begin, end)] == list(range(length))
    assert all(begin % 16 == 0 for begin, end in ranges if begin < end)


def test_advance_keeps_sampled_tokens_and_deals_rows() -> None:
    history = np.array([[5, 6, 7, 0, 0, 0], [8, 0, 0, 0, 0, 0]], np.int32)
    requests = np.zeros((2, len(RequestColumn)), np.int32)
    order = (RequestColumn.FIRST_ROW, RequestColumn.NUM_ROWS, RequestColumn.CACHED, RequestColumn.PROMPT_LENGTH)
    requests[:, order] = [(0, 2, 0, 3), (2, 1, 0, 1)]
    requests[:, (RequestColumn.KNOWN, RequestColumn.STOP_LENGTH)] = [(3, 6), (1, 4)]
    rows = np.array([(5, 0, 0, 0), (6, 0, 1, 0), (8, 1, 0, 1)], np.int32)
    count = np.array([3], np.int32)
    views = {"sampled": np.array([40, 41, 42], np.int32), "history": history, "requests": requests, "rows": rows}
    Advance().reference(AdvanceParams(2, 3, 6, ()), views | {"row_count": count}, (0,))
    assert history.tolist() == [[5, 6, 7, 0, 0, 0], [8, 42, 0, 0, 0, 0]]
    assert rows.tolist() == [[7, 0, 2, 1], [42, 1, 1, 1], [0, -1, 0, 0]]
    assert requests[:, RequestColumn.CACHED].tolist() == [2, 1]
    assert count.tolist() == [2]
    Advance().reference(
        AdvanceParams(2, 3, 6, (42,)), views | {"row_count": count, "sampled": views["sampled"] + 1}, (0,)
    )
    assert history[0].tolist() == [5, 6, 7, 41, 0, 0]
    assert history[1].tolist() == [8, 42, 42, 0, 0, 0]
    assert requests[1, RequestColumn.STOP_LENGTH] == 3, "a stop token ends its request"
    assert rows.tolist() == [[41, 0, 3, 1], [0, -1, 0, 0], [0, -1, 0, 0]]


def test_join_touches_nothing() -> None:
    Join().reference(JoinParams(), {}, (0,))
    assert Join().operands == ()


@given(SEEDS, st.integers(1, 4), st.integers(0, 3))
def test_top_k_gate_chooses_as_torch_and_leaves_other_rows_alone(seed: int, k: int, active: int) -> None:
    logits = normal(seed, 3, 9)
    weights, experts = np.full((3, k), -1.0, np.float32), np.full((3, k), -1, np.int32)
    views = {"logits": logits, "weights": weights, "experts": experts, "row_count": np.array([active], np.int32)}
    TopKGate().reference(TopKGateParams(9, k, 3), views, (0,))
    chosen = torch.from_numpy(logits).topk(k)
    assert experts[:active].tolist() == chosen.indices[:active].tolist()
    close(weights[:active], torch.softmax(chosen.values, 1)[:active])
    assert (experts[active:] == -1).all()


def test_the_first_of_equal_logits_is_chosen() -> None:
    views: dict[str, Array] = {"logits": np.zeros((1, 5), np.float32), "weights": np.zeros((1, 2), np.float32)}
    views["experts"] = np.zeros((1, 2), np.int32)
    TopKGate().reference(TopKGateParams(5, 2, 1), views, (0,))
    assert views["experts"].tolist() == [[0, 1]]
    assert views["weights"].tolist() == [[0.5, 0.5]]


@given(SEEDS, st.integers(1, 7), st.booleans(), st.booleans(), st.sampled_from((8, 16, 24)))
def test_takers_of_a_grouped_linear_compute_all_of_it_and_nothing_twice(
    seed: int, takers: int, gated: bool, per_slot: bool, columns: int
) -> None:
    params = GroupedLinearParams(6, 24, 16, 2, 4, columns, takers, gated, per_slot)
    experts = np.random.default_rng(seed).integers(0, 6, (4, 2)).astype(np.int32)
    x, weight = normal(seed, 4, 32 if per_slot else 16), normal(seed + 1, 6 * params.expert_rows, 16)
    y, writes = np.zeros((4, 48), np.float32), np.zeros((6, 24), np.int64)
    for taker in range(takers):
        GroupedLinear().reference(params, {"x": x, "weight": weight, "experts": experts, "y": y}, (taker,))
        for expert, part in items_of(params, experts, taker):
            writes[expert, part] += 1
    assert (writes == np.isin(np.arange(6), experts)[:, None]).all()
    for row in range(4):
        for slot in range(2):
            own = torch.from_numpy(x[row, 16 * slot : 16 * slot + 16] if per_slot else x[row])
            product = torch.from_numpy(weight.reshape(6, -1, 16)[experts[row, slot]]) @ own
            value = torch.nn.functional.silu(product[:24]) * product[24:] if gated else product
            close(y[row, 24 * slot : 24 * slot + 24], value)


@given(SEEDS, st.integers(1, 4), st.integers(0, 1))
def test_expert_sum_weighs_and_adds(seed: int, slots: int, block: int) -> None:
    x, weights, y = (
        normal(seed, 3, slots * 12),
        normal(seed + 1, 3, slots),
        np.zeros((3, 8 if block == 0 else 4), np.float32),
    )
    ExpertSum().reference(ExpertSumParams(slots, 8, 3, 12), {"x": x, "weights": weights, "y": y}, (block,))
    expected = torch.einsum("rsc,rs->rc", torch.from_numpy(x.reshape(3, slots, 12)), torch.from_numpy(weights))
    close(y, expected[:, 8 * block : 8 * block + 8])
