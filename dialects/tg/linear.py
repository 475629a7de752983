"""Embedding, matrix products and norms."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import FloatAttr, f64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, prop_def, result_def

from ...core.requests import RowColumn
from .base import TgOp
from .elementwise import broadcast
from .signature import Signature
from .tensors import FLOAT_TENSOR, I32_TENSOR, Shape, element_of, float64, shape_of, tensor


class Lookup(TgOp):
    """Rows of ``table`` [V, H] -> [R, H], chosen by ``ids``: [R], or a state of rows."""

    table = operand_def(FLOAT_TENSOR)
    ids = operand_def(I32_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("table[V,H] -> result[R,H]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("ids",)
    assembly_format = "$table `,` $ids attr-dict `:` functional-type(operands, results)"

    def __init__(self, table: SSAValue, ids: SSAValue) -> None:
        shape = (shape_of(ids)[0], shape_of(table)[1])
        super().__init__(operands=[table, ids], result_types=[tensor(shape, element_of(table))])

    def verify_more(self) -> None:
        ids, rows = shape_of(self.ids), shape_of(self.result)[0]
        expected = f"[{rows}] or [{rows}, {len(RowColumn)}]"
        self.require(ids in ((rows,), (rows, len(RowColumn))), "shape of operand 'ids'", list(ids), expected)


@irdl_op_definition
class EmbeddingOp(Lookup):
    """Rows of ``table`` [V, H] -> [R, H], chosen by ``ids``: token ids [R], or the rows state [R, 4] (its TOKEN)."""

    name = "tg.embedding"


@irdl_op_definition
class LinearOp(TgOp):
    """x · weightᵀ + bias: [R, K], [N, K], [N] -> [R, N]. Sums in f32; the result's element type is free."""

    name = "tg.linear"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    bias = opt_operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[R,K], weight[N,K], bias[N] -> result[R,N]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("result",)
    assembly_format = "$x `,` $weight (`bias` $bias^)? attr-dict `:` functional-type(operands, results)"

    def __init__(
        self, x: SSAValue, weight: SSAValue, bias: SSAValue | None = None, element: Attribute | None = None
    ) -> None:
        result = self.infer(element or element_of(x), x=x, weight=weight, bias=bias)
        super().__init__(operands=[x, weight, bias], result_types=[result])


@irdl_op_definition
class MatmulOp(TgOp):
    """Matrix product of the last two dimensions, [..., M, K] by [..., K, N]; the others broadcast."""

    name = "tg.matmul"
    lhs = operand_def(FLOAT_TENSOR)
    rhs = operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("result",)
    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, lhs: SSAValue, rhs: SSAValue, element: Attribute | None = None) -> None:
        shape = self._product(shape_of(lhs), shape_of(rhs))
        super().__init__(operands=[lhs, rhs], result_types=[tensor(shape, element or element_of(lhs))])

    def _product(self, lhs: Shape, rhs: Shape) -> Shape:
        for name, shape in (("lhs", lhs), ("rhs", rhs)):
            self.require(len(shape) >= 2, f"rank of operand '{name}'", len(shape), "at least 2")
        self.require(rhs[-2] == lhs[-1], "dimension -2 of operand 'rhs'", rhs[-2], f"{lhs[-1]} as in 'lhs'")
        return (*broadcast(self.name, lhs[:-2], rhs[:-2]), lhs[-2], rhs[-1])

    def verify_more(self) -> None:
        found, expected = shape_of(self.result), self._product(shape_of(self.lhs), shape_of(self.rhs))
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class RmsNormOp(TgOp):
    """x / sqrt(mean(x²) + eps) * weight over the last dimension, in f32."""

    name = "tg.rms_norm"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    eps = prop_def(FloatAttr.constr(f64))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[...,D], weight[D] -> result[...,D]")
    assembly_format = "$x `,` $weight attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, weight: SSAValue, eps: float) -> None:
        super().__init__(operands=[x, weight], result_types=[x.type], properties={"eps": float64(eps)})


@irdl_op_definition
class LayerNormOp(TgOp):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension, in f32."""

    name = "tg.layer_norm"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    bias = operand_def(FLOAT_TENSOR)
    eps = prop_def(FloatAttr.constr(f64))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[...,D], weight[D], bias[D] -> result[...,D]")
    assembly_format = "$x `,` $weight `,` $bias attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, weight: SSAValue, bias: SSAValue, eps: float) -> None:
        super().__init__(operands=[x, weight, bias], result_types=[x.type], properties={"eps": float64(eps)})


LINEAR_OPS = [EmbeddingOp, LinearOp, MatmulOp, RmsNormOp, LayerNormOp]
