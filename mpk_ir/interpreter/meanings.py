"""The meaning of each op: `meaning(op, read)` gives its results, `read` the array of an operand."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from xdsl.dialects.builtin import i32
from xdsl.ir import Operation

from ..core.errors import UnsupportedError
from ..core.requests import RowColumn, advance_requests, by_row, last_rows
from ..dialects import tg
from . import functions
from .values import Array, Read, deinterleave

Results = tuple[Array, ...]

_UNARY: dict[type[tg.UnaryOp], Callable[[Array], Array]] = {
    tg.NegOp: np.negative,
    tg.ExpOp: np.exp,
    tg.RsqrtOp: lambda x: 1.0 / np.sqrt(x),
    tg.SigmoidOp: functions.sigmoid,
    tg.TanhOp: np.tanh,
    tg.SqrtOp: np.sqrt,
    tg.LogOp: np.log,
    tg.SinOp: np.sin,
    tg.CosOp: np.cos,
    tg.ErfOp: functions.erf,
    tg.AbsOp: np.abs,
    tg.FloorOp: np.floor,
    tg.CeilOp: np.ceil,
    tg.SiluOp: functions.silu,
}
_BINARY: dict[type[tg.BinaryOp], Callable[[Array, Array], Array]] = {
    tg.AddOp: np.add,
    tg.SubOp: np.subtract,
    tg.MulOp: np.multiply,
    tg.MaximumOp: np.maximum,
    tg.MinimumOp: np.minimum,
    tg.PowOp: np.power,
    tg.RemainderOp: np.remainder,
}
_PREDICATES: dict[tg.Predicate, Callable[[Array, Array], Array]] = {
    tg.Predicate.EQ: np.equal,
    tg.Predicate.NE: np.not_equal,
    tg.Predicate.LT: np.less,
    tg.Predicate.LE: np.less_equal,
    tg.Predicate.GT: np.greater,
    tg.Predicate.GE: np.greater_equal,
}
_REDUCTIONS = {tg.Reduction.SUM: np.sum, tg.Reduction.MAX: np.max, tg.Reduction.MIN: np.min, tg.Reduction.MEAN: np.mean}


@singledispatch
def meaning(op: Operation, read: Read) -> Results:
    """The results of ``op``. Raises UnsupportedError for an op without meaning here."""
    raise UnsupportedError(f"the interpreter has no meaning for '{op.name}'")


@meaning.register
def _(op: tg.UnaryOp, read: Read) -> Results:
    return (_UNARY[type(op)](read(op.x)),)


@meaning.register
def _(op: tg.GeluOp, read: Read) -> Results:
    return (functions.gelu(read(op.x), op.approximate is not None),)


@meaning.register
def _(op: tg.BinaryOp, read: Read) -> Results:
    return (_BINARY[type(op)](read(op.lhs), read(op.rhs)),)


@meaning.register
def _(op: tg.DivOp, read: Read) -> Results:
    quotient = np.divide(read(op.lhs), read(op.rhs))
    return (np.trunc(quotient) if tg.element_of(op.result) == i32 else quotient,)


@meaning.register
def _(op: tg.CompareOp, read: Read) -> Results:
    return (_PREDICATES[op.predicate.data](read(op.lhs), read(op.rhs)),)


@meaning.register
def _(op: tg.SelectOp, read: Read) -> Results:
    return (np.where(read(op.condition) != 0, read(op.lhs), read(op.rhs)),)


@meaning.register
def _(op: tg.BroadcastOp, read: Read) -> Results:
    return (np.broadcast_to(read(op.x), tg.shape_of(op.result)),)


@meaning.register
def _(op: tg.GatherOp, read: Read) -> Results:
    return (read(op.x)[read(op.ids)],)


@meaning.register
def _(op: tg.IndexCopyOp, read: Read) -> Results:
    result = read(op.x).copy()
    np.moveaxis(result, op.axis.value.data, 0)[read(op.ids)] = np.moveaxis(read(op.source), op.axis.value.data, 0)
    return (result,)


@meaning.register
def _(op: tg.SiluMulOp, read: Read) -> Results:
    return (functions.silu(read(op.gate)) * read(op.up),)


@meaning.register
def _(op: tg.GeluMulOp, read: Read) -> Results:
    return (functions.gelu(read(op.gate), op.approximate is not None) * read(op.up),)


@meaning.register
def _(op: tg.ConstantOp, read: Read) -> Results:
    return (op.array,)


@meaning.register
def _(op: tg.EmbeddingOp, read: Read) -> Results:
    ids = read(op.ids)
    return (read(op.table)[ids if ids.ndim == 1 else ids[:, RowColumn.TOKEN]],)


@meaning.register
def _(op: tg.LinearOp, read: Read) -> Results:
    product = read(op.x) @ read(op.weight).T
    return (product if op.bias is None else product + read(op.bias),)


@meaning.register
def _(op: tg.MatmulOp, read: Read) -> Results:
    return (np.matmul(read(op.lhs), read(op.rhs)),)


@meaning.register
def _(op: tg.RmsNormOp, read: Read) -> Results:
    return (functions.rms_norm(read(op.x), read(op.weight), op.eps.value.data),)


@meaning.register
def _(op: tg.LayerNormOp, read: Read) -> Results:
    return (functions.layer_norm(read(op.x), read(op.weight), read(op.bias), op.eps.value.data),)


@meaning.register
def _(op: tg.SoftmaxOp, read: Read) -> Results:
    return (functions.softmax(read(op.x), op.axis.value.data),)


@meaning.register
def _(op: tg.ReduceOp, read: Read) -> Results:
    return (_REDUCTIONS[op.kind.data](read(op.x), axis=op.axis.value.data),)


@meaning.register
def _(op: tg.ArgmaxOp, read: Read) -> Results:
    return (np.argmax(read(op.x), axis=1),)


@meaning.register
def _(op: tg.ReshapeOp, read: Read) -> Results:
    return (read(op.x).reshape(tg.shape_of(op.result)),)


@meaning.register
def _(op: tg.TransposeOp, read: Read) -> Results:
    return (read(op.x).transpose(op.order),)


@meaning.register
def _(op: tg.SliceOp, read: Read) -> Results:
    offsets, sizes = op.box
    return (read(op.x)[tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))],)


@meaning.register
def _(op: tg.ConcatOp, read: Read) -> Results:
    return (np.concatenate([read(part) for part in op.parts], axis=op.axis.value.data),)


@meaning.register
def _(op: tg.CastOp, read: Read) -> Results:
    x = read(op.x)
    return (np.trunc(x) if tg.element_of(op.result) == i32 else x,)


@meaning.register
def _(op: tg.RopeOp, read: Read) -> Results:
    interleaved = op.interleaved is not None
    return (functions.rope(read(op.x), read(op.rows), read(op.inv_freq), op.scaling.value.data, interleaved),)


@meaning.register
def _(op: tg.KvAppendOp, read: Read) -> Results:
    return (functions.kv_append(read(op.cache), read(op.new), read(op.rows), read(op.page_table)),)


@meaning.register
def _(op: tg.AttentionOp, read: Read) -> Results:
    caches = (read(op.k_cache), read(op.v_cache))
    return (functions.attention(read(op.q), caches, read(op.rows), read(op.page_table), op.scores),)


@meaning.register
def _(op: tg.LastRowsOp, read: Read) -> Results:
    chosen, result = last_rows(read(op.requests)), np.zeros(tg.shape_of(op.result), np.float32)
    result[: len(chosen)] = read(op.x)[chosen]
    return (result,)


@meaning.register
def _(op: tg.AdvanceOp, read: Read) -> Results:
    state = tuple(read(value).copy() for value in (op.history, op.requests, op.rows, op.row_count))
    history, requests, rows, row_count = state
    sampled = read(op.sampled) if op.by_request is None else by_row(read(op.sampled), requests, len(rows))
    advance_requests(sampled, history, requests, rows, row_count, op.stop_ids)
    return state


@meaning.register
def _(op: tg.FusedNormOp, read: Read) -> Results:
    return (functions.rms_norm(read(op.x), read(op.weight), op.eps.value.data) + read(op.residual),)


@meaning.register
def _(op: tg.FusedLinearOp, read: Read) -> Results:
    x = read(op.x)
    if op.norm_weight is not None:
        x = functions.rms_norm(x, read(op.norm_weight), op.eps.value.data)
    result = x @ read(op.weight).T
    if op.bias is not None:
        result = result + read(op.bias)
    if op.epilogue.data.gated:
        gate, up = deinterleave(result, tg.GATE_UP_BLOCK)
        silu = op.epilogue.data is tg.Epilogue.SILU_MUL
        result = (functions.silu(gate) if silu else functions.gelu(gate, approximate=True)) * up
    return (result if op.residual is None else result + read(op.residual),)


@meaning.register
def _(op: tg.FusedAttentionOp, read: Read) -> Results:
    heads, rows, page_table = op.head_counts, read(op.rows), read(op.page_table)
    split = read(op.qkv).reshape(len(rows), -1, heads.size)
    q, k, v = np.split(split, [heads.query, heads.query + heads.kv], axis=1)
    if op.q_norm is not None:
        q = functions.rms_norm(q, read(op.q_norm), op.eps.value.data)
    if op.k_norm is not None:
        k = functions.rms_norm(k, read(op.k_norm), op.eps.value.data)
    if op.inv_freq is not None:
        inv_freq, scaling = read(op.inv_freq), op.scaling.value.data
        q, k = (functions.rope(x, rows, inv_freq, scaling, interleaved=False) for x in (q, k))
    k_cache = functions.kv_append(read(op.k_cache), k, rows, page_table)
    v_cache = functions.kv_append(read(op.v_cache), v, rows, page_table)
    attended = functions.attention(q, (k_cache, v_cache), rows, page_table, op.scores)
    return attended.reshape(len(rows), -1), k_cache, v_cache


@meaning.register
def _(op: tg.PickLargestOp, read: Read) -> Results:
    slot = np.argmax(read(op.values), axis=1)[:, None]
    return (np.take_along_axis(read(op.indices), slot, axis=1)[:, 0],)


@meaning.register
def _(op: tg.TopKGateOp, read: Read) -> Results:
    return functions.top_k_gate(read(op.logits), op.k.value.data)


@meaning.register
def _(op: tg.GroupedLinearOp, read: Read) -> Results:
    experts, weight = read(op.experts), read(op.weight).reshape(op.num_experts.value.data, op.expert_rows, -1)
    x = read(op.x)
    product = functions.grouped_linear(x if x.ndim == 3 else x[:, None], weight, experts)
    if op.gated is None:
        return (product,)
    gate, up = np.split(product, 2, axis=2)
    return (functions.silu(gate) * up,)


@meaning.register
def _(op: tg.ExpertSumOp, read: Read) -> Results:
    return ((read(op.weights)[:, :, None] * read(op.x)).sum(axis=1),)
