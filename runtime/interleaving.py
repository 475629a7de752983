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


@dataclass
class Lagging:
    """Of the ready SMs the one that has run least (``most``: most): slowest first, or the fast ever farther ahead."""

    most: bool = False
    _turns: dict[int, int] = field(default_factory=dict[int, int], init=False, repr=False)

    def choose(self, ready: Sequence[int]) -> int:
        chosen = (max if self.most else min)(ready, key=lambda sm: (self._turns.get(sm, 0), sm))
        self._turns[chosen] = self._turns.get(chosen, 0) + 1
        return chosen


@dataclass
class Priorities:
    """The ready SM of highest priority; priorities are random, and now and then the one that runs drops to the lowest.

    Finds with known probability a fault that needs few particular orders (Burckhardt et al., ASPLOS 2010).
    """

    seed: int = 0
    drop_probability: float = 0.02
    _random: random.Random = field(init=False, repr=False)
    _priority: dict[int, float] = field(default_factory=dict[int, float], init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def choose(self, ready: Sequence[int]) -> int:
        for sm in ready:
            self._priority.setdefault(sm, self._random.random())
        chosen = max(ready, key=self._priority.__getitem__)
        if self._random.random() < self.drop_probability:
            self._priority[chosen] = min(self._priority.values()) - 1
        return chosen
