"""`python -m mpk_ir.bench.sanitized`: some launches of a small model for compute-sanitizer to look at, little else.

    compute-sanitizer --tool memcheck  python -m mpk_ir.bench.sanitized
    compute-sanitizer --tool racecheck python -m mpk_ir.bench.sanitized --plain-loads

racecheck does not follow the copy engine: with `--plain-loads` warps copy weights and caches themselves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..core.errors import MpkError
from .plans import Plan

PROMPTS = ([7, 1, 9, 4, 2], [3, 8])
"""Of different lengths, so that requests begin to yield tokens at different steps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if two runs of the same prompts differ."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.sanitized", description=__doc__)
    parser.add_argument("--model", default="tiny", help="a known shape (default: tiny)")
    parser.add_argument("--tokens", type=int, default=4, help="new tokens of each request (default: 4)")
    parser.add_argument("--plain-loads", action="store_true", help="no copy engine, for racecheck")
    given = parser.parse_args(arguments)
    try:
        runs = [_tokens(given.model, given.tokens, plain_loads=given.plain_loads) for _ in range(2)]
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(PROMPTS)} requests, {given.tokens} tokens each, twice: {'the same' if runs[0] == runs[1] else runs}")
    return int(runs[0] != runs[1])


def _tokens(model: str, count: int, *, plain_loads: bool) -> list[list[int]]:
    from ..executable import Executable
    from ..runtime.executor import GpuExecutor
    from .shapes import random_weights, shape_config

    edits = ("lower-to-cuda{bulk_loads=false}",) if plain_loads else ()
    program = Plan(model, batch=len(PROMPTS), context=64, edits=edits).compile()
    engine = GpuExecutor(program, random_weights(shape_config(model), "cpu"))
    return Executable(program, engine).generate([list(prompt) for prompt in PROMPTS], count).tokens


if __name__ == "__main__":
    sys.exit(main())
