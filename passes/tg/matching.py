"""What raising patterns look through: casts between floats, reshapes, the order of operands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from xdsl.dialects.builtin import i32
from xdsl.ir import Operation, SSAValue

from ...dialects import tg

T = TypeVar("T", bound=Operation)


def uncast(value: SSAValue) -> SSAValue:
    """``value`` before any casts between float types."""
    while isinstance(cast := value.owner, tg.CastOp) and i32 not in (tg.element_of(cast.x), tg.element_of(value)):
        value = cast.x
    return value


def unshaped(value: SSAValue) -> SSAValue:
    """``value`` before any casts, reshapes and broadcasts."""
    while True:
        value = uncast(value)
        if not isinstance(owner := value.owner, tg.ReshapeOp | tg.BroadcastOp):
            return value
        value = owner.x


def made_by(value: SSAValue, kind: type[T]) -> T | None:
    """The op of ``kind`` that made ``value``."""
    return value.owner if isinstance(value.owner, kind) else None


def either_order(op: tg.BinaryOp) -> Iterator[tuple[SSAValue, SSAValue]]:
    """The operands of a commutative op, both ways."""
    yield op.lhs, op.rhs
    yield op.rhs, op.lhs


def number_of(value: SSAValue) -> float | None:
    """The number that ``value`` is everywhere."""
    constant = made_by(unshaped(value), tg.ConstantOp)
    if constant is None or constant.array.size == 0:
        return None
    first = constant.array.flat[0]
    return float(str(first)) if (constant.array == first).all() else None  # 1e-6, not the float32 nearest to it


def scaled(value: SSAValue) -> tuple[SSAValue, float]:
    """``value`` as something times a number, looking through casts."""
    factor = 1.0
    while True:
        value = uncast(value)
        match value.owner:
            case tg.MulOp() as product:
                found = [(x, n) for x, other in either_order(product) if (n := number_of(other)) is not None]
                if not found:
                    return value, factor
                value, factor = found[0][0], factor * found[0][1]
            case tg.DivOp() as quotient if (n := number_of(quotient.rhs)) is not None:
                value, factor = quotient.lhs, factor / n
            case _:
                return value, factor
