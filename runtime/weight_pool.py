"""Packed weights that several plans of one module read: a kernel for other shapes packs nothing again."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

from ..codegen.program import Buffer, Program
from ..core.memory import Space
from .driver import DeviceMemory


class WeightPool:
    """The weights of plans whose parameters have the same names and values, but for those named ``apart``.

    A weight goes with the last plan that reads it. Constants of a program stay the program's own. With ``states`` the
    plans have the states of one name and shape in common too: one goes on where another stopped.
    """

    def __init__(self, apart: Iterable[str] = (), *, states: bool = False) -> None:
        self._kept: WeakValueDictionary[tuple[object, ...], DeviceMemory] = WeakValueDictionary()
        self._apart = frozenset(apart)
        self._states = states

    def without(self, names: Iterable[str]) -> WeightPool:
        """The same weights, for a plan that gives ``names`` values of its own."""
        pool = WeightPool(names)
        pool._kept = self._kept
        return pool

    def memory(self, program: Program, rank: int) -> tuple[dict[str, DeviceMemory], frozenset[str]]:
        """Memory of ``rank`` for each buffer outside scratch, and the names of those that are filled already."""
        made: dict[str, DeviceMemory] = {}
        packed: set[str] = set()
        for buffer in program.buffers:
            if buffer.space is Space.SCRATCH:
                continue
            called = buffer.name if buffer.space is Space.STATE else buffer.pack
            key = (called, buffer.shape, buffer.padded_shape, buffer.dtype, buffer.layout, rank, program.ranks)
            shared = self._shares(buffer)
            kept = self._kept.get(key) if shared else None
            if kept is not None:
                packed.add(buffer.name)
            made[buffer.name] = kept or DeviceMemory(buffer.bytes)
            if shared:
                self._kept[key] = made[buffer.name]
        return made, frozenset(packed)

    def _shares(self, buffer: Buffer) -> bool:
        if buffer.space is Space.STATE:
            return self._states
        return buffer.space is Space.WEIGHT and buffer.pack is not None and self._apart.isdisjoint(buffer.pack.sources)
