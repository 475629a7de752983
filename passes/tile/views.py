"""Strided views: how reshapes, transposes, slices and broadcasts of a buffer become other steps through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Axis:
    """One dimension of a tensor in a buffer seen as rows by columns: ``size`` elements, ``rows`` and ``columns``
    apart."""

    size: int
    rows: int
    columns: int

    def times(self, count: int, size: int) -> Axis:
        """``size`` elements, each ``count`` of this axis' apart."""
        return Axis(size, self.rows * count, self.columns * count)

    def continues(self, inner: Axis) -> bool:
        """Whether this axis and ``inner`` together are one axis."""
        return (self.rows, self.columns) == (inner.rows * inner.size, inner.columns * inner.size)


Axes = tuple[Axis, ...]


def by_rows(shape: Sequence[int], row_dims: int) -> Axes:
    """The axes of a tensor whose first ``row_dims`` dimensions are the buffer's rows, the others its columns."""
    axes: list[Axis] = []
    for dim, size in enumerate(shape):
        rows = prod(shape[dim + 1 : row_dims]) if dim < row_dims else 0
        axes.append(Axis(size, rows, 0 if dim < row_dims else prod(shape[dim + 1 :])))
    return tuple(axes)


def by_first(shape: Sequence[int]) -> Axes:
    """Rows are the first dimension: how a buffer of `sm` lies by itself."""
    return by_rows(shape, 1)


def by_last(shape: Sequence[int]) -> Axes:
    """Columns are the last dimension; a vector is rows."""
    return by_rows(shape, max(1, len(shape) - 1))


def same_place(one: Axes, other: Axes) -> bool:
    """Whether two tensors of the same sizes have every element in the same place."""
    return all(a == b for a, b in zip(one, other, strict=True) if a.size > 1)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """``axes`` under another shape of as many elements; None if no steps describe it."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if merged and merged[-1].continues(axis):
            merged[-1] = axis.times(1, merged[-1].size * axis.size)
        else:
            merged.append(axis)
    result: list[Axis] = []
    for size in reversed(shape):
        if size == 1:
            result.append(Axis(1, 0, 0))
            continue
        last = merged.pop()
        if last.size % size:
            return None
        result.append(last.times(1, size))
        if last.size > size:
            merged.append(last.times(size, last.size // size))
    return tuple(reversed(result))


def broadcast(axes: Axes, shape: Sequence[int]) -> Axes:
    """``axes`` repeated to ``shape`` as numpy broadcasts."""
    padded = (Axis(1, 0, 0),) * (len(shape) - len(axes)) + axes
    return tuple(axis if axis.size == size else Axis(size, 0, 0) for axis, size in zip(padded, shape, strict=True))
