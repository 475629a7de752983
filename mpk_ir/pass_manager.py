"""Run passes over a module: from text or from pass objects, with hooks, timing, statistics and checks in between.

```python
report = PassManager("sm-synthesize-events,sm-fuse-events").run(ctx, module)
print(report.seconds, report.statistics["sm-fuse-events"])
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from .core.errors import MpkError, PlanError
from .passes.base import collect_statistics
from .passes.rewriting import drop_dump
from .pipeline_spec import parse_pipeline
from .verification import verify


@dataclass(frozen=True)
class PassReport:
    """One pass of a run: its options as text, its own time, that of the check after it, what it counted."""

    name: str
    spec: str
    seconds: float
    verify_seconds: float
    statistics: Mapping[str, int]


@dataclass(frozen=True)
class RunReport:
    """What a run did. ``seconds`` is the time of all passes, ``verify_seconds`` that of all checks."""

    passes: tuple[PassReport, ...] = ()
    initial_verify_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.passes)

    @property
    def verify_seconds(self) -> float:
        return self.initial_verify_seconds + sum(one.verify_seconds for one in self.passes)

    @property
    def statistics(self) -> dict[str, dict[str, int]]:
        """Pass name -> statistic -> value, summed where a pass ran more than once."""
        table: dict[str, dict[str, int]] = {}
        for one in self.passes:
            mine = table.setdefault(one.name, {})
            for statistic, value in one.statistics.items():
                mine[statistic] = mine.get(statistic, 0) + value
        return table


class PassInstrument:
    """Hooks around each pass; subclass and override what you need. ``index`` counts the passes of the run from 0."""

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Called with the module as ``pass_`` will find it."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Called with the module as ``pass_`` left it, before it is verified."""

    def failed(self, index: int, pass_: ModulePass, module: ModuleOp, error: MpkError) -> None:
        """Called when ``pass_``, or the check after it, raised ``error``; the module may be half changed."""


Hook = Callable[[ModulePass, ModuleOp], None]


@dataclass(frozen=True)
class Hooks(PassInstrument):
    """Two plain functions of (pass, module) as an instrument."""

    before_pass: Hook | None = None
    after_pass: Hook | None = None

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        if self.before_pass is not None:
            self.before_pass(pass_, module)

    def after(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        if self.after_pass is not None:
            self.after_pass(pass_, module)


@dataclass
class PassManager:
    """An ordered list of passes, ready to run.

    ``passes`` is a pipeline as text, `"a,b{x=1}"`, or pass objects. ``verify_each`` checks the module before the first
    pass and after each one. Raises UsageError if the text names what does not exist.
    """

    passes: tuple[ModulePass, ...]
    instruments: tuple[PassInstrument, ...]
    verify_each: bool

    def __init__(
        self,
        passes: str | Iterable[ModulePass],
        *,
        before: Hook | None = None,
        after: Hook | None = None,
        instruments: Iterable[PassInstrument] = (),
        verify_each: bool = True,
    ) -> None:
        self.passes = parse_pipeline(passes) if isinstance(passes, str) else tuple(passes)
        own = (Hooks(before, after),) if before or after else ()
        self.instruments = (*own, *instruments)
        self.verify_each = verify_each

    def run(self, ctx: Context, module: ModuleOp) -> RunReport:
        """Run the passes on ``module``, in place.

        Raises the MpkError of the pass that failed, or PlanError around any other exception, with a note that names the
        pass; IRError if the module does not verify.
        """
        initial = self._verify(module)
        return RunReport(tuple(self._run_one(ctx, module, index) for index in range(len(self.passes))), initial)

    def _run_one(self, ctx: Context, module: ModuleOp, index: int) -> PassReport:
        pass_ = self.passes[index]
        for instrument in self.instruments:
            instrument.before(index, pass_, module)
        try:
            seconds, statistics = _apply(ctx, module, pass_)
            for instrument in self.instruments:
                instrument.after(index, pass_, module)
            try:
                verify_seconds = self._verify(module)
            except MpkError as error:
                error.add_note(f"the module verified before pass '{pass_.name}' and does not after it")
                raise
        except MpkError as error:
            for instrument in self.instruments:
                instrument.failed(index, pass_, module, error)
            raise
        return PassReport(pass_.name, str(pass_.spec()), seconds, verify_seconds, statistics)

    def _verify(self, module: ModuleOp) -> float:
        begin = time.perf_counter()
        if self.verify_each:
            verify(module)
        return time.perf_counter() - begin


def _apply(ctx: Context, module: ModuleOp, pass_: ModulePass) -> tuple[float, dict[str, int]]:
    begin = time.perf_counter()
    with collect_statistics() as statistics:
        try:
            pass_.apply(ctx, module)
        except Exception as error:
            drop_dump(error)
            if isinstance(error, MpkError):
                error.add_note(f"raised by pass '{pass_.name}'")
                raise
            raise PlanError(f"pass '{pass_.name}' failed: {describe(error)}") from error
    return time.perf_counter() - begin, statistics.get(pass_.name, {})


def describe(error: Exception) -> str:
    """What ``error`` says; xDSL's own errors speak for themselves, others with their class in front."""
    text = str(error).strip()
    return text if text and type(error).__module__.startswith("xdsl.") else f"{type(error).__name__}: {text}"
