"""`sm-panel-rows`: which activations lie in panels of rows, so that products read whole lines of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import SSAValue
from xdsl.utils.disjoint_set import DisjointSet

from ...core.memory import PANEL_LAYOUTS
from ...dialects.sm import BufferOp, GraphOp, GridOp, LayoutAttr
from ...dialects.sm.expansion import rank_step, whole_boxes
from ...dialects.sm.params import params_to_attr
from ...proof.layouts import tears_panels
from ...tasks.linear import Linear
from ..analysis.memory import element_bytes, size_bytes
from ..base import MpkPass


@dataclass(frozen=True)
class Use:
    """Operand ``number`` of ``grid``, whose parameter ``panel`` says how its rows lie; empty: as its kind declares."""

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

    Before, a buffer that some grids write and products read row by row:
    ```mlir
    %h = sm.buffer @h <scratch> : !sm.buffer<[8, 2048], bf16>
    ```
    After, for 8 requests; a grid that writes it has `y_panel = 8`, one that reads it `x_panel = 8`:
    ```mlir
    %h = sm.buffer @h <scratch> layout <row_panels_8> : !sm.buffer<[8, 2048], bf16>
    ```
    A lane of a tensor-core product holds 8 columns of one of 8 rows, so that a warp's load touches 64 bytes of each of
    8 rows. In a panel those are 512 bytes side by side. All SMs read the same rows at once, and half lines cost as much
    as whole ones (docs/decisions/0015-rows-in-panels.md). BLAS libraries pack panels for a like reason: Goto and van de
    Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.

    Panels have as many rows as a step mostly has (one for each request), a power of two up to 8 that divides the rows;
    a step of one request reads row by row best. ``rows``: that many instead of as many as requests; 1: no panels.

    Buffers that one parameter of a body speaks of, as `residual` and `y` of a product, lie alike or stay as they are.

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
        touching = [use for buffer in together for use in uses[buffer.buffer]]
        if not any(use.is_product_rows for use in touching):
            return
        panel = min(panel_rows(buffer.shape[0], self.rows or _usual_rows(graph, buffer)) for buffer in together)
        if panel == 1 or not all(_fits(buffer, uses[buffer.buffer], panel) for buffer in together):
            return
        for buffer in together:
            buffer.layout = LayoutAttr(PANEL_LAYOUTS[panel])
            self.count("panel_buffers")
        for use in touching:
            params = replace(use.grid.task_params, **{use.panel: panel})
            use.grid.params = params_to_attr(params)


def panel_rows(rows: int, usual: int) -> int:
    """Of a panel of a buffer of ``rows``, of which ``usual`` are active in most steps; 1: no panel."""
    return max(panel for panel in PANEL_LAYOUTS if panel <= max(usual, 1) and rows % panel == 0)


def _usual_rows(graph: GraphOp, buffer: BufferOp) -> int:
    batch = graph.metadata.data.get("batch")
    return batch.value.data if isinstance(batch, IntegerAttr) else buffer.shape[0]


def _laid_alike(graph: GraphOp, uses: Mapping[SSAValue, list[Use]]) -> Iterable[list[BufferOp]]:
    """The buffers of each set that must lie alike: those whose layout one parameter of a grid says."""
    alike = DisjointSet(list(uses))
    for grid in graph.grids:
        first: dict[str, SSAValue] = {}
        for number, value in enumerate(grid.data):
            if panel := Use(grid, number).panel:
                alike.union(first.setdefault(panel, value), value)
    sets: dict[SSAValue, list[BufferOp]] = defaultdict(list)
    for buffer in graph.buffers:
        if buffer.buffer in uses:
            sets[alike.find(buffer.buffer)].append(buffer)
    return sets.values()


def _fits(buffer: BufferOp, uses: list[Use], panel: int) -> bool:
    """Whether panels can hold ``buffer``, and every body that touches it finds its box in them."""
    layout, size = PANEL_LAYOUTS[panel], size_bytes(buffer)
    unfit = layout.unfit_for(buffer.space.data, buffer.shape, element_bytes(buffer), size)
    return not unfit and all(use.panel and _begins_well(use, panel) for use in uses)


def _begins_well(use: Use, panel: int) -> bool:
    """Whether a body can count panels from where each task's box begins, and no other rank writes it."""
    if use.grid.boxes.data[use.number].pushes:
        return False
    return not tears_panels(*whole_boxes(use.grid, use.number), rank_step(use.grid, use.number), panel).any()
