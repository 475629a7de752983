"""Ops that rearrange or convert elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, var_operand_def

from .base import TgOp
from .signature import Signature
from .tensors import (
    ANY_TENSOR,
    INT_LIST,
    Shape,
    element_of,
    int64,
    int64s,
    int_list,
    shape_of,
    tensor,
)


@irdl_op_definition
class ReshapeOp(TgOp):
    """The same elements in row-major order under another shape."""

    name = "tg.reshape"
    x = operand_def(ANY_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, shape: Sequence[int]) -> None:
        super().__init__(operands=[x], result_types=[tensor(shape, element_of(x))])

    def verify_more(self) -> None:
        found, expected = prod(shape_of(self.result)), prod(shape_of(self.x))
        self.require(found == expected, "number of elements of result 'result'", found, f"{expected} as in 'x'")


@irdl_op_definition
class TransposeOp(TgOp):
    """Dimension i of the result is dimension ``permutation[i]`` of x."""

    name = "tg.transpose"
    x = operand_def(ANY_TENSOR)
    permutation = prop_def(INT_LIST)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, permutation: Sequence[int]) -> None:
        shape = [shape_of(x)[dim] for dim in permutation]
        properties = {"permutation": int64s(permutation)}
        super().__init__(operands=[x], result_types=[tensor(shape, element_of(x))], properties=properties)

    @property
    def order(self) -> Shape:
        return int_list(self.permutation)

    def verify_more(self) -> None:
        source, found = shape_of(self.x), shape_of(self.result)
        fits = sorted(self.order) == list(range(len(source)))
        self.require(fits, "'permutation'", list(self.order), f"a permutation of the {len(source)} dimensions of 'x'")
        expected = tuple(source[dim] for dim in self.order)
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


@irdl_op_definition
class SliceOp(TgOp):
    """The box of x that starts at ``offsets`` and has shape ``sizes``."""

    name = "tg.slice"
    x = operand_def(ANY_TENSOR)
    offsets = prop_def(INT_LIST)
    sizes = prop_def(INT_LIST)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        properties = {"offsets": int64s(offsets), "sizes": int64s(sizes)}
        super().__init__(operands=[x], result_types=[tensor(sizes, element_of(x))], properties=properties)

    @property
    def box(self) -> tuple[Shape, Shape]:
        """Offsets and sizes."""
        return int_list(self.offsets), int_list(self.sizes)

    def verify_more(self) -> None:
        offsets, sizes = self.box
        source, found = shape_of(self.x), shape_of(self.result)
        ranks = (len(offsets), len(sizes))
        self.require(ranks == (len(source),) * 2, "lengths of 'offsets' and 'sizes'", ranks, f"{len(source)} each")
        inside = all(
            offset >= 0 and size > 0 and offset + size <= extent
            for offset, size, extent in zip(offsets, sizes, source, strict=True)
        )
        found_box = f"offsets {list(offsets)} and sizes {list(sizes)}"
        self.require(inside, "the slice", found_box, f"a box inside {list(source)}")
        self.require(found == sizes, "shape of result 'result'", list(found), list(sizes))


@irdl_op_definition
class ConcatOp(TgOp):
    """The ``parts`` one after another along dimension ``axis``."""

    name = "tg.concat"
    parts = var_operand_def(ANY_TENSOR)
    axis = prop_def(IntegerAttr.constr(i64))
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$parts attr-dict `:` functional-type(operands, results)"

    def __init__(self, parts: Sequence[SSAValue], axis: int) -> None:
        shape = list(shape_of(parts[0]))
        shape[axis] = sum(shape_of(part)[axis] for part in parts)
        properties = {"axis": int64(axis)}
        super().__init__(operands=[parts], result_types=[tensor(shape, element_of(parts[0]))], properties=properties)

    def verify_more(self) -> None:
        axis, found = self.axis.value.data, shape_of(self.result)
        self.require(len(self.parts) > 0, "number of 'parts'", 0, "at least one")
        self.require(0 <= axis < len(found), "'axis'", axis, f"one of the {len(found)} dimensions")
        for index, part in enumerate(self.parts):
            shape = shape_of(part)
            expected = found[:axis] + shape[axis : axis + 1] + found[axis + 1 :]
            self.require(shape == expected, f"shape of operand 'parts'[{index}]", list(shape), list(expected))
        total = sum(shape_of(part)[axis] for part in self.parts)
        self.require(total == found[axis], f"dimension {axis} of result 'result'", found[axis], total)


@irdl_op_definition
class CastOp(TgOp):
    """Each element converted to the result's element type: floats round to nearest even, to i32 toward zero."""

    name = "tg.cast"
    x = operand_def(ANY_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[...] -> result[...]")
    FREE_TYPES: ClassVar[tuple[str, ...]] = ("x", "result")
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, element: Attribute) -> None:
        super().__init__(operands=[x], result_types=[tensor(shape_of(x), element)])


SHAPING_OPS = [ReshapeOp, TransposeOp, SliceOp, ConcatOp, CastOp]
