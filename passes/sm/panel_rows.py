"""`sm-panel-rows`: which activations lie in panels of rows, so that products read whole lines of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import BFloat16Type, IntegerAttr, ModuleOp
from xdsl.ir import SSAValue

from ...core.memory import PANEL_COLUMNS, PANEL_LAYOUTS, Layout, Space
from ...dialects.sm import BufferOp, GraphOp, GridOp, LayoutAttr
from ...dialects.sm.expansion import whole_boxes
from ...dialects.sm.params import params_to_attr
from ...tasks.linear import Linear
from ..base import MpkPass


@dataclass(frozen=True)
class Use:
    """Operand ``number`` of ``grid``, whose parameter ``panel`` says how its rows lie; empty: row by row only."""

    grid: GridOp
    number: int

    @property
    def panel(self) -> str:
        return self.grid.task_kind.operand(self.name).panel

    @property
    def name(self) -> str:
        return self.grid.operand_names.data[self.number].data

    @property
    def is_product_rows(self) -> bool:
        return isinstance(self.grid.task_kind, Linear) and self.name == "x"


@dataclass(frozen=True)
class PanelRows(MpkPass):
    """Lay the rows that products read in panels, where all bodies that touch them know how.

    Before: `%h = sm.buffer @h #sm.space<scratch> : !sm.buffer<8x2048xbf16>`, written by one grid, `x` of a "linear" grid
    with `x_panel = 1`. After, for 8 requests:
    ```mlir
    %h = sm.buffer @h #sm.space<scratch> layout <row_panels_8> : !sm.buffer<8x2048xbf16>
    ```
    and `x_panel = 8` there, `y_panel = 8` where it is written. A lane of a tensor-core product holds 8 columns of one of 8
    rows, so that a warp's load touches 64 bytes of each of 8 rows. In a panel those are 512 bytes side by side. All SMs
    read the same rows at once, and half lines cost as much as whole ones: measured on an H200, 2.3 us for 16 rows of 2,048
    columns row by row, 0.9 us in panels. (BLAS libraries pack panels for the like reason: Goto and van de Geijn,
    "Anatomy of High-Performance Matrix Multiplication", 2008.)

    Panels have as many rows as a step mostly has (one for each request), a power of two up to 8 that divides the rows; a
    step of one request reads row by row best. ``rows``: 2, 4, 8 instead; 1: no panels.

    Statistics: ``panel_buffers``.
    """

    name = "sm-panel-rows"
    rows: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            uses: dict[SSAValue, list[Use]] = defaultdict(list)
            for grid in graph.grids:
                for number, value in enumerate(grid.data):
                    uses[value].append(Use(grid, number))
            for together in _laid_alike(graph, uses):
                self._lay(graph, together, uses)

    def _lay(self, graph: GraphOp, together: list[BufferOp], uses: dict[SSAValue, list[Use]]) -> None:
        """Choose panels for buffers that must lie alike, or leave them."""
        panel = min(panel_rows(buffer.shape[0], self.rows or _usual_rows(graph, buffer)) for buffer in together)
        touching = [use for buffer in together for use in uses[buffer.buffer]]
        wanted = any(use.is_product_rows for use in touching)
        if panel == 1 or not wanted or not all(_fits(buffer, uses[buffer.buffer], panel) for buffer in together):
            return
        for buffer in together:
            buffer.layout = LayoutAttr(PANEL_LAYOUTS[panel])
            self.count("panel_buffers")
        for use in touching:
            params = replace(use.grid.task_params, **{use.panel: panel})
            use.grid.params = params_to_attr(params)


def panel_rows(rows: int, usual: int) -> int:
    """Of a panel of a buffer of ``rows``, of which ``usual`` are active in most steps; 1: no panel."""
    return next((panel for panel in sorted(PANEL_LAYOUTS, reverse=True) if panel <= usual and rows % panel == 0), 1)


def _usual_rows(graph: GraphOp, buffer: BufferOp) -> int:
    batch = graph.metadata.data.get("batch")
    return batch.value.data if isinstance(batch, IntegerAttr) else buffer.shape[0]


def _laid_alike(graph: GraphOp, uses: dict[SSAValue, list[Use]]) -> Iterator[list[BufferOp]]:
    """The scratch buffers of each set that must lie alike: those that operands with one parameter name."""
    neighbours: dict[SSAValue, set[SSAValue]] = defaultdict(set)
    for grid in graph.grids:
        by_panel: dict[str, list[SSAValue]] = defaultdict(list)
        for number, value in enumerate(grid.data):
            if panel := Use(grid, number).panel:
                by_panel[panel].append(value)
        for first, *others in by_panel.values():
            for other in others:
                neighbours[first].add(other)
                neighbours[other].add(first)
    buffers = {buffer.buffer: buffer for buffer in graph.buffers}
    seen: set[SSAValue] = set()
    for value in uses:
        if value in seen:
            continue
        found, open_ = [value], [value]
        seen.add(value)
        while open_:
            more = [other for other in neighbours[open_.pop()] if other not in seen]
            seen.update(more)
            found += more
            open_ += more
        yield [buffers[one] for one in found]


def _fits(buffer: BufferOp, uses: list[Use], panel: int) -> bool:
    """Whether panels can hold ``buffer``, and every body that touches it finds its box in them."""
    plain = buffer.space.data is Space.SCRATCH and buffer.layout.data is Layout.ROW_MAJOR and buffer.padded is None
    whole = len(buffer.shape) == 2 and buffer.shape[1] % PANEL_COLUMNS == 0
    pairs = isinstance(buffer.element_type, BFloat16Type)
    return plain and whole and pairs and all(use.panel and _begins_well(use, panel) for use in uses)


def _begins_well(use: Use, panel: int) -> bool:
    """Whether each task's box begins with a panel, or lies in one, and at whole words; and no other rank writes it."""
    if use.grid.boxes.data[use.number].pushes:
        return False
    low, high = whole_boxes(use.grid, use.number)
    row, column = low[:, 0] % panel, low[:, 1]
    return bool(np.all((row == 0) | (row + high[:, 0] - low[:, 0] <= panel)) and not np.any(column % PANEL_COLUMNS))
