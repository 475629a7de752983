"""Grids whose tasks deal their work among themselves at run time (`TaskKind.dealt_because`)."""

from __future__ import annotations

from .plan import Plan
from .rejection import Place, Rejection


def check_dealing(plan: Plan) -> None:
    """Who computes what is found at run time, so nothing may depend on it. Raises Rejection, rule dealing.

    All work is dealt if the grid has as many tasks as its body deals to. And what a task touches is known before only
    if its box is all that the grid touches: then who waits for the grid's result waits for all of its tasks, and who
    writes what it reads is waited for by all.
    """
    for number, grid in enumerate(plan.grids):
        if not grid.takers:
            continue
        if grid.takers != len(grid.index):
            task = plan.task(grid.first)
            raise Rejection(
                "dealing",
                f"grid @{grid.name} has {len(grid.index)} tasks, its body deals the work to {grid.takers}: some of it "
                "is not computed, or computed twice",
                tasks=(task,),
            )
        for region in [region for region in plan.regions if region.grid == number]:
            low, high = region.bounds.low, region.bounds.high
            other = ((low != low[0]) | (high != high[0])).any(axis=1)
            if other.any():
                task, name = plan.task(grid.first + int(other.argmax())), plan.buffers[region.buffer].name
                raise Rejection(
                    "dealing",
                    f"{task} touches by operand {region.operand} the box {region.bounds.text(int(other.argmax()))} of "
                    f"@{name}, the first task {region.bounds.text(0)}: which part is whose is found at run time only",
                    tasks=(task,),
                    places=(Place(name),),
                )
