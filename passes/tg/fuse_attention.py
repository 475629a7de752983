"""The pattern that makes one op of everything between the qkv product and the output product.

    %q = slice %qkv -> reshape -> rms_norm %qn -> rope
    %k = slice %qkv -> reshape -> rms_norm %kn -> rope
    %v = slice %qkv -> reshape
    %kc = kv_append %k_cache, %k ...
    %vc = kv_append %v_cache, %v ...
    %o = attention %q, %kc, %vc ... -> reshape

becomes

    %o, %kc, %vc = tg.fused_attention %qkv, %k_cache, %v_cache, ... q_norm %qn k_norm %kn rope %inv_freq ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from ...dialects import tg

T = TypeVar("T", bound=Operation)


@dataclass(frozen=True)
class Branch:
    """One of q, k and v, traced back from where it is used to columns of the qkv product."""

    qkv: SSAValue
    first_column: int
    heads: int
    head_dim: int
    norm: tg.RmsNormOp | None
    rope: tg.RopeOp | None

    @property
    def columns(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Match:
    """An attention that can be fused, with its branches and the appends that feed it."""

    q: Branch
    k: Branch
    v: Branch
    k_append: tg.KvAppendOp
    v_append: tg.KvAppendOp


class FuseAttention(RewritePattern):
    """See the module. Refused: interleaved rope, values with other users, and branches that disagree."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.AttentionOp, rewriter: PatternRewriter, /) -> None:
        match = _match(op)
        if match is None or not (_is_split(match) and _agree(match, op) and _cache_users_can_follow(match, op)):
            return
        fused = _fused(match, op)
        fused.attributes.update(op.attributes)
        rewriter.insert(fused, InsertPoint.before(op))
        for append, cache in ((match.k_append, fused.next_k_cache), (match.v_append, fused.next_v_cache)):
            _move_updates_after(append.result, fused, rewriter)
            cache.name_hint = append.result.name_hint
            rewriter.replace_all_uses_with(append.result, cache)
        unflattened = tg.ReshapeOp(fused.result, tg.shape_of(op.result))
        fused.result.name_hint = op.result.name_hint
        for use in list(op.result.uses):
            user = use.operation
            if isinstance(user, tg.ReshapeOp) and user.result.type == fused.result.type:
                rewriter.replace(user, (), [fused.result])
        rewriter.replace(op, unflattened)


def _match(op: tg.AttentionOp) -> Match | None:
    k_append, v_append = op.k_cache.owner, op.v_cache.owner
    if not (isinstance(k_append, tg.KvAppendOp) and isinstance(v_append, tg.KvAppendOp)):
        return None
    q, k, v = (_trace(value) for value in (op.q, k_append.new, v_append.new))
    return Match(q, k, v, k_append, v_append) if q and k and v else None


def _trace(value: SSAValue) -> Branch | None:
    """``value`` = [rope] of [rms_norm] of reshape of slice of qkv, each used once; None if it is not."""
    rope = _single(value, tg.RopeOp)
    if rope is not None:
        value = rope.x
    norm = _single(value, tg.RmsNormOp)
    if norm is not None:
        value = norm.x
    reshape = _single(value, tg.ReshapeOp)
    part = None if reshape is None else _single(reshape.x, tg.SliceOp)
    if part is None or len(shape := tg.shape_of(value)) != 3 or len(part.box[0]) != 2:
        return None
    (_, first_column), (rows, columns) = part.box
    all_rows = rows == shape[0] == tg.shape_of(part.x)[0]
    if not all_rows or columns != shape[1] * shape[2]:
        return None
    return Branch(part.x, first_column, shape[1], shape[2], norm, rope)


def _single(value: SSAValue, kind: type[T]) -> T | None:
    owner = value.owner
    return owner if isinstance(owner, kind) and value.has_one_use() else None


def _is_split(match: Match) -> bool:
    """Whether q, k and v are all of one product's columns, in this order."""
    q, k, v = match.q, match.k, match.v
    one_product = q.qkv is k.qkv is v.qkv and k.heads == v.heads
    in_order = (q.first_column, k.first_column, v.first_column) == (0, q.columns, q.columns + k.columns)
    return one_product and in_order and tg.shape_of(q.qkv)[1] == q.columns + k.columns + v.columns


def _agree(match: Match, op: tg.AttentionOp) -> bool:
    """Whether the fused op, which has one of each, can stand for the ops of all branches."""
    q, k, v = match.q, match.k, match.v
    appends = (match.k_append, match.v_append)
    same_rows = all(append.rows is op.rows and append.page_table is op.page_table for append in appends)
    one_eps = q.norm is None or k.norm is None or q.norm.eps == k.norm.eps
    return same_rows and one_eps and v.norm is None and v.rope is None and _ropes_agree(q.rope, k.rope, op)


def _ropes_agree(q: tg.RopeOp | None, k: tg.RopeOp | None, op: tg.AttentionOp) -> bool:
    if q is None or k is None:
        return q is k
    same = q.inv_freq is k.inv_freq and q.scaling == k.scaling and q.rows is k.rows is op.rows
    return same and q.interleaved is None and k.interleaved is None


def _cache_users_can_follow(match: Match, op: tg.AttentionOp) -> bool:
    """Whether each use of an appended cache comes after this attention, is this attention, or is an update."""
    users = [use.operation for append in (match.k_append, match.v_append) for use in append.result.uses]
    return all(
        user is op or (user.parent is op.parent and (isinstance(user, tg.UpdateOp) or op.is_before_in_block(user)))
        for user in users
    )


def _move_updates_after(cache: SSAValue, fused: Operation, rewriter: PatternRewriter) -> None:
    # An update takes effect at the end of the step: where it stands among the ops says nothing.
    for use in list(cache.uses):
        if isinstance(update := use.operation, tg.UpdateOp):
            update.detach()
            rewriter.insert(update, InsertPoint.after(fused))


def _fused(match: Match, op: tg.AttentionOp) -> tg.FusedAttentionOp:
    q, k = match.q, match.k
    norms = [branch.norm for branch in (q, k) if branch.norm is not None]
    parts = tg.AttentionParts(
        q_norm=q.norm and q.norm.weight,
        k_norm=k.norm and k.norm.weight,
        inv_freq=q.rope and q.rope.inv_freq,
    )
    return tg.FusedAttentionOp(
        q.qkv,
        caches=(match.k_append.cache, match.v_append.cache),
        requests=(op.rows, op.requests, op.page_table),
        heads=tg.Heads(q.heads, k.heads, q.head_dim),
        factors=tg.AttentionFactors(
            scores=op.scores,
            eps=norms[0].eps.value.data if norms else 0.0,
            scaling=q.rope.scaling.value.data if q.rope else 1.0,
        ),
        parts=parts,
    )
