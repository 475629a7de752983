"""Processes under torchrun with gloo and the simulator: the tokens of one rank; when one fails, all end and name it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tiny_qwen3" / "checkpoint"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
LIMIT_SECONDS = 50
"""For all ranks to end after one has failed, their start included: far from the 60 that the one that hangs sleeps."""


def torchrun(ranks: int, port: int, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(port)]
    command = [sys.executable, *launcher, *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)


@pytest.mark.parametrize("ranks", [2, 4])
def test_torchrun_gives_the_tokens_of_one_rank(ranks: int) -> None:
    asked = ["run", "--model", str(EXAMPLE), "--prompt", "The Zen of", "--max-new-tokens", "12", "--target", "sim"]
    one = subprocess.run(
        [sys.executable, "-m", "mpk_ir", *asked, "--json"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    several = torchrun(ranks, 29570 + ranks, ["-m", "mpk_ir", *asked, "--json"])
    assert several.returncode == 0, several.stderr
    told = json.loads(several.stdout)
    assert told["tokens"] == json.loads(one.stdout)["tokens"]
    assert f"{ranks} ranks" in told["device"]


WRONG = {
    "fails": r"\[of rank 0\] RankError: rank 1 failed, and with it all: ",
    "plans": r"\[of rank 0\] RankError: rank 1 has another plan than rank 0: \w+, expected \w+",
    "dies": r"\[of rank 0\] RankError: rank 0 lost rank 1: |rank +: 1 \(local_rank: 1\)\s+exitcode +: 3",
    "hangs": r"\[of rank 0\] RankError: rank 0 lost rank 1: it did not come within 4 s, or is gone",
}
"""What rank 1 does, and what rank 0 says; of one that dies torchrun may be the first to tell."""


@pytest.mark.parametrize("what", WRONG)
def test_one_rank_ends_all_and_is_named(what: str) -> None:
    begin = time.monotonic()
    done = torchrun(2, 29576 + list(WRONG).index(what), ["-m", "tests.runtime.failing_rank", what])
    assert done.returncode != 0
    assert time.monotonic() - begin < LIMIT_SECONDS
    assert "went well" not in done.stderr
    assert re.search(WRONG[what], done.stderr), done.stderr
    if what in ("fails", "plans"):  # it says so itself
        assert re.search(r"\[of rank 1\] \w+Error: ", done.stderr), done.stderr
