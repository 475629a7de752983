"""Times against their floor, drawn from the JSON that `mpk bench` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.lazy import load


def draw(report: dict[str, Any], file: Path) -> None:
    """Bars of milliseconds a step for each row of ``report``: floor, our kernel, torch; a logarithmic axis.

    Raises UsageError where matplotlib is not installed, and for a report without a timed row.
    """
    rows = [row for row in report["rows"] if row["mpk"]]
    if not rows:
        raise UsageError("no row of the report was timed: nothing to draw")
    try:
        figure_type = load("matplotlib.figure:Figure")
    except ImportError as error:
        raise UsageError("a PNG needs matplotlib", advice="pip install 'mpk-ir[plot]'") from error
    names = list(dict.fromkeys(name for row in rows for name in row["baselines_ms"]))
    bars = {"floor": [row["floor_ms"] for row in rows], "mpk": [row["mpk"]["median_ms"] for row in rows]}
    bars |= {f"torch {name}": [row["baselines_ms"].get(name, float("nan")) for row in rows] for name in names}
    figure = figure_type(figsize=(max(6.0, 1.3 * len(rows) + 2), 4.0), dpi=110, layout="constrained")
    axes, width = figure.add_subplot(), 0.8 / len(bars)
    for number, (name, values) in enumerate(bars.items()):
        places = [place + (number - (len(bars) - 1) / 2) * width for place in range(len(rows))]
        axes.bar(places, values, width, label=name)
    labels = [f"{row['model']}\nbatch {row['batch']}\ncontext {row['context']}" for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=7)
    axes.set(yscale="log", ylabel="milliseconds a step", title=report["device"])
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file)
