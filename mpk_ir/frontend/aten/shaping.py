"""ATen rules of views, copies and constructors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg
from .elementwise import result_element
from .emitter import Emitter
from .rules import aten_rule

if TYPE_CHECKING:
    from torch.fx import Node

MOST_CONSTANT_ELEMENTS = 1 << 16


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape that PyTorch found for the result."""
    return tuple(int(size) for size in node.meta["val"].shape)


def positive(dim: int, rank: int) -> int:
    """``dim`` counted from the front."""
    return dim + max(rank, 1) if dim < 0 else dim


@aten_rule(
    "view.default", "reshape.default", "_unsafe_view.default", "unsqueeze.default", "squeeze.dim", "squeeze.dims",
    "squeeze.default", "flatten.using_ints", "unflatten.int",
)  # fmt: skip
def view(e: Emitter, node: Node, x: SSAValue, *_: Any, **__: Any) -> SSAValue:
    """The same elements under the shape that PyTorch found."""
    return e.reshape(x, shape_of(node))


@aten_rule(
    "clone.default", "alias.default", "detach.default", "contiguous.default", "lift_fresh_copy.default",
    "_assert_tensor_metadata.default", "dropout.default",
)  # fmt: skip
def same(e: Emitter, node: Node, x: SSAValue, *_: Any, **__: Any) -> SSAValue:
    """Values are never overwritten: a copy is the value itself."""
    return x


@aten_rule("copy.default")
def copy(e: Emitter, node: Node, x: SSAValue, source: SSAValue, non_blocking: bool = False) -> SSAValue:
    """The source, as what it replaces."""
    return e.broadcast(e.cast(source, tg.element_of(x)), tg.shape_of(x))


@aten_rule("expand.default")
def expand(e: Emitter, node: Node, x: SSAValue, *_: Any, **__: Any) -> SSAValue:
    """Repeated without a copy."""
    return e.broadcast(x, shape_of(node))


@aten_rule("permute.default")
def permute(e: Emitter, node: Node, x: SSAValue, dims: Sequence[int]) -> SSAValue:
    """Dimensions in another order."""
    return e.transpose(x, [positive(dim, len(dims)) for dim in dims]) if dims else x


@aten_rule("transpose.int")
def transpose(e: Emitter, node: Node, x: SSAValue, first: int, second: int) -> SSAValue:
    """Two dimensions swapped."""
    rank = len(tg.shape_of(x))
    order = list(range(rank))
    a, b = positive(first, rank), positive(second, rank)
    order[a], order[b] = order[b], order[a]
    return e.transpose(x, order)


@aten_rule("t.default")
def t(e: Emitter, node: Node, x: SSAValue) -> SSAValue:
    """The transpose of a matrix."""
    return e.transpose(x, (1, 0)) if len(tg.shape_of(x)) == 2 else x


@aten_rule("slice.Tensor")
def slice_(e: Emitter, node: Node, x: SSAValue, dim: int = 0, *ends: int | None) -> SSAValue:
    """A range of one dimension; with a step, one of each group of so many."""
    start, end, step = (*ends, *(None,) * (3 - len(ends)))
    step = step or 1
    shape = list(tg.shape_of(x))
    dim = positive(dim, len(shape))
    begin, stop, _ = slice(start, end).indices(shape[dim])
    if step == 1:
        return box(e, x, dim, begin, stop - begin)
    count = -(-(stop - begin) // step)
    if count == 1:
        return box(e, x, dim, begin, 1)
    if shape[dim] % step == 0:
        grouped = e.reshape(x, [*shape[:dim], shape[dim] // step, step, *shape[dim + 1 :]])
        return e.reshape(box(e, box(e, grouped, dim, begin // step, count), dim + 1, begin % step, 1), shape_of(node))
    if begin + count * step <= shape[dim]:
        whole = box(e, x, dim, begin, count * step)
        grouped = e.reshape(whole, [*shape[:dim], count, step, *shape[dim + 1 :]])
        return e.reshape(box(e, grouped, dim + 1, 0, 1), shape_of(node))
    first = box(e, x, dim, begin, (count - 1) * step)
    grouped = e.reshape(first, [*shape[:dim], count - 1, step, *shape[dim + 1 :]])
    lead = e.reshape(box(e, grouped, dim + 1, 0, 1), [*shape[:dim], count - 1, *shape[dim + 1 :]])
    return e.emit(tg.ConcatOp([lead, box(e, x, dim, begin + (count - 1) * step, 1)], dim))


def box(e: Emitter, x: SSAValue, dim: int, begin: int, size: int) -> SSAValue:
    """``size`` slices of dimension ``dim`` from ``begin`` on."""
    shape = list(tg.shape_of(x))
    if size == shape[dim]:
        return x
    offsets = [begin if axis == dim else 0 for axis in range(len(shape))]
    shape[dim] = size
    return e.emit(tg.SliceOp(x, offsets, shape))


@aten_rule("select.int")
def select(e: Emitter, node: Node, x: SSAValue, dim: int, index: int) -> SSAValue:
    """One slice, its dimension dropped."""
    shape = tg.shape_of(x)
    dim = positive(dim, len(shape))
    return e.reshape(box(e, x, dim, positive(index, shape[dim]), 1), shape_of(node))


@aten_rule("split_with_sizes.default")
def split_with_sizes(e: Emitter, node: Node, x: SSAValue, sizes: Sequence[int], dim: int = 0) -> list[SSAValue]:
    """Parts of the sizes given."""
    dim = positive(dim, len(tg.shape_of(x)))
    begins = np.cumsum([0, *sizes]).tolist()
    return [box(e, x, dim, begin, size) for begin, size in zip(begins, sizes, strict=False)]


@aten_rule("split.Tensor")
def split(e: Emitter, node: Node, x: SSAValue, size: int, dim: int = 0) -> list[SSAValue]:
    """Parts of one size, the last perhaps smaller."""
    extent = tg.shape_of(x)[positive(dim, len(tg.shape_of(x)))]
    sizes = [min(size, extent - begin) for begin in range(0, extent, size)]
    return split_with_sizes(e, node, x, sizes, dim)


@aten_rule("unbind.int")
def unbind(e: Emitter, node: Node, x: SSAValue, dim: int = 0) -> list[SSAValue]:
    """Each slice, its dimension dropped."""
    shape = tg.shape_of(x)
    dim = positive(dim, len(shape))
    rest = [*shape[:dim], *shape[dim + 1 :]]
    return [e.reshape(box(e, x, dim, index, 1), rest) for index in range(shape[dim])]


@aten_rule("cat.default")
def cat(e: Emitter, node: Node, parts: Sequence[SSAValue], dim: int = 0) -> SSAValue:
    """One after another; empty parts of rank 1 do not count."""
    element = result_element(node)
    cast = [e.cast(part, element) for part in parts]
    return e.emit(tg.ConcatOp(cast, positive(dim, len(tg.shape_of(cast[0]))))) if len(cast) > 1 else cast[0]


@aten_rule("stack.default")
def stack(e: Emitter, node: Node, parts: Sequence[SSAValue], dim: int = 0) -> SSAValue:
    """Along a new dimension."""
    shape = list(shape_of(node))
    dim = positive(dim, len(shape))
    shape[dim] = 1
    return cat(e, node, [e.reshape(part, shape) for part in parts], dim)


@aten_rule("repeat.default")
def repeat(e: Emitter, node: Node, x: SSAValue, counts: Sequence[int]) -> SSAValue:
    """Tiled: each dimension becomes (count, size)."""
    if not counts:
        return x
    shape = (1,) * (len(counts) - len(tg.shape_of(x))) + tg.shape_of(x)
    wide = e.reshape(x, [size for extent in shape for size in (1, extent)])
    grown = [size for count, extent in zip(counts, shape, strict=True) for size in (count, extent)]
    return e.reshape(e.broadcast(wide, grown), shape_of(node))


@aten_rule("constant_pad_nd.default")
def pad(e: Emitter, node: Node, x: SSAValue, widths: Sequence[int], value: float = 0) -> SSAValue:
    """A constant before and after each dimension, the last one first."""
    rank = len(tg.shape_of(x))
    for pair in range(len(widths) // 2):
        dim, (before, after) = rank - 1 - pair, widths[2 * pair : 2 * pair + 2]
        extent = tg.shape_of(x)[dim]
        x = box(e, x, dim, max(0, -before), extent - max(0, -before) - max(0, -after))
        parts = [_filled(e, x, dim, before, value), x, _filled(e, x, dim, after, value)]
        kept = [part for part in parts if part is not None]
        x = e.emit(tg.ConcatOp(kept, dim)) if len(kept) > 1 else x
    return x


def _filled(e: Emitter, like: SSAValue, dim: int, size: int, value: float) -> SSAValue | None:
    if size <= 0:
        return None
    shape = list(tg.shape_of(like))
    shape[dim] = size
    return e.broadcast(e.constant(value, tg.element_of(like)), shape)


@aten_rule(
    "full.default", "full_like.default", "scalar_tensor.default", "zeros.default", "ones.default",
    "zeros_like.default", "ones_like.default", "new_zeros.default", "new_ones.default", "new_full.default",
)  # fmt: skip
def full(e: Emitter, node: Node, *args: Any, **_: Any) -> SSAValue:
    """One number everywhere."""
    name = str(node.target)
    value = 0 if "zeros" in name else 1 if "ones" in name else args[0] if "scalar_tensor" in name else args[-1]
    if not isinstance(value, bool | int | float):
        raise UnsupportedError("a constructor whose number is computed")
    return e.broadcast(e.constant(value, result_element(node)), shape_of(node))


@aten_rule("arange.start_step", "arange.default", "arange.start")
def arange(e: Emitter, node: Node, *args: int, **_: Any) -> SSAValue:
    """A constant."""
    begin, step = (args[0] if len(args) > 1 else 0), (args[2] if len(args) > 2 else 1)
    (count,) = shape_of(node)
    if count > MOST_CONSTANT_ELEMENTS:
        raise UnsupportedError(f"a range of {count} numbers: constants hold at most {MOST_CONSTANT_ELEMENTS}")
    return e.constant(begin + step * np.arange(count), result_element(node))


@aten_rule("triu.default", "tril.default")
def triangle(e: Emitter, node: Node, x: SSAValue, diagonal: int = 0) -> SSAValue:
    """Zero below or above a diagonal."""
    rows, columns = tg.shape_of(x)[-2:]
    if rows * columns > MOST_CONSTANT_ELEMENTS:
        raise UnsupportedError(f"a mask of {rows} by {columns}: constants hold at most {MOST_CONSTANT_ELEMENTS}")
    kept = (np.triu if "triu" in str(node.target) else np.tril)(np.ones((rows, columns), np.int32), diagonal)
    mask = e.emit(tg.ConstantOp.of(kept.astype(np.int32)))
    return e.emit(tg.SelectOp(mask, x, e.constant(0, tg.element_of(x))))


@aten_rule("flip.default")
def flip(e: Emitter, node: Node, x: SSAValue, dims: Sequence[int]) -> SSAValue:
    """Reversed along some dimensions."""
    rank = len(tg.shape_of(x))
    for dim in dims:
        axis = positive(dim, rank)
        order = [axis, *(d for d in range(rank) if d != axis)]
        ids = e.constant(np.arange(tg.shape_of(x)[axis])[::-1].copy(), i32)
        moved = e.emit(tg.GatherOp(e.transpose(x, order), ids))
        x = e.transpose(moved, np.argsort(order).tolist())
    return x


def triangle_of_ones(e: Emitter, size: int) -> SSAValue:
    """[size, size] of f32: 1 where the row is not below the column."""
    return e.emit(tg.ConstantOp.of(np.triu(np.ones((size, size), np.float32))))
