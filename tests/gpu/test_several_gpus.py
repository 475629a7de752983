"""Ranks on GPUs of their own: torchrun starts a process each, torch symmetric memory gives pointers to peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpk_ir.bench.accuracy import wrong_tokens
from mpk_ir.bench.reference import Decoder
from mpk_ir.frontend import open_checkpoint, weight_shapes
from mpk_ir.runtime.driver import find_device

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
PROMPT = "One day, "
EXAMPLE = ROOT / "examples" / "tiny_qwen3" / "checkpoint"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture(autouse=True)
def two_gpus() -> None:
    torch = pytest.importorskip("torch")
    if find_device(1) is None:
        pytest.skip("fewer than two NVIDIA GPUs")
    if not torch.cuda.is_available():
        pytest.skip("a torch without CUDA has no symmetric memory")


def run(processes: int, *options: str) -> dict[str, Any]:
    """The answer of `mpk run` for the example model on as many GPUs."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    asked = ["run", "--model", str(EXAMPLE), "--prompt", PROMPT, "--max-new-tokens", "48", "--json", *options]
    command = [sys.executable, *torchrun, "-m", "mpk_ir", *asked]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("strategy", ["push", "two-shot", "off"])
def test_two_gpus_choose_the_best_tokens(strategy: str) -> None:
    """Two GPUs add in another order than one: each token must be the best, but for what bf16 cannot tell apart."""
    checkpoint = open_checkpoint(EXAMPLE)
    tensors = {name: checkpoint.tensor(name).bfloat16() for name in weight_shapes(checkpoint.config)}
    rounded = Decoder(checkpoint.config, tensors)
    (tokens,) = run(2, "--overlap", strategy)["tokens"]
    assert len(tokens) > 8
    assert wrong_tokens(list(PROMPT.encode()), tokens, (rounded.in_fp32(), rounded)) == []


def test_multicast_works_or_says_what_is_missing() -> None:
    """On GPUs behind a switch with multicast the tokens of one-shot pushes, bit by bit; on others an error."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "mpk_ir", "run"]
    asked = ["--model", str(EXAMPLE), "--prompt", PROMPT, "--max-new-tokens", "48", "--json", "--overlap", "multicast"]
    command = [sys.executable, *torchrun, *asked]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        assert "has no multicast memory" in done.stderr, done.stderr
        pytest.skip("the GPUs have no multicast: the error says so")
    assert json.loads(done.stdout)["tokens"] == run(2, "--overlap", "push")["tokens"]


def test_runs_on_two_gpus_agree() -> None:
    assert len({str(run(2)["tokens"]) for _ in range(3)}) == 1


def test_a_rank_with_another_plan_is_named() -> None:
    """Rank 1 asks for more tokens, so that its caches are larger: an error at once, no hang."""
    program = (
        "import os, sys\n"
        "rank = os.environ['RANK']\n"
        f"sys.argv = ['mpk', 'run', '--model', {str(EXAMPLE)!r}, '--tokens', '1,2,3', '--json', "
        "'--max-new-tokens', '500' if rank == '1' else '8']\n"
        "from mpk_ir.cli.main import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command += [sys.executable, "-c", program]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "rank 1 has another plan than rank 0" in done.stderr
