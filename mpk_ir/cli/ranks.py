"""What `--ranks` and torchrun say about the ranks of a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.ranks import Parallel
from ..core.target import Target, part_of

if TYPE_CHECKING:
    from ..runtime.peers import Peers
    from ..runtime.processes import ProcessGroup
    from ..runtime.simulated_ranks import Link


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run: parts of this process's machine, or with a ``group`` this process among others."""

    count: int
    strategy: str
    group: ProcessGroup | None = None

    @staticmethod
    def of(asked: int | None, strategy: str) -> Ranks:
        """The ranks that an option ``asked`` for, or that torchrun started. Raises UsageError if they differ."""
        from ..runtime.processes import ProcessGroup, world_size

        processes = world_size()
        if processes == 1:
            return Ranks(asked or 1, strategy)
        if asked not in (None, processes):
            raise UsageError(f"--ranks {asked} with {processes} processes", advice="leave it out under torchrun")
        return Ranks(processes, strategy, ProcessGroup())

    @property
    def parallel(self) -> Parallel:
        return Parallel(self.count, self.strategy)

    @property
    def speaks(self) -> bool:
        """Whether this process prints: the first does."""
        return self.group is None or self.group.rank == 0

    @property
    def device_ordinal(self) -> int:
        """The GPU of this process."""
        return 0 if self.group is None else self.group.local_rank

    def part_of(self, target: Target) -> Target:
        """What a rank has of a GPU: all of it in a process of its own."""
        return target if self.group is not None else part_of(target, self.count)

    def link(self) -> Link | None:
        """How a simulated rank reaches those of other processes."""
        from ..runtime.processes import ProcessLink

        return None if self.group is None else ProcessLink(self.group)

    def peers(self) -> Peers | None:
        """How a rank on a GPU reaches those of other processes."""
        from ..runtime.processes import SymmetricPeers

        return None if self.group is None else SymmetricPeers(self.group)
