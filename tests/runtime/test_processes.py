"""Ranks in processes of their own: the tokens of one rank, and an error for all when one fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpk_ir.bench.shapes import random_weights
from mpk_ir.core.errors import MpkError, RankError, UsageError, VerificationError
from mpk_ir.executable import Executable
from mpk_ir.runtime.interleaving import RunAhead
from mpk_ir.runtime.one_plan import raise_first, require_one_plan
from mpk_ir.runtime.processes import ProcessLink, world_size
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.codegen.ranked import ranked_config, ranked_program

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tiny_qwen3" / "checkpoint"
PROMPTS = [[3, 1, 4, 1, 5], [7]]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


class ThreadGroup:
    """The gathers of `ProcessGroup` among threads."""

    def __init__(self, rank: int, barrier: threading.Barrier, values: list[Any]) -> None:
        self.rank, self.count, self.local_rank = rank, len(values), rank
        self._barrier, self._values = barrier, values

    def gather(self, value: Any) -> list[Any]:
        self._values[self.rank] = value
        self._barrier.wait(timeout=30)
        found = list(self._values)
        self._barrier.wait(timeout=30)
        return found


def in_threads(count: int, work: Any) -> list[Any]:
    """What ``work(group)`` returns or raises in each of ``count`` threads."""
    barrier, values = threading.Barrier(count), [None] * count
    results: list[Any] = [None] * count

    def one(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, barrier, values))
        except MpkError as error:
            results[rank] = error

    threads = [threading.Thread(target=partial(one, rank)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def generate(group: Any, strategy: str = "auto") -> list[list[int]]:
    program = ranked_program(group.count, "sim", 2, strategy)
    weights = random_weights(ranked_config(2), "cpu", seed=1)
    simulator = Simulator(program, weights, SimulatorOptions(RunAhead(), shared_arena=True), ProcessLink(group))
    return Executable(program, simulator).generate(PROMPTS, 8).tokens


@pytest.mark.parametrize("strategy", ["push", "two-shot", "off"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_exchange_messages_give_the_tokens_of_one(ranks: int, strategy: str) -> None:
    program, weights = ranked_program(1, "sim", 2), random_weights(ranked_config(2), "cpu", seed=1)
    expected = Executable(program, Simulator(program, weights)).generate(PROMPTS, 8).tokens
    assert in_threads(ranks, partial(generate, strategy=strategy)) == [expected] * ranks


def test_another_plan_is_refused_before_anything_runs() -> None:
    found = in_threads(2, lambda group: generate(group, "push" if group.rank else "off"))
    for error in found:
        assert isinstance(error, RankError)
        assert "rank 1 has another plan than rank 0" in str(error)
        assert "same model, options and version" in str(error)


def test_a_rank_that_fails_ends_all_with_its_name() -> None:
    def work(group: Any) -> Any:
        weights = random_weights(ranked_config(2), "cpu", seed=1)
        program = ranked_program(2, "sim", 2)
        subject = Executable(program, Simulator(program, weights, link=ProcessLink(group)))
        subject.begin(PROMPTS, 4)
        if group.rank == 1:  # a token that no table has
            rows = np.full(program.buffer("rows").shape, 10**6, np.int32)
            subject.engine.write_state("rows", rows)
        subject.engine.run(2)

    first, second = in_threads(2, work)
    assert isinstance(second, VerificationError)
    assert isinstance(first, RankError)
    assert "rank 1 failed, and with it all" in str(first)
    assert str(second) in str(first)


def test_ranks_that_wait_for_ever_say_so() -> None:
    def work(group: Any) -> Any:
        program = ranked_program(2, "sim", 2)
        tasks = program.tasks.copy()
        if group.rank == 1:  # it never pushes anything to rank 0
            tasks["push_to"][tasks["push_to"] == -1] = 1
        weights = random_weights(ranked_config(2), "cpu", seed=1)
        subject = Executable(program, Simulator(replace(program, tasks=tasks), weights, link=_Agreeing(group)))
        subject.begin(PROMPTS, 4)
        subject.engine.run(1)

    found = in_threads(2, work)
    assert any(isinstance(error, VerificationError) and "deadlock" in str(error) for error in found)
    assert all(isinstance(error, VerificationError | RankError) for error in found)


class _Agreeing(ProcessLink):
    """Says that all plans are one."""

    def gather(self, value: Any) -> list[Any]:
        return [value] * len(super().gather(value))


def test_the_host_raises_what_another_rank_met() -> None:
    with pytest.raises(RankError, match="rank 2 failed, and with it all: no data"):
        raise_first([None, None, "no data", None], None)
    raise_first([None, "mine"], VerificationError("mine"))

    class One:
        def gather(self, value: Any) -> list[Any]:
            return [value]

    require_one_plan(ranked_program(2, "sim", 2), One())


def test_the_environment_of_torchrun_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert world_size() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="RANK, MASTER_ADDR, MASTER_PORT is not"):
        world_size()


LOST = """
import os, sys
os.environ |= {"WORLD_SIZE": "2", "RANK": sys.argv[1], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
from mpk_ir.core.errors import RankError
from mpk_ir.runtime.processes import ProcessGroup
group = ProcessGroup(wait_seconds=5)
assert group.gather(group.rank) == [0, 1]
if group.rank == 1:
    os._exit(3)
try:
    group.gather("more")
except RankError as error:
    print(error)
"""


def test_a_process_that_dies_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", LOST]
    processes = [
        subprocess.Popen([*command, rank, port], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for rank in "01"
    ]
    told = processes[0].communicate(timeout=60)[0]
    assert processes[1].wait(timeout=60) == 3
    assert "rank 0 lost" in told
    assert "rank 1" in told or "peer" in told


def test_weights_of_a_rank_are_its_pieces() -> None:
    from mpk_ir.core.ranks import Rank, Shard
    from mpk_ir.frontend import open_checkpoint

    checkpoint = open_checkpoint(EXAMPLE)
    name = "model.layers.0.mlp.down_proj.weight"
    whole = checkpoint.tensor(name)
    for dim in (0, 1):
        pieces = [checkpoint.piece(name, Shard(dim, 2), Rank(rank, 4)) for rank in range(4)]
        assert torch.equal(torch.cat(pieces[::2], dim), whole)
        assert torch.equal(pieces[0], pieces[1])
    with pytest.raises(MpkError, match="expected 7 equal parts of dimension 0"):
        checkpoint.piece(name, Shard(0, 7), Rank(0, 7))
