"""Ways to damage what a program is compiled with: how blocks split their shared memory, to whom work is dealt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpk_ir.codegen.program import Program
from mpk_ir.core.memory import STAGE_BYTES

CONFIG = "mpk/config.cuh"


def with_constant(program: Program, name: str, value: int) -> Program:
    """``program`` with another value of a constant that its kernel is compiled with."""
    text = re.sub(rf"{name} = -?\d+;", f"{name} = {value};", program.headers[CONFIG])
    return replace(program, headers={**program.headers, CONFIG: text})


def shrink_ring(program: Program, generator: np.random.Generator) -> Program | None:
    """The kernel has fewer stages than bodies take at once."""
    stages = int(generator.integers(1, 4))
    launch = replace(program.launch, ring_bytes=stages * STAGE_BYTES)
    return replace(with_constant(program, "kRingStages", stages), launch=launch)


def narrow_scratch(program: Program, generator: np.random.Generator) -> Program | None:
    """Bodies find less scratch than they need."""
    return with_constant(program, "kScratchBytes", 128 * int(generator.integers(0, 2)))


def outgrow_shared_memory(program: Program, generator: np.random.Generator) -> Program | None:
    """The ring ends beyond what a block has."""
    stages = 14 + int(generator.integers(0, 3))
    launch = replace(program.launch, ring_bytes=stages * STAGE_BYTES)
    return replace(with_constant(program, "kRingStages", stages), launch=launch)


def deal_to_fewer(program: Program, generator: np.random.Generator) -> Program | None:
    """Work that is dealt at run time is dealt to more tasks than there are, body and signature alike."""
    dealing = [number for number, grid in enumerate(program.grids) if "takers" in grid.params]
    if not dealing:
        return None
    number = int(generator.choice(dealing))
    grid = program.grids[number]
    params = {**grid.params, "takers": grid.params["takers"] + 1}
    grids = (*program.grids[:number], replace(grid, params=params), *program.grids[number + 1 :])
    return replace(program, grids=grids)


def promise_more_ahead(program: Program, generator: np.random.Generator) -> Program | None:
    """More stages of the ring are said to be filled while a task waits than its loader fills."""
    return _with_ahead(program, generator, int(generator.integers(1, 20)))


def promise_less_ahead(program: Program, generator: np.random.Generator) -> Program | None:
    """Fewer stages of the ring are said to be filled while a task waits."""
    return _with_ahead(program, generator, -int(generator.integers(1, 20)))


def _with_ahead(program: Program, generator: np.random.Generator, change: int) -> Program | None:
    streaming = [number for number, grid in enumerate(program.grids) if grid.ahead]
    if not streaming:
        return None
    number = int(generator.choice(streaming))
    grid = program.grids[number]
    changed = replace(grid, ahead=max(0, grid.ahead + change))
    return replace(program, grids=(*program.grids[:number], changed, *program.grids[number + 1 :]))


SPLIT_DAMAGES: tuple[Callable[[Program, np.random.Generator], Program | None], ...] = (
    shrink_ring,
    narrow_scratch,
    outgrow_shared_memory,
    deal_to_fewer,
    promise_more_ahead,
)
