"""Traces as a picture: SMs from top to bottom, time from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.lazy import load
from ..core.names import operator_name
from .analysis import Analysis
from .trace import Trace

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


def draw_png(analyses: Sequence[Analysis], file: Path, window_us: tuple[float, float] | None = None) -> None:
    """Draw the tasks that run within ``window_us`` (the whole of the longest step) with waits in grey and the critical
    path as a line; one trace below the other, with the same colours, on the same axis of time.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        figure_type = load("matplotlib.figure:Figure")  # an optional dependency: type checkers may not find it
    except ImportError as error:
        raise UsageError("a PNG needs matplotlib", advice="pip install 'mpk-ir[plot]'; --html needs nothing") from error
    traces = [analysis.trace for analysis in analyses]
    window = window_us or (0.0, max(float(trace.signalled.max()) for trace in traces))
    names = colors(list(dict.fromkeys(operator_name(grid.name) for trace in traces for grid in trace.grids)))
    figure = figure_type(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    parts = figure.subplots(len(analyses), 1, sharex=True, squeeze=False)[:, 0]
    for axes, analysis in zip(parts, analyses, strict=True):
        _draw_tasks(axes, analysis.trace, names, window)
        _draw_path(axes, analysis)
        _draw_ranks(axes, analysis.trace)
        facts = analysis.trace.facts
        axes.set(xlim=window, ylim=(analysis.trace.num_sms, 0))
        axes.set_title(
            f"{facts.program} on {facts.target.name}, {facts.origin}: {facts.step_us:.0f} us a step, "
            f"{analysis.bandwidth_fraction:.0%} of bandwidth"
        )
    parts[-1].set_xlabel("microseconds since the step began")
    entries = {label: handle for axes in parts for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=6, fontsize="small", frameon=False
    )
    figure.savefig(file)


def _draw_tasks(axes: Any, trace: Trace, color_of: Mapping[str, str], window: tuple[float, float]) -> None:
    polygons = load("matplotlib.collections:PolyCollection")
    names = [operator_name(grid.name) for grid in trace.grids]
    shown = (trace.computed > window[0]) & (trace.begin < window[1])

    def add(mine: np.ndarray, begin: np.ndarray, end: np.ndarray, color: str, label: str) -> None:
        left, right, top = begin[mine], end[mine], trace.sm[mine].astype(float)
        corners = [(left, top), (right, top), (right, top + 1), (left, top + 1)]
        boxes = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
        axes.add_collection(polygons(list(boxes), facecolors=color, edgecolors="none", label=label))

    add(shown, trace.begin, trace.ready, WAIT_COLOR, "wait")
    for name, color in color_of.items():
        mine = shown & np.array([other == name for other in names])[trace.grid]
        if mine.any():
            add(mine, trace.ready, trace.computed, color, name)


def _draw_path(axes: Any, analysis: Analysis) -> None:
    trace, tasks = analysis.trace, [link.task for link in analysis.critical_path]
    times = np.stack([trace.ready[tasks], trace.computed[tasks]], axis=1).ravel()
    rows = np.repeat(trace.sm[tasks] + 0.5, 2)
    axes.plot(times, rows, color=PATH_COLOR, linewidth=0.8, label="critical path")


def _draw_ranks(axes: Any, trace: Trace) -> None:
    """Where one rank's SMs end and the next one's begin."""
    ranks = trace.facts.ranks
    axes.set_ylabel("SM" if ranks == 1 else "SMs of each rank")
    if ranks == 1:
        return
    size = trace.num_sms // ranks
    axes.set_yticks([size * (rank + 0.5) for rank in range(ranks)], [f"rank {rank}" for rank in range(ranks)])
    for rank in range(1, ranks):
        axes.axhline(size * rank, color=PATH_COLOR, linewidth=1.2)
