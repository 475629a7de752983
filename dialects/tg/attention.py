"""Rotary embedding, cache append and attention over the paged cache, and the end of a step.

Shapes: R rows, B requests, P pages a request, H heads (Hq of queries, Hkv of keys), D head size, L positions.
A cache is [pages, Hkv, page_size, D]: position p of request b is in page `page_table[b, p / page_size]`, slot
`p % page_size`. Rows at or after `row_count` are inactive: what ops compute for them is unspecified, except that
`tg.kv_append` writes nothing for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, UnitAttr, f64, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def

from ...core.requests import RequestColumn, RowColumn
from .base import TgOp
from .signature import Signature
from .tensors import (
    F32_TENSOR,
    FLOAT_TENSOR,
    I32_TENSOR,
    INT_LIST,
    Shape,
    element_of,
    float64,
    int64,
    int64s,
    int_list,
    shape_of,
)

ROWS = f"rows[R,{len(RowColumn)}]"
REQUESTS = f"requests[B,{len(RequestColumn)}]"


@irdl_op_definition
class RopeOp(TgOp):
    """Rotary position embedding of ``x`` [R, H, D] at each row's POSITION.

    Element i < D/2 is paired with i + D/2 (`rotate_half`), or 2i with 2i + 1 if ``interleaved``, and turned by the
    angle position * inv_freq[i]; the result is multiplied by ``scaling``.
    """

    name = "tg.rope"
    x = operand_def(FLOAT_TENSOR)
    rows = operand_def(I32_TENSOR)
    inv_freq = operand_def(F32_TENSOR)
    scaling = prop_def(FloatAttr.constr(f64), default_value=float64(1.0))
    interleaved = opt_prop_def(UnitAttr)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(f"x[R,H,D], {ROWS}, inv_freq[F] -> result[R,H,D]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("rows", "inv_freq")
    assembly_format = "$x `,` $rows `,` $inv_freq attr-dict `:` functional-type(operands, results)"

    def __init__(
        self, x: SSAValue, rows: SSAValue, inv_freq: SSAValue, scaling: float = 1.0, interleaved: bool = False
    ) -> None:
        properties = {"scaling": float64(scaling), "interleaved": UnitAttr() if interleaved else None}
        super().__init__(operands=[x, rows, inv_freq], result_types=[x.type], properties=properties)

    def verify_more(self) -> None:
        pairs, size = shape_of(self.inv_freq)[0], shape_of(self.x)[2]
        self.require(2 * pairs == size, "size of operand 'inv_freq'", pairs, f"half of D = {size} (as in 'x')")


@irdl_op_definition
class KvAppendOp(TgOp):
    """``cache`` with ``new`` [R, Hkv, D] written at each active row's request and POSITION."""

    name = "tg.kv_append"
    cache = operand_def(FLOAT_TENSOR)
    new = operand_def(FLOAT_TENSOR)
    rows = operand_def(I32_TENSOR)
    page_table = operand_def(I32_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(
        f"cache[C,Hkv,S,D], new[R,Hkv,D], {ROWS}, page_table[B,P] -> result[C,Hkv,S,D]"
    )
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("rows", "page_table")
    assembly_format = "$cache `,` $new `,` $rows `,` $page_table attr-dict `:` functional-type(operands, results)"

    def __init__(self, cache: SSAValue, new: SSAValue, rows: SSAValue, page_table: SSAValue) -> None:
        super().__init__(operands=[cache, new, rows, page_table], result_types=[cache.type])


@dataclass(frozen=True)
class Scores:
    """What attention makes of products of queries and keys; 0 is no ``softcap``, no ``window``."""

    scale: float
    softcap: float = 0.0
    window: int = 0

    def properties(self) -> dict[str, Attribute]:
        """As properties of an op."""
        return {"scale": float64(self.scale), "softcap": float64(self.softcap), "window": int64(self.window)}


def require_scores(op: TgOp, scores: Scores) -> None:
    """That no property of attention is negative."""
    op.require(scores.softcap >= 0, "'softcap'", scores.softcap, "0 (none) or more")
    op.require(scores.window >= 0, "'window'", scores.window, "0 (none) or more")


@irdl_op_definition
class AttentionOp(TgOp):
    """Causal grouped-query attention: a row at position p of request b attends to positions 0 .. p of b.

    Query head h reads key head h / (Hq / Hkv). softmax(q · kᵀ * ``scale``) · v, in f32. A ``softcap`` c > 0 makes
    scores s into c * tanh(s / c) (Gemma 2, arXiv 2408.00118); a ``window`` w > 0 hides all but the latest w positions.
    """

    name = "tg.attention"
    q = operand_def(FLOAT_TENSOR)
    k_cache = operand_def(FLOAT_TENSOR)
    v_cache = operand_def(FLOAT_TENSOR)
    rows = operand_def(I32_TENSOR)
    requests = operand_def(I32_TENSOR)
    page_table = operand_def(I32_TENSOR)
    scale = prop_def(FloatAttr.constr(f64))
    softcap = prop_def(FloatAttr.constr(f64), default_value=float64(0.0))
    window = prop_def(IntegerAttr.constr(i64), default_value=int64(0))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(
        f"q[R,Hq,D], k_cache[C,Hkv,S,D], v_cache[C,Hkv,S,D], {ROWS}, {REQUESTS}, page_table[B,P] -> result[R,Hq,D]"
    )
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("rows", "requests", "page_table")
    assembly_format = (
        "$q `,` $k_cache `,` $v_cache `,` $rows `,` $requests `,` $page_table attr-dict `:` "
        "functional-type(operands, results)"
    )

    def __init__(
        self, q: SSAValue, caches: Sequence[SSAValue], requests: Sequence[SSAValue], scores: Scores | float
    ) -> None:
        """``caches`` are k and v; ``requests`` are the states rows, requests and page_table; a number is a scale."""
        scores = scores if isinstance(scores, Scores) else Scores(scores)
        super().__init__(operands=[q, *caches, *requests], result_types=[q.type], properties=scores.properties())

    @property
    def scores(self) -> Scores:
        return Scores(self.scale.value.data, self.softcap.value.data, self.window.value.data)

    def verify_more(self) -> None:
        require_scores(self, self.scores)
        heads, kv_heads = shape_of(self.q)[1], shape_of(self.k_cache)[1]
        self.require(
            heads % kv_heads == 0,
            "heads of operand 'q'",
            heads,
            f"a multiple of {kv_heads} (as in 'k_cache')",
        )


@irdl_op_definition
class LastRowsOp(TgOp):
    """Of ``x`` [R, H] the last row of each request that has rows in the step, in order -> [B, H]; zeros behind them."""

    name = "tg.last_rows"
    x = operand_def(FLOAT_TENSOR)
    requests = operand_def(I32_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(f"x[R,H], {REQUESTS} -> result[B,H]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("requests",)
    assembly_format = "$x `,` $requests attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, requests: SSAValue) -> None:
        super().__init__(operands=[x, requests], result_types=[self.infer(element_of(x), x=x, requests=requests)])


@irdl_op_definition
class AdvanceOp(TgOp):
    """The end of a step: keep the ``sampled`` tokens [R], assign the rows of the next step.

    Its meaning is `mpk_ir.core.requests.advance_requests`; a token in ``stop_tokens`` ends its request. ``by_request``:
    ``sampled`` [B] holds a token of each row of `tg.last_rows`.
    """

    name = "tg.advance"
    sampled = operand_def(I32_TENSOR)
    history = operand_def(I32_TENSOR)
    requests = operand_def(I32_TENSOR)
    rows = operand_def(I32_TENSOR)
    row_count = operand_def(I32_TENSOR)
    stop_tokens = prop_def(INT_LIST, default_value=int64s(()))
    by_request = opt_prop_def(UnitAttr)
    next_history = result_def(I32_TENSOR)
    next_requests = result_def(I32_TENSOR)
    next_rows = result_def(I32_TENSOR)
    next_row_count = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(
        f"sampled[S], history[B,L], {REQUESTS}, {ROWS}, row_count[1] -> "
        f"next_history[B,L], next_{REQUESTS}, next_{ROWS}, next_row_count[1]"
    )
    assembly_format = (
        "$sampled `,` $history `,` $requests `,` $rows `,` $row_count attr-dict `:` functional-type(operands, results)"
    )

    def __init__(
        self,
        sampled: SSAValue,
        state: Sequence[SSAValue],
        stop_tokens: Sequence[int] = (),
        *,
        by_request: bool = False,
    ) -> None:
        """``state`` is history, requests, rows, row_count."""
        properties = {"stop_tokens": int64s(stop_tokens), "by_request": UnitAttr() if by_request else None}
        types = [value.type for value in state]
        super().__init__(operands=[sampled, *state], result_types=types, properties=properties)

    @property
    def stop_ids(self) -> Shape:
        return int_list(self.stop_tokens)

    def verify_more(self) -> None:
        whole, name = (self.rows, "R") if self.by_request is None else (self.history, "B")
        found, expected = shape_of(self.sampled)[0], shape_of(whole)[0]
        self.require(found == expected, "size of operand 'sampled'", found, f"{name} = {expected}")


ATTENTION_OPS = [RopeOp, KvAppendOp, AttentionOp, LastRowsOp, AdvanceOp]
