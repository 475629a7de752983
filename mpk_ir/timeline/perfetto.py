"""A trace in the JSON form of Chrome's trace events, which Perfetto (https://ui.perfetto.dev) opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..core.names import operator_name
from .analysis import Analysis

SHORTEST_US = 0.05
"""Waits below it are not drawn: polls that succeed at once."""


def write_perfetto(analyses: Sequence[Analysis], file: Path) -> None:
    """One track for each SM, a group of them for each rank, arrows along the critical path; one trace below the other,
    on the same axis of time."""
    events: list[dict[str, Any]] = []
    ranks = 0
    for analysis in analyses:
        drawn = _Drawn(analysis, first_process=ranks, first_arrow=len(events))
        events += [*drawn.tracks(), *drawn.slices(), *drawn.arrows()]
        ranks += analysis.trace.facts.ranks
    file.write_text(json.dumps({"displayTimeUnit": "ns", "traceEvents": events}))


@dataclass(frozen=True)
class _Drawn:
    """A trace whose first rank is process ``first_process`` of the file; its arrows are numbered from ``first_arrow``
    on."""

    analysis: Analysis
    first_process: int
    first_arrow: int

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Names and order of processes and threads."""
        facts = self.analysis.trace.facts
        name = f"{facts.program} on {facts.target.name}, {facts.origin}"
        for rank in range(facts.ranks):
            called = name if facts.ranks == 1 else f"rank {rank}: {name}"
            process = {"pid": self.first_process + rank}
            yield {"ph": "M", "name": "process_name", **process, "args": {"name": called}}
            yield {"ph": "M", "name": "process_sort_index", **process, "args": {"sort_index": process["pid"]}}
        for sm in range(facts.ranks * (self.analysis.trace.num_sms // facts.ranks)):
            track = self._track(sm)
            yield {"ph": "M", "name": "thread_name", **track, "args": {"name": self.analysis.trace.sm_name(sm)}}
            yield {"ph": "M", "name": "thread_sort_index", **track, "args": {"sort_index": sm}}

    def _track(self, sm: int) -> dict[str, int]:
        """Perfetto's process is our rank, its thread an SM."""
        return {"pid": self.first_process + self.analysis.trace.sm_place(sm)[0], "tid": sm}

    def slices(self) -> Iterator[dict[str, Any]]:
        """Waits and tasks."""
        trace = self.analysis.trace
        columns = (trace.sm, trace.begin, trace.ready, trace.computed, trace.signalled, trace.grid)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for task, (sm, begin, ready, computed, signalled, grid) in enumerate(rows):
            track = self._track(sm)
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

    def arrows(self) -> Iterator[dict[str, Any]]:
        """From the middle of a task's slice to that of the next: an arrow binds to the slice that encloses it."""
        trace, path = self.analysis.trace, [link.task for link in self.analysis.critical_path]
        for number, pair in enumerate(pairwise(path), self.first_arrow):
            for phase, task in zip("sf", pair, strict=True):
                time = (float(trace.ready[task]) + float(trace.computed[task])) / 2
                place = {**self._track(int(trace.sm[task])), "ts": time}
                yield {"ph": phase, "bp": "e", "id": number, "name": "critical path", "cat": "critical", **place}
