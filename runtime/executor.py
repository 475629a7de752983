"""A program on a GPU: memory bound, tables uploaded, steps launched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen import abi
from ..codegen.program import Program
from ..core.errors import DeviceError, UsageError
from ..core.memory import Space
from .cache import KernelCache
from .driver import Device, Kernel, Stream, Timer, find_device
from .engine import host_buffer, host_names, require_shape
from .nvrtc import CompiledKernel, NvrtcOptions
from .one_plan import raise_first, require_one_plan
from .peers import Peers, SameDevice
from .rank_memory import RankMemory, arena_size
from .timeout import timeout_error
from .weights import Parameters

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

_COUNTER_LIMIT = 1 << 31


@dataclass(frozen=True)
class GpuOptions:
    """``spin_limit_ns``: how long the kernel waits for anything before it gives up. ``profile_steps``: the most steps
    a run may have with a profile recorded; 0 records none."""

    spin_limit_ns: int = 2_000_000_000
    profile_steps: int = 0
    nvrtc: NvrtcOptions = field(default_factory=NvrtcOptions)
    cache: KernelCache = field(default_factory=KernelCache)


class GpuExecutor:
    """An `Engine` on one GPU: of the ranks of the program, those that ``peers`` has here, by default all.

    Weights are packed and copied once, state begins as zeros. Raises DeviceError if there is no fitting GPU,
    KernelCompileError, CheckpointError, RankError.
    """

    def __init__(
        self,
        program: Program,
        parameters: Parameters,
        device: Device | None = None,
        options: GpuOptions | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.program = program
        self.options = options or GpuOptions()
        if program.metadata.get("profile") and not self.options.profile_steps:
            raise UsageError("the program records a profile", advice="give GpuOptions(profile_steps=...) room for it")
        self.device = _usable(program, device or find_device())
        self.device.make_current()
        self._peers = peers or SameDevice(program.ranks)
        require_one_plan(program, self._peers)
        cache, nvrtc = self.options.cache, self.options.nvrtc
        self.compiled: CompiledKernel = cache.compile(program.source, program.headers, program.target.arch, nvrtc)
        shape = program.launch
        self._kernel = Kernel(self.compiled.cubin, shape.kernel, shape.shared_bytes)
        self._blocks = shape.num_blocks * len(self._peers.here)
        self._kernel.require_resident(self.device, self._blocks, shape.num_threads)
        self._stream = Stream()
        arenas = self._peers.allocate(arena_size(program))
        self._arena_addresses = self._peers.addresses(arenas)
        self.ranks = [
            RankMemory(program, rank, arena, self.device.ordinal, self.options.profile_steps)
            for rank, arena in zip(self._peers.here, arenas, strict=True)
        ]
        for rank in self.ranks:
            rank.bind_weights(parameters)
        self._first_step = 0
        self._followed: int | None = None
        self._peers.gather(None)  # nobody launches before all arenas are as they must be at the start

    @property
    def device_name(self) -> str:
        return self.device.name

    def names(self) -> tuple[str, ...]:
        return host_names(self.program)

    def read_state(self, name: str, rank: int | None = None) -> Array:
        """That of ``rank``; by default of the first rank here."""
        buffer = host_buffer(self.program, name)
        self.synchronize()
        return self._rank(rank).read(buffer)

    def write_state(self, name: str, values: Array) -> None:
        """On every rank here."""
        buffer = host_buffer(self.program, name)
        require_shape(buffer, values)
        self.synchronize()
        for rank in self.ranks:
            rank.write(buffer, values)

    def tensor(self, name: str) -> torch.Tensor:
        """A buffer of the first rank here, padded shape and all, as a torch tensor on the same memory.

        Needs a torch built with CUDA. Raises UsageError for scratch, which holds nothing between steps.
        """
        buffer = self.program.buffer(name)
        if buffer.space is Space.SCRATCH:
            raise UsageError(f"'{name}' is scratch: it holds nothing between steps")
        return self.ranks[0].tensor(buffer)

    def follow_torch(self) -> None:
        """Queue steps on torch's current stream from now on, so that they are ordered with torch's own work."""
        import torch

        handle = int(torch.cuda.current_stream(self.device.ordinal).cuda_stream)
        if handle != self._followed:
            self._stream, self._followed = Stream(handle), handle

    def poison(self) -> None:
        """Fill scratch and outputs with 0xFF, a NaN in every float type and the mark of unwritten words in polled
        buffers: what is read before it is written shows."""
        self.synchronize()
        for rank in self.ranks:
            rank.poison()
        self._peers.gather(None)

    def run(self, num_steps: int) -> None:
        if 0 < self.options.profile_steps < num_steps:
            raise UsageError(f"{num_steps} steps in one run, the profile holds {self.options.profile_steps}")
        largest = self.program.ranks * int(self.program.event_count.max(initial=self.program.launch.num_blocks))
        if (self._first_step + num_steps) * largest >= _COUNTER_LIMIT:
            self.synchronize()
            self._reset()
        if any(rank.failed for rank in self.ranks):
            self.synchronize()  # raises what went wrong in an earlier run that nobody has waited for
        limit = self.options.spin_limit_ns
        records = np.zeros(self.program.ranks, abi.LAUNCH.dtype)
        for place, rank in enumerate(self.ranks):
            records[place] = rank.launch_record(self._first_step, num_steps, limit, self._arena_addresses)[0]
        self._kernel.launch(self._blocks, self.program.launch.num_threads, records, self._stream)
        self._first_step += num_steps

    def synchronize(self) -> None:
        """Wait for the queued steps. Raises KernelTimeoutError if one of them stalled, DeviceError if one crashed,
        RankError if that happened on another GPU."""
        crash: DeviceError | None = None
        try:
            self._stream.synchronize()
        except DeviceError as error:  # the context is lost; the kernel may have said why before it stopped
            crash = error
        failed = next((rank for rank in self.ranks if rank.failed), None)
        mine = crash if failed is None else timeout_error(self.program, failed.error, failed.rank)
        raise_first(self._peers.gather(mine and str(mine)), mine)
        if mine is None:
            return
        if crash is not None:
            raise mine from crash
        self._reset()
        raise mine

    def time_steps(self, num_steps: int) -> float:
        """Milliseconds on the device's clock that one launch of ``num_steps`` took."""
        timer = Timer(self._stream)
        with timer:
            self.run(num_steps)
        self.synchronize()
        return timer.elapsed_ms()

    def profile(self, num_steps: int, rank: int | None = None) -> Array:
        """The last run's times, [num_steps, tasks, `ProfilePhase`] nanoseconds of the GPU's global timer, of ``rank``;
        by default of the first rank here."""
        if not 0 < num_steps <= self.options.profile_steps:
            raise UsageError(f"the profile holds {self.options.profile_steps} steps, asked for {num_steps}")
        self.synchronize()
        shape = (self.options.profile_steps, len(self.program.tasks), len(abi.ProfilePhase))
        return self._rank(rank).tables["profile"].read(shape, np.dtype(np.uint64))[:num_steps]

    def _rank(self, number: int | None) -> RankMemory:
        """Raises UsageError for a rank that is not here."""
        for rank in self.ranks:
            if number in (None, rank.rank):
                return rank
        raise UsageError(f"rank {number} is on another GPU", advice=f"here: {list(self._peers.here)}")

    def _reset(self) -> None:
        """Counters, polled words and step number as at the first launch, on all ranks."""
        for rank in self.ranks:
            rank.reset()
        self._first_step = 0
        self._peers.gather(None)


def _usable(program: Program, device: Device | None) -> Device:
    if device is None:
        raise DeviceError("no usable GPU", advice="`--target sim` runs the same tables on the CPU")
    program.target.require_kernel()
    device.require(program.target.arch)
    return device
