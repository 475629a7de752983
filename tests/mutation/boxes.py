"""Ways to damage the boxes that tasks are said to touch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpk_ir.codegen.program import Program


def _change_box(program: Program, generator: np.random.Generator, shift: int, grow: int) -> Program | None:
    tasks = program.tasks.copy()
    row = int(generator.integers(len(tasks)))
    operands = program.grids[tasks["grid"][row]].operands
    if not operands:
        return None
    operand = int(generator.integers(len(operands)))
    dim = int(generator.integers(len(program.buffers[operands[operand].buffer].shape)))
    tasks["offsets"][row, operand, dim] += shift
    tasks["sizes"][row, operand, dim] += grow
    return replace(program, tasks=tasks)


def shift_box(program: Program, generator: np.random.Generator) -> Program | None:
    """One task touches its neighbour's elements of an operand."""
    return _change_box(program, generator, int(generator.choice((-16, -8, -1, 1, 8, 16))), 0)


def push_box_out(program: Program, generator: np.random.Generator) -> Program | None:
    """One box reaches beyond the end of its buffer."""
    tasks = program.tasks.copy()
    row = int(generator.integers(len(tasks)))
    operands = program.grids[tasks["grid"][row]].operands
    if not operands:
        return None
    operand = int(generator.integers(len(operands)))
    shape = program.buffers[operands[operand].buffer].shape
    dim = int(generator.integers(len(shape)))
    size = int(tasks["sizes"][row, operand, dim])
    tasks["offsets"][row, operand, dim] = shape[dim] - size + int(generator.integers(1, size + 1))
    return replace(program, tasks=tasks)


def widen_box(program: Program, generator: np.random.Generator) -> Program | None:
    """One task touches more of an operand than the plan knows."""
    return _change_box(program, generator, 0, int(generator.choice((1, 8, 16))))


def narrow_box(program: Program, generator: np.random.Generator) -> Program | None:
    """One task writes or reads less of an operand: a remainder forgotten."""
    return _change_box(program, generator, 0, -int(generator.choice((1, 8))))


BOX_DAMAGES: tuple[Callable[[Program, np.random.Generator], Program | None], ...] = (
    shift_box,
    push_box_out,
    widen_box,
    narrow_box,
)
