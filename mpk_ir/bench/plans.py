"""What a benchmark compiles: steps of models under edited pipelines, many at once on the cores that there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from xdsl.passes import ModulePass

from ..codegen.program import Program
from ..compiler import compile_module, step_module
from ..core.errors import UsageError, did_you_mean
from ..core.ranks import ALONE, Parallel
from ..core.target import H200, Target, part_of
from ..frontend import StepOptions
from ..pipeline import pipeline
from ..pipeline_spec import parse_pipeline
from .shapes import shape_config

PAGE_SIZE = 64
ROOM = 128
"""Positions beyond the context that a measurement may fill."""
DROPPED = "no "


@dataclass(frozen=True)
class Plan:
    """A model shape's step with ``batch`` requests at ``context`` positions, on each of ``parallel``'s ranks. A rank
    has a part of ``target``, or with ``whole_gpus`` all of one.

    ``edits`` change the pipeline: `no sm-poll-data` drops a pass, `lower-to-cuda{ring_kib=64}` gives it options.
    """

    model: str
    batch: int = 1
    context: int = 512
    target: Target = H200
    parallel: Parallel = ALONE
    whole_gpus: bool = False
    edits: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        return self.parallel.ranks

    @property
    def rank_target(self) -> Target:
        return self.target if self.whole_gpus else part_of(self.target, self.ranks)

    def compile(self) -> Program:
        """Raises UsageError for an unknown model or a pass that no edit can mean, and what `compile_module` raises."""
        config = shape_config(self.model)
        length = min(self.context + ROOM, config.max_positions)
        module = step_module(config, StepOptions(self.batch, max(8, self.batch), length, PAGE_SIZE))
        change = Edits(self.edits, self.rank_target, self.ranks)
        return compile_module(module, self.rank_target, parallel=self.parallel, change=change).program


class Edits:
    """Edits of the pipeline of ``ranks`` as a change of a level's passes. Raises UsageError for an unknown pass."""

    def __init__(self, edits: Sequence[str], target: Target, ranks: int) -> None:
        self.dropped = {edit.removeprefix(DROPPED) for edit in edits if edit.startswith(DROPPED)}
        given = [parse_pipeline(edit) for edit in edits if not edit.startswith(DROPPED)]
        self.given = {one.name: one for passes in given for one in passes}
        known = {one.name for one in pipeline(target, ranks)}
        for name in (self.dropped | self.given.keys()) - known:
            raise UsageError(f"the pipeline has no pass '{name}' to change", advice=did_you_mean(name, known))

    def __call__(self, passes: tuple[ModulePass, ...]) -> list[ModulePass]:
        return [self.given.get(one.name, one) for one in passes if one.name not in self.dropped]


def compile_all(plans: Sequence[Plan]) -> list[Program]:
    """The program of each plan; its kernel is in the cache then. Raises what the first that fails raises."""
    if len(plans) < 2:
        return [_compile(plan) for plan in plans]
    workers = min(len(plans), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_compile, plans))


def _compile(plan: Plan) -> Program:
    from ..runtime.cache import KernelCache

    program = plan.compile()
    KernelCache().compile(program.source, program.headers, program.target.arch)
    return program
