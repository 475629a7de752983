"""`python -m mpk_ir.bench.planning`: how large plans are and how long they take to make and to prove; needs no GPU."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..compiler import compile_step
from ..core.errors import MpkError
from ..core.lazy import load
from ..core.target import Target, target_of
from ..frontend import ModelConfig, StepOptions
from .shapes import shape_config

LAYERS = (2, 4, 8, 12, 16, 24, 36, 48, 60, 72)
MODELS = ("qwen3-1.7b", "qwen3-8b", "qwen3-30b-a3b")
SCALED = "qwen3-8b"
LENGTH = 640
PAGE_SIZE = 64
VERIFY = "sm-verify"
SIZES = ("operators", "grids", "tasks", "tasks an operator", "dependencies", "events", "fusion")
COLUMNS = ("model", "layers", *SIZES, "plan s", "proof s")


@dataclass(frozen=True)
class Planned:
    """One plan. ``dependencies``: pairs of tasks of which one must run before the other, those implied by others left
    out; ``events``: counters that order them. Seconds are the least of several runs: ``plan_seconds`` from config to
    tables without the proof, ``verify_seconds`` the proof."""

    model: str
    layers: int
    operators: int
    grids: int
    tasks: int
    dependencies: int
    events: int
    joins: int
    plan_seconds: float
    verify_seconds: float

    @property
    def fusion(self) -> float:
        return self.dependencies / self.events


def measure(name: str, config: ModelConfig, target: Target, repeats: int) -> Planned:
    """Plan ``config`` at batch 1 ``repeats`` times."""
    runs = [compile_step(config, target, StepOptions(1, 8, LENGTH, PAGE_SIZE)) for _ in range(repeats)]
    last = runs[-1]
    statistics = last.statistics
    return Planned(
        model=name,
        layers=config.num_layers,
        operators=sum(1 for op in last.modules["tg"].walk() if op.name in _COMPUTING),
        grids=len(last.program.grids),
        tasks=len(last.program.tasks),
        dependencies=statistics["sm-synthesize-events"]["dependencies"],
        events=len(last.program.event_count),
        joins=statistics.get("sm-normalize-events", {}).get("joins", 0),
        plan_seconds=min(sum(s for name, s in run.seconds.items() if name != VERIFY) for run in runs),
        verify_seconds=min(run.seconds[VERIFY] for run in runs),
    )


OPERATORS = (
    *("embedding", "fused_linear", "linear", "fused_attention", "attention", "argmax", "advance"),
    *("rms_norm", "top_k_gate", "grouped_linear", "expert_sum", "add"),
)
_COMPUTING = frozenset(f"tg.{name}" for name in OPERATORS)


def draw(rows: list[Planned], file: Path) -> None:
    """Seconds by layers. Raises ImportError without matplotlib."""
    figure = load("matplotlib.figure:Figure")(figsize=(8.0, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    layers = [row.layers for row in rows]
    for label, values in (
        ("planning (config to tables)", [row.plan_seconds for row in rows]),
        ("proof (sm-verify)", [row.verify_seconds for row in rows]),
    ):
        axes.plot(layers, values, marker="o", label=label)
    axes.set(xlabel=f"layers of the shape of {SCALED}", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    tasks = axes.secondary_xaxis("top", functions=_tasks_of_layers(rows))
    tasks.set_xlabel("tasks")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file)


def _tasks_of_layers(rows: list[Planned]) -> Any:
    """Both ways between layers and tasks, which is linear."""
    slope = (rows[-1].tasks - rows[0].tasks) / (rows[-1].layers - rows[0].layers)
    base = rows[0].tasks - slope * rows[0].layers
    return (lambda layers: base + slope * layers, lambda tasks: (tasks - base) / slope)


def table(rows: list[Planned]) -> str:
    """All of ``rows`` in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    for row in rows:
        cells = [row.model, row.layers, row.operators, row.grids, f"{row.tasks:,}", f"{row.tasks / row.operators:.0f}"]
        cells += [f"{row.dependencies:,}", f"{row.events:,}", f"{row.fusion:,.0f}x"]
        cells += [f"{row.plan_seconds:.2f}", f"{row.verify_seconds:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.planning", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--layers", default=",".join(map(str, LAYERS)), help=f"layers of {SCALED} to plan")
    parser.add_argument("--target", default="h200")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--png", type=Path, help="draw seconds by layers (needs matplotlib)")
    options = parser.parse_args()
    try:
        target, base = target_of(options.target), shape_config(SCALED)
        models = [measure(name, shape_config(name), target, options.repeats) for name in options.models.split(",")]
        print(table(models), flush=True)
        layers = map(int, options.layers.split(","))
        scaled = [measure(SCALED, replace(base, num_layers=n), target, options.repeats) for n in layers]
        print("\n" + table(scaled))
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in (*models, *scaled)], indent=1) + "\n")
    if options.png:
        draw(scaled, options.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
