"""What torch's symmetric memory says becomes addresses, or an error that says what is missing. Its GPUs are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric

from mpk_ir.core.errors import RankError
from mpk_ir.runtime.processes import SymmetricPeers

BEGIN = 512
"""Of the tensor in what was allocated for it."""


@dataclass
class _Torch:
    """What a rank, the second of three, is told of the others."""

    others: tuple[int, int] = (0x1000, 0x3000)
    multicast: int | None = 0x9000
    backends: list[str] = field(default_factory=list[str])

    def rendezvous(self, tensor: torch.Tensor, group: str) -> Any:
        told = self
        own = tensor.data_ptr() - BEGIN

        class Handle:
            buffer_ptrs = (told.others[0], own, told.others[1])

            @property
            def multicast_ptr(self) -> int:
                if told.multicast is None:
                    raise RuntimeError("not supported")
                return told.multicast

        return Handle()


def peers_of(told: _Torch, patch: pytest.MonkeyPatch) -> SymmetricPeers:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "init", lambda: None)
    patch.setattr(torch.cuda, "set_device", lambda ordinal: None)
    patch.setattr(dist, "group", SimpleNamespace(WORLD=SimpleNamespace(group_name="all")))
    patch.setattr(symmetric, "empty", lambda size, dtype, device: torch.empty(size, dtype=dtype))
    patch.setattr(symmetric, "rendezvous", told.rendezvous)
    patch.setattr(symmetric, "set_backend", told.backends.append)
    group: Any = SimpleNamespace(rank=1, count=3, local_rank=0)
    return SymmetricPeers(group)


def test_addresses_are_those_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = peers_of(_Torch(), monkeypatch)
    arenas = peers.allocate(64)
    assert peers.addresses(arenas) == [0x1000 + BEGIN, arenas[0].address, 0x3000 + BEGIN]
    assert peers.multicast(arenas) == 0x9000 + BEGIN


@pytest.mark.parametrize("multicast", [0, None])
def test_gpus_without_multicast_say_so(multicast: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = peers_of(_Torch(multicast=multicast), monkeypatch)
    assert peers.multicast(peers.allocate(64)) == 0


@pytest.mark.parametrize(("on_host", "backends"), [(None, []), (3, []), (1, ["NVSHMEM"])])
def test_several_hosts_use_nvshmem(on_host: int | None, backends: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if on_host is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(on_host))
    told = _Torch()
    peers_of(told, monkeypatch).allocate(64)
    assert told.backends == backends


def test_a_rank_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RankError, match=r"rank 1 has no pointer to the memory of rank 2: .* NVLink domain"):
        peers_of(_Torch(others=(0x1000, 0)), monkeypatch).allocate(64)


def test_what_torch_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: torch.Tensor, group: str) -> Any:
        raise RuntimeError("peer access is off")

    peers = peers_of(_Torch(), monkeypatch)
    monkeypatch.setattr(symmetric, "rendezvous", refuse)
    with pytest.raises(RankError, match="rank 1: no symmetric memory between the GPUs: peer access is off"):
        peers.allocate(64)
