"""The tile rule of fused attention where a step has many rows of each request, as a prompt's are."""

from __future__ import annotations

from math import ceil

from xdsl.dialects.builtin import BFloat16Type
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...dialects.sm import BoxAttr
from ...dialects.sm.ops import GridOperand
from ...dialects.tg import FusedAttentionOp
from ...tasks.base import Access
from ...tasks.prompt_attention import HEAD_SIZES, PromptAttention, PromptAttentionParams
from ...tasks.rope_append import RopeAppend, RopeAppendParams
from .blocks import blocked_buffer, row_box, rows_of_task, wants_blocks
from .builder import GraphBuilder, View, element_type, tensor_shape
from .expand import MAX_ROWS

MOST_TASK_HEADS = 4
"""Query heads of a task: with more, a task's rows see much the same positions, but fewer rows share a key."""
LEAST_ROWS = 8
"""Of a request, on average, that a step has room for: with fewer, a block of rows is of many requests."""


def takes_prompts(op: FusedAttentionOp) -> bool:
    """Whether task kind `prompt_attention` computes ``op``."""
    rows, batch = tensor_shape(op.qkv)[0], tensor_shape(op.page_table)[0]
    fits = op.head_counts.size in HEAD_SIZES and isinstance(element_type(op.k_cache), BFloat16Type)
    return rows > MAX_ROWS and rows >= LEAST_ROWS * batch and fits and wants_blocks(op.result)


def tile_prompts(op: FusedAttentionOp, builder: GraphBuilder) -> None:
    """Queries rotated in place and keys and values appended in one grid, attention in another."""
    for cache, result in zip((op.k_cache, op.v_cache), op.results[1:], strict=True):
        builder.views[result] = builder.view(cache)  # written in place
    _append(op, builder)
    _attend(op, builder)


def _append(op: FusedAttentionOp, builder: GraphBuilder) -> None:
    heads, qkv = op.head_counts, builder.view(op.qkv)
    total = tensor_shape(op.qkv)[0]
    rows = rows_of_task(total, builder.target)
    page_size = tensor_shape(op.k_cache)[2]
    norm, rotary = op.q_norm is not None, op.inv_freq is not None
    params = RopeAppendParams(
        *(heads.query, heads.kv, heads.size, page_size, rows),
        *(norm, op.eps.value.data, rotary, op.scaling.value.data),
    )
    operands = [GridOperand("qkv", qkv.buffer, row_box(qkv, Access.READ_WRITE, rows))]
    for role, cache in (("k_cache", op.k_cache), ("v_cache", op.v_cache)):
        view = builder.view(cache)
        # rows of different blocks have different positions
        box = BoxAttr.of(Access.READ_WRITE, _at(1, 0, 0, 0, 0), view.shape, (0, -1, -1, -1))
        operands.append(GridOperand(role, view.buffer, box))
    state, table = builder.view(op.rows), builder.view(op.page_table)
    operands.append(GridOperand("rows", state.buffer, row_box(state, Access.READ, rows)))
    operands.append(GridOperand("page_table", table.buffer, table.whole(Access.READ, 1)))
    for role, value in (("q_norm", op.q_norm), ("k_norm", op.k_norm), ("inv_freq", op.inv_freq)):
        if value is not None:
            operands.append(GridOperand(role, builder.view(value).buffer, builder.view(value).whole(Access.READ, 1)))
    builder.grid(builder.unique("rope_append"), RopeAppend(), params, (ceil(total / rows),), operands)


def _attend(op: FusedAttentionOp, builder: GraphBuilder) -> None:
    heads, batch, page_size = op.head_counts, tensor_shape(op.page_table)[0], tensor_shape(op.k_cache)[2]
    group = heads.query // heads.kv
    task_heads = next(count for count in (MOST_TASK_HEADS, 2, 1) if group % count == 0)
    scores = op.scores
    params = PromptAttentionParams(
        *(heads.query, heads.kv, heads.size, page_size, batch, task_heads, tensor_shape(op.qkv)[0]),
        *(scores.scale, scores.softcap, scores.window),
    )
    qkv, name = builder.view(op.qkv), builder.unique("prompt_attention")
    out = builder.views[op.result] = blocked_buffer(op.result, f"{name}.out", builder)
    states = [builder.view(value) for value in (op.requests, op.page_table)]
    operands = [_heads("q", qkv, Access.READ, params)]
    for role, cache in (("k_cache", op.k_cache), ("v_cache", op.v_cache)):
        view = builder.view(cache)
        head = AffineDimExpr(1) // (group // task_heads)
        sizes = (view.shape[0], 1, *view.shape[2:])
        operands.append(GridOperand(role, view.buffer, BoxAttr.of(Access.READ, _at(2, 0, head, 0, 0), sizes)))
    for role, view in zip(("requests", "page_table"), states, strict=True):
        operands.append(GridOperand(role, view.buffer, view.whole(Access.READ, 2)))
    operands.append(_heads("out", out, Access.WRITE, params))
    builder.grid(name, PromptAttention(), params, (params.blocks, heads.query // task_heads), operands)


def _at(dims: int, *exprs: AffineExpr | int) -> AffineMap:
    return AffineMap(dims, 0, tuple(AffineConstantExpr(e) if isinstance(e, int) else e for e in exprs))


def _heads(role: str, view: View, access: Access, params: PromptAttentionParams) -> GridOperand:
    """The columns of the task's query heads in its block of rows; the last block, which sees most, comes first."""
    width = params.task_heads * params.head_dim
    row = AffineDimExpr(0) * -params.rows + (params.blocks - 1) * params.rows
    box = BoxAttr.of(access, _at(2, row, AffineDimExpr(1) * width + view.first), (params.rows, width))
    return GridOperand(role, view.buffer, box)
