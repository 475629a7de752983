"""Prompts through a program of their own: many tokens a step, products on wgmma. It fills the caches that the program
which decodes goes on with (docs/decisions/0012-prompts-have-a-program.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .core.errors import MpkError, UnsupportedError
from .core.memory import BLOCK_ROWS
from .core.requests import Int32Array, RequestColumn, advance_requests, assign_rows
from .tasks.wide_linear import WideLinear

if TYPE_CHECKING:
    from .codegen.program import Program
    from .core.target import Target
    from .frontend import ModelConfig, StepOptions
    from .runtime.engine import Engine

LEAST_TOKENS = 64
"""Of a prompt; a shorter one takes fewer steps of the decoding program than another launch is worth."""
MOST_ROWS = 2048
"""Of a step: activations of more would not stay in L2."""
_FALLBACKS = frozenset({"matmul", "attention"})
"""Task kinds that compute, one row or element at a time, what the kinds of many rows do not take."""


def rows_for(lengths: Sequence[int]) -> int:
    """Rows of a step that suits prompts of ``lengths`` tokens: all of them at once, if they are not too many."""
    return min(-(-sum(lengths) // BLOCK_ROWS) * BLOCK_ROWS, MOST_ROWS)


def is_worth(lengths: Sequence[int]) -> bool:
    """Whether prompts of ``lengths`` tokens are better taken by a program of their own."""
    return max(lengths) > LEAST_TOKENS


def compile_prefill(config: ModelConfig, target: Target, options: StepOptions, rows: int) -> Program:
    """The program that takes ``rows`` tokens of prompts a step, beside one that decodes by ``options``.

    Raises UnsupportedError for a model whose products or attention have no task kind of many rows.
    """
    from .program_cache import ProgramCache

    prompts = replace(options, rows=max(rows, options.batch), last_rows=True)
    try:
        program = ProgramCache().step(config, target, prompts)
    except MpkError as error:
        raise UnsupportedError(f"no prefill program: {error}") from error
    kinds = {grid.kind for grid in program.grids}
    if WideLinear.name not in kinds or kinds & _FALLBACKS:
        found = ", ".join(sorted(kinds & _FALLBACKS)) or "none on wgmma"
        raise UnsupportedError(f"no prefill program: some layers need other task kinds ({found})")
    return program


@dataclass(frozen=True)
class Prefill:
    """``program`` on ``engine``, whose requests and caches are those of the engine that decodes."""

    program: Program
    engine: Engine

    def run(self, history: Int32Array, requests: Int32Array) -> int:
        """Take all prompts, each to its first new token, in one launch; both states are then as it left them.

        The number of steps. Raises what `Engine.synchronize` raises.
        """
        rows = np.zeros(self.program.buffer("rows").shape, np.int32)
        row_count = np.zeros(1, np.int32)
        assign_rows(history, requests, rows, row_count)
        steps = steps_of(history, requests, rows, row_count)
        for name, values in (("requests", requests), ("rows", rows), ("row_count", row_count)):
            self.engine.write_state(name, values)
        self.engine.run(steps)
        history[...] = self.engine.read_state("history")
        requests[...] = self.engine.read_state("requests")
        return steps


def steps_of(history: Int32Array, requests: Int32Array, rows: Int32Array, row_count: Int32Array) -> int:
    """Steps until each request has a token of its own, if none meets a stop token; nothing is changed."""
    history, requests, rows, row_count = (array.copy() for array in (history, requests, rows, row_count))
    nothing, steps = np.zeros(len(rows), np.int32), 0
    lengths = requests[:, RequestColumn.PROMPT_LENGTH].copy()
    while ((requests[:, RequestColumn.KNOWN] == lengths) & (lengths > 0)).any():
        advance_requests(nothing, history, requests, rows, row_count)
        steps += 1
    return steps
