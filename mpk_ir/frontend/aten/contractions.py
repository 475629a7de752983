"""ATen rules of matrix products. A product with a parameter is a linear, whose weight is never copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdsl.ir import SSAValue

from ...dialects import tg
from .elementwise import result_element
from .emitter import Emitter
from .rules import aten_rule
from .shaping import shape_of

if TYPE_CHECKING:
    from torch.fx import Node


@aten_rule("mm.default")
def mm(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """[M, K] by [K, N]."""
    weight = _linear_weight(rhs)
    if weight is not None:
        return e.emit(tg.LinearOp(lhs, weight))
    return _product(e, lhs, rhs)


def _product(e: Emitter, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """[..., M, K] by [..., K, N]. Sums of one product, as of positions by frequencies, are products of elements."""
    if tg.shape_of(lhs)[-1] == 1:
        return e.binary(tg.MulOp, lhs, rhs, tg.element_of(lhs))
    return e.emit(tg.MatmulOp(lhs, rhs))


def _linear_weight(rhs: SSAValue) -> SSAValue | None:
    """The parameter [N, K] that ``rhs`` [K, N] is the transpose of."""
    transpose = rhs.owner
    if isinstance(transpose, tg.TransposeOp) and transpose.order == (1, 0):
        return transpose.x if isinstance(transpose.x.owner, tg.ParamOp) else None
    return None


@aten_rule("addmm.default")
def addmm(e: Emitter, node: Node, bias: SSAValue, lhs: SSAValue, rhs: SSAValue, **factors: float) -> SSAValue:
    """Beta * bias + alpha * product."""
    beta, alpha = factors.get("beta", 1), factors.get("alpha", 1)
    weight = _linear_weight(rhs)
    plain = beta == 1 and alpha == 1
    if weight is not None and plain and tg.shape_of(bias) == tg.shape_of(weight)[:1]:
        return e.emit(tg.LinearOp(lhs, weight, bias))
    element = result_element(node)
    product = mm(e, node, lhs, rhs)
    scaled = product if alpha == 1 else e.binary(tg.MulOp, product, alpha, element)
    added = bias if beta == 1 else e.binary(tg.MulOp, bias, beta, element)
    return e.binary(tg.AddOp, scaled, added, element)


@aten_rule("bmm.default")
def bmm(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """[B, M, K] by [B, K, N]."""
    return _product(e, lhs, rhs)


@aten_rule("baddbmm.default")
def baddbmm(e: Emitter, node: Node, x: SSAValue, lhs: SSAValue, rhs: SSAValue, **factors: float) -> SSAValue:
    """Beta * x + alpha * product."""
    beta, alpha = factors.get("beta", 1), factors.get("alpha", 1)
    element = result_element(node)
    product = _product(e, lhs, rhs)
    scaled = product if alpha == 1 else e.binary(tg.MulOp, product, alpha, element)
    if beta == 0:
        return scaled
    return e.binary(tg.AddOp, scaled, x if beta == 1 else e.binary(tg.MulOp, x, beta, element), element)


@aten_rule("linear.default")
def linear(e: Emitter, node: Node, x: SSAValue, weight: SSAValue, bias: SSAValue | None = None) -> SSAValue:
    """Rows of any leading shape."""
    shape = tg.shape_of(x)
    rows = 1
    for size in shape[:-1]:
        rows *= size
    flat = e.reshape(x, (rows, shape[-1]))
    return e.reshape(e.emit(tg.LinearOp(flat, weight, bias)), shape_of(node))


@aten_rule("mv.default", "dot.default")
def vector_product(e: Emitter, node: Node, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """A matrix or vector by a vector."""
    left = e.reshape(lhs, (1, *tg.shape_of(lhs))) if len(tg.shape_of(lhs)) == 1 else lhs
    product = e.emit(tg.MatmulOp(left, e.reshape(rhs, (*tg.shape_of(rhs), 1))))
    return e.reshape(product, shape_of(node))
