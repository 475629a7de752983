"""`mpk report`: where the time of a step goes, predicted from a plan or read from a trace."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.target import TARGETS, target_of
from .arguments import Parser, positive_int, target_name

if TYPE_CHECKING:
    from ..codegen.program import Program
    from ..program_cache import Tuned
    from ..timeline.analysis import Analysis
    from ..timeline.search import Trial
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
    parser.add_argument("--compare", type=Path, metavar="TRACE", help="a measured trace to hold it against")
    parser.add_argument("--search", action="store_true", help="of a model: search for tiles first, show the trials")
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
    from ..timeline.tables import (
        comparison_data,
        print_comparison,
        print_report,
        print_trials,
        print_tuned,
        report_data,
        trials_data,
        tuned_data,
    )
    from ..timeline.trace import Trace

    trace, chosen = _trace(arguments)
    measured = Trace.load(arguments.compare) if arguments.compare else None
    if arguments.save:
        trace.save(arguments.save)
    analyses = [Analysis(one) for one in (trace, measured) if one is not None]
    _draw(arguments, analyses)
    comparison = compare(trace, measured) if measured else []
    if arguments.json:
        searched = trials_data(chosen.trials) | tuned_data(chosen.tuned)
        print(json.dumps(report_data(analyses[0]) | comparison_data(comparison) | searched))
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_IN_FILES)
    print_report(console, analyses[0])
    print_comparison(console, comparison, trace.facts.origin)
    print_trials(console, chosen.trials)
    print_tuned(console, chosen.tuned)
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


@dataclass(frozen=True)
class _Chosen:
    """How a plan's choices were made beyond the cost model: by a search now, or by what was tuned before."""

    trials: Sequence[Trial] = ()
    tuned: Tuned | None = None


def _trace(arguments: argparse.Namespace) -> tuple[Trace, _Chosen]:
    """The trace that was asked for, and what else decided its plan."""
    from ..timeline.trace import Trace

    path: Path | None = arguments.input
    is_trace = path is not None and path.suffix == ".npz"
    is_program = path is not None and (path / "program.json").exists()
    if arguments.search and (is_trace or is_program):
        raise UsageError("--search: found a plan that is made, expected a model", advice="name the model it came from")
    if path is not None and is_trace:
        return Trace.load(path), _Chosen()
    from ..codegen.program import Program

    if path is not None and is_program:
        return _predict(arguments, Program.load(path)), _Chosen()
    program, chosen = _compile(arguments)
    return _predict(arguments, program), chosen


def _compile(arguments: argparse.Namespace) -> tuple[Program, _Chosen]:
    from ..bench.shapes import shape_config
    from ..frontend import load_config
    from ..program_cache import ProgramCache
    from ..timeline.record import Point
    from .progress import Progress

    config = shape_config(arguments.shape) if arguments.shape else load_config(arguments.input)
    context = arguments.context or min(DEFAULT_CONTEXT, config.max_positions - 1)
    point = Point(_name(arguments), config, arguments.batch or 1, context, target_of(arguments.target))
    tuned = None if arguments.search else ProgramCache().tuned(config, point.target, point.options)
    if tuned is not None:
        point = replace(point, edits=tuned.edits)
    progress = Progress(quiet=arguments.json)
    with progress.stage("plan", "searching" if arguments.search else "planning"):
        compilation = point.compile(search=arguments.search)
    return compilation.program, _Chosen(compilation.trials, tuned)


def _predict(arguments: argparse.Namespace, program: Program) -> Trace:
    from ..tasks.work import Load
    from ..timeline.simulate import predict

    most = int(program.metadata.get("max_length", DEFAULT_CONTEXT + 1)) - 1
    context = arguments.context or min(DEFAULT_CONTEXT, most)
    if context > most:
        raise UsageError(f"--context: found {context}, the program holds {most} positions before the step")
    rows = arguments.batch or int(program.metadata.get("batch", 1))
    return predict(program, Load(rows, context), _name(arguments))


def _name(arguments: argparse.Namespace) -> str:
    """What to call the model: its folder, or the folder of its config."""
    if arguments.shape:
        return arguments.shape
    path: Path = arguments.input.resolve()
    return path.parent.name if path.suffix == ".json" else path.name


def _draw(arguments: argparse.Namespace, analyses: list[Analysis]) -> None:
    from ..timeline.page import write_page
    from ..timeline.perfetto import write_perfetto
    from ..timeline.picture import draw_png

    if arguments.html:
        write_page(analyses, arguments.html)
    if arguments.perfetto:
        write_perfetto(analyses, arguments.perfetto)
    if arguments.png:
        draw_png(analyses, arguments.png, arguments.window)
