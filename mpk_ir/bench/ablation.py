"""`python -m mpk_ir.bench.ablation`: what each optimization is worth: a step with all of them, and without one each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import DeviceError, MpkError, UsageError, did_you_mean
from .shapes import shape_config
from .summary import Report

ALL_ON = "all on"
SWITCHES: Mapping[str, tuple[str, ...]] = {
    "polled data": ("no sm-poll-data",),
    "fused events": ("no sm-fuse-events",),
    "fused chains": ("no sm-fuse-chains",),
    "elided waits": ("no sm-elide-waits",),
    "merged linears": ("no tg-merge-linears",),
    "all fusion": ("no tg-fuse",),
    "norm in linears": ("tg-fuse{norm=false}",),
    "residual in linears": ("tg-fuse{residual=false}",),
    "activation in linears": ("tg-fuse{activation=false}",),
    "rotation and cache in attention": ("tg-fuse{attention=false}",),
    "loading far ahead": ("sm-pipeline{ring_kib=64}",),
    "bulk loads": ("lower-to-cuda{bulk_loads=false}",),
}
"""What can be switched off -> the edits of the pipeline that do it (`Plan.edits`). Overlap of ranks is switched by its
strategy: `mpk_ir.bench.ranks`."""


def table(reports: Mapping[str, Report]) -> str:
    """Markdown: a row for each switch, milliseconds a step of each model and how much longer than with all on."""
    models = [row.model for row in reports[ALL_ON].rows]
    base = {row.model: row.mpk.median_ms for row in reports[ALL_ON].rows if row.mpk}
    lines = [f"| without | {' | '.join(models)} | checked |", "| --- " * (len(models) + 2) + "|"]
    for name, report in reports.items():
        times = {row.model: row.mpk.median_ms for row in report.rows if row.mpk}
        cells = [
            f"{times[m]:.3f}" + ("" if name == ALL_ON else f" ({times[m] / base[m] - 1:+.0%})") if m in times else "-"
            for m in models
        ]
        right = bool(report.rows) and all(row.passed and row.accuracy for row in report.rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {'right' if right else 'WRONG OR UNCHECKED'} |")
    return "\n".join(lines)


def chosen(text: str) -> list[str]:
    """Names of switches, `all` for every one. Raises UsageError with a guess."""
    names = list(SWITCHES) if text == "all" else text.split(",")
    for name in names:
        if name not in SWITCHES:
            raise UsageError(f"unknown switch '{name}'", advice=did_you_mean(name, SWITCHES))
    return names


def run(models: list[str], switches: list[str], batch: int, context: int, check_steps: int) -> dict[str, Report]:
    """Name of the switch -> the report without it; a plan that cannot be made or run is told and has no rows.

    Raises DeviceError without a GPU, and what the plan with all on raises.
    """
    from ..cli.run_command import choose_target
    from .measure import What, measure

    choice = choose_target("auto")
    if choice.device is None:
        raise DeviceError(f"an ablation is timed on a GPU; {choice.reason}")
    found: dict[str, Report] = {}
    for name in (ALL_ON, *switches):
        what = What(check_steps, edits=SWITCHES.get(name, ()))
        try:
            found[name] = measure(models, [(batch, context)], choice.target, what, lambda _: None)
        except MpkError as error:
            if name == ALL_ON:
                raise
            print(f"without {name}: {error}", file=sys.stderr)
            found[name] = Report(found[ALL_ON].device, found[ALL_ON].measured_tb_s, found[ALL_ON].nominal_tb_s)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.ablation", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,llama-3.2-1b")
    parser.add_argument("--switches", default="all", help=f"some of: {', '.join(SWITCHES)}")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--check-steps", type=int, default=4, metavar="N", help="steps compared with fp32 first")
    parser.add_argument("--json", type=Path, help="write all reports to this file")
    options = parser.parse_args(arguments)
    try:
        models, switches = options.models.split(","), chosen(options.switches)
        for name in models:
            shape_config(name)
        found = run(models, switches, options.batch, options.context, options.check_steps)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(found))
    if options.json:
        data: dict[str, Any] = {name: report.data() for name, report in found.items()}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
