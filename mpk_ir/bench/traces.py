"""`python -m mpk_ir.bench.traces POINT... -o FILE`: measured steps and traces in one file, and how well they were
predicted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ..cli.run_command import Choice, choose_target
from ..codegen.program import Program
from ..core.errors import DeviceError, MpkError, UsageError
from ..core.target import Target
from ..timeline.record import Point, timed, traced
from ..timeline.recording import RecordedPoint, Recording
from ..timeline.simulate import predict
from .plans import Plan, compile_all
from .shapes import random_weights, shape_config
from .timing import STEPS, read_bandwidth_tb_s

COLUMNS = ("model", "batch", "context", "predicted us", "traced us (least to greatest)", "measured us", "error")
CONTEXT = 512
PROFILED = ("lower-to-cuda{profile=true}",)
POINTS = ("qwen3-0.6b:1,4,16", "llama-3.2-1b:1,4,16", "qwen3-1.7b:1", "qwen3-8b:1")


def main() -> int:
    """Exit code 0, or the error's; 1 if some of the points failed."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.traces", description=__doc__)
    parser.add_argument("points", nargs="*", default=POINTS, metavar="MODEL:BATCHES[@CONTEXT]", help=" ".join(POINTS))
    parser.add_argument("--target", default="auto", help="the GPU's own by default")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the recording, JSON")
    options = parser.parse_args()
    try:
        choice = choose_target(options.target)
        if choice.device is None:
            raise DeviceError(f"traces are measured on a GPU; {choice.reason}")
        points = [point for text in options.points for point in parse_points(text, choice.target)]
        recording = record_all(points, choice, options.output)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if len(recording.points) == len(points) else 1


def parse_points(text: str, target: Target) -> list[Point]:
    """`qwen3-8b:1,16@2048` -> two points. Raises UsageError for an unknown model or what are no numbers."""
    model, _, rest = text.partition(":")
    batches, _, context = rest.partition("@")
    config = shape_config(model)
    try:
        numbers = [int(batch) for batch in batches.split(",")]
        at = int(context) if context else CONTEXT
    except ValueError:
        raise UsageError(f"found '{text}', expected a point such as qwen3-8b:1,16 or qwen3-8b:4@2048") from None
    return [Point(model, config, batch, at, target) for batch in numbers]


def record_all(points: Sequence[Point], choice: Choice, file: Path) -> Recording:
    """Record ``points``, print a line for each, and write all so far to ``file`` after each; one that fails is told and
    left out. Raises what making the plans raises."""
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    recording = Recording(choice.reason, read_bandwidth_tb_s())
    for point, program, recorded in _recorded(points, choice):
        if isinstance(recorded, Exception):
            print(f"{point.name} batch {point.batch}: {type(recorded).__name__}: {recorded}", file=sys.stderr)
            continue
        recording = recording.with_point(recorded)
        recording.save(file)
        print(line(point, predict(program, point.load).facts.step_us, recorded), flush=True)
    return recording


def _recorded(points: Sequence[Point], choice: Choice) -> Iterator[tuple[Point, Program, RecordedPoint | Exception]]:
    """Weights are made once for neighbouring points of a model, kernels all at once on the cores that there are."""
    from ..runtime.weight_pool import WeightPool

    edits = ((), PROFILED)
    plans = [Plan(p.name, p.batch, p.context, p.target, edits=e) for p in points for e in edits]
    programs = iter(compile_all(plans))
    for name, group in groupby(points, lambda point: point.name):
        weights, pool = random_weights(shape_config(name), "cuda"), WeightPool()
        for point in group:
            plain, profiled = next(programs), next(programs)
            try:
                launches_us = timed(point, plain, weights, choice.device, pool)
                trace = traced(point, profiled, weights, choice.device, pool)
                yield point, plain, RecordedPoint(STEPS, tuple(launches_us), trace)
            except Exception as error:  # a point that fails must not take the others with it
                yield point, plain, error


def line(point: Point, predicted_us: float, recorded: RecordedPoint) -> str:
    """A row of the table; the error is that of the step without time stamps."""
    facts = recorded.trace.facts
    least, _, greatest = facts.steps_us
    cells = [
        point.name,
        str(point.batch),
        str(point.context),
        f"{predicted_us:.0f}",
        f"{facts.step_us:.0f} ({least:.0f} to {greatest:.0f})",
        f"{recorded.step_us:.0f}",
        f"{predicted_us / recorded.step_us - 1:+.1%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
