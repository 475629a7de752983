"""ATen rules of reductions, softmax and norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg
from .elementwise import result_element, truth
from .emitter import Emitter, element_of_dtype
from .rules import aten_rule
from .shaping import positive, shape_of, triangle_of_ones

if TYPE_CHECKING:
    from torch.fx import Node

Dims = Sequence[int] | int | None


def reduced(e: Emitter, kind: tg.Reduction, x: SSAValue, dims: Dims) -> SSAValue:
    """``kind`` over ``dims`` (all if there are none), which are dropped; what is left of rank 0 has one element."""
    shape = tg.shape_of(x)
    rank = len(shape)
    listed = [dims] if isinstance(dims, int) else list(dims or range(rank))
    for dim in sorted({positive(dim, rank) for dim in listed}, reverse=True):
        if len(tg.shape_of(x)) == 1:
            x = e.reshape(x, (1, *tg.shape_of(x)))
            dim += 1
        x = e.emit(tg.ReduceOp(kind, x, dim))
    return x


def _whole(e: Emitter, node: Node, x: SSAValue, kind: tg.Reduction, dims: Dims) -> SSAValue:
    """Reduced in f32, as PyTorch accumulates, and shaped as it says."""
    element = result_element(node)
    value = reduced(e, kind, e.cast(x, f32), dims)
    return e.cast(e.reshape(value, shape_of(node)), element)


@aten_rule("sum.dim_IntList", "sum.default")
def total(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False, **_: Any) -> SSAValue:
    """Sums; of integers exact up to 2^24."""
    return _whole(e, node, x, tg.Reduction.SUM, dims)


@aten_rule("mean.dim", "mean.default")
def mean(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False, **_: Any) -> SSAValue:
    """Means."""
    return _whole(e, node, x, tg.Reduction.MEAN, dims)


@aten_rule("amax.default", "max.default")
def amax(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False) -> SSAValue:
    """The largest."""
    return _whole(e, node, x, tg.Reduction.MAX, dims)


@aten_rule("amin.default", "min.default")
def amin(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False) -> SSAValue:
    """The smallest."""
    return _whole(e, node, x, tg.Reduction.MIN, dims)


@aten_rule("any.dim", "any.dims", "any.default")
def any_(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False) -> SSAValue:
    """1 where one of them is not zero."""
    return _whole(e, node, truth(e, x), tg.Reduction.MAX, dims)


@aten_rule("all.dim", "all.dims", "all.default")
def all_(e: Emitter, node: Node, x: SSAValue, dims: Dims = None, keepdim: bool = False) -> SSAValue:
    """1 where none of them is zero."""
    return _whole(e, node, truth(e, x), tg.Reduction.MIN, dims)


@aten_rule("var.correction", "var.dim")
def variance(
    e: Emitter, node: Node, x: SSAValue, dims: Dims = None, correction: float | None = 1, keepdim: bool = False
) -> SSAValue:
    """The mean square of what is left when the mean is taken off, over count - correction."""
    return e.cast(e.reshape(_variance(e, x, dims, correction)[0], shape_of(node)), result_element(node))


@aten_rule("var_mean.correction")
def variance_and_mean(
    e: Emitter, node: Node, x: SSAValue, dims: Dims = None, correction: float | None = 1, keepdim: bool = False
) -> list[SSAValue]:
    """Both."""
    values = node.meta["val"]
    both = _variance(e, x, dims, correction)
    return [
        e.cast(e.reshape(value, tuple(like.shape)), tg.element_of(x)) for value, like in zip(both, values, strict=True)
    ]


def _variance(e: Emitter, x: SSAValue, dims: Dims, correction: float | None) -> tuple[SSAValue, SSAValue]:
    shape, wide = tg.shape_of(x), e.cast(x, f32)
    listed = [dims] if isinstance(dims, int) else list(dims or range(len(shape)))
    axes = {positive(dim, len(shape)) for dim in listed}
    kept = [1 if dim in axes else size for dim, size in enumerate(shape)]
    count = 1
    for axis in axes:
        count *= shape[axis]
    mean = reduced(e, tg.Reduction.MEAN, wide, sorted(axes))
    centred = e.emit(tg.SubOp(wide, e.reshape(mean, kept)))
    squares = reduced(e, tg.Reduction.SUM, e.emit(tg.MulOp(centred, centred)), sorted(axes))
    return e.binary(tg.DivOp, squares, float(count - (1 if correction is None else correction)), f32), mean


@aten_rule("_softmax.default", "softmax.int")
def softmax(e: Emitter, node: Node, x: SSAValue, dim: int, *_: Any, **__: Any) -> SSAValue:
    """In f32."""
    value = e.cast(x, result_element(node))
    return e.emit(tg.SoftmaxOp(value, positive(dim, len(tg.shape_of(x)))))


@aten_rule("_log_softmax.default", "log_softmax.int")
def log_softmax(e: Emitter, node: Node, x: SSAValue, dim: int, *_: Any, **__: Any) -> SSAValue:
    """x - max - log(sum(exp(x - max)))."""
    shape, wide = tg.shape_of(x), e.cast(x, f32)
    axis = positive(dim, len(shape))
    kept = [1 if other == axis else size for other, size in enumerate(shape)]
    largest = e.reshape(reduced(e, tg.Reduction.MAX, wide, axis), kept)
    shifted = e.emit(tg.SubOp(wide, largest))
    powers = reduced(e, tg.Reduction.SUM, e.emit(tg.ExpOp(shifted)), axis)
    result = e.emit(tg.SubOp(shifted, e.reshape(e.emit(tg.LogOp(powers)), kept)))
    return e.cast(result, result_element(node))


@aten_rule("native_layer_norm.default")
def native_layer_norm(e: Emitter, node: Node, x: SSAValue, normalized: Sequence[int], *affine: Any) -> list[SSAValue]:
    """The normed value, the mean, and the scale 1 / sqrt(variance + eps); ``affine`` is weight, bias, eps."""
    _, mean, scale = node.meta["val"]
    rank = len(tg.shape_of(x))
    variance, middle = _variance(e, x, list(range(rank - len(normalized), rank)), correction=0)
    made = e.emit(tg.RsqrtOp(e.binary(tg.AddOp, variance, affine[2], f32)))
    return [
        layer_norm(e, node, x, normalized, *affine),
        *(
            e.cast(e.reshape(one, like.shape), element_of_dtype(like.dtype))
            for one, like in ((middle, mean), (made, scale))
        ),
    ]


@aten_rule("layer_norm.default")
def layer_norm(e: Emitter, node: Node, x: SSAValue, normalized: Sequence[int], *affine: Any) -> SSAValue:
    """Over the last dimensions; ``affine`` is weight, bias and eps, as far as given."""
    given: list[Any] = [*affine[:3], *(None, None, 1e-5)[len(affine) :]]
    weight, bias, eps = given
    shape, element = tg.shape_of(x), tg.element_of(x)
    width = _count(normalized)
    vectors: list[SSAValue] = []
    for value, number in ((weight, 1.0), (bias, 0.0)):
        vector = e.constant(number, element) if value is None else e.reshape(e.cast(value, element), (width,))
        vectors.append(e.broadcast(vector, (width,)))
    flat = e.reshape(x, (*shape[: len(shape) - len(normalized)], width))
    return e.reshape(e.emit(tg.LayerNormOp(flat, vectors[0], vectors[1], eps)), shape)


@aten_rule("argmax.default")
def argmax(e: Emitter, node: Node, x: SSAValue, dim: int | None = None, keepdim: bool = False) -> SSAValue:
    """The first of equal ones."""
    shape = tg.shape_of(x)
    if dim is None:
        flat = e.reshape(x, (1, -1 if not shape else _count(shape)))
    else:
        axis = positive(dim, len(shape))
        order = [d for d in range(len(shape)) if d != axis] + [axis]
        moved = e.transpose(x, order)
        flat = e.reshape(moved, (_count(shape) // shape[axis], shape[axis]))
    return e.reshape(e.emit(tg.ArgmaxOp(e.cast(flat, f32))), shape_of(node))


def _count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


@aten_rule("cumsum.default")
def cumsum(e: Emitter, node: Node, x: SSAValue, dim: int, **_: Any) -> SSAValue:
    """A product with a triangle of ones; of integers exact up to 2^24."""
    shape = tg.shape_of(x)
    axis = positive(dim, len(shape))
    size = shape[axis]
    if size > 1024:
        raise UnsupportedError(f"cumsum along {size} elements: at most 1024")
    order = [d for d in range(len(shape)) if d != axis] + [axis]
    flat = e.reshape(e.transpose(e.cast(x, f32), order), (_count(shape) // size, size))
    summed = e.emit(tg.MatmulOp(flat, triangle_of_ones(e, size)))
    moved = e.reshape(summed, [shape[d] for d in order])
    inverse = [order.index(d) for d in range(len(shape))]
    return e.cast(e.transpose(moved, inverse), result_element(node))
