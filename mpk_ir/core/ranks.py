"""Which ranks a task writes to, and which of its parts a rank holds."""

from __future__ import annotations

from dataclasses import dataclass

TO_ALL = -1
"""What a task pushes lands in the memory of every rank."""
TO_SELF = -2
"""A task touches the memory of its own rank alone."""


@dataclass(frozen=True)
class Shard:
    """One of ``parts`` equal pieces of a tensor along ``dim``; ``parts`` divides the number of ranks, neighbours share:
    rank r of N has piece r * parts / N, rounded down."""

    dim: int
    parts: int

    def box(self, whole: tuple[int, ...], rank: int, ranks: int) -> tuple[slice, ...]:
        """The piece of ``rank`` as slices of a tensor of shape ``whole``, whose dimension ``dim`` ``parts`` divides."""
        size = whole[self.dim] // self.parts
        start = rank * self.parts // ranks * size
        return (*(slice(None),) * self.dim, slice(start, start + size))


@dataclass(frozen=True)
class Rank:
    """``number`` of ``count`` ranks."""

    number: int = 0
    count: int = 1

    def piece(self, shard: Shard, whole: tuple[int, ...]) -> tuple[slice, ...]:
        """What it holds of a tensor of shape ``whole``."""
        return shard.box(whole, self.number, self.count)


ONE_RANK = Rank()


STRATEGIES = ("auto", "push", "two-shot", "multicast", "off")
"""Of `sm-overlap-comm`: how ranks exchange what they compute."""


@dataclass(frozen=True)
class Parallel:
    """A step on ``ranks`` GPUs, or parts of one; ``strategy`` is one of `STRATEGIES`, of which ``auto`` takes multicast
    only where ``multicast`` says that the GPUs have it."""

    ranks: int = 1
    strategy: str = "auto"
    multicast: bool = False


ALONE = Parallel()
