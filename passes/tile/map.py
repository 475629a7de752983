"""Tile rules of elementwise ops: chains of them become one `map`, and its operands may be strided and broadcast."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.builtin import i32
from xdsl.ir import Operation, SSAValue

from ...core.memory import Space
from ...dialects import tg
from ...dialects.sm import BufferOp
from ...tasks.expression import Expression, literal
from ...tasks.map import MAX_INPUTS, Map, MapParams
from .builder import GraphBuilder, View, tensor_shape
from .strided import Blocks, Placed, blocks_of, dtype_name, operand, written

NAMES: dict[type[Operation], str] = {
    tg.AddOp: "add",
    tg.SubOp: "sub",
    tg.MulOp: "mul",
    tg.DivOp: "div",
    tg.MaximumOp: "maximum",
    tg.MinimumOp: "minimum",
    tg.PowOp: "pow",
    tg.RemainderOp: "remainder",
    tg.NegOp: "neg",
    tg.ExpOp: "exp",
    tg.RsqrtOp: "rsqrt",
    tg.SigmoidOp: "sigmoid",
    tg.TanhOp: "tanh",
    tg.SqrtOp: "sqrt",
    tg.LogOp: "log",
    tg.SinOp: "sin",
    tg.CosOp: "cos",
    tg.ErfOp: "erf",
    tg.AbsOp: "abs",
    tg.FloorOp: "floor",
    tg.CeilOp: "ceil",
    tg.SiluOp: "silu",
    tg.GeluOp: "gelu",
    tg.SiluMulOp: "silu",
    tg.GeluMulOp: "gelu",
    tg.CompareOp: "compare",
    tg.SelectOp: "select",
    tg.CastOp: "cast",
}
"""The ops that run as `map`, and the function of `tasks.expression` that each is."""


def tile_map(op: Operation, builder: GraphBuilder) -> None:
    """The op alone, or nothing yet if its only user will compute it in passing."""
    value = op.results[0]
    if _joins_user(op, builder):
        builder.deferred[value] = lambda: _emit(op, builder)
    else:
        _emit(op, builder)


def copy_into(builder: GraphBuilder) -> Callable[[SSAValue, View], None]:
    """A function that copies a value into memory that is there."""

    def copy(value: SSAValue, target: View) -> None:
        blocks = blocks_of(target, builder.target)
        y = written("y", target, blocks, dtype_name(value))
        _grid("copy", Expression("in0"), [operand("in0", value, blocks, builder), y], blocks, builder)

    return copy


def _emit(op: Operation, builder: GraphBuilder) -> None:
    value = op.results[0]
    leaves: dict[SSAValue, None] = {}
    expression = _expression(op, leaves, builder)
    name = builder.unique(NAMES[type(op)])
    view = builder.strided_result(value, f"{name}.out")
    blocks = blocks_of(view, builder.target)
    y = written("y", view, blocks, dtype_name(value))
    inputs = [operand(f"in{k}", leaf, blocks, builder) for k, leaf in enumerate(leaves)]
    _grid(name, expression, [*inputs, y], blocks, builder)


def _grid(name: str, expression: Expression, operands: list[Placed], blocks: Blocks, builder: GraphBuilder) -> None:
    params = MapParams(**blocks.params(operands), expression=str(expression))
    builder.grid(name, Map(), params, blocks.extent, [one.operand for one in operands])


def _joins_user(op: Operation, builder: GraphBuilder) -> bool:
    """Whether the only user of the result is an elementwise op of the same shape that has room for its operands."""
    value = op.results[0]
    uses = list(value.uses)
    if len(uses) != 1 or value in builder.views or type(user := uses[0].operation) not in NAMES:
        return False
    if tensor_shape(user.results[0]) != tensor_shape(value) or len(set(user.operands)) != len(user.operands):
        return False
    leaves = _leaves(op, builder)
    return len(leaves) <= MAX_INPUTS // len(user.operands) and not any(_may_change(leaf, builder) for leaf in leaves)


def _leaves(op: Operation, builder: GraphBuilder) -> list[SSAValue]:
    """The operands of ``op`` that are read from memory, looking through those it computes in passing."""
    leaves: list[SSAValue] = []
    for value in op.operands:
        if value in builder.deferred and isinstance(value.owner, Operation):
            leaves += _leaves(value.owner, builder)
        elif _number(value) is None:
            leaves.append(value)
    return leaves


def _may_change(leaf: SSAValue, builder: GraphBuilder) -> bool:
    """A state may be overwritten between an op and its user."""
    owner = builder.strided(leaf).buffer.owner
    return isinstance(owner, BufferOp) and owner.space.data is Space.STATE


def _expression(op: Operation, leaves: dict[SSAValue, None], builder: GraphBuilder) -> Expression:
    return _applied(op, [_value(value, leaves, builder) for value in op.operands])


def _value(value: SSAValue, leaves: dict[SSAValue, None], builder: GraphBuilder) -> Expression:
    if value in builder.deferred and isinstance(value.owner, Operation):
        del builder.deferred[value]
        return _expression(value.owner, leaves, builder)
    if (number := _number(value)) is not None:
        return literal(number)
    leaves.setdefault(value)
    return Expression(f"in{list(leaves).index(value)}")


def _number(value: SSAValue) -> float | int | None:
    """The number that a constant of one element is."""
    if not isinstance(value.owner, tg.ConstantOp) or value.owner.array.size != 1:
        return None
    number = value.owner.array.item()
    return int(number) if tg.element_of(value) == i32 else float(number)


def _applied(op: Operation, operands: list[Expression]) -> Expression:
    match op:
        case tg.CompareOp():
            return Expression(str(op.predicate.data), tuple(operands))
        case tg.GeluOp():
            return Expression("gelu" if op.approximate is None else "gelu_tanh", tuple(operands))
        case tg.SiluMulOp():
            return Expression("mul", (Expression("silu", (operands[0],)), operands[1]))
        case tg.GeluMulOp():
            name = "gelu" if op.approximate is None else "gelu_tanh"
            return Expression("mul", (Expression(name, (operands[0],)), operands[1]))
        case tg.CastOp():
            before, after = tg.element_of(op.x) == i32, tg.element_of(op.result) == i32
            return operands[0] if before == after else Expression("to_int" if after else "to_float", tuple(operands))
        case _:
            return Expression(NAMES[type(op)], tuple(operands))
