"""Ways to damage the order in which elements lie, and one to change it safely."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from mpk_ir.codegen.program import Program
from mpk_ir.core.memory import PANEL_LAYOUTS, Layout, Space
from mpk_ir.tasks import task_kind


def _with_layouts(program: Program, layouts: Mapping[int, Layout]) -> Program:
    buffers = (replace(one, layout=layouts.get(number, one.layout)) for number, one in enumerate(program.buffers))
    return replace(program, buffers=tuple(buffers))


def _panels_of(program: Program, body: int) -> dict[str, int]:
    """The parameters of a body that say of how many rows panels are."""
    grid = next(grid for grid in program.grids if grid.body == body)
    kind = task_kind(grid.kind)
    params = kind.params_from(grid.params)
    return {operand.panel: getattr(params, operand.panel) for operand in kind.operands if operand.panel}


def _with_panels(program: Program, body: int, panels: Mapping[str, int]) -> Program:
    """``program`` whose grids that run ``body`` count these panels; the text as well."""
    grids = [replace(g, params={**g.params, **panels}) if g.body == body else g for g in program.grids]
    grid = next(grid for grid in grids if grid.body == body)
    kind = task_kind(grid.kind)
    old, arguments = program.bodies[body].split("(", 1)
    new = kind.signature(kind.params_from(grid.params))
    lines = program.source.split("\n")
    lines = [line.replace(old, new) if line.lstrip().startswith(f"case {body}:") else line for line in lines]
    bodies = [f"{new}({arguments}" if number == body else one for number, one in enumerate(program.bodies)]
    return replace(program, grids=tuple(grids), bodies=tuple(bodies), source="\n".join(lines))


def lay_otherwise(program: Program, generator: np.random.Generator) -> Program | None:
    """A buffer lies in other panels than bodies count, or in some that cannot hold it."""
    scratch = [number for number, buffer in enumerate(program.buffers) if buffer.space is Space.SCRATCH]
    if not scratch:
        return None
    number = int(generator.choice(scratch))
    others = [rows for rows in PANEL_LAYOUTS if rows != program.buffers[number].layout.panel_rows]
    return _with_layouts(program, {number: PANEL_LAYOUTS[int(generator.choice(others))]})


def count_otherwise(program: Program, generator: np.random.Generator) -> Program | None:
    """A body counts other panels than its buffers lie in."""
    able = [body for body in range(len(program.bodies)) if _panels_of(program, body)]
    if not able:
        return None
    body = int(generator.choice(able))
    panels = _panels_of(program, body)
    name = str(generator.choice(sorted(panels)))
    others = [rows for rows in PANEL_LAYOUTS if rows != panels[name]]
    return _with_panels(program, body, {name: int(generator.choice(others))})


def begin_inside_panels(program: Program, generator: np.random.Generator) -> Program | None:
    """The boxes of an operand begin some columns or a row further on, where a body cannot count panels from."""
    able = [
        (number, place)
        for number, grid in enumerate(program.grids)
        for place, operand in enumerate(grid.operands)
        if program.buffers[operand.buffer].layout.panel_rows > 1
    ]
    if not able:
        return None
    number, place = able[int(generator.integers(len(able)))]
    dim, by = ((0, 1), (1, 2), (1, 4))[int(generator.integers(3))]
    tasks = program.tasks.copy()
    rows = np.flatnonzero(tasks["grid"] == number)
    if (tasks["sizes"][rows, place, dim] <= by).any():
        return None
    tasks["offsets"][rows, place, dim] += by
    tasks["sizes"][rows, place, dim] -= by
    return replace(program, tasks=tasks)


def lay_in_pairs(program: Program, generator: np.random.Generator) -> Program | None:
    """All panels have 2 rows."""
    del generator
    lying = [number for number, buffer in enumerate(program.buffers) if buffer.layout.panel_rows > 1]
    if not lying:
        return None
    laid = _with_layouts(program, dict.fromkeys(lying, PANEL_LAYOUTS[2]))
    for body in range(len(program.bodies)):
        panels = {name: 2 for name, rows in _panels_of(program, body).items() if rows > 1}
        laid = _with_panels(laid, body, panels) if panels else laid
    return laid


LAYOUT_DAMAGES: tuple[Callable[[Program, np.random.Generator], Program | None], ...] = (
    lay_otherwise,
    count_otherwise,
    begin_inside_panels,
)
