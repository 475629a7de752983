"""Ops of general tensor programs: comparison, choice, broadcast, and access by computed index."""

from __future__ import annotations

from collections.abc import Sequence
from enum import auto
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, i32, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import irdl_attr_definition, irdl_op_definition, operand_def, prop_def, result_def
from xdsl.utils.str_enum import StrEnum

from .base import TgOp
from .elementwise import broadcast
from .signature import Signature
from .tensors import ANY_TENSOR, I32_TENSOR, Shape, element_of, int64, shape_of, tensor


class Predicate(StrEnum):
    """What `tg.compare` asks of lhs and rhs."""

    EQ = auto()
    NE = auto()
    LT = auto()
    LE = auto()
    GT = auto()
    GE = auto()


@irdl_attr_definition
class PredicateAttr(EnumAttribute[Predicate], SpacedOpaqueSyntaxAttribute):
    """`#tg<predicate lt>`."""

    name = "tg.predicate"


@irdl_op_definition
class CompareOp(TgOp):
    """1 where lhs ``predicate`` rhs holds, else 0; the shapes broadcast as in numpy. NaN is only NE."""

    name = "tg.compare"
    lhs = operand_def(ANY_TENSOR)
    rhs = operand_def(ANY_TENSOR)
    predicate = prop_def(PredicateAttr)
    result = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("result",)
    assembly_format = "$predicate $lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, predicate: Predicate, lhs: SSAValue, rhs: SSAValue) -> None:
        shape = broadcast(self.name, shape_of(lhs), shape_of(rhs))
        properties = {"predicate": PredicateAttr(predicate)}
        super().__init__(operands=[lhs, rhs], result_types=[tensor(shape, i32)], properties=properties)

    def verify_more(self) -> None:
        expected = broadcast(self.name, shape_of(self.lhs), shape_of(self.rhs))
        found = shape_of(self.result)
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class SelectOp(TgOp):
    """lhs where ``condition`` is not zero, else rhs; the three shapes broadcast as in numpy."""

    name = "tg.select"
    condition = operand_def(I32_TENSOR)
    lhs = operand_def(ANY_TENSOR)
    rhs = operand_def(ANY_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("condition",)
    assembly_format = "$condition `,` $lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, condition: SSAValue, lhs: SSAValue, rhs: SSAValue) -> None:
        shape = self._shape(condition, lhs, rhs)
        super().__init__(operands=[condition, lhs, rhs], result_types=[tensor(shape, element_of(lhs))])

    def _shape(self, condition: SSAValue, lhs: SSAValue, rhs: SSAValue) -> Shape:
        return broadcast(self.name, shape_of(condition), broadcast(self.name, shape_of(lhs), shape_of(rhs)))

    def verify_more(self) -> None:
        found, expected = shape_of(self.result), self._shape(self.condition, self.lhs, self.rhs)
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class BroadcastOp(TgOp):
    """x repeated to the result's shape, as numpy broadcasts it."""

    name = "tg.broadcast"
    x = operand_def(ANY_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, shape: Sequence[int]) -> None:
        super().__init__(operands=[x], result_types=[tensor(shape, element_of(x))])

    def verify_more(self) -> None:
        source, found = shape_of(self.x), shape_of(self.result)
        fits = len(source) <= len(found) and broadcast(self.name, found, source) == found
        self.require(fits, "shape of result 'result'", list(found), f"one that {list(source)} broadcasts to")


@irdl_op_definition
class GatherOp(TgOp):
    """Slices of ``x`` along dimension 0, chosen by ``ids`` [...] -> [..., the rest of x's shape].

    A negative id counts from the end; ids outside x are a bug of the caller and read some slice of it.
    """

    name = "tg.gather"
    x = operand_def(ANY_TENSOR)
    ids = operand_def(I32_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("ids",)
    assembly_format = "$x `,` $ids attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, ids: SSAValue) -> None:
        shape = shape_of(ids) + shape_of(x)[1:]
        super().__init__(operands=[x, ids], result_types=[tensor(shape, element_of(x))])

    def verify_more(self) -> None:
        found, expected = shape_of(self.result), shape_of(self.ids) + shape_of(self.x)[1:]
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class IndexCopyOp(TgOp):
    """``x`` with slice ids[i] along ``axis`` replaced by slice i of ``source``; of equal ids any may win."""

    name = "tg.index_copy"
    x = operand_def(ANY_TENSOR)
    ids = operand_def(I32_TENSOR)
    source = operand_def(ANY_TENSOR)
    axis = prop_def(IntegerAttr.constr(i64))
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("ids",)
    assembly_format = "$x `,` $ids `,` $source attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, ids: SSAValue, source: SSAValue, axis: int) -> None:
        super().__init__(operands=[x, ids, source], result_types=[x.type], properties={"axis": int64(axis)})

    def verify_more(self) -> None:
        axis, shape, ids = self.axis.value.data, shape_of(self.x), shape_of(self.ids)
        self.require(0 <= axis < len(shape), "'axis'", axis, f"one of the {len(shape)} dimensions of 'x'")
        self.require(len(ids) == 1, "rank of operand 'ids'", len(ids), 1)
        expected = (*shape[:axis], *ids, *shape[axis + 1 :])
        found = shape_of(self.source)
        self.require(found == expected, "shape of operand 'source'", list(found), list(expected))
        self.require(
            shape_of(self.result) == shape, "shape of result 'result'", list(shape_of(self.result)), list(shape)
        )


GENERAL_OPS = [CompareOp, SelectOp, BroadcastOp, GatherOp, IndexCopyOp]
