"""`mpk bench`: correctness, then time per step beside torch and beside what memory alone needs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DeviceError, UsageError, did_you_mean
from .arguments import Parser

if TYPE_CHECKING:
    from ..bench.prefill import PrefillRow
    from ..bench.summary import Report
    from ..core.target import Target

SUMMARY = "time models on the GPU beside torch, correctness checked first"
BASELINES = ("eager", "graph", "compile")


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk bench", description=SUMMARY)
    parser.add_argument("--models", default="qwen3-0.6b,llama-3.2-1b,qwen3-8b", help="model shapes, random weights")
    parser.add_argument("--batches", type=_numbers, default=[1], metavar="N,...", help="requests that decode (1)")
    parser.add_argument("--contexts", type=_numbers, default=[512], metavar="N,...", help="positions in a cache (512)")
    parser.add_argument(
        "--prefill", type=_numbers, default=[], metavar="N,...", help="time prompts of N tokens instead of decoding"
    )
    parser.add_argument("--baseline", type=_baselines, default=(), help=f"time torch too: {','.join(BASELINES)}")
    parser.add_argument(
        "--check-steps", type=_number, default=8, metavar="N", help="steps compared with fp32 first (8)"
    )
    parser.add_argument("--check-only", action="store_true", help="no timing")
    parser.add_argument("--soak", type=_number, default=0, metavar="N", help="launches that must leave the same bits")
    parser.add_argument(
        "--delayed", type=_number, default=0, metavar="N", help="with --soak: as many with random delays"
    )
    parser.add_argument("--edit", action="append", default=[], help="change the pipeline: 'no PASS' or 'PASS{options}'")
    parser.add_argument("--plain-loads", action="store_true", help="no copy engine, for compute-sanitizer racecheck")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to this file")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw times against their floor (needs matplotlib)")
    parser.add_argument("--from", dest="report", type=Path, metavar="JSON", help="draw a report; measure nothing")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """0, or 1 if something that was checked is wrong. Raises MpkError subclasses."""
    if arguments.report:
        return _redraw(arguments)
    from ..bench.measure import What, measure
    from ..bench.shapes import shape_config
    from ..bench.summary import COLUMNS, line
    from .run_command import choose_target

    models = arguments.models.split(",")
    for name in models:
        shape_config(name)
    choice = choose_target("auto")
    if choice.device is None:
        raise DeviceError(f"a benchmark needs a GPU; {choice.reason}", advice="`mpk report` predicts without one")
    if arguments.prefill:
        return _prefill(arguments, models, choice.target)
    edits = [*arguments.edit, *(["lower-to-cuda{bulk_loads=false}"] if arguments.plain_loads else [])]
    checks = (arguments.check_steps, not arguments.check_only, arguments.baseline, arguments.soak, arguments.delayed)
    points = [(batch, context) for batch in arguments.batches for context in arguments.contexts]

    def done(report: Report) -> None:
        if len(report.rows) == 1:
            print(f"{report.device}: reads {report.measured_tb_s:.2f} TB/s, nominal {report.nominal_tb_s:.2f}")
            print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
        print(line(report.rows[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(report.data(), indent=1) + "\n")

    report = measure(models, points, choice.target, What(*checks, tuple(edits)), done)
    if arguments.png:
        from ..bench.picture import draw

        draw(report.data(), arguments.png)
    return 0 if all(row.passed for row in report.rows) else 1


def _prefill(arguments: argparse.Namespace, models: list[str], target: Target) -> int:
    from dataclasses import asdict

    from ..bench.prefill import COLUMNS, measure_prefill

    rows: list[PrefillRow] = []
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for row in measure_prefill(models, arguments.prefill, target, arguments.baseline):
        rows.append(row)
        print(row.line(), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"prefill": [asdict(one) for one in rows]}, indent=1) + "\n")
    return 0 if all(row.accuracy.passed and row.identical for row in rows) else 1


def _redraw(arguments: argparse.Namespace) -> int:
    from ..bench.picture import draw

    if arguments.png is None:
        raise UsageError("--from draws a report: found no --png to draw it to")
    try:
        draw(json.loads(arguments.report.read_text()), arguments.png)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        where = str(arguments.report)
        raise UsageError(f"no report of `mpk bench`: {error}", where=where, advice="write one with --json") from error
    return 0


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"found '{text}', expected an integer of 0 or more")
    return int(text)


def _numbers(text: str) -> list[int]:
    numbers = [_number(part) for part in text.split(",")]
    if 0 in numbers:
        raise UsageError(f"found '{text}', expected integers of 1 or more such as 1,4,16")
    return numbers


def _baselines(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baseline: unknown '{name}'", advice=did_you_mean(name, BASELINES))
    return names
