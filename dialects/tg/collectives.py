"""Ops whose result depends on the rank: exchanges between all ranks, and the two ends of a split vocabulary.

Every rank runs the same function, whose types are those of one rank; ``ranks`` is their number. An exchange takes the
value of each rank in the order of ranks, so that all of them get the same bits.
"""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def

from .base import TgOp
from .linear import Lookup
from .signature import Signature
from .tensors import (
    ANY_TENSOR,
    F32_TENSOR,
    FLOAT_TENSOR,
    I32_TENSOR,
    Shape,
    Tensor,
    element_of,
    int64,
    shape_of,
    tensor,
)

_FORMAT = "$x attr-dict `:` functional-type(operands, results)"


class _Collective(TgOp):
    """An exchange of ``x`` between all ranks."""

    x = operand_def(ANY_TENSOR)
    ranks = prop_def(IntegerAttr.constr(i64))
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = _FORMAT

    @property
    def rank_count(self) -> int:
        return self.ranks.value.data

    def verify_more(self) -> None:
        self.require(self.rank_count >= 1, "'ranks'", self.rank_count, "1 or more")
        found, expected = shape_of(self.result), self.expected_shape()
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))

    def expected_shape(self) -> Shape:
        """The shape that the result must have. Raises VerifyException if the properties do not fit ``x``."""
        return shape_of(self.x)


class _AxisCollective(_Collective):
    """An exchange along dimension ``axis``."""

    axis = prop_def(IntegerAttr.constr(i64))

    def __init__(self, x: SSAValue, axis: int, ranks: int) -> None:
        properties = {"axis": int64(axis), "ranks": int64(ranks)}
        super().__init__(operands=[x], result_types=[self.type_for(x, axis, ranks)], properties=properties)

    @staticmethod
    def type_for(x: SSAValue, axis: int, ranks: int) -> Tensor:
        """The type of the result."""
        raise NotImplementedError

    def expected_shape(self) -> Shape:
        axis, rank = self.axis.value.data, len(shape_of(self.x))
        self.require(0 <= axis < rank, "'axis'", axis, f"one of the {rank} dimensions of 'x'")
        return tuple(self.type_for(self.x, axis, self.rank_count).get_shape())


@irdl_op_definition
class AllReduceOp(_Collective):
    """The sum of ``x`` over all ranks, in f32 and in the order of ranks. All ranks get it."""

    name = "tg.all_reduce"
    x = operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)

    def __init__(self, x: SSAValue, ranks: int) -> None:
        super().__init__(operands=[x], result_types=[x.type], properties={"ranks": int64(ranks)})


@irdl_op_definition
class AllGatherOp(_AxisCollective):
    """The ``x`` of all ranks one after another along ``axis``. All ranks get it."""

    name = "tg.all_gather"

    @staticmethod
    def type_for(x: SSAValue, axis: int, ranks: int) -> Tensor:
        shape = tuple(size * ranks if d == axis else size for d, size in enumerate(shape_of(x)))
        return tensor(shape, element_of(x))


@irdl_op_definition
class ReduceScatterOp(_AxisCollective):
    """The sum of ``x`` over all ranks, in f32 and in the order of ranks; rank r gets piece r along ``axis``."""

    name = "tg.reduce_scatter"
    x = operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)

    @staticmethod
    def type_for(x: SSAValue, axis: int, ranks: int) -> Tensor:
        shape = tuple(size // ranks if d == axis else size for d, size in enumerate(shape_of(x)))
        return tensor(shape, element_of(x))

    def expected_shape(self) -> Shape:
        expected = super().expected_shape()
        axis = self.axis.value.data
        size, ranks = shape_of(self.x)[axis], self.rank_count
        self.require(size % ranks == 0, f"dimension {axis} of operand 'x'", size, f"a multiple of {ranks} ('ranks')")
        return expected


@irdl_op_definition
class ShardEmbeddingOp(Lookup):
    """As `tg.embedding`, with a table of which rank r holds rows r * V to (r + 1) * V - 1.

    Ids of other ranks' rows give zeros: the sum over all ranks is the embedding.
    """

    name = "tg.shard_embedding"


@irdl_op_definition
class ShardArgmaxOp(TgOp):
    """The largest element of each row of ``x`` [R, V], and its column among those of all ranks: [R, 1] each.

    Rank r holds columns r * V to (r + 1) * V - 1. The first of equal elements counts.
    """

    name = "tg.shard_argmax"
    x = operand_def(FLOAT_TENSOR)
    value = result_def(F32_TENSOR)
    index = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[R,V] -> value[R,1], index[R,1]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("x", "value", "index")
    assembly_format = _FORMAT

    def __init__(self, x: SSAValue) -> None:
        rows = shape_of(x)[0]
        super().__init__(operands=[x], result_types=[tensor((rows, 1), f32), tensor((rows, 1), i32)])


@irdl_op_definition
class PickLargestOp(TgOp):
    """Of each row of ``indices`` [R, N] the one whose value is largest, the first of equal ones: [R]."""

    name = "tg.pick_largest"
    values = operand_def(F32_TENSOR)
    indices = operand_def(I32_TENSOR)
    result = result_def(I32_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("values[R,N], indices[R,N] -> result[R]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("values",)
    assembly_format = "$values `,` $indices attr-dict `:` functional-type(operands, results)"

    def __init__(self, values: SSAValue, indices: SSAValue) -> None:
        result = self.infer(i32, values=values, indices=indices)
        super().__init__(operands=[values, indices], result_types=[result])


COLLECTIVE_OPS = [AllReduceOp, AllGatherOp, ReduceScatterOp, ShardEmbeddingOp, ShardArgmaxOp, PickLargestOp]
