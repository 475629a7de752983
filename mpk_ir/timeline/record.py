"""Traces from a GPU: the kernel built with time stamps, run from a given context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..bench.timing import kernel_ms, set_context
from ..codegen.program import Program
from ..compiler import Compilation, compile_step, step_module
from ..core.ranks import ALONE, Parallel
from ..core.target import Target, part_of
from ..edits import compile_edited
from ..frontend import ModelConfig, StepOptions
from ..passes.lower.lower_to_cuda import LowerToCuda
from ..tasks.work import Load
from .trace import NS_PER_US, Trace, measured_ranks

if TYPE_CHECKING:
    from ..runtime.driver import Device
    from ..runtime.weight_pool import WeightPool
    from ..runtime.weights import Parameters

STEPS = 12
"""Of a profiled launch; the trace is the step of median length among those but the first and the last."""
LAUNCHES = 2
"""The first one warms up."""
PAGE_SIZE = 64
ROOM = 128


@dataclass(frozen=True)
class Point:
    """What to trace: a model by name and config, how many requests decode at once, and how many positions each has in
    its cache. ``target`` is the whole GPU, of which each rank of ``parallel`` has a part; ``edits`` change the pipeline
    (`mpk_ir.edits`)."""

    name: str
    config: ModelConfig
    batch: int
    context: int
    target: Target
    parallel: Parallel = ALONE
    edits: tuple[str, ...] = ()

    @property
    def options(self) -> StepOptions:
        """With room for the steps that a measurement runs if the model has it."""
        length = min(self.context + ROOM, self.config.max_positions)
        return StepOptions(self.batch, max(8, self.batch), length, PAGE_SIZE)

    @property
    def part(self) -> Target:
        """What one rank has of the GPU."""
        return part_of(self.target, self.parallel.ranks)

    @property
    def load(self) -> Load:
        return Load(rows=self.batch, context=self.context)

    def program(self, *, profile: bool = False) -> Program:
        return self.compile(profile=profile).program

    def compile(self, *, profile: bool = False, search: bool = False) -> Compilation:
        """The step; with ``search``, tiles are searched for on the timeline simulator."""
        lowering = LowerToCuda(profile=profile)
        if search:
            return compile_step(self.config, self.part, self.options, lowering, self.load, self.parallel)
        module = step_module(self.config, self.options)
        return compile_edited(module, self.part, self.edits, self.parallel, lowering)


def record(point: Point, weights: Parameters, device: Device | None = None, *, unprofiled: bool = True) -> Trace:
    """Run ``point`` on a GPU and trace it; with ``unprofiled`` also time the kernel without time stamps.

    Raises what `GpuExecutor` raises.
    """
    trace = traced(point, point.program(profile=True), weights, device)
    if not unprofiled:
        return trace
    step_us = median(timed(point, point.program(), weights, device))
    return replace(trace, facts=replace(trace.facts, unprofiled_us=step_us))


def traced(
    point: Point, program: Program, weights: Parameters, device: Device | None = None, pool: WeightPool | None = None
) -> Trace:
    """A step of ``program``, ``point``'s with time stamps, on a GPU. Raises what `GpuExecutor` raises."""
    from ..runtime.executor import GpuExecutor, GpuOptions

    engine = GpuExecutor(program, weights, device, GpuOptions(profile_steps=STEPS), pool=pool)
    for _ in range(LAUNCHES):
        set_context(engine, point.context)
        engine.run(STEPS)
    profiles = np.stack([engine.profile(STEPS, rank) for rank in range(point.parallel.ranks)])
    return measured_ranks(engine.program, profiles, engine.device_name, point.load, point.name)


def timed(
    point: Point, program: Program, weights: Parameters, device: Device | None = None, pool: WeightPool | None = None
) -> list[float]:
    """Microseconds a step of each of some launches of ``program``, ``point``'s without time stamps.

    Raises what `GpuExecutor` raises.
    """
    from ..runtime.executor import GpuExecutor

    engine = GpuExecutor(program, weights, device, pool=pool)
    return [NS_PER_US * milliseconds for milliseconds in kernel_ms(engine, point.context)]
