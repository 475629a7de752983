"""What a benchmark compiles: steps of models under edited pipelines, many at once on the cores that there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from ..codegen.program import Program
from ..compiler import step_module
from ..core.errors import MpkError
from ..core.ranks import ALONE, Parallel
from ..core.target import H200, Target, part_of
from ..edits import compile_edited
from ..frontend import StepOptions
from .shapes import shape_config

PAGE_SIZE = 64
ROOM = 128
"""Positions beyond the context that a measurement may fill."""


@dataclass(frozen=True)
class Plan:
    """A model shape's step with ``batch`` requests at ``context`` positions, on each of ``parallel``'s ranks. A rank
    has a part of ``target``, or with ``whole_gpus`` all of one.

    ``edits`` change the pipeline (`mpk_ir.edits`).
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

    @property
    def options(self) -> StepOptions:
        """Raises UsageError for an unknown model."""
        length = min(self.context + ROOM, shape_config(self.model).max_positions)
        return StepOptions(self.batch, max(8, self.batch), length, PAGE_SIZE)

    def compile(self) -> Program:
        """Raises UsageError for an unknown model or a pass that no edit can mean, and what `compile_module` raises."""
        module = step_module(shape_config(self.model), self.options)
        return compile_edited(module, self.rank_target, self.edits, self.parallel).program


def compile_all(plans: Sequence[Plan]) -> list[Program]:
    """The program of each plan; its kernel is in the cache then. Raises what the first that fails raises."""
    programs: list[Program] = []
    for made in compile_each(plans):
        if isinstance(made, MpkError):
            raise made
        programs.append(made)
    return programs


def compile_each(plans: Sequence[Plan]) -> list[Program | MpkError]:
    """As `compile_all`, with its error in the place of a plan that fails."""
    if len(plans) < 2:
        return [_compile(plan) for plan in plans]
    workers = min(len(plans), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_compile, plans))


def _compile(plan: Plan) -> Program | MpkError:
    from ..runtime.cache import KernelCache

    try:
        program = plan.compile()
        KernelCache().compile(program.source, program.headers, program.target.arch)
    except MpkError as error:
        return error
    return program
