"""A step recorded into a CUDA graph: with scratch, counters and task table of its own, made anew by each replay.

Launches outside graphs count their steps (`abi.LAUNCH`), which a graph cannot: it replays the same argument. So memset
nodes before the kernel put counters and scratch into the state of a first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..codegen import abi
from .driver import DeviceMemory, Kernel, Stream, beside_capture
from .rank_memory import RankMemory, arena_size

Array = np.ndarray[Any, Any]


class CapturedStep:
    """One step of the program of ``rank``, the only one, with the buffers that ``addresses`` names there.

    ``argument``: the launch argument of the steps outside graphs. ``aside``: a stream that is not captured. The object
    must live as long as the graph.
    """

    def __init__(
        self, rank: RankMemory, kernel: Kernel, argument: Array, addresses: Mapping[str, int], aside: Stream
    ) -> None:
        program = rank.program
        self._counters_bytes = rank.tables["events"].bytes
        with beside_capture():
            self._arena = DeviceMemory(arena_size(program), cleared=False)
            self._counters = DeviceMemory(self._counters_bytes + rank.tables["failures"].bytes, cleared=False)
            rows = rank.moved_tasks({**rank.scratch_at(self._arena.address), **addresses})
            self._tasks = DeviceMemory(rows.nbytes, cleared=False)
            self._tasks.write(rows, aside)
            aside.synchronize()
        self._argument = argument.copy()
        self._fill_argument()
        self._launch = kernel.prepare(program.launch.num_blocks, program.launch.num_threads, self._argument)

    def queue(self, stream: Stream) -> None:
        """Record it behind the work of ``stream``, which is being captured. Raises DeviceError."""
        self._arena.fill(abi.UNWRITTEN_BYTE, stream)
        self._counters.fill(0, stream)
        self._launch.queue(stream)

    def _fill_argument(self) -> None:
        record = self._argument
        record["tasks"] = self._tasks.address
        record["events"] = self._counters.address
        record["failures"] = self._counters.address + self._counters_bytes
        record["peer"][0, 0] = self._arena.address
        record["first_step"], record["num_steps"] = 0, 1
