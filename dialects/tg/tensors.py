"""Tensor types `tg` accepts, as constraints, and short names for building them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    DenseArrayBase,
    Float16Type,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    NoneAttr,
    StaticShapeArrayConstr,
    TensorType,
    bf16,
    f16,
    f32,
    f64,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import AttrConstraint, ParamAttrConstraint, eq
from xdsl.utils.exceptions import VerifyException

from ...core.dtype import DType, dtype_of

Shape: TypeAlias = tuple[int, ...]
ElementType: TypeAlias = BFloat16Type | Float16Type | Float32Type | IntegerType
Tensor: TypeAlias = TensorType[Attribute]

FLOAT_ELEMENT = eq(bf16) | eq(f16) | eq(f32)
ELEMENT = FLOAT_ELEMENT | eq(i32)


def tensor_of(element: AttrConstraint) -> AttrConstraint:
    """Ranked tensors of static shape without encoding, whose element type satisfies ``element``."""
    return ParamAttrConstraint(TensorType, (StaticShapeArrayConstr, element, eq(NoneAttr())))


ANY_TENSOR = tensor_of(ELEMENT)
FLOAT_TENSOR = tensor_of(FLOAT_ELEMENT)
F32_TENSOR = tensor_of(eq(f32))
I32_TENSOR = tensor_of(eq(i32))

INT_LIST = DenseArrayBase.constr(i64)


def int64(value: int) -> IntegerAttr[IntegerType]:
    """An i64 attribute."""
    return IntegerAttr(value, i64)


def float64(value: float) -> FloatAttr[AnyFloat]:
    """An f64 attribute."""
    return FloatAttr(value, f64)


def int64s(values: Sequence[int]) -> DenseArrayBase[IntegerType]:
    """A list of i64, `array<i64: 1, 2>`."""
    return DenseArrayBase.from_list(i64, list(values))


def int_list(array: DenseArrayBase[IntegerType]) -> Shape:
    """The numbers of an `array<i64: ...>`."""
    return tuple(array.get_values())


def tensor(shape: Sequence[int], element: Attribute) -> Tensor:
    """The type `tensor<shape x element>`."""
    return TensorType(element, shape)


def type_of(value: SSAValue) -> Tensor:
    """The tensor type of ``value``. Raises VerifyException if it is no tensor."""
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"found a value of type {value.type}, expected a tensor")
    return value.type  # pyright: ignore[reportUnknownVariableType]


def shape_of(value: SSAValue) -> Shape:
    """The shape of a tensor value. Raises VerifyException for another value."""
    return type_of(value).get_shape()


def element_of(value: SSAValue) -> Attribute:
    """The element type of a tensor value. Raises VerifyException for another value."""
    return type_of(value).element_type


def dtype_of_type(element: Attribute) -> DType:
    """Our dtype of a builtin element type. Raises UnsupportedError for one we do not know."""
    return dtype_of(str(element))


def element_type(dtype: DType) -> Attribute:
    """The builtin element type of one of our dtypes."""
    return {"bf16": bf16, "f16": f16, "f32": f32, "i32": i32}[dtype.name]
