"""`mpk verify`: proves a plan safe, from its IR or from the tables of a saved program."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from .arguments import Parser

if TYPE_CHECKING:
    from ..proof import Plan

SUMMARY = "prove a plan free of deadlock and races: IR at level sm, or a saved program"


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk verify", description=SUMMARY)
    parser.add_argument("plan", type=Path, help="file of IR with an sm.graph, or a folder that `mpk compile` wrote")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """0 for a safe plan, 1 for an unsafe one. Raises MpkError subclasses, Rejection among them."""
    from ..proof import Rejection

    begin = time.perf_counter()
    facts: list[dict[str, Any]] = []
    try:
        for name, plan in _plans(arguments.plan):
            facts.append(_facts(name, plan))
    except Rejection as rejection:
        if not arguments.json:
            raise
        print(json.dumps({"safe": False, "rejection": rejection.as_dict()}, indent=1))
        return Rejection.exit_code
    seconds = round(time.perf_counter() - begin, 3)
    if arguments.json:
        print(json.dumps({"safe": True, "plans": facts, "seconds": seconds}, indent=1))
        return 0
    for one in facts:
        counts = ", ".join(f"{value} {key}" for key, value in one.items() if key != "name")
        print(f"{one['name']} is safe: {counts}; proved in {seconds} s")
    return 0


def _plans(path: Path) -> Iterator[tuple[str, Plan]]:
    """The plans at ``path``, each proved safe."""
    if path.is_dir():
        from ..codegen.program import Program
        from ..codegen.verify import verify_program

        program = Program.load(path)
        yield program.name, verify_program(program)
        return
    from ..api import parse
    from ..dialects.sm import GraphOp
    from ..passes.analysis.plan_arrays import plan_of
    from ..proof import check

    if not path.is_file():
        raise UsageError("no such file or folder", where=str(path), advice="name a file of IR or a saved program")
    module = parse(_text(path), name=str(path))
    graphs = [op for op in module.body.block.ops if isinstance(op, GraphOp)]
    if not graphs:
        raise UsageError(
            "found no sm.graph to verify", where=str(path), advice="write one with `mpk compile --emit sm`"
        )
    for graph in graphs:
        plan = plan_of(graph)
        check(plan)
        yield graph.sym_name.data, plan


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise UsageError(f"not text: {error}", where=str(path)) from error


def _facts(name: str, plan: Plan) -> dict[str, Any]:
    return {
        "name": name,
        "grids": len(plan.grids),
        "tasks": plan.num_tasks,
        "queues": plan.num_queues,
        "events": len(plan.event_count),
        "waits": len(plan.waits),
        "signals": len(plan.signals),
    }
