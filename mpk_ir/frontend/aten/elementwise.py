"""ATen rules of elementwise ops: dtypes promote as PyTorch found, bool is 0 and 1 of i32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import i32
from xdsl.ir import Attribute, SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg
from .emitter import Emitter, Operand, element_of_dtype
from .rules import Rule, aten_rule

if TYPE_CHECKING:
    from torch.fx import Node


def result_element(node: Node) -> Attribute:
    """How `tg` holds the elements of the result."""
    return element_of_dtype(node.meta["val"].dtype)


def is_bool(node: Node) -> bool:
    """Whether the result is of truth values."""
    import torch

    return node.meta["val"].dtype is torch.bool


def _binary(kind: type[tg.BinaryOp]) -> Rule:
    def rule(e: Emitter, node: Node, lhs: Operand, rhs: Operand, *, alpha: float = 1, rounding_mode: Any = None) -> Any:
        element = result_element(node)
        if alpha != 1:
            rhs = e.binary(tg.MulOp, rhs, alpha, element)
        value = e.binary(kind, lhs, rhs, element)
        if rounding_mode is None:
            return value
        if element == i32:
            raise UnsupportedError(f"integer division with rounding_mode='{rounding_mode}'")
        return _rounded(e, value, rounding_mode)

    return rule


def _rounded(e: Emitter, value: SSAValue, mode: str) -> SSAValue:
    if mode == "floor":
        return e.emit(tg.FloorOp(value))
    whole = e.emit(tg.CastOp(value, i32))
    return e.emit(tg.CastOp(whole, tg.element_of(value)))


for _kind, _names in {
    tg.AddOp: ("add.Tensor", "add.Scalar"),
    tg.SubOp: ("sub.Tensor", "sub.Scalar"),
    tg.MulOp: ("mul.Tensor", "mul.Scalar"),
    tg.DivOp: ("div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode"),
    tg.MaximumOp: ("maximum.default",),
    tg.MinimumOp: ("minimum.default",),
    tg.PowOp: ("pow.Tensor_Tensor", "pow.Scalar"),
    tg.RemainderOp: ("remainder.Tensor", "remainder.Scalar"),
}.items():
    aten_rule(*_names)(_binary(_kind))


@aten_rule("rsub.Tensor", "rsub.Scalar")
def rsub(e: Emitter, node: Node, lhs: Operand, rhs: Operand, alpha: float = 1) -> SSAValue:
    """Rhs - alpha * lhs."""
    element = result_element(node)
    scaled = lhs if alpha == 1 else e.binary(tg.MulOp, lhs, alpha, element)
    return e.binary(tg.SubOp, rhs, scaled, element)


@aten_rule("pow.Tensor_Scalar")
def power(e: Emitter, node: Node, base: SSAValue, exponent: float) -> SSAValue:
    """Small whole powers are products, as PyTorch computes them."""
    element = result_element(node)
    x = e.cast(base, element)
    if exponent == 2:
        return e.emit(tg.MulOp(x, x))
    if exponent == 3:
        return e.emit(tg.MulOp(e.emit(tg.MulOp(x, x)), x))
    if exponent == 0.5:
        return e.emit(tg.SqrtOp(x))
    if exponent == -0.5:
        return e.emit(tg.RsqrtOp(x))
    return e.binary(tg.PowOp, x, exponent, element)


def _unary(kind: type[tg.UnaryOp]) -> Rule:
    def rule(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
        element = result_element(node)
        return e.emit(kind(e.cast(x, element)))

    return rule


for _unary_kind in (  # those that ATen calls as we do
    tg.ExpOp,
    tg.RsqrtOp,
    tg.SigmoidOp,
    tg.TanhOp,
    tg.SqrtOp,
    tg.LogOp,
    tg.SinOp,
    tg.CosOp,
    tg.ErfOp,
    tg.SiluOp,
):
    aten_rule(f"{_unary_kind.name.removeprefix('tg.')}.default")(_unary(_unary_kind))


def _on_floats(kind: type[tg.UnaryOp]) -> Rule:
    """Nothing to do for integers."""

    def rule(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
        return x if tg.element_of(x) == i32 else e.emit(kind(x))

    return rule


for _unary_kind, _name in {tg.FloorOp: "floor", tg.CeilOp: "ceil"}.items():
    aten_rule(f"{_name}.default")(_on_floats(_unary_kind))


@aten_rule("trunc.default")
def trunc(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """Toward zero: by the sign, so that large values stay what they are."""
    if tg.element_of(x) == i32:
        return x
    zero = e.constant(0.0, tg.element_of(x))
    negative = e.emit(tg.CompareOp(tg.Predicate.LT, x, zero))
    return e.emit(tg.SelectOp(negative, e.emit(tg.CeilOp(x)), e.emit(tg.FloorOp(x))))


@aten_rule("neg.default")
def negative(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """-x."""
    if tg.element_of(x) == i32:
        return e.binary(tg.SubOp, 0, x, i32)
    return e.emit(tg.NegOp(x))


@aten_rule("abs.default")
def absolute(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """|x|."""
    if tg.element_of(x) == i32:
        return e.emit(tg.MaximumOp(x, e.binary(tg.SubOp, 0, x, i32)))
    return e.emit(tg.AbsOp(x))


@aten_rule("reciprocal.default")
def reciprocal(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """1 / x."""
    return e.binary(tg.DivOp, 1.0, x, result_element(node))


@aten_rule("relu.default")
def relu(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """max(x, 0)."""
    return e.binary(tg.MaximumOp, x, 0, tg.element_of(x))


@aten_rule("leaky_relu.default")
def leaky_relu(e: Emitter, node: Node, x: SSAValue, slope: float = 0.01) -> SSAValue:
    """x, times the slope where it is negative."""
    element = tg.element_of(x)
    positive = e.emit(tg.CompareOp(tg.Predicate.GT, x, e.constant(0, element)))
    return e.emit(tg.SelectOp(positive, x, e.binary(tg.MulOp, x, slope, element)))


@aten_rule("elu.default")
def elu(e: Emitter, node: Node, x: SSAValue, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> SSAValue:
    """x where positive, else alpha (exp(x) - 1); both scaled."""
    element = tg.element_of(x)
    power = e.emit(tg.ExpOp(e.binary(tg.MulOp, x, input_scale, element)))
    below = e.binary(tg.MulOp, e.binary(tg.SubOp, power, 1, element), alpha * scale, element)
    positive = e.emit(tg.CompareOp(tg.Predicate.GT, x, e.constant(0, element)))
    return e.emit(tg.SelectOp(positive, e.binary(tg.MulOp, x, scale, element), below))


@aten_rule("hardtanh.default")
def hardtanh(e: Emitter, node: Node, x: SSAValue, least: float = -1, most: float = 1) -> SSAValue:
    """x kept between two numbers."""
    return clamp(e, node, x, least, most)


@aten_rule("gelu.default")
def gelu(e: Emitter, node: Node, x: SSAValue, approximate: str = "none") -> SSAValue:
    """Exact or by the tanh formula."""
    return e.emit(tg.GeluOp(x, approximate=approximate == "tanh"))


@aten_rule("clamp.default", "clamp.Tensor")
def clamp(
    e: Emitter, node: Node, x: SSAValue, least: Operand | None = None, most: Operand | None = None, **named: Any
) -> SSAValue:
    """x kept between two bounds, either of which may be missing."""
    least, most = named.get("min", least), named.get("max", most)
    element = result_element(node)
    value = e.cast(x, element)
    if least is not None:
        value = e.binary(tg.MaximumOp, value, least, element)
    return value if most is None else e.binary(tg.MinimumOp, value, most, element)


def _compare(predicate: tg.Predicate) -> Rule:
    def rule(e: Emitter, node: Node, lhs: SSAValue, rhs: Operand) -> SSAValue:
        element = _common(node, lhs, rhs)
        return e.emit(tg.CompareOp(predicate, e.typed(lhs, element), e.typed(rhs, element)))

    return rule


def _common(node: Node, lhs: SSAValue, rhs: Operand) -> Attribute:
    """The element type in which both are compared."""
    import torch

    values: list[Any] = [arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in node.args[:2]]
    return element_of_dtype(torch.result_type(values[0], values[1]))


for _predicate in tg.Predicate:
    aten_rule(f"{_predicate.value}.Tensor", f"{_predicate.value}.Scalar")(_compare(_predicate))


@aten_rule("logical_not.default")
def logical_not(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """1 where x is zero."""
    return e.emit(tg.CompareOp(tg.Predicate.EQ, x, e.constant(0, tg.element_of(x))))


def truth(e: Emitter, x: SSAValue) -> SSAValue:
    """1 where x is not zero."""
    return e.emit(tg.CompareOp(tg.Predicate.NE, x, e.constant(0, tg.element_of(x))))


@aten_rule("logical_and.default", "bitwise_and.Tensor")
def logical_and(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """Of truth values."""
    return e.emit(tg.MulOp(*_truths(e, node, lhs, rhs)))


@aten_rule("logical_or.default", "bitwise_or.Tensor")
def logical_or(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """Of truth values."""
    return e.emit(tg.MaximumOp(*_truths(e, node, lhs, rhs)))


@aten_rule("logical_xor.default", "bitwise_xor.Tensor")
def logical_xor(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """Of truth values."""
    return e.emit(tg.CompareOp(tg.Predicate.NE, *_truths(e, node, lhs, rhs)))


@aten_rule("bitwise_not.default")
def bitwise_not(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """Of truth values; of integers -1 - x."""
    return logical_not(e, node, x) if is_bool(node) else e.binary(tg.SubOp, -1, x, i32)


def _truths(e: Emitter, node: Node, *values: SSAValue) -> tuple[SSAValue, ...]:
    """Operands as 0 and 1, as those of dtype bool are already."""
    import torch

    if not is_bool(node):
        raise UnsupportedError("bit operations on integers")
    nodes = [argument for argument in node.args if isinstance(argument, torch.fx.Node)]
    return tuple(x if is_bool(one) else truth(e, x) for x, one in zip(values, nodes, strict=True))


@aten_rule("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(e: Emitter, node: Node, condition: SSAValue, lhs: Operand, rhs: Operand) -> SSAValue:
    """Lhs where the condition holds."""
    element = result_element(node)
    return e.emit(tg.SelectOp(condition, e.typed(lhs, element), e.typed(rhs, element)))


@aten_rule("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(e: Emitter, node: Node, x: SSAValue, mask: SSAValue, value: Operand) -> SSAValue:
    """The value where the mask holds, else x."""
    element = tg.element_of(x)
    return e.emit(tg.SelectOp(mask, e.typed(value, element), x))


@aten_rule("_to_copy.default", "to.dtype", "prims.convert_element_type.default")
def convert(e: Emitter, node: Node, x: SSAValue, dtype: Any = None, **_: Any) -> SSAValue:
    """To the result's dtype; to bool by truth."""
    if is_bool(node):
        return truth(e, x)
    return e.cast(x, result_element(node))


@aten_rule("log1p.default")
def log1p(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """log(1 + x)."""
    element = result_element(node)
    return e.emit(tg.LogOp(e.binary(tg.AddOp, x, 1.0, element)))


@aten_rule("expm1.default")
def expm1(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """exp(x) - 1."""
    element = result_element(node)
    return e.binary(tg.SubOp, e.emit(tg.ExpOp(e.cast(x, element))), 1.0, element)


@aten_rule("sign.default")
def sign(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """1, 0 or -1."""
    zero = e.constant(0, tg.element_of(x))
    above, below = (e.emit(tg.CompareOp(p, x, zero)) for p in (tg.Predicate.GT, tg.Predicate.LT))
    return e.cast(e.emit(tg.SubOp(above, below)), tg.element_of(x))


@aten_rule("isnan.default")
def isnan(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """x differs from itself."""
    return e.emit(tg.CompareOp(tg.Predicate.NE, x, x))


@aten_rule("addcmul.default")
def addcmul(e: Emitter, node: Node, x: SSAValue, lhs: SSAValue, rhs: SSAValue, value: float = 1) -> SSAValue:
    """x + value * lhs * rhs."""
    element = result_element(node)
    product = e.binary(tg.MulOp, lhs, rhs, element)
    return e.binary(tg.AddOp, x, product if value == 1 else e.binary(tg.MulOp, product, value, element), element)
