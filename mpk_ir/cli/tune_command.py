"""`mpk tune`: times the plans that should be fast on the GPU and remembers the fastest."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..core.errors import DeviceError, UsageError
from .arguments import Parser, positive_int

SUMMARY = "time plans on the GPU, and plan by the fastest from then on"
MOST_TIMED = 6


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk tune", description=SUMMARY)
    parser.add_argument(
        "model", type=Path, nargs="?", metavar="DIR", help="checkpoint folder; its weights are not read"
    )
    parser.add_argument("--shape", metavar="NAME", help="instead of a model: the shape of a well-known one, qwen3-8b")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N", help="requests that decode (1)")
    parser.add_argument("--context", type=positive_int, default=512, metavar="N", help="positions in each cache (512)")
    parser.add_argument(
        "--most", type=positive_int, default=MOST_TIMED, metavar="N", help=f"plans to time, besides ({MOST_TIMED})"
    )
    parser.add_argument(
        "--try",
        dest="tried",
        nargs="+",
        action="append",
        default=[],
        metavar="EDIT",
        help="a plan to time, not those that a search finds: 'PASS{options}', 'no PASS', 'PASS: OTHER'; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was timed to this file, after each plan")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Search, time, remember, print. Raises MpkError subclasses."""
    if (arguments.model is None) == (arguments.shape is None):
        raise UsageError("found neither or both of a model and --shape", advice="name one model to tune")
    from ..bench.plans import Plan
    from ..bench.shapes import shape_config
    from ..bench.tune import asked, best_predicted, tune
    from ..program_cache import ProgramCache
    from .progress import Progress
    from .report_command import WIDTH_IN_FILES
    from .run_command import choose_target

    name = arguments.shape or str(arguments.model)
    config = shape_config(name)
    choice = choose_target("auto")
    if choice.device is None:
        raise DeviceError(f"plans are timed on a GPU; {choice.reason}", advice="`mpk report --search` predicts")
    plan = Plan(name, arguments.batch, arguments.context, choice.target)
    progress = Progress()
    with progress.stage("search", "searching"):
        if arguments.tried:
            tried = asked(plan, [tuple(edits) for edits in arguments.tried])
        else:
            tried = best_predicted(plan, arguments.most)
    found = None
    with progress.stage("time", "timing"):
        for found in tune(plan, tried):
            if arguments.json:
                arguments.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    assert found is not None, "the plan of the cost model is timed, or its failure raised"
    ProgramCache().keep_tuned(found, config, choice.target, plan.options)
    from rich.console import Console

    from ..timeline.tables import print_tuned

    console = Console(highlight=False)
    print_tuned(console if console.is_terminal else Console(highlight=False, width=WIDTH_IN_FILES), found)
    return 0
