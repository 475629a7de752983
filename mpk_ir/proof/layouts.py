"""In which order elements lie in buffers, held against the order in which bodies look for them."""

from __future__ import annotations

from ..core.memory import PANEL_COLUMNS
from .plan import BoolArray, Bounds, IntArray, Plan, PlanBuffer, Region
from .rejection import Place, Rejection


def check_layouts(plan: Plan) -> None:
    """Bodies take buffers in the layout that these have, and their boxes begin where panels can be counted from.
    Raises Rejection, rule layout."""
    for buffer in plan.buffers:
        if unfit := buffer.layout.unfit_for(buffer.space, buffer.shape, buffer.element_bytes, buffer.size_bytes):
            raise Rejection("layout", f"buffer @{buffer.name}: {unfit}", places=(Place(buffer.name),))
    known: set[tuple[Bounds, int, tuple[int, ...]]] = set()
    for region in plan.regions:
        buffer = plan.buffers[region.buffer]
        if region.layout is not buffer.layout:
            what = f"which lies in {buffer.layout}, its body takes it in {region.layout}"
            raise _rejection(plan, region, buffer, 0, what)
        panel = buffer.layout.panel_rows
        key = (region.bounds, panel, region.rank_step)
        if panel > 1 and key not in known:
            known.add(key)
            torn = tears_panels(region.bounds.low, region.bounds.high, region.rank_step, panel)
            if torn.any():
                what = f"in which it cannot count panels of {panel} rows and {PANEL_COLUMNS} columns"
                raise _rejection(plan, region, buffer, int(torn.argmax()), what)


def tears_panels(low: IntArray, high: IntArray, rank_step: tuple[int, ...], rows: int) -> BoolArray:
    """[tasks]: whether the elements of a box, from ``low`` to ``high`` [tasks, 2], lie elsewhere than a body finds them
    that counts panels of ``rows`` from the box's first element; on any rank, ``rank_step`` apart.

    A body may begin inside a panel that it does not leave.
    """
    row, column = low[:, 0] % rows, low[:, 1] % PANEL_COLUMNS
    uneven = any(step % whole for step, whole in zip(rank_step, (rows, PANEL_COLUMNS), strict=False))
    torn: BoolArray = (column != 0) | ((row != 0) & (row + high[:, 0] - low[:, 0] > rows)) | uneven
    return torn


def _rejection(plan: Plan, region: Region, buffer: PlanBuffer, number: int, what: str) -> Rejection:
    task, box = plan.task(plan.grids[region.grid].first + number), region.bounds.text(number)
    return Rejection(
        "layout",
        f"{task} touches by operand {region.operand} the box {box} of buffer @{buffer.name}, {what}",
        tasks=(task,),
        places=(Place(buffer.name, box),),
        advice="sm-panel-rows lays a buffer in panels, and sets the parameter of all bodies that touch it",
    )
