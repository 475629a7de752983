"""Tile rules of attention and of what surrounds it: heads, splits, the paged cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from xdsl.dialects.builtin import BFloat16Type, Float32Type, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...core.errors import PlanError, UnsupportedError
from ...core.memory import Space
from ...core.target import SIM
from ...dialects.sm import BoxAttr
from ...dialects.sm.ops import GridOperand
from ...dialects.tg import AttentionOp, FusedAttentionOp, KvAppendOp, RopeOp, Scores
from ...tasks.attention import HEAD_SIZES, SPLIT_BLOCK, Attention, AttentionParams
from ...tasks.attention_merge import AttentionMerge, AttentionMergeParams
from ...tasks.base import CONSUMER_WARPS, Access
from ...tasks.kv_append import KvAppend, KvAppendParams
from ...tasks.rope import Rope, RopeParams
from .builder import GraphBuilder, View, element_type, tensor_shape, tile_rule
from .prompt_attention import takes_prompts, tile_prompts

MAX_SPLITS = 32
MERGED_ROWS = 32
"""Partial outputs of a KV head (queries times splits) up to which more splits gain more than merging them costs, while
a split has no more than `SPLIT_POSITIONS`: measured on an H200 (docs/performance.md)."""
SPLIT_POSITIONS = 256
MERGE_US = 1.45
"""A grid that merges, in each turn of the SMs; measured on an H200, like the two below."""
BLOCK_US, BLOCK_COLUMN_US = 0.85, 1 / 256
"""Of a warp, a block of `SPLIT_BLOCK` positions, and for each column of a head more."""
INDICES = 3
"""Of the attention grid: request, KV head, split."""
REQUEST, HEAD, SPLIT = range(INDICES)


@dataclass(frozen=True)
class AttentionForm:
    """What `tg.attention` and `tg.fused_attention` have in common; q, k, v as (view, columns of one KV head)."""

    q: View
    k: View | None
    v: View | None
    caches: tuple[SSAValue, SSAValue]
    requests: SSAValue
    page_table: SSAValue
    q_norm: SSAValue | None
    k_norm: SSAValue | None
    inv_freq: SSAValue | None
    result: SSAValue


def _at(dims: int, *exprs: AffineExpr | int) -> AffineMap:
    constants = (AffineConstantExpr(e) if isinstance(e, int) else e for e in exprs)
    return AffineMap(dims, 0, tuple(constants))


def _update_in_place(builder: GraphBuilder, cache: SSAValue, result: SSAValue) -> View:
    """``result`` is ``cache`` written in place: it lives in the same memory."""
    view = builder.view(cache)
    builder.views[result] = view
    return view


@tile_rule(FusedAttentionOp.name)
def tile_fused_attention(op: Operation, builder: GraphBuilder) -> None:
    """Norm, rotation, append and attention in one grid, and a merge if positions are split."""
    assert isinstance(op, FusedAttentionOp)
    if takes_prompts(op):
        tile_prompts(op, builder)
        return
    heads, kv_heads, dim = (int(p.value.data) for p in (op.heads, op.kv_heads, op.head_dim))
    qkv = builder.view(op.qkv)
    group_columns = heads // kv_heads * dim
    q = View(qkv.buffer, qkv.first, group_columns)
    k = View(qkv.buffer, qkv.first + heads * dim, dim)
    v = View(qkv.buffer, qkv.first + (heads + kv_heads) * dim, dim)
    caches = (op.k_cache, op.v_cache)
    for cache, result in zip(caches, op.results[1:], strict=True):
        _update_in_place(builder, cache, result)
    form = AttentionForm(q, k, v, caches, op.requests, op.page_table, op.q_norm, op.k_norm, op.inv_freq, op.results[0])
    plain = _plain_params(builder, form, (heads, kv_heads, dim), op.scores)
    params = replace(
        plain,
        append=True,
        norm=op.q_norm is not None,
        eps=op.eps.value.data,
        rotary=op.inv_freq is not None,
        rotary_scaling=op.scaling.value.data,
    )
    _emit(builder, form, params)


@tile_rule(AttentionOp.name)
def tile_attention(op: Operation, builder: GraphBuilder) -> None:
    """Attention over a cache that holds all keys already."""
    assert isinstance(op, AttentionOp)
    _, heads, dim = tensor_shape(op.q)
    kv_heads = tensor_shape(op.k_cache)[1]
    whole = builder.view(op.q)
    q = View(whole.buffer, whole.first, heads // kv_heads * dim)
    form = AttentionForm(
        q, None, None, (op.k_cache, op.v_cache), op.requests, op.page_table, None, None, None, op.results[0]
    )
    _emit(builder, form, _plain_params(builder, form, (heads, kv_heads, dim), op.scores))


def _choose_splits(builder: GraphBuilder, batch: int, heads: tuple[int, int], dim: int, blocks: int) -> int:
    """A task an SM, but no more splits than merging them is worth; ``heads`` of queries and of keys, of ``dim``
    columns, ``blocks`` of positions in a cache."""
    kv_heads, group = heads[1], heads[0] // heads[1]
    most = max(1, min(MAX_SPLITS, blocks))
    by_sms = max(1, min(builder.target.num_sms // (batch * kv_heads), most))
    worth = max(MERGED_ROWS // group, ceil(blocks * SPLIT_BLOCK / SPLIT_POSITIONS))
    splits = min(worth, by_sms)
    why = f"{batch} requests x {kv_heads} KV heads on the target's SMs"
    if worth < by_sms:
        why = f"more would merge more than {MERGED_ROWS} rows for a KV head of {group} queries"
    merge_us = MERGE_US * ceil(batch * heads[0] / builder.target.num_sms)
    saved_us = _attention_us(blocks, 1, dim) - _attention_us(blocks, splits, dim)
    if splits > 1 and saved_us <= merge_us and builder.target.name != SIM.name:  # where nothing takes time
        splits, why = 1, f"{splits} would save less than merging {batch} x {heads[0]} heads takes, {merge_us:.1f} us"
    return builder.decisions.choose("splits", range(1, most + 1), splits, f"{splits} splits: {why}")


def _attention_us(blocks: int, splits: int, dim: int) -> float:
    """Of one split's task: its warps take blocks of positions in turn."""
    return ceil(blocks / splits / CONSUMER_WARPS) * (BLOCK_US + BLOCK_COLUMN_US * dim)


def _plain_params(
    builder: GraphBuilder, form: AttentionForm, heads: tuple[int, int, int], scores: Scores
) -> AttentionParams:
    """Params of attention alone, ``heads`` being (query heads, KV heads, head size)."""
    query_heads, kv_heads, dim = heads
    if dim not in HEAD_SIZES:
        raise UnsupportedError(f"attention: expected heads of 16, 32, 48, .. {HEAD_SIZES[-1]} columns, found {dim}")
    batch, max_pages = tensor_shape(form.page_table)
    page_size = tensor_shape(form.caches[0])[2]
    return AttentionParams(
        heads=query_heads,
        kv_heads=kv_heads,
        head_dim=dim,
        page_size=page_size,
        max_pages=max_pages,
        splits=_choose_splits(builder, batch, (query_heads, kv_heads), dim, max_pages * page_size // SPLIT_BLOCK),
        rows=form.q.shape[0],
        scale=scores.scale,
        append=False,
        norm=False,
        eps=0.0,
        rotary=False,
        rotary_scaling=1.0,
        softcap=scores.softcap,
        window=scores.window,
    )


def _emit(builder: GraphBuilder, form: AttentionForm, params: AttentionParams) -> None:
    width, dim, splits = params.group * params.head_dim, params.head_dim, params.splits
    batch = tensor_shape(form.page_table)[0]
    name = builder.unique("attention")
    final = builder.result(form.result, f"{name}.out")
    operands = [GridOperand("q", form.q.buffer, form.q.box(Access.READ, INDICES, width, width, HEAD))]
    for role, view in (("k", form.k), ("v", form.v)):
        if view is not None:
            operands.append(GridOperand(role, view.buffer, view.box(Access.READ, INDICES, dim, dim, HEAD)))
    for role, cache in zip(("k_cache", "v_cache"), form.caches, strict=True):
        operands.append(_cache_operand(role, builder.view(cache)))
    operands.append(_request_row("requests", builder.view(form.requests)))
    operands.append(_request_row("page_table", builder.view(form.page_table)))
    for role, value in (("q_norm", form.q_norm), ("k_norm", form.k_norm), ("inv_freq", form.inv_freq)):
        if value is not None:
            view = builder.view(value)
            operands.append(GridOperand(role, view.buffer, view.whole(Access.READ, INDICES)))
    rows = params.rows
    parts: tuple[SSAValue, SSAValue] | None = None
    if splits == 1:
        operands.append(_by_request("out", final, final.first, width, 0))
    else:
        f32 = Float32Type()
        partial = builder.buffer(f"{name}.partial", Space.SCRATCH, (rows, params.heads * splits * dim), f32)
        max_sum = builder.buffer(f"{name}.max_sum", Space.SCRATCH, (rows, params.heads * splits * 2), f32)
        operands.append(_by_request("out", View(partial), 0, width * splits, width))
        parts = (partial, max_sum)
        operands.append(_by_request("max_sum", View(max_sum), 0, params.group * splits * 2, params.group * 2))
    grid = builder.grid(name, Attention(), params, (batch, params.kv_heads, splits), operands)
    grid.reason = StringAttr(builder.decisions.reason("splits"))
    if parts is not None:
        _emit_merge(builder, params, name, parts, final, batch)


def _emit_merge(
    builder: GraphBuilder, params: AttentionParams, name: str, parts: tuple[SSAValue, SSAValue], final: View, batch: int
) -> None:
    block = _rows_of_merge(builder, params, batch)
    merge = AttentionMergeParams(params.group, params.head_dim, params.splits, block)
    first_row = AffineDimExpr(1) * block
    columns = (params.group * params.head_dim * params.splits, params.group * params.splits * 2)
    operands: list[GridOperand] = []
    for role, part, width in zip(("partial", "max_sum"), parts, columns, strict=True):
        first = AffineDimExpr(0) // params.group * width  # all of the KV head's: a query head's part has gaps
        box = BoxAttr.of(Access.READ, _at(2, first_row, first), (block, width))
        operands.append(GridOperand(role, part, box))
    width = params.head_dim
    out = BoxAttr.of(Access.WRITE, _at(2, first_row, AffineDimExpr(0) * width + final.first), (block, width))
    operands.append(GridOperand("out", final.buffer, out))
    extent = (params.heads, params.rows // block)
    grid = builder.grid(f"{name}.merge", AttentionMerge(), merge, extent, operands)
    grid.reason = StringAttr(builder.decisions.reason("merge_rows"))


def _rows_of_merge(builder: GraphBuilder, params: AttentionParams, batch: int) -> int:
    """Of a task, which takes them one after another: all where a step has one row, but for the prompt's, else one."""
    rows = params.rows
    planned = rows if batch == 1 else 1
    why = f"{planned} rows a task: {batch} requests, each of one row in most steps"
    choices = [size for size in range(1, rows + 1) if rows % size == 0]
    return builder.decisions.choose("merge_rows", choices, planned, why)


def _cache_operand(role: str, cache: View) -> GridOperand:
    """All pages of one head: which of them belong to a request, and which positions to a split, the run decides."""
    pages, _, page_size, dim = cache.shape
    head = AffineDimExpr(HEAD)
    box = BoxAttr.of(
        Access.READ_WRITE,
        _at(INDICES, 0, head, 0, 0),
        (pages, 1, page_size, dim),
        (REQUEST, -1, SPLIT, -1),
    )
    return GridOperand(role, cache.buffer, box)


def _request_row(role: str, view: View) -> GridOperand:
    """The request's row of a table."""
    offset = _at(INDICES, AffineDimExpr(REQUEST), 0)
    return GridOperand(role, view.buffer, BoxAttr.of(Access.READ, offset, (1, view.shape[1])))


def _by_request(role: str, view: View, first: int, head_columns: int, split_columns: int) -> GridOperand:
    """The columns of a head and split, in the rows that belong to the request at run time."""
    column = AffineDimExpr(HEAD) * head_columns + first
    if split_columns:
        column = column + AffineDimExpr(SPLIT) * split_columns
    sizes = (view.shape[0], split_columns or head_columns)
    box = BoxAttr.of(Access.WRITE, _at(INDICES, 0, column), sizes, (REQUEST, -1))
    return GridOperand(role, view.buffer, box)


@tile_rule(RopeOp.name)
def tile_rope(op: Operation, builder: GraphBuilder) -> None:
    """A task a head."""
    assert isinstance(op, RopeOp)
    rows, heads, dim = tensor_shape(op.x)
    name = builder.unique("rope")
    x, y = builder.view(op.x), builder.result(op.results[0], f"{name}.out")
    row_state, inv_freq = builder.view(op.rows), builder.view(op.inv_freq)
    operands = [
        GridOperand("x", x.buffer, x.box(Access.READ, 1, dim, dim)),
        GridOperand("rows", row_state.buffer, row_state.whole(Access.READ, 1)),
        GridOperand("inv_freq", inv_freq.buffer, inv_freq.whole(Access.READ, 1)),
        GridOperand("y", y.buffer, y.box(Access.WRITE, 1, dim, dim)),
    ]
    params = RopeParams(1, dim, rows, float(op.scaling.value.data), op.interleaved is not None)
    builder.grid(name, Rope(), params, (heads,), operands)


@tile_rule(KvAppendOp.name)
def tile_kv_append(op: Operation, builder: GraphBuilder) -> None:
    """A task a KV head; the cache is written in place."""
    assert isinstance(op, KvAppendOp)
    if not isinstance(element_type(op.cache), BFloat16Type):
        raise UnsupportedError(f"kv_append: expected a cache of bf16, found {element_type(op.cache)}")
    cache = _update_in_place(builder, op.cache, op.results[0])
    new, rows, table = (builder.view(value) for value in (op.new, op.rows, op.page_table))
    pages, heads, page_size, dim = cache.shape
    if new.columns != heads * dim:
        raise PlanError(f"kv_append: expected {heads * dim} new columns, found {new.columns}")
    box = BoxAttr.of(Access.READ_WRITE, _at(1, 0, AffineDimExpr(0), 0, 0), (pages, 1, page_size, dim))
    operands = [
        GridOperand("cache", cache.buffer, box),
        GridOperand("new", new.buffer, new.box(Access.READ, 1, dim, dim)),
        GridOperand("rows", rows.buffer, rows.whole(Access.READ, 1)),
        GridOperand("page_table", table.buffer, table.whole(Access.READ, 1)),
    ]
    builder.grid("kv_append", KvAppend(), KvAppendParams(dim, page_size, tensor_shape(op.new)[0]), (heads,), operands)
