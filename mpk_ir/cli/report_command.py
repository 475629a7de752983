"""`mpk report`: where the time of a step goes, predicted from a plan or read from a trace."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.target import TARGETS, target_of
from .arguments import Parser, positive_int, target_name

if TYPE_CHECKING:
    from ..codegen.program import Program
    from ..timeline.analysis import Analysis, ComparedOperator
    from ..timeline.trace import Trace

SUMMARY = "say where the time of a step goes, of a model, a saved program or a trace"
DEFAULT_CONTEXT = 512
WIDTH_IN_FILES = 180


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk report", description=SUMMARY)
    parser.add_argument(
        "input",
        type=Path,
        nargs="?",
        metavar="MODEL|PROGRAM|TRACE",
        help="checkpoint folder or config.json, folder of `mpk compile`, or .npz of `mpk trace`",
    )
    parser.add_argument("--shape", metavar="NAME", help="instead of a model: the shape of a well-known one, qwen3-8b")
    parser.add_argument("--target", type=target_name, default="h200", help=f"{', '.join(TARGETS)} (default: h200)")
    parser.add_argument("--batch", type=positive_int, metavar="N", help="requests that decode (1; a program's own)")
    parser.add_argument("--context", type=positive_int, metavar="N", help=f"positions in a cache ({DEFAULT_CONTEXT})")
    parser.add_argument("--compare", type=Path, metavar="TRACE", help="a measured trace to hold the prediction against")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the predicted trace, .npz")
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw SMs by time as a page to zoom in")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw SMs by time as a picture (needs matplotlib)")
    parser.add_argument("--window", type=_window, metavar="A:B", help="microseconds that the picture shows (all)")
    parser.add_argument("--perfetto", type=Path, metavar="FILE", help="write trace events for ui.perfetto.dev")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line instead of tables")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Predict or load, draw, print. Raises MpkError subclasses."""
    if (arguments.input is None) == (arguments.shape is None):
        raise UsageError("found neither or both of an input and --shape", advice="name one model, program or trace")
    from ..timeline.analysis import Analysis, compare
    from ..timeline.trace import Trace

    trace = _trace(arguments)
    measured = Trace.load(arguments.compare) if arguments.compare else None
    if arguments.save:
        trace.save(arguments.save)
    analyses = [Analysis(one) for one in (trace, measured) if one is not None]
    _draw(arguments, analyses)
    _print(analyses, compare(trace, measured) if measured else [], as_json=arguments.json)
    return 0


def _window(text: str) -> tuple[float, float]:
    first, _, last = text.partition(":")
    try:
        window = float(first), float(last)
    except ValueError:
        window = 0.0, 0.0
    if not 0 <= window[0] < window[1]:
        raise UsageError(f"--window: found '{text}', expected two times in microseconds such as 100:250")
    return window


def _trace(arguments: argparse.Namespace) -> Trace:
    from ..timeline.trace import Trace

    path: Path | None = arguments.input
    if path is not None and path.suffix == ".npz":
        return Trace.load(path)
    from ..codegen.program import Program

    if path is not None and (path / "program.json").exists():
        return _predict(arguments, Program.load(path))
    return _predict(arguments, _compile(arguments))


def _compile(arguments: argparse.Namespace) -> Program:
    from ..bench.shapes import shape_config
    from ..frontend import load_config
    from ..timeline.record import Point

    config = shape_config(arguments.shape) if arguments.shape else load_config(arguments.input)
    context = arguments.context or min(DEFAULT_CONTEXT, config.max_positions - 1)
    return Point(config, arguments.batch or 1, context, target_of(arguments.target)).program()


def _predict(arguments: argparse.Namespace, program: Program) -> Trace:
    from ..tasks.work import Load
    from ..timeline.simulate import predict

    most = int(program.metadata.get("max_length", DEFAULT_CONTEXT + 1)) - 1
    context = arguments.context or min(DEFAULT_CONTEXT, most)
    if context > most:
        raise UsageError(f"--context: found {context}, the program holds {most} positions before the step")
    rows = arguments.batch or int(program.metadata.get("batch", 1))
    return predict(program, Load(rows, context))


def _draw(arguments: argparse.Namespace, analyses: list[Analysis]) -> None:
    from ..timeline.page import write_page
    from ..timeline.perfetto import write_perfetto
    from ..timeline.picture import draw_png

    if arguments.html:
        write_page(analyses, arguments.html)
    if arguments.perfetto:
        write_perfetto(analyses[0], arguments.perfetto)
    if arguments.png:
        draw_png(analyses[0], arguments.png, arguments.window)


def _print(analyses: list[Analysis], rows: list[ComparedOperator], *, as_json: bool) -> None:
    from ..timeline.tables import comparison_data, print_comparison, print_report, report_data

    if as_json:
        comparison = {"comparison": comparison_data(rows)} if rows else {}
        print(json.dumps(report_data(analyses[0]) | comparison))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_IN_FILES)
    print_report(console, analyses[0])
    if rows:
        print_comparison(console, rows)
