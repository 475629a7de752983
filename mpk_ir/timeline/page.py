"""Traces as one HTML page that needs nothing else: zoom, move, point at a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..core.names import operator_name
from .analysis import Analysis
from .picture import colors
from .trace import NS_PER_US

PLACE = "__DATA__"


def write_page(analyses: Sequence[Analysis], file: Path) -> None:
    """One timeline below the other, with the same colours, on the same axis of time."""
    grids = [grid.name for analysis in analyses for grid in analysis.trace.grids]
    names = list(dict.fromkeys(operator_name(grid) for grid in grids))
    data = {
        "operators": [{"name": name, "color": color} for name, color in colors(names).items()],
        "traces": [_trace(analysis, names) for analysis in analyses],
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no name may end the script element
    template = resources.files("mpk_ir.timeline").joinpath("page.html").read_text()
    file.write_text(template.replace(PLACE, text))


def _trace(analysis: Analysis, names: list[str]) -> dict[str, Any]:
    """Times in nanoseconds; arrays are in the order of the table: by SM, then by time."""
    trace = analysis.trace
    facts = trace.facts
    times = {name: np.rint(getattr(trace, name) * NS_PER_US).astype(int) for name in ("begin", "ready", "computed")}
    return {
        "title": f"{facts.program} on {facts.target.name}, {facts.origin}: {facts.step_us:.0f} us a step, "
        f"{facts.load.rows} rows, context {facts.load.context}, {analysis.bandwidth_fraction:.0%} of bandwidth",
        "end": int(times["computed"].max()),
        "numSms": trace.num_sms,
        "smNames": [trace.sm_name(sm) for sm in range(trace.num_sms)],
        "grids": [grid.name for grid in trace.grids],
        "operatorOf": [names.index(operator_name(grid.name)) for grid in trace.grids],
        "rank": [grid.rank for grid in trace.grids],
        "grid": trace.grid.tolist(),
        "index": trace.index.T.tolist(),
        "sm": trace.sm.tolist(),
        "movedBytes": trace.moved_bytes.astype(int).tolist(),
        "path": [link.task for link in analysis.critical_path],
        **{name: values.tolist() for name, values in times.items()},
    }
