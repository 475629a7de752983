"""A trace's analysis as tables for a terminal, and as plain data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..core.names import operator_name
from .analysis import Analysis, ComparedOperator, Link
from .trace import Origin

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..program_cache import Tuned
    from .search import Trial
    from .trace import Trace, TracedGrid

LINKS_SHOWN = 12
LEFT = "left"
RIGHT = "right"


def print_report(console: Console, analysis: Analysis) -> None:
    """All tables of one trace."""
    facts = analysis.trace.facts
    least, _, greatest = facts.steps_us
    spread = f" ({least:.0f} to {greatest:.0f})" if least < greatest else ""
    console.print(
        f"{facts.program} on {facts.target.name}, {facts.origin}: {facts.step_us:.0f} us a step{spread}, "
        f"{facts.load.rows} rows, context {facts.load.context}\n"
        f"{analysis.moved_bytes / 1e9:.2f} GB a step at {facts.target.read_bandwidth_tb_s} TB/s take "
        f"{analysis.floor_us:.0f} us: {analysis.bandwidth_fraction:.0%} of bandwidth",
        markup=False,
    )
    console.print(_operators(analysis), _critical_path(analysis), _waits(analysis), _choices(analysis.trace))


def print_comparison(console: Console, rows: Sequence[ComparedOperator], origin: Origin) -> None:
    """Times of each operator and of the step, of a trace of ``origin`` beside a measured one; nothing for no rows."""
    if not rows:
        return
    predicted = ("Predicted and measured", "operator", "predicted us", "measured us", "error")
    measured = ("Measured and compared", "operator", "us", "compared us", "longer by")
    table = _table(*(predicted if origin is Origin.PREDICTED else measured))
    for row in rows:
        error = "-" if row.error is None else f"{row.error:+.1%}"
        table.add_row(row.name, f"{row.predicted_us:.1f}", f"{row.measured_us:.1f}", error)
    console.print(table)


def report_data(analysis: Analysis) -> dict[str, Any]:
    """What `mpk report --json` prints; keys end in their unit."""
    trace = analysis.trace
    facts = asdict(trace.facts) | {"target": trace.facts.target.name, "origin": str(trace.facts.origin)}
    links = [asdict(link) | {"task": trace.task_name(link.task)} for link in analysis.critical_path]
    return {
        **facts,
        "tasks": len(trace.sm),
        "moved_bytes": analysis.moved_bytes,
        "floor_us": analysis.floor_us,
        "bandwidth_fraction": analysis.bandwidth_fraction,
        "operators": [asdict(row) for row in analysis.operators],
        "exposed_waits": [asdict(row) for row in analysis.exposed_waits()],
        "critical_path": links,
        "choices": [asdict(grid) for grid in trace.grids if grid.reason or grid.placement_reason],
    }


def comparison_data(rows: Sequence[ComparedOperator]) -> dict[str, Any]:
    """The comparison as plain data; nothing for no rows."""
    return {"comparison": [asdict(row) | {"error": row.error} for row in rows]} if rows else {}


def print_trials(console: Console, trials: Sequence[Trial]) -> None:
    """What a search tried, best first for each operator; nothing for no trials."""
    if not trials:
        return
    table = _table("Tiles tried", "operator", "decision ", "value", "step us", " ")
    for trial in trials:
        note = ", ".join(word for word, is_so in (("before", trial.before), ("kept", trial.kept)) if is_so)
        table.add_row(trial.operator, trial.decision, str(trial.value), f"{trial.step_us:.1f}", note)
    console.print(table)


def print_tuned(console: Console, tuned: Tuned | None) -> None:
    """What `mpk tune` timed, the fastest first; nothing for None."""
    if tuned is None:
        return
    table = _table(f"Tuned on {tuned.device}", "plan", "predicted us", "measured us", " ")
    for trial in sorted(tuned.trials, key=lambda one: one.measured_us):
        kept = "kept" if trial.edits == tuned.edits else ""
        name = "; ".join(trial.edits) or "as the cost model says"
        table.add_row(name, f"{trial.predicted_us:.0f}", f"{trial.measured_us:.0f}", kept)
    console.print(table)


def tuned_data(tuned: Tuned | None) -> dict[str, Any]:
    """What was timed as plain data; nothing for None."""
    return {"tuned": asdict(tuned)} if tuned else {}


def trials_data(trials: Sequence[Trial]) -> dict[str, Any]:
    """The trials as plain data; nothing for none."""
    return {"trials": [asdict(trial) for trial in trials]} if trials else {}


def _table(title: str, *columns: str) -> Table:
    """The first column is text, and so is any that says so by a trailing blank; the rest are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        text = number == 0 or column.endswith(" ")
        table.add_column(column.strip(), justify=LEFT if text else RIGHT, no_wrap=number == 0)
    return table


def _operators(analysis: Analysis) -> Table:
    columns = ("tasks", "us", "waits us", "MB", "of bandwidth", "critical us")
    table = _table("Where the step goes (averages over SMs)", "operator", *columns)
    for row in analysis.operators:
        table.add_row(
            row.name,
            str(row.tasks),
            f"{row.time_us:.1f}",
            f"{row.exposed_wait_us:.1f}",
            f"{row.moved_bytes / 1e6:.1f}",
            f"{row.bandwidth_fraction:.0%}",
            f"{row.critical_us:.1f}",
        )
    return table


def _critical_path(analysis: Analysis) -> Table:
    """The longest links of the path, in order of time, under its sums."""
    path = analysis.critical_path
    sums = {part: sum(getattr(link, part) for link in path) for part in ("work_us", "handoff_us", "signal_us")}
    title = (
        f"Critical path: {len(path)} tasks; work {sums['work_us']:.0f} us, from signal to ready "
        f"{sums['handoff_us']:.0f} us, from computed to signal {sums['signal_us']:.0f} us. Its longest links"
    )
    table = _table(title, "task", "at us", "work us", "hand-off us", "after ")
    longest = sorted(path, key=lambda link: -link.total_us)[:LINKS_SHOWN]
    for link in (one for one in path if one in longest):
        table.add_row(*_link_cells(analysis.trace, link))
    return table


def _link_cells(trace: Trace, link: Link) -> tuple[str, ...]:
    times = (float(trace.begin[link.task]), link.work_us, link.signal_us + link.handoff_us)
    return (trace.task_name(link.task), *(f"{time:.1f}" for time in times), str(link.cause))


def _waits(analysis: Analysis) -> Table:
    table = _table("Worst exposed waits", "operator", "us", "longest us", "longest is ", "waits for ")
    for row in analysis.exposed_waits():
        table.add_row(row.operator, f"{row.wait_us:.1f}", f"{row.longest_us:.1f}", row.longest_task, row.waits_for)
    return table


def _choices(trace: Trace) -> Table:
    """Equal reasons for tiles of an operator's layers once, with the placement of the first of them."""
    table = _table("Why", "operator", "grids", "tiles ", "placement of the first ")
    groups: dict[tuple[str, str], list[TracedGrid]] = defaultdict(list)
    for grid in trace.grids:
        if grid.reason or grid.placement_reason:
            groups[operator_name(grid.name), grid.reason].append(grid)
    for (name, reason), grids in groups.items():
        table.add_row(name, str(len(grids)), reason, grids[0].placement_reason)
    return table
