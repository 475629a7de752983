"""What `tg-shard` makes of each op: `shard_op(op, sharder)` appends its new form. An op without rule runs whole."""

from __future__ import annotations

from functools import singledispatch
from math import prod

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from ...core.errors import PlanError
from ...dialects import tg
from .sharding import Shard, Sharder


@singledispatch
def shard_op(op: Operation, sharder: Sharder) -> None:
    """Append what a rank does for ``op``. Raises PlanError if it cannot be split."""
    sharder.localized(op, [sharder.whole(operand) for operand in op.operands], None)


@shard_op.register
def _(op: tg.ParamOp | tg.StateOp, sharder: Sharder) -> None:
    """Made when used."""


@shard_op.register
def _(op: tg.UpdateOp, sharder: Sharder) -> None:
    sharder.update(op)


@shard_op.register
def _(op: ReturnOp, sharder: Sharder) -> None:
    sharder.localized(op, [sharder.whole(operand) for operand in op.operands], None)


@shard_op.register
def _(op: tg.FusedLinearOp | tg.FusedNormOp | tg.FusedAttentionOp, sharder: Sharder) -> None:
    raise PlanError(
        f"tg-shard: found '{op.name}', expected unfused ops", advice="run tg-shard before tg-merge-linears and tg-fuse"
    )


@shard_op.register
def _(
    op: tg.AllReduceOp | tg.AllGatherOp | tg.ReduceScatterOp | tg.ShardEmbeddingOp | tg.ShardArgmaxOp,
    sharder: Sharder,
) -> None:
    raise PlanError(f"tg-shard: found '{op.name}', expected a function for one rank")


@shard_op.register
def _(op: tg.LinearOp, sharder: Sharder) -> None:
    by_rows = sharder.equal_parts(1)
    if sharder.shard_of(op.x) == by_rows and _is_free(op.weight, by_rows, sharder):
        _row_parallel(op, by_rows, sharder)
        return
    shard = _columns_of(op, sharder.ranks)
    params = [operand for operand in (op.weight, op.bias) if operand is not None]
    if shard is None or not all(_is_free(param, _rows_of_weight(shard), sharder) for param in params):
        sharder.localized(op, [sharder.whole(operand) for operand in op.operands], None)
        return
    pieces = [sharder.piece(param, _rows_of_weight(shard)) for param in params]
    sharder.localized(op, [sharder.whole(op.x), *pieces], shard)
    sharder.count("column")


def _row_parallel(op: tg.LinearOp, by_rows: tg.ShardAttr, sharder: Sharder) -> None:
    element = tg.element_of(op.result)
    x, weight = (sharder.piece(value, by_rows) for value in (op.x, op.weight))
    linear = sharder.add(tg.LinearOp(x, weight, element=element), op.result)
    linear.attributes.update(op.attributes)
    total = sharder.all_reduced(linear.results[0], op.result)
    if op.bias is not None:
        bias = sharder.whole(op.bias)
        if tg.element_of(bias) != element:
            bias = sharder.add(tg.CastOp(bias, element), op.result).results[0]
        total = sharder.add(tg.AddOp(total, bias), op.result).results[0]
    sharder.bind(op.result, total, None)
    sharder.count("row")


def _is_free(value: SSAValue, shard: tg.ShardAttr, sharder: Sharder) -> bool:
    return isinstance(value.owner, tg.ParamOp) and sharder.splits(value, shard)


def _rows_of_weight(columns: tg.ShardAttr) -> tg.ShardAttr:
    """What makes the ``columns`` of a linear's result."""
    return tg.ShardAttr.of(0, columns.parts.data)


def _columns_of(op: tg.LinearOp, ranks: int) -> Shard:
    """How the columns of a linear are split: in heads if they become heads. Raises PlanError if they cannot be."""
    columns = tg.shape_of(op.result)[1]
    heads = [tg.shape_of(use.operation.results[0])[1] for use in op.result.uses if _splits_heads(use.operation)]
    units, noun = (heads[0], "heads") if heads else (columns, "columns")
    if units % ranks == 0:
        return tg.ShardAttr.of(1, ranks)
    if heads and ranks % units == 0:
        return tg.ShardAttr.of(1, units) if units > 1 else None
    expected = f"a multiple of {ranks} ranks" + (f", or for k and v a divisor of {ranks}" if heads else "")
    raise PlanError(
        f"tg-shard: the {noun} of tg.linear '{op.result.name_hint}' ({_name_of(op.weight)}): found {units}, "
        f"expected {expected}"
    )


def _name_of(value: SSAValue) -> str:
    owner = value.owner
    return f"@{owner.symbol.data}" if isinstance(owner, tg.ParamOp) else f"'{value.name_hint}'"


def _splits_heads(op: Operation) -> bool:
    return isinstance(op, tg.ReshapeOp) and len(tg.shape_of(op.result)) == 3


@shard_op.register
def _(op: tg.ReshapeOp, sharder: Sharder) -> None:
    shard = sharder.shard_of(op.x)
    moved = shard and _reshaped(shard, tg.shape_of(op.x), tg.shape_of(op.result))
    x = sharder.piece(op.x, shard) if moved else sharder.whole(op.x)
    sharder.localized(op, [x], moved)


def _reshaped(shard: tg.ShardAttr, source: tuple[int, ...], target: tuple[int, ...]) -> Shard:
    """The same elements of a row-major tensor under another shape; None if they are no slice of it."""
    before = prod(source[: shard.dim.data])
    for dim, size in enumerate(target):
        if prod(target[:dim]) == before and size % shard.parts.data == 0:
            return tg.ShardAttr.of(dim, shard.parts.data)
    return None


@shard_op.register
def _(op: tg.UnaryOp | tg.BinaryOp | tg.GatedOp | tg.CastOp | tg.GeluOp, sharder: Sharder) -> None:
    rank = len(tg.shape_of(op.results[0]))
    shard = next((found for value in op.operands if (found := sharder.shard_of(value))), None)
    if shard is None or not all(_fits(value, shard, rank, sharder) for value in op.operands):
        sharder.localized(op, [sharder.whole(operand) for operand in op.operands], None)
        return
    sharder.localized(op, [sharder.piece(value, sharder.shard_of(value)) for value in op.operands], shard)


def _fits(value: SSAValue, shard: tg.ShardAttr, rank: int, sharder: Sharder) -> bool:
    """Whether a rank's part of a result of ``rank`` dimensions needs no more of ``value`` than it has."""
    shape = tg.shape_of(value)
    dim = shard.dim.data - rank + len(shape)
    if sharder.shard_of(value) is None:
        return dim < 0 or shape[dim] == 1
    return sharder.shard_of(value) == shard and len(shape) == rank


@shard_op.register
def _(op: tg.RmsNormOp | tg.LayerNormOp, sharder: Sharder) -> None:
    _along_first(op, sharder, len(tg.shape_of(op.x)) - 1)


@shard_op.register
def _(op: tg.RopeOp, sharder: Sharder) -> None:
    _along_first(op, sharder, 2)


def _along_first(op: Operation, sharder: Sharder, kept: int) -> None:
    """As its first operand is split, if that is not along ``kept``; the others whole."""
    first, *others = op.operands
    shard = sharder.shard_of(first)
    if shard is not None and shard.dim.data == kept:
        shard = None
    x = sharder.piece(first, shard) if shard else sharder.whole(first)
    sharder.localized(op, [x, *(sharder.whole(other) for other in others)], shard)


@shard_op.register
def _(op: tg.KvAppendOp, sharder: Sharder) -> None:
    shard = sharder.shard_of(op.new)
    if shard is not None and (shard.dim.data != 1 or not sharder.splits(op.cache, shard)):
        shard = None
    pieces = [sharder.piece(value, shard) if shard else sharder.whole(value) for value in (op.cache, op.new)]
    sharder.localized(op, [*pieces, sharder.whole(op.rows), sharder.whole(op.page_table)], shard)


@shard_op.register
def _(op: tg.AttentionOp, sharder: Sharder) -> None:
    ranks, heads, kv_heads = sharder.ranks, tg.shape_of(op.q)[1], tg.shape_of(op.k_cache)[1]
    if heads % ranks:
        raise PlanError(f"tg-shard: query heads of tg.attention: found {heads}, expected a multiple of {ranks} ranks")
    shard = sharder.equal_parts(1)
    kv_parts = ranks if kv_heads % ranks == 0 else kv_heads
    kv_shard = tg.ShardAttr.of(1, kv_parts) if kv_parts > 1 else None
    held = [sharder.shard_of(value) for value in (op.q, op.k_cache, op.v_cache)]
    if held != [shard, kv_shard, kv_shard]:
        raise PlanError(
            "tg-shard: tg.attention of tensors that are not split by heads",
            advice="q, k and v must be linears reshaped to [rows, heads, head_dim], keys appended to a cache",
        )
    caches = [sharder.piece(value, kv_shard) for value in (op.k_cache, op.v_cache)]
    states = [sharder.whole(value) for value in (op.rows, op.requests, op.page_table)]
    sharder.localized(op, [sharder.piece(op.q, shard), *caches, *states], shard)


@shard_op.register
def _(op: tg.EmbeddingOp, sharder: Sharder) -> None:
    shard = sharder.equal_parts(0)
    if not _is_free(op.table, shard, sharder):
        sharder.localized(op, [sharder.whole(operand) for operand in op.operands], None)
        return
    vocabulary = tg.shape_of(op.table)[0]
    if vocabulary % sharder.ranks:
        raise PlanError(
            f"tg-shard: the rows of the embedding {_name_of(op.table)}: found {vocabulary}, "
            f"expected a multiple of {sharder.ranks} ranks"
        )
    local = tg.ShardEmbeddingOp(sharder.piece(op.table, shard), sharder.whole(op.ids))
    part = sharder.add(local, op.result).results[0]
    sharder.bind(op.result, sharder.all_reduced(part, op.result), None)


@shard_op.register
def _(op: tg.ArgmaxOp, sharder: Sharder) -> None:
    shard = sharder.equal_parts(1)
    if sharder.shard_of(op.x) != shard:
        sharder.localized(op, [sharder.whole(op.x)], None)
        return
    best = sharder.add(tg.ShardArgmaxOp(sharder.piece(op.x, shard)), op.result)
    gathers = [sharder.add(tg.AllGatherOp(result, 1, sharder.ranks), op.result) for result in best.results]
    sharder.count("all_gather", 2)
    picked = sharder.add(tg.PickLargestOp(*(gather.results[0] for gather in gathers)), op.result)
    sharder.bind(op.result, picked.results[0], None)
