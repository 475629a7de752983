"""Mixture of experts: which experts a row goes to, products with their weights, the weighted sum of their results."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, UnitAttr, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def

from .base import TgOp
from .signature import Signature
from .tensors import F32_TENSOR, FLOAT_TENSOR, I32_TENSOR, Shape, element_of, int64, shape_of, tensor


@irdl_op_definition
class TopKGateOp(TgOp):
    """The ``k`` experts with the largest logits of each row, [R, E] -> [R, k], largest first, of equal ones the first,
    and their weights: the softmax of these k logits, in f32."""

    name = "tg.top_k_gate"
    logits = operand_def(FLOAT_TENSOR)
    k = prop_def(IntegerAttr.constr(i64))
    weights = result_def(F32_TENSOR)
    experts = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("logits[R,E] -> weights[R,T], experts[R,T]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("logits", "weights", "experts")
    assembly_format = "$logits attr-dict `:` functional-type(operands, results)"

    def __init__(self, logits: SSAValue, k: int) -> None:
        shape = (shape_of(logits)[0], k)
        super().__init__(
            operands=[logits], properties={"k": int64(k)}, result_types=[tensor(shape, f32), tensor(shape, i32)]
        )

    def verify_more(self) -> None:
        k, experts = self.k.value.data, shape_of(self.logits)[1]
        self.require(1 <= k <= experts, "'k'", k, f"1 to {experts}, the experts in 'logits'")
        self.require(shape_of(self.weights)[1] == k, "columns of result 'weights'", shape_of(self.weights)[1], k)


@irdl_op_definition
class GroupedLinearOp(TgOp):
    """For each row r and each of its T experts e = experts[r, t] the product with the weight of e: [R, T, N].

    ``weight`` [E * M, K] holds the weights of ``num_experts`` = E experts one below the other. ``x`` is [R, K], the
    same for all experts of a row, or [R, T, K]. Without ``gated`` N is M. With it an expert's first M / 2 rows are its
    gate, the others go up, and the result is silu(gate) * up, N = M / 2. Sums in f32.
    """

    name = "tg.grouped_linear"
    x = operand_def(FLOAT_TENSOR)
    weight = operand_def(FLOAT_TENSOR)
    experts = operand_def(I32_TENSOR)
    num_experts = prop_def(IntegerAttr.constr(i64))
    gated = opt_prop_def(UnitAttr)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("weight[M,K], experts[R,T] -> result[R,T,N]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("experts",)
    assembly_format = "$x `,` $weight `,` $experts attr-dict `:` functional-type(operands, results)"

    def __init__(
        self, x: SSAValue, weight: SSAValue, experts: SSAValue, num_experts: int, *, gated: bool = False
    ) -> None:
        columns = shape_of(weight)[0] // num_experts // (2 if gated else 1)
        super().__init__(
            operands=[x, weight, experts],
            properties={"num_experts": int64(num_experts), "gated": UnitAttr() if gated else None},
            result_types=[tensor((*shape_of(experts), columns), element_of(x))],
        )

    @property
    def expert_rows(self) -> int:
        """M: rows of one expert's weight."""
        return shape_of(self.weight)[0] // self.num_experts.value.data

    def verify_more(self) -> None:
        count, rows, columns = self.num_experts.value.data, *shape_of(self.weight)
        self.require(count >= 1 and rows % count == 0, "'num_experts'", count, f"a divisor of the {rows} weight rows")
        slots = shape_of(self.experts)
        expected: tuple[Shape, ...] = ((slots[0], columns), (*slots, columns))
        found = shape_of(self.x)
        words = " or ".join(str(list(shape)) for shape in expected)
        self.require(found in expected, "shape of operand 'x'", list(found), words)
        parts = 2 if self.gated is not None else 1
        self.require(self.expert_rows % parts == 0, "rows of an expert", self.expert_rows, "gate and up of equal size")
        width = shape_of(self.result)[2]
        self.require(width * parts == self.expert_rows, "columns of 'result'", width, self.expert_rows // parts)


@irdl_op_definition
class ExpertSumOp(TgOp):
    """Sum over t of weights[r, t] * x[r, t], in f32 and in order of t: [R, T, N], [R, T] -> [R, N]."""

    name = "tg.expert_sum"
    x = operand_def(FLOAT_TENSOR)
    weights = operand_def(F32_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[R,T,N], weights[R,T] -> result[R,N]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("weights",)
    assembly_format = "$x `,` $weights attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, weights: SSAValue) -> None:
        super().__init__(operands=[x, weights], result_types=[self.infer(element_of(x), x=x, weights=weights)])


EXPERT_OPS = [TopKGateOp, GroupedLinearOp, ExpertSumOp]
