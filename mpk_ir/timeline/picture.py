"""A trace as a picture: SMs from top to bottom, time from left to right."""

from __future__ import annotations

from colorsys import hls_to_rgb
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.lazy import load
from .analysis import Analysis, operator_name

INCHES = (16.0, 8.0)
DOTS_PER_INCH = 110
WAIT_COLOR = "#e3e3e3"
PATH_COLOR = "#111111"


def colors(names: list[str]) -> dict[str, str]:
    """A colour for each operator, far from its neighbours': hues a golden ratio apart."""
    return {name: _color(number) for number, name in enumerate(names)}


def _color(number: int) -> str:
    rgb = hls_to_rgb((0.58 + number * 0.618034) % 1.0, 0.42 + 0.14 * (number % 3), 0.62)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def draw_png(analysis: Analysis, file: Path, window_us: tuple[float, float] | None = None) -> None:
    """Draw the tasks that run within ``window_us`` (the whole step) with waits in grey and the critical path as a line.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        figure_type = load("matplotlib.figure:Figure")  # an optional dependency: type checkers may not find it
    except ImportError as error:
        raise UsageError("a PNG needs matplotlib", advice="pip install 'mpk-ir[plot]'; --html needs nothing") from error
    trace = analysis.trace
    first, last = window_us or (0.0, float(trace.signalled.max()))
    figure = figure_type(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    _draw_tasks(axes, analysis, first, last)
    _draw_path(axes, analysis)
    facts = trace.facts
    axes.set(
        xlim=(first, last),
        ylim=(trace.num_sms, 0),
        xlabel="microseconds since the step began",
        ylabel="SM",
        title=f"{facts.program} on {facts.target.name}, {facts.origin}: {facts.step_us:.0f} us a step, "
        f"{analysis.bandwidth_fraction:.0%} of bandwidth",
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=6, fontsize="small", frameon=False)
    figure.savefig(file)


def _draw_tasks(axes: Any, analysis: Analysis, first: float, last: float) -> None:
    polygons = load("matplotlib.collections:PolyCollection")
    trace = analysis.trace
    names = [operator_name(grid.name) for grid in trace.grids]
    shown = (trace.computed > first) & (trace.begin < last)

    def add(mine: np.ndarray, begin: np.ndarray, end: np.ndarray, color: str, label: str) -> None:
        left, right, top = begin[mine], end[mine], trace.sm[mine].astype(float)
        corners = [(left, top), (right, top), (right, top + 1), (left, top + 1)]
        boxes = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
        axes.add_collection(polygons(list(boxes), facecolors=color, edgecolors="none", label=label))

    add(shown, trace.begin, trace.ready, WAIT_COLOR, "wait")
    for name, color in colors(list(dict.fromkeys(names))).items():
        mine = shown & np.array([other == name for other in names])[trace.grid]
        if mine.any():
            add(mine, trace.ready, trace.computed, color, name)


def _draw_path(axes: Any, analysis: Analysis) -> None:
    trace, tasks = analysis.trace, [link.task for link in analysis.critical_path]
    times = np.stack([trace.ready[tasks], trace.computed[tasks]], axis=1).ravel()
    rows = np.repeat(trace.sm[tasks] + 0.5, 2)
    axes.plot(times, rows, color=PATH_COLOR, linewidth=0.8, label="critical path")
