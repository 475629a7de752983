"""`python -m mpk_ir.bench.ablation`: what each optimization is worth: a step with all of them, and without one each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codegen.program import Program
from ..core.errors import DeviceError, MpkError, UsageError, did_you_mean
from ..core.target import Target
from .plans import Plan, compile_each
from .shapes import shape_config
from .summary import Row

if TYPE_CHECKING:
    from .measure import Bench

ALL_ON = "all on"
SWITCHES: Mapping[str, tuple[str, ...]] = {
    "polled data": ("no sm-poll-data",),
    "rows in panels": ("no sm-panel-rows",),
    "fused events": ("no sm-fuse-events",),
    "fused chains": ("no sm-fuse-chains",),
    "elided waits": ("no sm-elide-waits",),
    "rotated queues": ("sm-schedule{rotate=false}",),
    "chains on one SM": ("sm-schedule{chain=false}",),
    "merged linears": ("no tg-merge-linears",),
    "all fusion": ("no tg-fuse",),
    "norm in linears": ("tg-fuse{norm=false}",),
    "residual in linears": ("tg-fuse{residual=false}",),
    "activation in linears": ("tg-fuse{activation=false}",),
    "rotation and cache in attention": ("tg-fuse{attention=false}",),
    "split positions": ('tile{decide="splits=1"}',),
    "rows merged one a task": ('tile{decide="merge_rows=8"}',),
    "rows dealt to idle SMs": ('tile{decide="rows=16"}',),
    "small passes of many rows": ('tile{decide="pass_tiles=4"}',),
    "loading far ahead": ("sm-pipeline{ring_kib=64}",),
    "few copies under way": ("sm-pipeline{in_flight=0}",),
    "bulk loads": ("lower-to-cuda{bulk_loads=false}",),
    "early weights": ("lower-to-cuda{early_weights=false}",),
}
"""What can be switched off -> the edits of the pipeline that do it (`Plan.edits`). Overlap of ranks is switched by its
strategy: `mpk_ir.bench.ranks`."""
IDENTICAL_RUNS = 5

Cell = Row | str
"""What a plan was measured to be, or why it was not."""
SAME = "same plan"


def table(columns: Sequence[str], cells: Mapping[str, Sequence[Cell]]) -> str:
    """Markdown: a row for each switch, of ``columns`` the milliseconds a step and how much longer than with all on;
    what was not found right is told."""
    lines = [f"| without | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name, row in cells.items():
        texts = [_text(cell, base if name != ALL_ON else None) for cell, base in zip(row, cells[ALL_ON], strict=True)]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _text(cell: Cell, base: Cell | None) -> str:
    if isinstance(cell, str):
        return cell
    assert cell.mpk is not None, "an ablation is timed"
    text = f"{cell.mpk.median_ms:.3f}"
    if isinstance(base, Row) and base.mpk is not None:
        text += f" ({cell.mpk.median_ms / base.mpk.median_ms - 1:+.1%})"
    return text if cell.passed and cell.accuracy else f"{text} WRONG OR UNCHECKED"


def chosen(text: str) -> list[str]:
    """Names of switches, `all` for every one. Raises UsageError with a guess."""
    names = list(SWITCHES) if text == "all" else text.split(",")
    for name in names:
        if name not in SWITCHES:
            raise UsageError(f"unknown switch '{name}'", advice=did_you_mean(name, SWITCHES))
    return names


def run(points: Sequence[Plan], switches: Sequence[str], check_steps: int) -> Iterator[dict[str, list[Cell]]]:
    """Of each switch a cell for each of ``points`` measured so far: yields after each point. What cannot be planned or
    run is told in its cell.

    Raises what the plan with all on raises.
    """
    from .measure import Bench, What

    names = (ALL_ON, *switches)
    plans = [replace(point, edits=SWITCHES.get(name, ())) for point in points for name in names]
    made = compile_each(plans)
    bench = Bench(What(check_steps, energy=False, identical_runs=IDENTICAL_RUNS))
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for first in range(0, len(plans), len(names)):
        base = made[first]
        if isinstance(base, MpkError):
            raise base
        seen: dict[str, Cell] = {}
        for name, plan, program in zip(names, plans[first:], made[first:], strict=False):
            cells[name].append(_cell(bench, plan, program, seen))
        yield cells


def _cell(bench: Bench, plan: Plan, program: Program | MpkError, seen: dict[str, Cell]) -> Cell:
    """``seen``: the cells so far by what their program is."""
    if isinstance(program, MpkError):
        return f"no plan: {program}".splitlines()[0]
    digest = program.digest()
    if digest in seen:
        return SAME
    try:
        seen[digest] = bench.measure(plan, program)
    except (MpkError, RuntimeError) as error:  # the second: torch, where a kernel took the context with it
        seen[digest] = f"failed: {error}".splitlines()[0]
    return seen[digest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.ablation", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,llama-3.2-1b")
    parser.add_argument("--switches", default="all", help=f"some of: {', '.join(SWITCHES)}")
    parser.add_argument("--batches", default="1", help="requests that decode, such as 1,16 (1)")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--check-steps", type=int, default=4, metavar="N", help="steps compared with fp32 first")
    parser.add_argument("--json", type=Path, help="write all cells to this file, after each point")
    options = parser.parse_args(arguments)
    try:
        switches, target = chosen(options.switches), _target()
        batches = [int(batch) for batch in options.batches.split(",")]
        points = [Plan(m, b, options.context, target) for m in options.models.split(",") for b in batches]
        for point in points:
            shape_config(point.model)
        columns: list[str] = []
        for point, cells in zip(points, run(points, switches, options.check_steps), strict=True):
            columns.append(f"{point.model} {point.batch}")
            print(table(columns, cells), flush=True)
            if options.json:
                options.json.write_text(json.dumps(_data(columns, cells), indent=1) + "\n")
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _target() -> Target:
    """Of the GPU. Raises DeviceError without one."""
    from ..cli.run_command import choose_target

    choice = choose_target("auto")
    if choice.device is None:
        raise DeviceError(f"an ablation is timed on a GPU; {choice.reason}")
    return choice.target


def _data(columns: Sequence[str], cells: Mapping[str, Sequence[Cell]]) -> dict[str, Any]:
    told = {name: [cell if isinstance(cell, str) else cell.data() for cell in row] for name, row in cells.items()}
    return {"points": list(columns), "cells": told}


if __name__ == "__main__":
    sys.exit(main())
