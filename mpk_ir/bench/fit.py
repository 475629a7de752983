"""`python -m mpk_ir.bench.fit TRACE...`: the timeline's constants from measured traces of well-known shapes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from ..core.errors import MpkError
from ..core.target import Costs
from ..timeline.fit import Sample, error, fit
from ..timeline.record import Point
from ..timeline.trace import Trace
from .shapes import shape_config


def sample_of(trace: Trace) -> Sample:
    """The trace with the program that was traced, compiled anew. Raises UsageError if its model is no known shape."""
    facts = trace.facts
    config = shape_config(facts.program)
    return Sample(Point(facts.program, config, facts.load.rows, facts.load.context, facts.target).program(), trace)


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.fit", description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+", help=".npz files of mpk_ir.bench.traces")
    options = parser.parse_args()
    try:
        samples = [sample_of(Trace.load(file)) for file in options.traces]
        start = samples[0].measured.facts.target.costs
        print(f"error before {error(samples, start):.3f}", flush=True)
        costs = fit(samples, start, _show)
    except MpkError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    for name, value in asdict(costs).items():
        print(f"    {name}: float = {value:.4g}")
    return 0


def _show(found: float, costs: Costs) -> None:
    print(f"error {found:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
