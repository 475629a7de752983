"""What tile rules build with: the sm graph under construction and the memory each tg value lives in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...core.errors import PlanError, UnsupportedError
from ...core.memory import Layout, Space
from ...core.target import Target
from ...dialects.sm import BoxAttr, BufferOp, BufferType, GridOp, LayoutAttr
from ...dialects.sm.attributes import int_array
from ...dialects.sm.ops import GridOperand
from ...dialects.tg import ParamOp
from ...tasks.base import Access, Params, TaskKind
from .decisions import Decisions
from .names import weight_name
from .views import Axes, by_first, by_last, same_place

WEIGHT_TILE = (16, 32)
"""Rows and columns that a weight in `Layout.MMA_ROWS_16` is padded to."""
VECTOR = 8
"""Elements the kernel moves at once: the last dimension of every row-major buffer is padded to it."""


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def tensor_shape(value: SSAValue) -> tuple[int, ...]:
    """The static shape of a tg value. Raises UnsupportedError if it is not a ranked tensor of known sizes."""
    if not isinstance(value.type, TensorType) or any(size < 0 for size in value.type.get_shape()):
        raise UnsupportedError(f"tile: expected a tensor of static shape, found {value.type}")
    return tuple(value.type.get_shape())


def element_type(value: SSAValue) -> Attribute:
    """The element type of a tensor value."""
    assert isinstance(value.type, TensorType)
    return value.type.element_type


@dataclass(frozen=True)
class View:
    """Where a tg value lives: columns ``first`` .. ``first + columns`` of a row-by-column buffer, or all of a buffer
    of another rank (``columns`` 0).

    With ``axes`` it is strided: its first element is in row ``row`` and column ``first``, the others by those steps.
    """

    buffer: SSAValue
    first: int = 0
    columns: int = 0
    axes: Axes = ()
    row: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        assert isinstance(self.buffer.owner, BufferOp)
        return self.buffer.owner.shape

    def whole(self, access: Access, dims: int) -> BoxAttr:
        """The same box for every task of a grid with ``dims`` indices."""
        return self.box(access, dims)

    def box(self, access: Access, dims: int, step: int = 0, width: int = 0, index: int = 0) -> BoxAttr:
        """Columns ``first + step * d_index`` and ``width`` more (0: all), in all rows."""
        shape, zero = self.shape, AffineConstantExpr(0)
        if len(shape) != 2 or not self.columns:
            return BoxAttr.of(access, AffineMap(dims, 0, (zero,) * len(shape)), shape)
        column: AffineExpr = AffineConstantExpr(self.first)
        if step:
            column = AffineDimExpr(index) * step + self.first
        return BoxAttr.of(access, AffineMap(dims, 0, (zero, column)), (shape[0], width or self.columns))


class GraphBuilder:
    """Collects buffers, grids and decisions; ``views`` says where each tg value lives."""

    def __init__(self, target: Target, count: Callable[[str, int], None], ranks: int = 1) -> None:
        self.target = target
        self.ranks = ranks
        self.block = Block()
        self.views: dict[SSAValue, View] = {}
        self.states: dict[str, SSAValue] = {}
        self.count = count
        self.decisions = Decisions()
        self.deferred: dict[SSAValue, Callable[[], None]] = {}
        """Elementwise results that their one user may compute itself; called, it gives one memory after all."""
        self.absorbed: set[Operation] = set()
        """Ops whose result the rule of another op computed in passing."""
        self.blocked: dict[SSAValue, View] = {}
        """Activations in the layout that products on wgmma take (`blocks`)."""
        self.copy: Callable[[SSAValue, View], None] | None = None
        self._names: dict[type, set[str]] = {BufferOp: set(), GridOp: set()}
        self._weights: dict[tuple[Any, ...], SSAValue] = {}
        self._plain_copies: dict[SSAValue, View] = {}

    def unique(self, name: str, kind: type = GridOp) -> str:
        """``name``, with a number behind it if another op of ``kind`` has it."""
        candidate, number = name, 1
        while candidate in self._names[kind]:
            number += 1
            candidate = f"{name}.{number}"
        return candidate

    def buffer(self, name: str, space: Space, shape: Sequence[int], element: Attribute, **props: Attribute) -> SSAValue:
        """A new buffer; row-major ones are padded so that rows start on 16 bytes."""
        padded = (*shape[:-1], round_up(shape[-1], VECTOR)) if len(shape) > 1 else tuple(shape)
        if "padded" not in props and padded != tuple(shape) and space in (Space.SCRATCH, Space.INPUT, Space.OUTPUT):
            props["padded"] = DenseArrayBase.from_list(i64, padded)
        name = self.unique(name, BufferOp)
        self._names[BufferOp].add(name)
        op = BufferOp(name, space, BufferType(int_array(shape), element), **props)
        self.block.add_op(op)
        return op.buffer

    def state(self, name: str, shape: Sequence[int], element: Attribute) -> SSAValue:
        """The buffer of the state called ``name``, made at its first use."""
        if name not in self.states:
            self.states[name] = self.buffer(name, Space.STATE, shape, element)
        return self.states[name]

    def weight(self, param: ParamOp, layout: Layout) -> SSAValue:
        """The buffer of a weight packed as ``param`` says; one per way of packing."""
        sources, interleave, value = param.source_names, param.interleave.value.data, param.result
        key = (tuple(sources), interleave, param.shards)
        if key not in self._weights:
            shape = tensor_shape(value)
            props: dict[str, Attribute] = {
                "sources": ArrayAttr([StringAttr(source) for source in sources]),
                "interleave": IntegerAttr(interleave, i64),
                "layout": LayoutAttr(layout),
            }
            if param.shards is not None:
                props["shards"] = param.shards
            if layout is Layout.MMA_ROWS_16:
                padded = [round_up(size, tile) for size, tile in zip(shape, WEIGHT_TILE, strict=True)]
                props["padded"] = DenseArrayBase.from_list(i64, padded)
            name = weight_name(sources)
            self._weights[key] = self.buffer(name, Space.WEIGHT, shape, element_type(value), **props)
        return self._weights[key]

    def constant(self, value: SSAValue, data: DenseIntOrFPElementsAttr) -> None:
        """The buffer of a small constant."""
        buffer = self.buffer("constant", Space.WEIGHT, tensor_shape(value), element_type(value), constant=data)
        self.views[value] = View(buffer)

    def result(self, value: SSAValue, name: str) -> View:
        """Memory for a result: the state or output buffer it must end in if one waits for it, else scratch."""
        if value not in self.views:
            shape = tensor_shape(value)
            flat = (shape[0], prod(shape[1:])) if len(shape) > 1 else shape
            buffer = self.buffer(name, Space.SCRATCH, flat, element_type(value))
            self.views[value] = View(buffer, 0, flat[1] if len(flat) == 2 else 0)
        return self.views[value]

    def view(self, value: SSAValue) -> View:
        """Where ``value`` lies as rows of its first dimension; copied there if it is strided."""
        view = self._known(value)
        if not view.axes:
            return view
        shape = tensor_shape(value)
        plain = self._plain_view(view, shape)
        if plain is None:
            plain = self._plain_copy(value, view)
        return plain

    def strided(self, value: SSAValue) -> View:
        """Where ``value`` lies as axes of a row-major buffer."""
        view = self._known(value)
        if isinstance(view.buffer.owner, BufferOp) and view.buffer.owner.layout.data is not Layout.ROW_MAJOR:
            view = self._unpacked(value, view.buffer.owner)
        return view if view.axes else replace(view, axes=by_first(tensor_shape(value)))

    def strided_result(self, value: SSAValue, name: str) -> View:
        """Memory for a result of a general task kind: what waits for it, else scratch whose columns are the last
        dimension."""
        if value not in self.views:
            shape = tensor_shape(value)
            flat = shape if len(shape) == 1 else (prod(shape[:-1]), shape[-1])
            buffer = self.buffer(name, Space.SCRATCH, flat, element_type(value))
            self.views[value] = View(buffer, axes=by_last(shape))
        return self.strided(value)

    def _known(self, value: SSAValue) -> View:
        if value in self.deferred:
            self.deferred.pop(value)()
        if value not in self.views:
            raise PlanError(f"tile: a value of {value.type} has no memory; is its producer in the graph?")
        return self.views[value]

    def _plain_view(self, view: View, shape: tuple[int, ...]) -> View | None:
        """``view`` without axes, if its rows are the buffer's rows and its columns lie side by side."""
        rows = view.shape[0]
        if view.row or not same_place(view.axes, by_first(shape)) or shape[0] != rows:
            return None
        if len(view.shape) == 1 and len(shape) > 1:
            return None
        return View(view.buffer, view.first, prod(shape[1:]) if len(view.shape) == 2 else 0)

    def _plain_copy(self, value: SSAValue, view: View) -> View:
        if value not in self._plain_copies:
            shape = tensor_shape(value)
            flat = (shape[0], prod(shape[1:])) if len(shape) > 1 else shape
            buffer = self.buffer("copy", Space.SCRATCH, flat, element_type(value))
            plain = View(buffer, 0, flat[1] if len(flat) == 2 else 0)
            assert self.copy is not None
            self.copy(value, replace(plain, axes=by_first(shape)))
            self._plain_copies[value] = plain
        return self._plain_copies[value]

    def _unpacked(self, value: SSAValue, packed: BufferOp) -> View:
        """A weight that a product needs in tiles once more, row by row."""
        if value not in self._plain_copies:
            props = {n: packed.properties[n] for n in ("sources", "interleave", "shards") if n in packed.properties}
            name = f"{packed.sym_name.data}.rows"
            shape = tensor_shape(value)
            buffer = self.buffer(name, Space.WEIGHT, shape, element_type(value), **props)
            self._plain_copies[value] = View(buffer, 0, shape[1])
        return self._plain_copies[value]

    def grid(
        self, name: str, kind: TaskKind[Any], params: Params, extent: Sequence[int], operands: Sequence[GridOperand]
    ) -> GridOp:
        """A new grid; task kinds that take `row_count` get it if the graph has that state."""
        declared = {operand.name for operand in kind.operands}
        given = {operand.name for operand in operands}
        if "row_count" in declared - given and "row_count" in self.states:
            rows = View(self.states["row_count"])
            operands = [*operands, GridOperand("row_count", rows.buffer, rows.whole(Access.READ, len(extent)))]
        name = self.unique(name)
        self._names[GridOp].add(name)
        grid = GridOp(name, kind, params, extent, operands)
        self.block.add_op(grid)
        self.count("grids", 1)
        self.count("tasks", grid.num_tasks)
        return grid

    def replace(self, old: GridOp, new: GridOp) -> None:
        """Put ``new`` in the place of a grid made before, its name alike, and the buffers it alone has before it."""
        for value in new.data:
            if isinstance(value.owner, BufferOp) and old.is_before_in_block(value.owner):
                value.owner.detach()
                self.block.insert_op_before(value.owner, old)
        self.block.insert_op_before(new, old)
        old.detach()
        old.erase()


Rule = Callable[[Operation, GraphBuilder], None]
_rules: dict[str, Rule] = {}


def tile_rule(op_name: str) -> Callable[[Rule], Rule]:
    """Register the function that turns a tg op called ``op_name`` into grids."""

    def register(rule: Rule) -> Rule:
        if op_name in _rules:
            raise PlanError(f"op '{op_name}' has two tile rules")
        _rules[op_name] = rule
        return rule

    return register


def rule_of(op: Operation) -> Rule:
    """The rule for ``op``. Raises UnsupportedError if its operation cannot run as tasks."""
    if op.name not in _rules:
        raise UnsupportedError(
            f"tile: no task kind computes '{op.name}'", advice=f"ops that tile: {', '.join(sorted(_rules))}"
        )
    return _rules[op.name]
