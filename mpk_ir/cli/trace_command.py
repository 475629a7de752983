"""`mpk trace`: one step of a model on the GPU, task by task, to a file that `mpk report` shows."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..core.errors import DeviceError, UsageError
from ..core.ranks import STRATEGIES, Parallel
from .arguments import Parser, one_of, positive_int, target_name

SUMMARY = "record when every task of a step runs on the GPU"


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk trace", description=SUMMARY)
    parser.add_argument("--model", type=Path, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--shape", metavar="NAME", help="a well-known model's shape with random weights: qwen3-8b, ...")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N", help="requests that decode (1)")
    parser.add_argument("--context", type=positive_int, default=512, metavar="N", help="positions in each cache (512)")
    parser.add_argument("--target", type=target_name, default=None, help="the GPU (default: the one that is there)")
    parser.add_argument("--ranks", type=positive_int, default=1, metavar="N", help="ranks on parts of the GPU (1)")
    parser.add_argument("--overlap", type=one_of("--overlap", *STRATEGIES), default="auto", help="how they exchange")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the trace, .npz")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Compile, run, write. Raises MpkError subclasses."""
    if (arguments.model is None) == (arguments.shape is None):
        raise UsageError("found neither or both of --model and --shape", advice="name one model to trace")
    from ..bench.shapes import random_weights, shape_config
    from ..frontend import load_config, open_checkpoint
    from ..program_cache import ProgramCache
    from ..timeline.record import Point, record
    from .progress import Progress
    from .run_command import choose_target

    config = shape_config(arguments.shape) if arguments.shape else load_config(arguments.model)
    choice = choose_target(arguments.target or "auto")
    if choice.device is None:
        raise DeviceError(f"a trace is measured on a GPU; {choice.reason}", advice="`mpk report` predicts without one")
    progress = Progress()
    with progress.stage("load", "loading weights"):
        weights = random_weights(config, "cuda") if arguments.shape else open_checkpoint(arguments.model).tensor
    parallel = Parallel(arguments.ranks, arguments.overlap)
    name = arguments.shape or arguments.model.name
    if arguments.ranks > 1:
        name += f", {arguments.ranks} ranks, overlap {arguments.overlap}"
    point = Point(name, config, arguments.batch, arguments.context, choice.target, parallel)
    tuned = ProgramCache().tuned(config, point.part, point.options, parallel)
    if tuned is not None:
        point = replace(point, edits=tuned.edits)
    with progress.stage("trace", "recording"):
        trace = record(point, weights, choice.device, unprofiled=False)
    trace.save(arguments.output)
    least, middle, greatest = trace.facts.steps_us
    progress.say(f"{arguments.output}: {middle:.0f} us a step ({least:.0f} to {greatest:.0f}), {len(trace.sm)} tasks")
    return 0
