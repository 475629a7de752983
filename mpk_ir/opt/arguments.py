"""The command line of `mpk-opt`: pass flags in order, MLIR's names for options, guesses for mistyped ones."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Container, Iterable, Sequence

from ..core.errors import UsageError, did_you_mean

PIPELINE_FLAGS = ("-p", "--passes", "-pass-pipeline", "--pass-pipeline")

RENAMED = {
    # xDSL's own disable-verify switches verification of attributes off in the whole process, for good.
    "--disable-verify": "--no-verify",
    "--time-passes": "--timing",
    "--print-between-passes": "--print-ir-after-all",
}


def split_pipelines(arguments: Sequence[str], passes: Container[str]) -> tuple[list[str], list[str]]:
    """Take pipelines out of ``arguments``: `-p TEXT`, `--pass`, `--pass=options`, in the order given.

    Returns the pipelines as text and the arguments left.
    """
    pipelines: list[str] = []
    left: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-")
        if flag in PIPELINE_FLAGS:
            pipelines.append(value if equals else next(rest, ""))
        elif flag != name and name in passes:
            pipelines.append(f"{name}{{{value.strip().strip('{}')}}}" if equals else name)
        else:
            left.append(RENAMED.get(flag, flag) + equals + value)
    return pipelines, left


def add_arguments(parser: ArgumentParser) -> None:
    """The options that xDSL's own driver lacks."""
    passes = parser.add_argument_group("passes", "each pass also has a flag: --PASS or --PASS='option=value ...'")
    passes.add_argument(
        "--pass-pipeline", metavar="TEXT", help="the same as -p; `builtin.module(...)` may be around it"
    )
    passes.add_argument("--list-passes", action="store_true", help="list all passes with their options, and stop")
    passes.add_argument("--show-dialects", action="store_true", help="list all dialects, and stop")
    passes.add_argument("--dump-pass-pipeline", action="store_true", help="print the pipeline that will run to stderr")
    passes.add_argument(
        "--pass-time-limit", type=float, default=300.0, metavar="SECONDS", help="stop a pass that runs longer; 0: never"
    )
    _add_checks(parser)
    _add_printing(parser)
    reports = parser.add_argument_group("reports, on stderr")
    reports.add_argument("--timing", "--mlir-timing", action="store_true", help="time of each pass")
    reports.add_argument(
        "--statistics", "--mlir-pass-statistics", dest="statistics", action="store_true", help="what each pass counted"
    )
    reports.add_argument(
        "--mlir-pass-pipeline-crash-reproducer",
        "--crash-reproducer",
        dest="crash_reproducer",
        metavar="FILE",
        help="if a pass fails, write the IR it was given and what was left of the pipeline to FILE",
    )
    reports.add_argument("--run-reproducer", action="store_true", help="run the pipeline that a reproducer file states")
    reports.add_argument("--traceback", action="store_true", help="on an error, show where in the tool it was raised")


def _add_checks(parser: ArgumentParser) -> None:
    checks = parser.add_argument_group("checks")
    text = "verify between passes (default: true)"
    checks.add_argument("--verify-each", type=_boolean, nargs="?", const=True, default=True, metavar="BOOL", help=text)
    checks.add_argument("--no-verify", action="store_true", help="never verify, not even the input")
    text = "check that the input prints and parses to the same IR"
    checks.add_argument("--verify-roundtrip", action="store_true", help=text)


def _add_printing(parser: ArgumentParser) -> None:
    printing = parser.add_argument_group("printing of IR between passes, on stderr; --mlir-print-... works too")

    def add(name: str, dest: str, text: str, metavar: str | None = None) -> None:
        flags = (f"--print-{name}", f"--mlir-print-{name}")
        if metavar is None:
            printing.add_argument(*flags, dest=dest, action="store_true", help=text)
        else:
            printing.add_argument(*flags, dest=dest, action="append", metavar=metavar, help=text)

    add("ir-before", "ir_before", "print the IR before these passes", "NAMES")
    add("ir-after", "ir_after", "print the IR after these passes", "NAMES")
    add("ir-before-all", "ir_before_all", "print the IR before each pass")
    add("ir-after-all", "ir_after_all", "print the IR after each pass")
    add("ir-after-change", "ir_change", "print the IR after each pass that changed it")
    add("ir-after-failure", "ir_failure", "print the IR after a pass that failed")
    add("ir-tree-dir", "ir_tree_dir", "print into files in DIR, one for each pass, instead", "DIR")
    printing.add_argument("--mlir-print-op-generic", dest="print_op_generic", action="store_true", help="generic form")
    printing.add_argument("--mlir-print-debuginfo", dest="print_debuginfo", action="store_true", help="with locations")


def reject_unknown(parser: ArgumentParser, arguments: Sequence[str], passes: Iterable[str]) -> None:
    """Raises UsageError for a flag that is neither an option nor a pass, with the closest that is."""
    _, unknown = parser.parse_known_args(arguments)
    for argument in unknown:
        name = argument.partition("=")[0]
        if name.startswith("-"):
            options = re.findall(r"(?<![\w-])--?[a-z][\w-]*", parser.format_help())
            known = {*options, *(f"--{one}" for one in passes)}
            guess = did_you_mean(name, known)
            advice = guess if guess.startswith("did") else "see --help and --list-passes"
            raise UsageError(f"unknown option '{name}'", advice=advice)
        raise UsageError(f"a second input file '{argument}'", advice="mpk-opt reads one file, or stdin")


def _boolean(text: str) -> bool:
    values = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]
