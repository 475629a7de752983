"""Many launches from one state: none may hang, and each must leave the same bits. What hangs raises by itself: every
wait of the kernel is bounded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.memory import Space

if TYPE_CHECKING:
    import torch

    from ..runtime.executor import GpuExecutor

POISON_EVERY = 50
"""Launches between two that begin with poisoned scratch; the others begin with what the one before left."""


@dataclass(frozen=True)
class Soaked:
    """``differing``: numbers of the launches, counted from 0, that left other bits than expected; ``compared_bytes``:
    how many bytes each was compared in; ``seconds``: all together, on the host's clock."""

    launches: int
    steps: int
    differing: tuple[int, ...]
    compared_bytes: int
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.differing


class Snapshot:
    """What an engine's states and outputs hold, tokens, logits and caches of all its ranks, on the GPU."""

    def __init__(self, engine: GpuExecutor) -> None:
        import torch

        engine.synchronize()
        self._flat = torch.cat(_bits(engine))

    @property
    def bytes(self) -> int:
        return self._flat.numel()

    def restore(self, memory: list[torch.Tensor]) -> None:
        """Write it into ``memory``, `_bits` of an engine of the same plan."""
        import torch

        pieces = self._flat.split([part.numel() for part in memory])
        torch._foreach_copy_(memory, pieces)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch.cuda.synchronize()

    def matches(self, memory: list[torch.Tensor]) -> bool:
        """Whether ``memory``, of an engine that is done, holds the same bits."""
        import torch

        return torch.equal(torch.cat(memory), self._flat)


def soak(engine: GpuExecutor, start: Snapshot, launches: int, steps: int, end: Snapshot | None = None) -> Soaked:
    """``launches`` times ``steps`` steps from ``start``. They must end as ``end`` did, or as the first of them.

    Raises KernelTimeoutError for a launch that hangs.
    """
    begin = time.perf_counter()
    differing: list[int] = []
    memory = _bits(engine)
    for launch in range(launches):
        start.restore(memory)
        if launch % POISON_EVERY == 0:
            engine.poison()
        engine.run(steps)
        engine.synchronize()
        if end is None:
            end = Snapshot(engine)
        elif not end.matches(memory):
            differing.append(launch)
    compared = end.bytes if end is not None else 0
    return Soaked(launches, steps, tuple(differing), compared, time.perf_counter() - begin)


def _bits(engine: GpuExecutor) -> list[torch.Tensor]:
    """The memory of each state and output of each rank, flat, as bytes."""
    import torch

    found: list[torch.Tensor] = []
    for rank in engine.ranks:
        for buffer in engine.program.buffers:
            if buffer.space in (Space.STATE, Space.OUTPUT):
                tensor: Any = rank.tensor(buffer)
                found.append(tensor.reshape(-1).view(torch.uint8))
    return found
