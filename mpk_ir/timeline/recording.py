"""`Recording`: what a GPU needed for some points, in one JSON file; what the timeline's constants are fitted to."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median

from ..core.errors import UsageError
from .trace import Trace

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RecordedPoint:
    """One model's step: ``launches_us`` are microseconds a step of launches of ``steps`` steps each without time
    stamps, the first of which has ``trace.facts.load``; ``trace`` is of the same plan with time stamps."""

    steps: int
    launches_us: tuple[float, ...]
    trace: Trace

    @property
    def name(self) -> str:
        """Model, batch, and the context where it is not the usual one."""
        load = self.trace.facts.load
        return f"{self.trace.facts.program} batch {load.rows}" + (f" at {load.context}" if load.context != 512 else "")

    @property
    def step_us(self) -> float:
        return median(self.launches_us)


@dataclass(frozen=True)
class Recording:
    """Points of one device in one process; ``read_tb_s`` is what a large plain read reached there."""

    device: str
    read_tb_s: float
    points: tuple[RecordedPoint, ...] = ()

    def with_point(self, point: RecordedPoint) -> Recording:
        return replace(self, points=(*self.points, point))

    def save(self, file: Path) -> None:
        """Traces are compressed and in base64."""
        points = [
            {"steps": one.steps, "launches_us": one.launches_us, "trace": _packed(one.trace)} for one in self.points
        ]
        head = {"version": FORMAT_VERSION, "device": self.device, "read_tb_s": self.read_tb_s}
        file.write_text(json.dumps(head | {"points": points}) + "\n")

    @staticmethod
    def load(file: Path) -> Recording:
        """Read what ``save`` wrote. Raises UsageError if ``file`` holds no whole recording."""
        try:
            data = json.loads(file.read_text())
            if data["version"] != FORMAT_VERSION:
                raise ValueError("written by another version of mpk-ir")
            points = [
                RecordedPoint(int(one["steps"]), tuple(map(float, one["launches_us"])), _unpacked(one["trace"]))
                for one in data["points"]
            ]
            return Recording(str(data["device"]), float(data["read_tb_s"]), tuple(points))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UsageError(
                f"no readable recording: {error}",
                where=str(file),
                advice="write one with `python -m mpk_ir.bench.traces`",
            ) from error


def load_all(files: Sequence[Path]) -> tuple[RecordedPoint, ...]:
    """The points of several recordings, in order. Raises UsageError if there are none, as `Recording.load` does."""
    points = tuple(point for file in files for point in Recording.load(file).points)
    if not points:
        raise UsageError("the recordings have no points", advice="look at what `python -m mpk_ir.bench.traces` printed")
    return points


def _packed(trace: Trace) -> str:
    file = BytesIO()
    trace.save(file)
    return b64encode(file.getvalue()).decode()


def _unpacked(text: str) -> Trace:
    return Trace.load(BytesIO(b64decode(text)))
