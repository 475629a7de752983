"""What a benchmark compiles: steps of models under edited pipelines, many at once on the cores that there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context

from xdsl.passes import ModulePass

from ..codegen.program import Program
from ..compiler import compile_module, step_module
from ..core.errors import MpkError, UsageError, did_you_mean
from ..core.ranks import ALONE, Parallel
from ..core.target import H200, Target, part_of
from ..frontend import StepOptions
from ..pipeline import pipeline
from ..pipeline_spec import parse_pipeline
from .shapes import shape_config

PAGE_SIZE = 64
ROOM = 128
"""Positions beyond the context that a measurement may fill."""
DROPPED, REPLACED = "no ", ": "
"""How an edit begins that drops a pass, and what parts a pass from the one that runs instead."""


@dataclass(frozen=True)
class Plan:
    """A model shape's step with ``batch`` requests at ``context`` positions, on each of ``parallel``'s ranks. A rank
    has a part of ``target``, or with ``whole_gpus`` all of one.

    ``edits`` change the pipeline: `no sm-poll-data` drops a pass, `sm-pipeline{ring_kib=64}` gives it options,
    `sm-schedule: sm-schedule-list` puts another in its place.
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
        known = {one.name for one in pipeline(target, ranks)}
        self._changes: dict[str, ModulePass | None] = {}
        for edit in edits:
            name, change = _read(edit)
            if name not in known:
                raise UsageError(f"the pipeline has no pass '{name}' to change", advice=did_you_mean(name, known))
            self._changes[name] = change

    def __call__(self, passes: tuple[ModulePass, ...]) -> list[ModulePass]:
        changed = [_merged(one, self._changes.get(one.name, one)) for one in passes]
        return [one for one in changed if one is not None]


def _merged(before: ModulePass, change: ModulePass | None) -> ModulePass | None:
    """``change``; of the same kind as ``before``, it has that one's options where its own are those by default."""
    if change is None or type(change) is not type(before):
        return change
    default = type(change)()
    names = [one.name for one in fields(change) if getattr(change, one.name) != getattr(default, one.name)]
    return replace(before, **{name: getattr(change, name) for name in names})


def _read(edit: str) -> tuple[str, ModulePass | None]:
    """The name of a pass and what runs instead. Raises UsageError for what is no pass."""
    if edit.startswith(DROPPED):
        return edit.removeprefix(DROPPED), None
    name, colon, instead = edit.partition(REPLACED)
    (one,) = parse_pipeline(instead if colon else edit)
    return (name if colon else one.name), one


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
