"""`python -m mpk_ir.bench.traces -o FOLDER`: measured traces of several models and batches, and how well they were
predicted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..cli.run_command import choose_target
from ..core.errors import DeviceError, MpkError
from ..timeline.record import Point, record
from ..timeline.simulate import predict
from ..timeline.trace import Trace
from .shapes import random_weights, shape_config

COLUMNS = ("model", "batch", "predicted us", "traced us (least to greatest)", "without time stamps us", "error")


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.traces", description=__doc__)
    parser.add_argument("--models", default="llama-3.2-1b,qwen3-0.6b,qwen3-8b")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--target", default="auto", help="the GPU's own by default")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for one .npz each")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    try:
        choice = choose_target(options.target)
        if choice.device is None:
            raise DeviceError(f"traces are measured on a GPU; {choice.reason}")
        for name in options.models.split(","):
            config = shape_config(name)
            weights = random_weights(config, "cuda")
            for batch in map(int, options.batches.split(",")):
                point = Point(name, config, batch, options.context, choice.target)
                measured = record(point, weights, choice.device)
                measured.save(options.output / f"{name}-batch{batch}.npz")
                print(line(name, predict(point.program(), point.load, name), measured), flush=True)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def line(name: str, predicted: Trace, measured: Trace) -> str:
    """A row of the table; the error is that of the step without time stamps if it was timed."""
    facts = measured.facts
    least, _, greatest = facts.steps_us
    truth = facts.unprofiled_us or facts.step_us
    error = predicted.facts.step_us / truth - 1
    plain = f"{facts.unprofiled_us:.0f}" if facts.unprofiled_us else "-"
    cells = [
        name,
        str(facts.load.rows),
        f"{predicted.facts.step_us:.0f}",
        f"{facts.step_us:.0f} ({least:.0f} to {greatest:.0f})",
        plain,
        f"{error:+.1%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
