"""A trace in the JSON form of Chrome's trace events, which Perfetto (https://ui.perfetto.dev) opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from .analysis import Analysis, operator_name

SHORTEST_US = 0.05
"""Waits below it are not drawn: polls that succeed at once."""


def write_perfetto(analysis: Analysis, file: Path) -> None:
    """One track for each SM, a group of them for each rank, arrows along the critical path."""
    events = [*_tracks(analysis), *_slices(analysis), *_arrows(analysis)]
    file.write_text(json.dumps({"displayTimeUnit": "ns", "traceEvents": events}))


def _tracks(analysis: Analysis) -> Iterator[dict[str, Any]]:
    facts = analysis.trace.facts
    name = f"{facts.program} on {facts.target.name}, {facts.origin}"
    for rank in range(facts.ranks):
        called = name if facts.ranks == 1 else f"rank {rank}: {name}"
        yield {"ph": "M", "name": "process_name", "pid": rank, "args": {"name": called}}
    for sm in range(facts.ranks * (analysis.trace.num_sms // facts.ranks)):
        track = _track(analysis, sm)
        yield {"ph": "M", "name": "thread_name", **track, "args": {"name": analysis.trace.sm_name(sm)}}
        yield {"ph": "M", "name": "thread_sort_index", **track, "args": {"sort_index": sm}}


def _track(analysis: Analysis, sm: int) -> dict[str, int]:
    """Perfetto's process is our rank, its thread an SM."""
    return {"pid": analysis.trace.sm_place(sm)[0], "tid": sm}


def _slices(analysis: Analysis) -> Iterator[dict[str, Any]]:
    trace = analysis.trace
    columns = (trace.sm, trace.begin, trace.ready, trace.computed, trace.signalled, trace.grid)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for task, (sm, begin, ready, computed, signalled, grid) in enumerate(rows):
        track = _track(analysis, sm)
        if ready - begin >= SHORTEST_US:
            yield {"ph": "X", "name": "wait", "cat": "wait", **track, "ts": begin, "dur": ready - begin}
        yield {
            "ph": "X",
            "name": operator_name(trace.grids[grid].name),
            "cat": trace.grids[grid].kind,
            **track,
            "ts": ready,
            "dur": computed - ready,
            "args": {
                "task": trace.task_name(task),
                "signalled_us": signalled,
                "moved_bytes": float(trace.moved_bytes[task]),
            },
        }


def _arrows(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """An arrow from the middle of a task's slice to that of the next: an arrow binds to the slice that encloses it."""
    trace, path = analysis.trace, [link.task for link in analysis.critical_path]
    for number, pair in enumerate(pairwise(path)):
        for phase, task in zip("sf", pair, strict=True):
            time = (float(trace.ready[task]) + float(trace.computed[task])) / 2
            place = {**_track(analysis, int(trace.sm[task])), "ts": time}
            yield {"ph": phase, "bp": "e", "id": number, "name": "critical path", "cat": "critical", **place}
