"""In which order virtual SMs take turns: a correct plan gives the same result under each of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Interleaving(Protocol):
    """Chooses who runs next."""

    def choose(self, ready: Sequence[int]) -> int:
        """One of the SMs in ``ready`` (never empty, no SM twice): it runs its next task."""
        ...


@dataclass
class RandomOrder:
    """Each ready SM is as likely as any other."""

    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def choose(self, ready: Sequence[int]) -> int:
        return ready[self._random.randrange(len(ready))]


@dataclass
class RoundRobin:
    """The next ready SM in order of number: all advance evenly."""

    _last: int = field(default=-1, init=False)

    def choose(self, ready: Sequence[int]) -> int:
        later = [sm for sm in ready if sm > self._last]
        self._last = min(later or ready)
        return self._last


@dataclass
class RunAhead:
    """One SM runs until it blocks: SMs drift as far apart as the plan lets them."""

    _last: int = field(default=-1, init=False)

    def choose(self, ready: Sequence[int]) -> int:
        if self._last not in ready:
            self._last = max(ready)
        return self._last


@dataclass
class StarvedSm:
    """SM ``sm`` runs only when no other can; the rest as ``others`` says."""

    sm: int
    others: Interleaving = field(default_factory=RandomOrder)

    def choose(self, ready: Sequence[int]) -> int:
        rest = [sm for sm in ready if sm != self.sm]
        return self.others.choose(rest) if rest else self.sm
