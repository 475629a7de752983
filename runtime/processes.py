"""Ranks as processes that torchrun started: rendezvous and exchange are torch.distributed's."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import RankError, UsageError
from .peers import Arena
from .simulated_ranks import Message

if TYPE_CHECKING:
    import torch

_MISSING = re.compile(r"Ranks? ([\d, ]+) failed to pass")
WAIT_SECONDS = 120
"""How long ranks wait for each other on the host: what one does alone, such as reading weights, may take that long."""


def world_size() -> int:
    """The number of processes that torchrun started; 1 without it. Raises UsageError for an environment in pieces."""
    given = {name: os.environ.get(name) for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    if given["WORLD_SIZE"] is None:
        return 1
    if missing := [name for name, value in given.items() if not value]:
        raise UsageError(f"WORLD_SIZE is set, {', '.join(missing)} is not", advice="start ranks with torchrun")
    return int(given["WORLD_SIZE"] or 1)


class ProcessGroup:
    """All processes, over gloo: the host's side of ranks, whatever moves their data."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        import torch.distributed as dist

        self._dist = dist
        self._wait = timedelta(seconds=wait_seconds)
        self._ours = not dist.is_initialized()
        if self._ours:
            dist.init_process_group("gloo", timeout=self._wait)
            atexit.register(self.close)  # gloo's threads must not outlive the interpreter
        self._group: Any = dist.new_group(backend="gloo", timeout=self._wait)
        self.rank = int(dist.get_rank())
        self.count = int(dist.get_world_size())
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process, in order of ranks. Every process calls it at once.

        Raises RankError if one does not in time, or is gone.
        """
        found: list[Any] = [None] * self.count
        try:
            self._dist.monitored_barrier(self._group, self._wait, wait_all_ranks=True)
            self._dist.all_gather_object(found, value, self._group)
        except RuntimeError as error:
            raise RankError(
                f"rank {self.rank} lost {self._lost(str(error).strip())}",
                advice="the first rank to fail says why; torchrun names it",
            ) from error
        return found

    def _lost(self, error: str) -> str:
        """Whom, from the words of gloo: it tells the first rank who is missing, the others that the first has ended."""
        if missing := _MISSING.search(error):
            seconds = self._wait.total_seconds()
            return f"rank {missing[1].strip()}: it did not come within {seconds:g} s, or is gone"
        return f"the others: {error.splitlines()[0]}"

    def close(self) -> None:
        """Leave the group, if it was made here."""
        if self._ours and self._dist.is_initialized():
            self._dist.destroy_process_group()


class ProcessLink:
    """The link of a rank simulated in this process: what ranks push goes round by gathers of all processes, each made
    when none of its SMs can go on."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    @property
    def rank(self) -> int:
        return self._group.rank

    def exchange(self, messages: Sequence[Message], *, done: bool) -> tuple[list[Message], bool]:
        told = self._group.gather((list(messages), done, ""))
        for rank, (_, _, error) in enumerate(told):
            if error:
                raise RankError(f"rank {rank} failed, and with it all: {error}")
        sent = [message for others, _, _ in told for message in others]
        waiting = [rank for rank, (_, ready, _) in enumerate(told) if not ready]
        if waiting and not sent and done:
            raise RankError(f"rank {waiting[0]} waits for what no rank will send")
        return [message for message in sent if message.rank == self.rank], bool(waiting) and bool(sent)

    def gather(self, value: Any) -> list[Any]:
        return self._group.gather(value)

    def fail(self, error: str) -> None:
        """Tell the others, in the exchange that they wait in, that this rank gives up."""
        self._group.gather(([], False, error))


class SymmetricPeers:
    """Each rank on a GPU of its own: arenas in torch's symmetric memory, which peers reach over NVLink."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.here: Sequence[int] = (group.rank,)

    def allocate(self, bytes: int) -> list[Arena]:
        """On one host by torch's CUDA backend, on several by NVSHMEM's. Raises RankError where torch has no CUDA, or
        the GPUs do not reach each other."""
        import torch
        import torch.distributed as dist
        import torch.distributed._symmetric_memory as symmetric

        if not torch.cuda.is_available():
            raise RankError("ranks on several GPUs need a torch built with CUDA", advice="pip install torch")
        torch.cuda.init()  # the memory asked for below is not of the calls that do this at need
        torch.cuda.set_device(self._group.local_rank)
        name = dist.group.WORLD.group_name  # pyright: ignore[reportOptionalMemberAccess]
        device = torch.device("cuda", self._group.local_rank)
        try:
            if int(os.environ.get("LOCAL_WORLD_SIZE", self._group.count)) < self._group.count:
                symmetric.set_backend("NVSHMEM")
            tensor = symmetric.empty(bytes, dtype=torch.uint8, device=device)
            arena = SymmetricArena(tensor, symmetric.rendezvous(tensor, name), self._group.rank)
        except RuntimeError as error:
            raise RankError(
                f"rank {self._group.rank}: no symmetric memory between the GPUs: {error}",
                advice="they must reach each other over NVLink (`nvidia-smi topo -m`)",
            ) from error
        if arena.unreached is not None:
            raise RankError(
                f"rank {self._group.rank} has no pointer to the memory of rank {arena.unreached}: they are not of one "
                "NVLink domain",
                advice="the kernel loads and stores; it sends nothing over a network",
            )
        return [arena]

    def addresses(self, arenas: Sequence[Arena]) -> list[int]:
        (arena,) = arenas
        assert isinstance(arena, SymmetricArena)
        return arena.peers

    def multicast(self, arenas: Sequence[Arena]) -> int:
        (arena,) = arenas
        assert isinstance(arena, SymmetricArena)
        return arena.multicast

    def gather(self, value: Any) -> list[Any]:
        return self._group.gather(value)


class SymmetricArena:
    """The arena of ``rank``, kept alive by ``tensor``, as the ``handle`` of a rendezvous knows it."""

    def __init__(self, tensor: torch.Tensor, handle: Any, rank: int) -> None:
        self._tensor = tensor
        self._handle = handle
        self._pointers = [int(pointer) for pointer in handle.buffer_ptrs]
        self._begin = int(tensor.data_ptr()) - self._pointers[rank]  # of the tensor in what was allocated for it

    @property
    def unreached(self) -> int | None:
        """The first rank to which there is no pointer."""
        return self._pointers.index(0) if 0 in self._pointers else None

    @property
    def peers(self) -> list[int]:
        """The addresses of all ranks' arenas."""
        return [pointer + self._begin for pointer in self._pointers]

    @property
    def multicast(self) -> int:
        """Where a store reaches all arenas; 0 if there is no such place."""
        try:
            address = int(self._handle.multicast_ptr)
        except RuntimeError:  # of a backend that knows none
            return 0
        return address and address + self._begin

    @property
    def address(self) -> int:
        return int(self._tensor.data_ptr())

    def fill(self, byte: int, *, begin: int = 0, end: int | None = None) -> None:
        import torch

        self._tensor[begin:end].fill_(int(np.uint8(byte)))
        torch.cuda.synchronize(self._tensor.device)
