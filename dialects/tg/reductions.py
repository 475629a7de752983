"""Ops over one axis."""

from __future__ import annotations

from enum import auto
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, i32, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import irdl_attr_definition, irdl_op_definition, operand_def, prop_def, result_def
from xdsl.utils.str_enum import StrEnum

from .base import TgOp
from .signature import Signature
from .tensors import FLOAT_TENSOR, I32_TENSOR, element_of, int64, shape_of, tensor


class Reduction(StrEnum):
    """What `tg.reduce` computes of the elements along its axis."""

    SUM = auto()
    MAX = auto()
    MIN = auto()
    MEAN = auto()


@irdl_attr_definition
class ReductionAttr(EnumAttribute[Reduction], SpacedOpaqueSyntaxAttribute):
    """`#tg<reduction sum>`."""

    name = "tg.reduction"


@irdl_op_definition
class SoftmaxOp(TgOp):
    """exp(x - max) / sum(exp(x - max)) along ``axis``, in f32."""

    name = "tg.softmax"
    x = operand_def(FLOAT_TENSOR)
    axis = prop_def(IntegerAttr.constr(i64))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[...] -> result[...]")
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, axis: int) -> None:
        super().__init__(operands=[x], result_types=[x.type], properties={"axis": int64(axis)})

    def verify_more(self) -> None:
        axis, rank = self.axis.value.data, len(shape_of(self.x))
        self.require(0 <= axis < rank, "'axis'", axis, f"one of the {rank} dimensions of 'x'")


@irdl_op_definition
class ReduceOp(TgOp):
    """Sum, maximum, minimum or mean along ``axis``, which the result drops; in f32."""

    name = "tg.reduce"
    x = operand_def(FLOAT_TENSOR)
    kind = prop_def(ReductionAttr)
    axis = prop_def(IntegerAttr.constr(i64))
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$kind $x attr-dict `:` functional-type(operands, results)"

    def __init__(self, kind: Reduction, x: SSAValue, axis: int) -> None:
        shape = shape_of(x)
        properties = {"kind": ReductionAttr(kind), "axis": int64(axis)}
        result = tensor(shape[:axis] + shape[axis + 1 :], element_of(x))
        super().__init__(operands=[x], result_types=[result], properties=properties)

    def verify_more(self) -> None:
        axis, source, found = self.axis.value.data, shape_of(self.x), shape_of(self.result)
        self.require(0 <= axis < len(source), "'axis'", axis, f"one of the {len(source)} dimensions of 'x'")
        expected = source[:axis] + source[axis + 1 :]
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class ArgmaxOp(TgOp):
    """Index of the largest element of each row, the first of equal ones: [R, V] -> [R]."""

    name = "tg.argmax"
    x = operand_def(FLOAT_TENSOR)
    result = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[R,V] -> result[R]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("x", "result")
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue) -> None:
        super().__init__(operands=[x], result_types=[self.infer(i32, x=x)])


REDUCTION_OPS = [SoftmaxOp, ReduceOp, ArgmaxOp]
