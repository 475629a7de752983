"""`python -m mpk_ir.bench.fit RECORDING...`: the timeline's constants from measured steps and traces of well-known
shapes, and how well they predict each point: read off all traces, and off all but the point's. Needs no GPU."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import MpkError
from ..core.target import Costs
from ..timeline.fit import Sample, error, fit, leave_one_out, require_same_plan
from ..timeline.record import Point
from ..timeline.recording import RecordedPoint, load_all
from .shapes import shape_config

COLUMNS = ("model", "batch", "context", "measured us", "predicted us", "error", "from the other points us", "error")


@dataclass(frozen=True)
class Fitted:
    """One point: microseconds a step, measured, predicted, and predicted by constants fitted to the other points (None
    if that was not asked for)."""

    model: str
    batch: int
    context: int
    measured_us: float
    predicted_us: float
    left_out_us: float | None = None

    @property
    def error(self) -> float:
        return self.predicted_us / self.measured_us - 1.0

    @property
    def left_out_error(self) -> float | None:
        return None if self.left_out_us is None else self.left_out_us / self.measured_us - 1.0

    def cells(self) -> list[str]:
        """A row of the table."""
        cells = [self.model, str(self.batch), str(self.context), f"{self.measured_us:.0f}", f"{self.predicted_us:.0f}"]
        cells += [f"{self.error:+.1%}"]
        if self.left_out_us is not None and self.left_out_error is not None:
            cells += [f"{self.left_out_us:.0f}", f"{self.left_out_error:+.1%}"]
        return cells


def sample_of(point: RecordedPoint) -> Sample:
    """The point with the program that was traced, compiled anew. Raises UsageError if its model is no known shape, or
    its plan is another one now."""
    facts = point.trace.facts
    config = shape_config(facts.program)
    program = Point(facts.program, config, facts.load.rows, facts.load.context, facts.target).program()
    require_same_plan(program, point.trace)
    return Sample(program, point.trace, point.step_us, facts.load.context + point.steps // 2)


def evaluate(samples: Sequence[Sample], costs: Costs, left_out: Sequence[float] | None = None) -> list[Fitted]:
    """How well ``costs`` predict ``samples``; ``left_out``: what others predicted."""
    rows: list[Fitted] = []
    for number, sample in enumerate(samples):
        facts = sample.measured.facts
        point = facts.program, facts.load.rows, facts.load.context
        other_us = left_out[number] if left_out is not None else None
        rows.append(Fitted(*point, sample.step_us, sample.predicted_us(costs), other_us))
    return rows


def table(rows: Sequence[Fitted]) -> str:
    """Markdown, with the mean and the worst of the errors below."""
    width = len(rows[0].cells()) if rows else len(COLUMNS)
    lines = [f"| {' | '.join(COLUMNS[:width])} |", "| --- " * width + "|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    lines += ["", _summary("fitted to all", [row.error for row in rows])]
    left_out = [row.left_out_error for row in rows if row.left_out_error is not None]
    return "\n".join([*lines, *([_summary("fitted to the others", left_out)] if left_out else [])])


def _summary(what: str, errors: Sequence[float]) -> str:
    sizes = [abs(error) for error in errors]
    return f"{what}: mean error {sum(sizes) / len(sizes):.1%}, worst {max(sizes):.1%}"


def constants(costs: Costs) -> str:
    """What goes into `Costs` of `mpk_ir/core/target.py`."""
    return "\n".join(f"    {name}: float = {value:.4g}" for name, value in asdict(costs).items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.fit", description=__doc__)
    parser.add_argument("recordings", type=Path, nargs="+", help="files of mpk_ir.bench.traces")
    parser.add_argument("--no-leave-one-out", action="store_true", help="leave out what takes most of the time")
    parser.add_argument("--as-is", action="store_true", help="fit nothing: how good are the constants there are?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write errors and constants to this file")
    options = parser.parse_args(arguments)
    try:
        samples = [sample_of(point) for point in load_all(options.recordings)]
        costs = samples[0].measured.facts.target.costs
        _tell(f"error before {error(samples, costs):.3f}")
        if not options.as_is:
            costs = fit(samples, costs, lambda found, _: _tell(f"error {found:.3f}"))
        left_out = None if options.as_is or options.no_leave_one_out else leave_one_out(samples, costs)
        rows = evaluate(samples, costs, left_out)
    except MpkError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    print(f"{table(rows)}\n\n{constants(costs)}")
    if options.json:
        data = {"points": [asdict(row) for row in rows], "costs": asdict(costs)}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
