"""The `softcap` dialect: one op."""

from __future__ import annotations

from xdsl.dialects.builtin import FloatAttr, TensorType, f32, f64
from xdsl.ir import Dialect, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

SAME_TENSOR = VarConstraint("T", base(TensorType))


@irdl_op_definition
class CapOp(IRDLOperation):
    """cap * tanh(x / cap) of each element of a float32 tensor."""

    name = "softcap.cap"
    x = operand_def(SAME_TENSOR)
    cap = prop_def(FloatAttr.constr(f64))
    result = result_def(SAME_TENSOR)
    traits = traits_def(Pure())
    assembly_format = "$x `by` $cap attr-dict `:` type($x)"

    def __init__(self, x: SSAValue, cap: float) -> None:
        super().__init__(operands=[x], properties={"cap": FloatAttr(cap, f64)}, result_types=[x.type])

    def verify_(self) -> None:
        if self.cap.value.data <= 0:
            raise VerifyException(f"'cap': found {self.cap.value.data}, expected a positive number")
        assert isinstance(self.x.type, TensorType)
        if self.x.type.element_type != f32:
            raise VerifyException(f"operand 'x': found elements of {self.x.type.element_type}, expected f32")


Softcap = Dialect("softcap", [CapOp])
