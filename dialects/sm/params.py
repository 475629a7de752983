"""Task parameters as attributes and back: int, float, bool, str and tuples of int."""

from __future__ import annotations

from typing import Any

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    DictionaryAttr,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    i64,
)
from xdsl.ir import Attribute

from ...core.errors import PlanError
from ...tasks.base import Params


def value_to_attr(value: Any) -> Attribute:
    """A plain Python value as an attribute. Raises PlanError for other types."""
    match value:
        case bool():
            return BoolAttr.from_bool(value)
        case int():
            return IntegerAttr(value, i64)
        case float():
            return FloatAttr(value, Float64Type())
        case str():
            return StringAttr(value)
        case tuple() | list():
            return ArrayAttr([value_to_attr(item) for item in value])
        case _:
            raise PlanError(f"a task parameter must be int, float, bool, str or a tuple of them, found {value!r}")


def value_from_attr(attribute: Attribute) -> Any:
    """The inverse of ``value_to_attr``."""
    match attribute:
        case IntegerAttr():
            is_bool = isinstance(attribute.type, IntegerType) and attribute.type.width.data == 1
            return bool(attribute.value.data) if is_bool else attribute.value.data
        case FloatAttr():
            return attribute.value.data
        case StringAttr():
            return attribute.data
        case ArrayAttr():
            return tuple(value_from_attr(item) for item in attribute)
        case _:
            raise PlanError(f"not a task parameter: {attribute}")


def params_to_attr(params: Params) -> DictionaryAttr:
    """Task parameters as a dictionary attribute."""
    return DictionaryAttr({key: value_to_attr(value) for key, value in params.as_dict().items()})


def params_from_attr(params: DictionaryAttr) -> dict[str, Any]:
    """The inverse of ``params_to_attr``, before a task kind checks the names."""
    return {key: value_from_attr(value) for key, value in params.data.items()}
