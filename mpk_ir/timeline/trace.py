"""`Trace`: the times of all tasks of one step. A prediction and a measurement have the same form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from ..codegen.abi import ProfilePhase
from ..codegen.program import Program
from ..core.errors import UsageError
from ..core.target import Target, target_of
from ..tasks.work import Load
from .traffic import moved_bytes

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

NS_PER_US = 1000.0
FORMAT_VERSION = 1


class Origin(StrEnum):
    """Where the times come from."""

    PREDICTED = "predicted"
    MEASURED = "measured"


@dataclass(frozen=True)
class Facts:
    """What was traced; ``program`` is the model's name where that is known. ``step_us`` is the time from the begin of
    this step to that of the next.

    ``steps_us``: least, median and greatest of the steps that were measured; the same value thrice in a prediction.
    ``unprofiled_us``: a step of the kernel built without time stamps, None if that was not measured.
    ``ranks``: how many share the GPU called ``target``, each with SMs of its own.
    """

    origin: Origin
    program: str
    target: Target
    device: str
    load: Load
    step_us: float
    steps_us: tuple[float, float, float]
    unprofiled_us: float | None = None
    ranks: int = 1


@dataclass(frozen=True)
class TracedGrid:
    """A grid by name, with as many indices as its ``rank``; the reasons are the planner's own words."""

    name: str
    kind: str
    rank: int
    reason: str = ""
    placement_reason: str = ""


@dataclass(frozen=True)
class Trace:
    """All arrays are [tasks], in the order of the program's table; times are microseconds since the step began.

    A task is on its SM from ``begin`` (its predecessor there has computed) over ``ready`` (all events have arrived)
    to ``computed`` (the SM goes on); at ``signalled`` its successors can know. ``moved_bytes`` is device memory that
    the task reads or writes, caches counted as far as they are filled.

    ``waits`` and ``signals`` [tasks, k] are event numbers, -1 pads: enough to follow dependencies without the program.
    """

    facts: Facts
    grids: tuple[TracedGrid, ...]
    grid: IntArray
    index: IntArray
    sm: IntArray
    begin: FloatArray
    ready: FloatArray
    computed: FloatArray
    signalled: FloatArray
    moved_bytes: FloatArray
    waits: IntArray
    signals: IntArray

    @property
    def num_sms(self) -> int:
        return self.facts.target.num_sms

    def sm_place(self, sm: int) -> tuple[int, int]:
        """The rank that has ``sm``, and its number among those of the rank."""
        return divmod(sm, self.num_sms // self.facts.ranks)

    def sm_name(self, sm: int) -> str:
        rank, number = self.sm_place(sm)
        return f"SM {number}" if self.facts.ranks == 1 else f"rank {rank} SM {number}"

    def task_name(self, task: int) -> str:
        """The grid's name and the task's index in it."""
        grid = self.grids[int(self.grid[task])]
        return f"{grid.name}{self.index[task, : grid.rank].tolist()}"

    def save(self, file: Path | IO[bytes]) -> None:
        """Write a compressed `.npz`; times are rounded to nanoseconds."""
        facts = asdict(self.facts) | {"target": self.facts.target.name, "version": FORMAT_VERSION}
        text = json.dumps({"facts": facts, "grids": [asdict(grid) for grid in self.grids]})
        times = {name: np.rint(getattr(self, name) * NS_PER_US).astype(np.int32) for name in _TIMES}
        rest = {name: getattr(self, name).astype(np.int32) for name in _NUMBERS}
        arrays = times | rest | {"moved_bytes": self.moved_bytes.astype(np.float32)}
        np.savez_compressed(file, allow_pickle=False, text=np.array(text), **arrays)

    @staticmethod
    def load(file: Path | IO[bytes]) -> Trace:
        """Read what ``save`` wrote. Raises UsageError if ``file`` holds no whole trace."""
        try:
            with np.load(file) as arrays:
                told = json.loads(str(arrays["text"]))
                times = {name: arrays[name].astype(np.float64) / NS_PER_US for name in _TIMES}
                rest = {name: arrays[name].astype(np.int64) for name in _NUMBERS}
                moved = arrays["moved_bytes"].astype(np.float64)
            facts = dict(told["facts"])
            if facts.pop("version") != FORMAT_VERSION:
                raise ValueError("written by another version of mpk-ir")
            facts |= {"origin": Origin(facts["origin"]), "target": target_of(facts["target"])}
            facts |= {"load": Load(**facts["load"]), "steps_us": tuple(facts["steps_us"])}
            grids = tuple(TracedGrid(**grid) for grid in told["grids"])
            return Trace(Facts(**facts), grids, moved_bytes=moved, **times, **rest)
        except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
            raise UsageError(
                f"no readable trace: {error}",
                where=str(file) if isinstance(file, Path) else None,
                advice="write one with `mpk trace`",
            ) from error


_TIMES = ("begin", "ready", "computed", "signalled")
_NUMBERS = ("grid", "index", "sm", "waits", "signals")


def trace_of(program: Program, facts: Facts, times: FloatArray) -> Trace:
    """The trace of ``program`` with ``times`` [tasks, `ProfilePhase`] in microseconds since the step began."""
    tasks = program.tasks
    longest = max((len(grid.extent) for grid in program.grids), default=1)
    return Trace(
        facts=facts,
        grids=tuple(TracedGrid(g.name, g.kind, len(g.extent), g.reason, g.placement_reason) for g in program.grids),
        grid=tasks["grid"].astype(np.int64),
        index=tasks["index"][:, :longest].astype(np.int64),
        sm=tasks["sm"].astype(np.int64),
        begin=times[:, ProfilePhase.BEGIN],
        ready=times[:, ProfilePhase.READY],
        computed=times[:, ProfilePhase.COMPUTED],
        signalled=times[:, ProfilePhase.SIGNALLED],
        moved_bytes=moved_bytes(program, facts.load),
        waits=_used(tasks["wait_event"], tasks["num_waits"]),
        signals=_used(tasks["signal_event"], tasks["num_signals"]),
    )


def _used(events: np.ndarray[Any, Any], count: np.ndarray[Any, Any]) -> IntArray:
    inside = np.arange(events.shape[1])[None, :] < count[:, None]
    return np.where(inside, events, -1).astype(np.int64)


def measured_trace(program: Program, profile: np.ndarray[Any, Any], device: str, load: Load, name: str = "") -> Trace:
    """The step of median length in ``profile`` [steps, tasks, `ProfilePhase`], nanoseconds as the kernel writes them.

    The first step is left out (caches are cold) and the last (its end is not seen), so there must be three or more.
    Raises UsageError otherwise, and for a profile with records missing.
    """
    return measured_ranks(program, profile[None], device, load, name)


def measured_ranks(program: Program, profiles: np.ndarray[Any, Any], device: str, load: Load, name: str = "") -> Trace:
    """As `measured_trace`, of all ranks of ``program`` on one GPU: ``profiles`` [ranks, steps, tasks, `ProfilePhase`],
    on one clock. Rank r's SM s is number r * SMs of a rank + s of the trace."""
    ranks, steps = profiles.shape[:2]
    if steps < 3:
        raise UsageError(f"a trace needs a profile of 3 or more steps, found {steps}")
    if not profiles.all():
        raise UsageError(_hole(program, profiles), advice="run as many steps as the profile is read for")
    begins = profiles[..., ProfilePhase.BEGIN].min(axis=(0, 2)).astype(np.int64)
    lengths = np.diff(begins)[1:] / NS_PER_US
    step = 1 + int(np.argsort(lengths)[len(lengths) // 2])
    spread = (float(lengths.min()), float(np.median(lengths)), float(lengths.max()))
    target = program.target if ranks == 1 else target_of(program.target.name.partition("/")[0])
    step_us = float(lengths[step - 1])
    facts = Facts(Origin.MEASURED, name or program.name, target, device, load, step_us, spread, ranks=ranks)
    times = (profiles[:, step].astype(np.int64) - begins[step]) / NS_PER_US
    return _joined(program, [trace_of(program, facts, mine) for mine in times])


def _joined(program: Program, traces: list[Trace]) -> Trace:
    """The traces of all ranks as one. An event that ranks share keeps its number, so that who ends a wait for it may be
    on another rank; the others have one number for each rank."""
    if len(traces) == 1:
        return traces[0]

    def numbered(events: IntArray, rank: int) -> IntArray:
        own = (events >= 0) & ~program.event_shared[np.maximum(events, 0)]
        return events + np.where(own, rank * len(program.event_shared), 0)

    one = traces[0]
    copied = ("grid", "index", "moved_bytes", *_TIMES)
    arrays = {field: np.concatenate([getattr(trace, field) for trace in traces]) for field in copied}
    arrays["sm"] = np.concatenate([trace.sm + rank * program.target.num_sms for rank, trace in enumerate(traces)])
    for field in ("waits", "signals"):
        arrays[field] = np.concatenate([numbered(getattr(trace, field), rank) for rank, trace in enumerate(traces)])
    return Trace(one.facts, one.grids, **arrays)


def _hole(program: Program, profiles: np.ndarray[Any, Any]) -> str:
    """Where the first time is missing, and how many are."""
    rank, step, task, phase = (int(i) for i in np.argwhere(profiles == 0)[0])
    grid = program.grids[program.tasks["grid"][task]]
    return (
        f"the profile of rank {rank} has {np.count_nonzero(profiles == 0)} empty records, the first is "
        f"{ProfilePhase(phase).name.lower()} of task {task} of grid '{grid.name}' ({grid.kind}) in step {step}"
    )
