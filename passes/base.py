"""The base of all our passes: an xDSL ModulePass that can count what it did."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from xdsl.passes import ModulePass

_statistics: ContextVar[dict[str, dict[str, int]] | None] = ContextVar("mpk_pass_statistics", default=None)


class MpkPass(ModulePass):
    """A pass with statistics: ``self.count("events", n)`` in ``apply`` adds to the table the driver collects."""

    def count(self, statistic: str, amount: int = 1) -> None:
        table = _statistics.get()
        if table is None:
            return
        mine = table.setdefault(self.name, {})
        mine[statistic] = mine.get(statistic, 0) + amount


@contextmanager
def collect_statistics() -> Generator[dict[str, dict[str, int]]]:
    """Collect the statistics of all passes run inside: pass name -> statistic -> value."""
    table: dict[str, dict[str, int]] = {}
    token = _statistics.set(table)
    try:
        yield table
    finally:
        _statistics.reset(token)
