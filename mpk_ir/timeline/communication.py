"""`python -m mpk_ir.timeline.communication`: what ranks cost, predicted, with and without overlap; needs no GPU."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..bench.shapes import shape_config
from ..codegen.program import Program
from ..compiler import compile_step
from ..core.errors import MpkError
from ..core.lazy import load as import_name
from ..core.ranks import Parallel
from ..core.target import Link, Target, target_of
from ..frontend import ModelConfig, StepOptions
from ..tasks.work import Load
from .simulate import simulate
from .traffic import demand

MODELS = ("qwen3-1.7b", "qwen3-8b", "qwen3-32b")
RANKS = (2, 4, 8)
COMMUNICATION = ("push", "rank_sum")
"""Kinds whose tasks one rank alone would not have."""
PAGE_SIZE = 64
FREE = Link("no distance", float("inf"), 0.0)
COLUMNS = ("model", "GPUs", "one GPU us", "overlap us", "no overlap us", "exposed us", "without overlap us", "gain")


@dataclass(frozen=True)
class Predicted:
    """Microseconds a step. ``alone_us``: one GPU. ``hidden_us``: if what ranks exchange cost nothing; ``overlap_us``
    and ``bulk_us``: with tiles pushed as they finish, and with collectives that wait for whole values."""

    model: str
    ranks: int
    alone_us: float
    hidden_us: float
    overlap_us: float
    bulk_us: float

    @property
    def exposed_us(self) -> float:
        return self.overlap_us - self.hidden_us

    @property
    def bulk_exposed_us(self) -> float:
        return self.bulk_us - self.hidden_us

    @property
    def gain(self) -> float:
        """How much longer a step takes without overlap."""
        return self.bulk_us / self.overlap_us


def predict_ranks(name: str, target: Target, load: Load, counts: Sequence[int]) -> list[Predicted]:
    """One model on each of ``counts`` GPUs."""
    config = shape_config(name)
    alone_us = step_us(plan(config, target, load, Parallel()), load)
    found: list[Predicted] = []
    for ranks in counts:
        pushing = plan(config, target, load, Parallel(ranks, "auto"))
        bulk = plan(config, target, load, Parallel(ranks, "off"))
        times = (free_us(pushing, load), step_us(pushing, load), step_us(bulk, load))
        found.append(Predicted(name, ranks, alone_us, *times))
    return found


def plan(config: ModelConfig, target: Target, load: Load, parallel: Parallel) -> Program:
    """The step of one rank."""
    length = -(-(load.context + 1) // PAGE_SIZE) * PAGE_SIZE
    return compile_step(config, target, StepOptions(load.rows, 8, length, PAGE_SIZE), parallel=parallel).program


def step_us(program: Program, load: Load) -> float:
    """Microseconds from step to step."""
    return simulate(program, demand(program, load))[1]


def free_us(program: Program, load: Load) -> float:
    """The same if links were no distance and sums no work."""
    asked = demand(program, load)
    kinds = np.array([grid.kind in COMMUNICATION for grid in program.grids])[program.tasks["grid"]]
    asked.compute_us[kinds] = 0.0
    return simulate(replace(program, target=replace(program.target, link=FREE)), asked)[1]


def table(rows: Sequence[Predicted]) -> str:
    """All of ``rows`` in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    for row in rows:
        cells = [row.model, str(row.ranks)]
        cells += [f"{us:,.0f}" for us in (row.alone_us, row.overlap_us, row.bulk_us, row.exposed_us)]
        cells += [f"{row.bulk_exposed_us:,.0f}", f"{row.gain:.2f}x"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Predicted], file: Path) -> None:
    """Steps as bars: what is hidden, and what is exposed with and without overlap. Raises ImportError without
    matplotlib."""
    figure = import_name("matplotlib.figure:Figure")(figsize=(8.0, 3.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        for shift, exposed, colour in ((-0.2, row.exposed_us, "C1"), (0.2, row.bulk_exposed_us, "C3")):
            axes.bar(place + shift, row.hidden_us, 0.36, color="C0")
            axes.bar(place + shift, exposed, 0.36, bottom=row.hidden_us, color=colour)
    axes.set_xticks(range(len(rows)), [f"{row.model}\n{row.ranks} GPUs" for row in rows], fontsize=7)
    axes.set(ylabel="predicted microseconds a step")
    names = {"C0": "everything else", "C1": "exposed, with overlap", "C3": "exposed, without"}
    patch = import_name("matplotlib.patches:Patch")
    axes.legend(handles=[patch(color=c, label=label) for c, label in names.items()], frameon=False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file)


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.timeline.communication", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--target", default="h100")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--png", type=Path, help="draw them (needs matplotlib)")
    options = parser.parse_args()
    if options.png and find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'mpk-ir[plot]'")
    load, counts = Load(options.batch, options.context), [int(count) for count in options.ranks.split(",")]
    rows: list[Predicted] = []
    try:
        for name in options.models.split(","):
            rows += predict_ranks(name, target_of(options.target), load, counts)
            print(f"{name} done", file=sys.stderr)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.png:
        draw(rows, options.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
