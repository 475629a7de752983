"""Ops that fusion makes: one per matrix product and one per attention, with everything around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import auto
from typing import ClassVar

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f64, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.str_enum import StrEnum

from ...tasks.linear import GATE_BLOCK
from .attention import REQUESTS, ROWS, Scores, require_scores
from .base import TgOp
from .signature import Signature
from .tensors import (
    F32_TENSOR,
    FLOAT_TENSOR,
    I32_TENSOR,
    Shape,
    element_of,
    float64,
    int64,
    shape_of,
    tensor,
)

GATE_UP_BLOCK = GATE_BLOCK
"""Rows of gate, then rows of up, that alternate in the weight of a gated epilogue."""


class Epilogue(StrEnum):
    """What follows the matrix product of `tg.fused_linear`."""

    NONE = auto()
    SILU_MUL = auto()
    GELU_MUL = auto()
    """With gelu by the tanh formula."""

    @property
    def gated(self) -> bool:
        return self is not Epilogue.NONE


@irdl_attr_definition
class EpilogueAttr(EnumAttribute[Epilogue], SpacedOpaqueSyntaxAttribute):
    """`#tg<epilogue silu_mul>`."""

    name = "tg.epilogue"


@dataclass(frozen=True)
class LinearParts:
    """The optional operands of `tg.fused_linear`."""

    bias: SSAValue | None = None
    norm_weight: SSAValue | None = None
    residual: SSAValue | None = None


@irdl_op_definition
class FusedLinearOp(TgOp):
    """epilogue(rms_norm(x) · weightᵀ + bias) + residual.

    x [R, K], weight [N, K], bias [N], norm_weight [K] (absent: x is taken as it is), residual like the result. Without
    epilogue the result is [R, N]. A gated epilogue makes [R, N/2] of a product whose columns hold 8 of gate, then 8 of
    up, and so on: its weight (and bias) is a `tg.param` with ``interleave`` = 8. Sums and epilogue are in f32.
    """

    name = "tg.fused_linear"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    bias = opt_operand_def(FLOAT_TENSOR)
    norm_weight = opt_operand_def(FLOAT_TENSOR)
    residual = opt_operand_def(FLOAT_TENSOR)
    eps = prop_def(FloatAttr.constr(f64), default_value=float64(0.0))
    epilogue = prop_def(EpilogueAttr, default_value=EpilogueAttr(Epilogue.NONE))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(
        "x[R,K], weight[N,K], bias[N], norm_weight[K], residual[R,M] -> result[R,M]",
    )
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("residual", "result")
    assembly_format = (
        "$x `,` $weight (`bias` $bias^ `:` type($bias))? (`norm` $norm_weight^ `:` type($norm_weight))? "
        "(`residual` $residual^ `:` type($residual))? attr-dict `:` "
        "`(` type($x) `,` type($weight) `)` `->` type($result)"
    )

    def __init__(
        self,
        x: SSAValue,
        weight: SSAValue,
        parts: LinearParts = LinearParts(),
        eps: float = 0.0,
        epilogue: Epilogue = Epilogue.NONE,
        element: Attribute | None = None,
    ) -> None:
        columns = shape_of(weight)[0] // (2 if epilogue.gated else 1)
        super().__init__(
            operands=[x, weight, parts.bias, parts.norm_weight, parts.residual],
            result_types=[tensor((shape_of(x)[0], columns), element or element_of(x))],
            properties={"eps": float64(eps), "epilogue": EpilogueAttr(epilogue)},
        )

    @property
    def parts(self) -> LinearParts:
        return LinearParts(self.bias, self.norm_weight, self.residual)

    def verify_more(self) -> None:
        found, rows = shape_of(self.result)[1], shape_of(self.weight)[0]
        gated, name = self.epilogue.data.gated, self.epilogue.data.value
        expected = rows // 2 if gated else rows
        self.require(found == expected, "dimension 1 of result 'result'", found, f"{expected} (epilogue {name})")
        whole = not gated or rows % (2 * GATE_UP_BLOCK) == 0
        self.require(whole, "rows of operand 'weight'", rows, f"a multiple of {2 * GATE_UP_BLOCK} (epilogue {name})")
        if self.residual is not None:
            types = element_of(self.residual), element_of(self.result)
            self.require(types[0] == types[1], "element type of operand 'residual'", types[0], types[1])


@irdl_op_definition
class FusedNormOp(TgOp):
    """rms_norm(x) + residual, in f32; x and residual [R, D], weight [D]."""

    name = "tg.fused_norm"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    residual = operand_def(FLOAT_TENSOR)
    eps = prop_def(FloatAttr.constr(f64))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[R,D], weight[D], residual[R,D] -> result[R,D]")
    assembly_format = "$x `,` $weight `residual` $residual attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, weight: SSAValue, residual: SSAValue, eps: float) -> None:
        super().__init__(operands=[x, weight, residual], result_types=[x.type], properties={"eps": float64(eps)})


@dataclass(frozen=True)
class Heads:
    """Head counts of queries and of keys (values have as many as keys), and the size of a head."""

    query: int
    kv: int
    size: int

    @property
    def qkv_columns(self) -> int:
        return (self.query + 2 * self.kv) * self.size


@dataclass(frozen=True)
class AttentionParts:
    """The optional operands of `tg.fused_attention`."""

    q_norm: SSAValue | None = None
    k_norm: SSAValue | None = None
    inv_freq: SSAValue | None = None


@dataclass(frozen=True)
class AttentionFactors:
    """``eps`` of the head norms, ``scaling`` of the rotary embedding."""

    scores: Scores
    eps: float = 0.0
    scaling: float = 1.0


@irdl_op_definition
class FusedAttentionOp(TgOp):
    """Everything between the qkv product and the output product.

    Splits ``qkv`` [R, (Hq + 2 Hkv) D] into q, k and v; norms q and k per head (where ``q_norm``, ``k_norm`` are given);
    turns both by rope (where ``inv_freq`` is given); appends k and v to the caches; attends. -> [R, Hq D] and caches.
    """

    name = "tg.fused_attention"
    qkv = operand_def(FLOAT_TENSOR)
    k_cache = operand_def(FLOAT_TENSOR)
    v_cache = operand_def(FLOAT_TENSOR)
    rows = operand_def(I32_TENSOR)
    requests = operand_def(I32_TENSOR)
    page_table = operand_def(I32_TENSOR)
    q_norm = opt_operand_def(FLOAT_TENSOR)
    k_norm = opt_operand_def(FLOAT_TENSOR)
    inv_freq = opt_operand_def(F32_TENSOR)
    heads = prop_def(IntegerAttr.constr(i64))
    kv_heads = prop_def(IntegerAttr.constr(i64))
    head_dim = prop_def(IntegerAttr.constr(i64))
    scale = prop_def(FloatAttr.constr(f64))
    eps = prop_def(FloatAttr.constr(f64), default_value=float64(0.0))
    scaling = prop_def(FloatAttr.constr(f64), default_value=float64(1.0))
    softcap = prop_def(FloatAttr.constr(f64), default_value=float64(0.0))
    window = prop_def(IntegerAttr.constr(i64), default_value=int64(0))
    result = result_def(FLOAT_TENSOR)
    next_k_cache = result_def(FLOAT_TENSOR)
    next_v_cache = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of(
        f"qkv[R,W], k_cache[C,Hkv,S,D], v_cache[C,Hkv,S,D], {ROWS}, {REQUESTS}, page_table[B,P], q_norm[D], k_norm[D] "
        "-> result[R,Q], next_k_cache[C,Hkv,S,D], next_v_cache[C,Hkv,S,D]"
    )
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("rows", "requests", "page_table", "inv_freq")
    assembly_format = (
        "$qkv `,` $k_cache `,` $v_cache `,` $rows `,` $requests `,` $page_table "
        "(`q_norm` $q_norm^ `:` type($q_norm))? (`k_norm` $k_norm^ `:` type($k_norm))? "
        "(`rope` $inv_freq^ `:` type($inv_freq))? attr-dict `:` "
        "`(` type($qkv) `,` type($k_cache) `,` type($v_cache) `,` type($rows) `,` type($requests) `,` "
        "type($page_table) `)` `->` `(` type($result) `,` type($next_k_cache) `,` type($next_v_cache) `)`"
    )

    def __init__(
        self,
        qkv: SSAValue,
        caches: Sequence[SSAValue],
        requests: Sequence[SSAValue],
        heads: Heads,
        factors: AttentionFactors,
        parts: AttentionParts = AttentionParts(),
    ) -> None:
        """``caches`` are k and v; ``requests`` are the states rows, requests and page_table."""
        result = tensor((shape_of(qkv)[0], heads.query * heads.size), element_of(qkv))
        super().__init__(
            operands=[qkv, *caches, *requests, parts.q_norm, parts.k_norm, parts.inv_freq],
            result_types=[result, *(cache.type for cache in caches)],
            properties={
                "heads": int64(heads.query),
                "kv_heads": int64(heads.kv),
                "head_dim": int64(heads.size),
                **factors.scores.properties(),
                "eps": float64(factors.eps),
                "scaling": float64(factors.scaling),
            },
        )

    @property
    def head_counts(self) -> Heads:
        return Heads(self.heads.value.data, self.kv_heads.value.data, self.head_dim.value.data)

    @property
    def scores(self) -> Scores:
        return Scores(self.scale.value.data, self.softcap.value.data, self.window.value.data)

    def verify_more(self) -> None:
        require_scores(self, self.scores)
        heads = self.head_counts
        whole = heads.kv > 0 and heads.query > 0 and heads.query % heads.kv == 0
        self.require(whole, "'heads'", heads.query, f"a multiple of 'kv_heads' = {heads.kv}")
        columns, expected = shape_of(self.qkv)[1], heads.qkv_columns
        self.require(columns == expected, "columns of operand 'qkv'", columns, f"{expected} (heads + 2 kv_heads)")
        cache: Shape = (shape_of(self.k_cache)[1], shape_of(self.k_cache)[3])
        wanted = (heads.kv, heads.size)
        self.require(cache == wanted, "heads and head size of operand 'k_cache'", list(cache), list(wanted))
        width = heads.query * heads.size
        self.require(shape_of(self.result)[1] == width, "columns of result 'result'", shape_of(self.result)[1], width)
        if self.inv_freq is not None:
            shape = shape_of(self.inv_freq)
            self.require(shape == (heads.size // 2,), "shape of operand 'inv_freq'", list(shape), [heads.size // 2])


FUSED_OPS = [FusedLinearOp, FusedNormOp, FusedAttentionOp]
