"""Where the memories of a program's ranks are: all on one GPU, or each on a GPU of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .driver import DeviceMemory


class Arena(Protocol):
    """Device memory that other ranks may write."""

    @property
    def address(self) -> int: ...

    def fill(self, byte: int, *, begin: int = 0, end: int | None = None) -> None:
        """Set every byte from ``begin`` to ``end``."""
        ...


class Peers(Protocol):
    """The ranks of a program and how those on this GPU reach the others."""

    @property
    def here(self) -> Sequence[int]:
        """The ranks on this GPU; their blocks are launched together."""
        ...

    def allocate(self, bytes: int) -> list[Arena]:
        """An arena for each rank on this GPU. Every process calls it at once."""
        ...

    def addresses(self, arenas: Sequence[Arena]) -> list[int]:
        """Where the arena of each rank of the program begins, as this GPU addresses it."""
        ...

    def multicast(self, arenas: Sequence[Arena]) -> int:
        """Where one store reaches the arenas of all ranks; 0 if the GPUs have no multicast."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process, in order of ranks. Every process calls it at once.

        Raises RankError if one is gone.
        """
        ...


class SameDevice:
    """All ``ranks`` on one GPU: blocks of each on SMs of their own, all memories in that of the GPU."""

    def __init__(self, ranks: int) -> None:
        self.here: Sequence[int] = range(ranks)

    def allocate(self, bytes: int) -> list[Arena]:
        return [DeviceMemory(bytes) for _ in self.here]

    def addresses(self, arenas: Sequence[Arena]) -> list[int]:
        return [arena.address for arena in arenas]

    def multicast(self, arenas: Sequence[Arena]) -> int:
        return 0  # it is between GPUs

    def gather(self, value: Any) -> list[Any]:
        return [value]
