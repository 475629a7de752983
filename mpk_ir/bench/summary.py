"""A measurement as a row: times, floors, fractions, and how they were come by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

FORMAT_VERSION = 1
LEAST_LAUNCHES = 5
P99 = 99


@dataclass(frozen=True)
class Times:
    """Milliseconds a step, over ``launches`` launches of ``steps`` steps each; a launch counts as the mean of its
    steps."""

    median_ms: float
    p99_ms: float
    launches: int
    steps: int

    @staticmethod
    def of(launch_ms: Sequence[float], steps: int) -> Times:
        """Of ``launch_ms``, milliseconds a step of each launch. Raises ValueError for fewer than `LEAST_LAUNCHES`."""
        if len(launch_ms) < LEAST_LAUNCHES:
            raise ValueError(f"{len(launch_ms)} launches, expected {LEAST_LAUNCHES} or more")
        return Times(float(np.median(launch_ms)), float(np.percentile(launch_ms, P99)), len(launch_ms), steps)


@dataclass(frozen=True)
class Row:
    """One model at one batch and context. ``floor_ms``: to read ``bytes_read`` at the bandwidth measured in this run;
    fractions: of measured and nominal bandwidth that ``mpk`` reaches; ``baselines_ms``: torch, a step;
    ``joules_per_token``: of the whole GPU, None where NVML tells nothing."""

    model: str
    batch: int
    context: int
    bytes_read: float
    floor_ms: float
    mpk: Times | None
    fraction_of_measured: float | None
    fraction_of_nominal: float | None
    baselines_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    joules_per_token: float | None = None
    accuracy: Mapping[str, Any] | None = None
    identical: bool | None = None
    soak: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def passed(self) -> bool:
        """Whether nothing that was checked was wrong."""
        wrong = bool(self.accuracy and self.accuracy["wrong"]) or self.identical is False
        return not wrong and not any(one["differing"] for one in (self.soak or {}).values())

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """All rows of a run on one GPU; bandwidths are 10^12 bytes a second."""

    device: str
    measured_tb_s: float
    nominal_tb_s: float
    rows: tuple[Row, ...] = ()

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {"version": FORMAT_VERSION, **asdict(self)}


COLUMNS = ("model", "batch", "context", "ms (p99)", "floor ms", "of measured", "J/token", "torch ms", "checked")


def line(row: Row) -> str:
    """A row of a Markdown table."""
    times = f"{row.mpk.median_ms:.3f} ({row.mpk.p99_ms:.3f})" if row.mpk else "untimed"
    fraction = "-" if row.fraction_of_measured is None else f"{row.fraction_of_measured:.0%}"
    energy = "-" if row.joules_per_token is None else f"{row.joules_per_token:.3f}"
    torch_ms = ", ".join(f"{name} {value:.3f}" for name, value in row.baselines_ms.items()) or "-"
    cells = [row.model, row.batch, row.context, times, f"{row.floor_ms:.3f}", fraction, energy, torch_ms, _checked(row)]
    return f"| {' | '.join(map(str, cells))} |"


def _checked(row: Row) -> str:
    told = ["unchecked"]
    if row.accuracy:
        told = [f"{row.accuracy['steps']} rows, worst error {row.accuracy['worst_ratio']:.2f} of torch bf16's"]
        told += [f"{row.accuracy['wrong']} wrong", "identical bits" if row.identical else "BITS DIFFER"]
    soaks = (row.soak or {}).items()
    return ", ".join(
        told + [f"{one['launches']} launches {name}: {len(one['differing'])} differ" for name, one in soaks]
    )
