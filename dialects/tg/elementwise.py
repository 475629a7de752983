"""Elementwise ops, with numpy broadcasting where they have two operands."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from xdsl.dialects.builtin import UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from .base import TgOp
from .signature import Signature
from .tensors import ANY_TENSOR, FLOAT_TENSOR, Shape, element_of, shape_of, tensor


def broadcast(op_name: str, lhs: Shape, rhs: Shape) -> Shape:
    """The shape two shapes broadcast to. Raises VerifyException if they do not."""
    rank = max(len(lhs), len(rhs))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (lhs, rhs)]
    for a, b in zip(*padded, strict=True):
        if a != b and 1 not in (a, b):
            raise VerifyException(
                f"{op_name}: operand 'rhs' has shape {list(rhs)}, expected one that broadcasts with {list(lhs)}"
            )
    return tuple(b if a == 1 else a for a, b in zip(*padded, strict=True))


class BinaryOp(TgOp, ABC):
    """A function of two elements; the shapes broadcast as in numpy."""

    lhs = operand_def(ANY_TENSOR)
    rhs = operand_def(ANY_TENSOR)
    result = result_def(ANY_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature({}, {})
    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, lhs: SSAValue, rhs: SSAValue) -> None:
        shape = broadcast(self.name, shape_of(lhs), shape_of(rhs))
        super().__init__(operands=[lhs, rhs], result_types=[tensor(shape, element_of(lhs))])

    def verify_more(self) -> None:
        expected = broadcast(self.name, shape_of(self.lhs), shape_of(self.rhs))
        found = shape_of(self.result)
        self.require(found == expected, "shape of result 'result'", list(found), list(expected))


class UnaryOp(TgOp, ABC):
    """A function of one element."""

    x = operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("x[...] -> result[...]")
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue) -> None:
        super().__init__(operands=[x], result_types=[x.type])


class GatedOp(TgOp, ABC):
    """An activation of ``gate``, times ``up``."""

    gate = operand_def(FLOAT_TENSOR)
    up = operand_def(FLOAT_TENSOR)
    result = result_def(FLOAT_TENSOR)
    SIGNATURE: ClassVar[Signature] = Signature.of("gate[...], up[...] -> result[...]")
    assembly_format = "$gate `,` $up attr-dict `:` functional-type(operands, results)"

    def __init__(self, gate: SSAValue, up: SSAValue) -> None:
        super().__init__(operands=[gate, up], result_types=[gate.type])


@irdl_op_definition
class AddOp(BinaryOp):
    """lhs + rhs."""

    name = "tg.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """lhs - rhs."""

    name = "tg.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """lhs * rhs."""

    name = "tg.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """lhs / rhs; rounds toward zero on integers."""

    name = "tg.div"


@irdl_op_definition
class MaximumOp(BinaryOp):
    """The larger of lhs and rhs; NaN if either is."""

    name = "tg.maximum"


@irdl_op_definition
class MinimumOp(BinaryOp):
    """The smaller of lhs and rhs; NaN if either is."""

    name = "tg.minimum"


@irdl_op_definition
class PowOp(BinaryOp):
    """lhs to the power rhs."""

    name = "tg.pow"


@irdl_op_definition
class RemainderOp(BinaryOp):
    """lhs - rhs * floor(lhs / rhs): has the sign of rhs."""

    name = "tg.remainder"


@irdl_op_definition
class NegOp(UnaryOp):
    """-x."""

    name = "tg.neg"


@irdl_op_definition
class ExpOp(UnaryOp):
    """e to the power x."""

    name = "tg.exp"


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """1 / sqrt(x)."""

    name = "tg.rsqrt"


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """1 / (1 + exp(-x))."""

    name = "tg.sigmoid"


@irdl_op_definition
class TanhOp(UnaryOp):
    """Hyperbolic tangent."""

    name = "tg.tanh"


@irdl_op_definition
class SqrtOp(UnaryOp):
    """Square root."""

    name = "tg.sqrt"


@irdl_op_definition
class LogOp(UnaryOp):
    """Natural logarithm."""

    name = "tg.log"


@irdl_op_definition
class SinOp(UnaryOp):
    """Sine of x in radians."""

    name = "tg.sin"


@irdl_op_definition
class CosOp(UnaryOp):
    """Cosine of x in radians."""

    name = "tg.cos"


@irdl_op_definition
class ErfOp(UnaryOp):
    """The error function."""

    name = "tg.erf"


@irdl_op_definition
class AbsOp(UnaryOp):
    """The magnitude of x."""

    name = "tg.abs"


@irdl_op_definition
class FloorOp(UnaryOp):
    """The largest whole number not above x."""

    name = "tg.floor"


@irdl_op_definition
class CeilOp(UnaryOp):
    """The smallest whole number not below x."""

    name = "tg.ceil"


@irdl_op_definition
class SiluOp(UnaryOp):
    """x * sigmoid(x)."""

    name = "tg.silu"


@irdl_op_definition
class GeluOp(UnaryOp):
    """x times the normal distribution function of x; ``approximate``: by the tanh formula."""

    name = "tg.gelu"
    approximate = opt_prop_def(UnitAttr)

    def __init__(self, x: SSAValue, approximate: bool = False) -> None:
        super().__init__(x)
        self.approximate = UnitAttr() if approximate else None


@irdl_op_definition
class SiluMulOp(GatedOp):
    """silu(gate) * up."""

    name = "tg.silu_mul"


@irdl_op_definition
class GeluMulOp(GatedOp):
    """gelu(gate) * up; ``approximate``: gelu by the tanh formula."""

    name = "tg.gelu_mul"
    approximate = opt_prop_def(UnitAttr)

    def __init__(self, gate: SSAValue, up: SSAValue, approximate: bool = False) -> None:
        super().__init__(gate, up)
        self.approximate = UnitAttr() if approximate else None


ELEMENTWISE_OPS = [
    AddOp, SubOp, MulOp, DivOp, MaximumOp, MinimumOp, PowOp, RemainderOp,
    NegOp, ExpOp, RsqrtOp, SigmoidOp, TanhOp, SqrtOp, LogOp, SinOp, CosOp, ErfOp, AbsOp, FloorOp, CeilOp,
    SiluOp, GeluOp, SiluMulOp, GeluMulOp,
]  # fmt: skip
