"""Processor time: wall time would measure what else runs on this machine."""

from __future__ import annotations

from resource import RUSAGE_CHILDREN, getrusage


def children_seconds() -> float:
    """Of all child processes that have ended."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
