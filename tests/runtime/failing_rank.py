"""One of the ranks that `test_torchrun.py` starts: argument 1 says what rank 1 does wrong."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from mpk_ir.bench.shapes import random_weights
from mpk_ir.core.errors import MpkError
from mpk_ir.executable import Executable
from mpk_ir.runtime.processes import ProcessGroup, ProcessLink
from mpk_ir.runtime.simulator import Simulator
from tests.codegen.ranked import ranked_config, ranked_program

WAIT_SECONDS = 4.0
PROMPTS = [[3, 1, 4, 1, 5], [7]]


def run(group: ProcessGroup, what: str) -> None:
    """Steps of a small model, until rank 1 does ``what``."""
    odd = group.rank == 1
    program = ranked_program(group.count, "sim", 2, "off" if odd and what == "plans" else "push")
    link = ProcessLink(group)
    subject = Executable(program, Simulator(program, random_weights(ranked_config(2), "cpu", seed=1), link=link))
    subject.begin(PROMPTS, 8)
    subject.engine.run(1)
    if odd and what == "dies":
        os._exit(3)
    if odd and what == "hangs":
        time.sleep(60)
    if odd and what == "fails":  # a token that no table has
        subject.engine.write_state("rows", np.full(program.buffer("rows").shape, 10**6, np.int32))
    subject.engine.run(2)


def main() -> int:
    """The exit code: 0 if all went well, which it does not."""
    group = ProcessGroup(wait_seconds=WAIT_SECONDS)
    try:
        run(group, sys.argv[1])
    except MpkError as error:
        print(f"[of rank {group.rank}] {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print(f"[of rank {group.rank}] went well", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
