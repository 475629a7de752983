"""A program on a GPU: memory bound, tables uploaded, steps launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen import abi
from ..codegen.program import Program
from ..core.errors import DeviceError, RankError, UsageError
from ..core.memory import Space
from .cache import KernelCache
from .captured import CapturedStep
from .driver import Device, DeviceMemory, Kernel, Launch, Stream, Timer, find_device
from .engine import host_buffer, host_names, require_shape
from .nvrtc import CompiledKernel, NvrtcOptions
from .one_plan import raise_first, require_one_plan
from .packing import Packer
from .peers import Arena, Peers, SameDevice
from .rank_memory import RankMemory, arena_size
from .timeout import report_at_end, timeout_error
from .weight_pool import WeightPool
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
    """An `Engine` on one GPU: of the ranks of the program, those that ``peers`` has here, by default all. Weights are
    packed and copied once, and shared with the executors that were given the same ``pool``; state begins as zeros.

    A run is one asynchronous launch: what goes wrong in it is raised by a later run or by ``synchronize``; without
    either it is a warning when the executor or the process ends.

    Raises DeviceError if there is no fitting GPU, KernelCompileError, CheckpointError, RankError.
    """

    def __init__(
        self,
        program: Program,
        parameters: Parameters,
        device: Device | None = None,
        options: GpuOptions | None = None,
        peers: Peers | None = None,
        pool: WeightPool | None = None,
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
        self._packer = Packer(program.target.arch, cache)
        shape = program.launch
        self._kernel = Kernel(self.compiled.cubin, shape.kernel, shape.shared_bytes)
        blocks = shape.num_blocks * len(self._peers.here)
        self._kernel.require_resident(self.device, blocks, shape.num_threads)
        self._stream = self._own_stream = Stream()
        self.ranks = self._make_ranks(parameters, pool or WeightPool())
        self._first_step = 0
        self._last_step = _COUNTER_LIMIT // (program.ranks * int(program.event_count.max(initial=shape.num_blocks)))
        self._codes = [rank.error_code.data for rank in self.ranks]
        self._captured: list[CapturedStep] = []
        self._launch: Launch = self._kernel.prepare(blocks, shape.num_threads, self._argument)
        self._tasks_at = self._argument["tasks"]
        self._steps_at = [_steps_of(self._argument[place : place + 1]).data for place in range(len(self.ranks))]
        self._table: DeviceMemory | None = None
        self._followed: int | None = None
        for rank in self.ranks:
            report_at_end(self, program, rank.error)
        self._peers.gather(None)  # nobody launches before all arenas are as they must be at the start

    def _make_ranks(self, parameters: Parameters, pool: WeightPool) -> list[RankMemory]:
        """The ranks here, with their records in the launch argument."""
        program, steps = self.program, self.options.profile_steps
        arenas = self._peers.allocate(arena_size(program))
        addresses, multicast = self._peers.addresses(arenas), self._multicast(arenas)
        self._argument = np.zeros(program.ranks, abi.LAUNCH.dtype)
        made: list[RankMemory] = []
        for place, (number, arena) in enumerate(zip(self._peers.here, arenas, strict=True)):
            rank = RankMemory(program, number, arena, self.device.ordinal, steps, pool)
            rank.bind_weights(parameters, self._packer)
            record = self._argument[place : place + 1]
            rank.fill_record(record, self.options.spin_limit_ns, addresses)
            record["multicast"] = multicast
            made.append(rank)
        return made

    def _multicast(self, arenas: Sequence[Arena]) -> int:
        """Where a store reaches all ``arenas``; 0 if no task needs it. Raises RankError if there is no such place."""
        if not self.program.multicasts:
            return 0
        address = self._peers.multicast(arenas)
        found = self._peers.gather(bool(address))
        if not all(found):
            raise RankError(
                f"the plan writes to all ranks by one store (multimem), rank {found.index(False)} has no multicast "
                f"memory: it needs GPUs of compute capability 9.0 behind an NVLink switch, one for each rank",
                advice="plan with --overlap push",
            )
        return address

    def bind_weights(self, parameters: Parameters) -> None:
        """Pack ``parameters`` in place of the weights so far; those that came from a pool stay.

        Raises CheckpointError.
        """
        self.synchronize()
        for rank in self.ranks:
            rank.bind_weights(parameters, self._packer)

    @property
    def device_name(self) -> str:
        return self.device.name

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        import torch

        return torch.device("cuda", self.device.ordinal)

    @property
    def table_bytes(self) -> int:
        """Of one task table."""
        return self.ranks[0].task_rows.nbytes

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
            rank.write(buffer, values, self._stream)

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
        handle = torch_stream(self.device.ordinal)
        if handle != self._followed:
            before = self._stream
            self._stream, self._followed = Stream(handle), handle
            self._stream.wait_for(before)  # steps share counters and scratch: they never overlap

    def place(self, addresses: Mapping[str, int]) -> DeviceMemory:
        """A task table for `run`, of a program for one rank, in which the inputs and outputs that ``addresses`` names
        lie there, in the plan's layout."""
        (rank,) = self.ranks
        rows = rank.moved_tasks(addresses)
        table = DeviceMemory(rows.nbytes)
        table.write(rows, self._stream)
        return table

    def poison(self) -> None:
        """Fill scratch and outputs with 0xFF, a NaN in every float type and the mark of unwritten words in polled
        buffers: what is read before it is written shows."""
        self.synchronize()
        for rank in self.ranks:
            rank.poison()
        self._peers.gather(None)

    def run(self, num_steps: int, table: DeviceMemory | None = None) -> None:
        """Queue ``num_steps`` steps in one launch; ``table`` is one that `place` made, else every buffer is our own."""
        if 0 < self.options.profile_steps < num_steps:
            raise UsageError(f"{num_steps} steps in one run, the profile holds {self.options.profile_steps}")
        if self._failed():
            self.synchronize()  # raises what went wrong in an earlier run that nobody has waited for
        if self._first_step + num_steps >= self._last_step:
            self.synchronize()
            self._reset()
        if table is not self._table:
            self._table = table
            self._tasks_at[0] = (table or self.ranks[0].tables["tasks"]).address
        for steps in self._steps_at:
            steps[0], steps[1] = self._first_step, num_steps
        self._launch.queue(self._stream)
        self._first_step += num_steps

    def capture(self, addresses: Mapping[str, int]) -> None:
        """Record one step, of a program for one rank, into the CUDA graph that torch's current stream is captured into;
        ``addresses`` as in `place`. What it needs beside them lives as long as the executor.

        Raises DeviceError, and what went wrong in an earlier run.
        """
        if self._failed():
            self.synchronize()
        (rank,) = self.ranks
        step = CapturedStep(rank, self._kernel, self._argument, addresses, self._own_stream)
        step.queue(Stream(torch_stream(self.device.ordinal)))
        self._captured.append(step)

    def _failed(self) -> bool:
        """Whether a kernel gave up and nobody has raised it."""
        return sum([code[0] for code in self._codes]) != 0  # a generator would take as long as all else of a run

    def synchronize(self) -> None:
        """Wait for the queued steps. Raises KernelTimeoutError if one of them stalled, DeviceError if one crashed,
        RankError if that happened on another GPU."""
        crash: DeviceError | None = None
        try:
            self._stream.synchronize()
        except DeviceError as error:  # the context is lost; the kernel may have said why before it stopped
            crash = error
        failed = next((rank for rank in self.ranks if rank.error_code[0]), None)
        mine = crash if failed is None else timeout_error(self.program, failed.error.record[0], failed.rank)
        raise_first(self._peers.gather(mine and str(mine)), mine)
        if mine is None:
            return
        if crash is None:
            self._reset()
            raise mine
        for rank in self.ranks:
            rank.error.clear()
        if mine is crash:
            raise mine
        raise mine from crash

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


def _steps_of(argument: Array) -> Array:
    """``first_step`` and ``num_steps`` of a launch argument, as two int32 in its memory."""
    at = abi.LAUNCH.dtype.fields["first_step"][1]  # pyright: ignore[reportOptionalSubscript]
    return argument.view(np.uint8)[at : at + 8].view(np.int32)


def torch_stream(ordinal: int) -> int:
    """The handle of torch's current stream on GPU ``ordinal``."""
    return _stream_query()(ordinal)


def is_capturing() -> bool:
    """Whether torch's current stream is being captured into a CUDA graph."""
    return bool(_capture_query()())


@cache
def _stream_query() -> Callable[[int], int]:
    import torch

    return torch._C._cuda_getCurrentRawStream  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


@cache
def _capture_query() -> Callable[[], bool]:
    import torch

    return torch.cuda.is_current_stream_capturing if torch.cuda.is_available() else bool


def _usable(program: Program, device: Device | None) -> Device:
    if device is None:
        raise DeviceError("no usable GPU", advice="`--target sim` runs the same tables on the CPU")
    program.target.require_kernel()
    device.require(program.target.arch)
    return device
