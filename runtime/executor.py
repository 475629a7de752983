"""A program on a GPU: memory bound, tables uploaded, steps launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen import abi
from ..codegen.program import Program
from ..core.errors import DeviceError, UsageError
from ..core.memory import Space
from ..core.requests import ROW_COUNT
from .binding import device_dtype, device_tasks, from_device, moved_tasks, to_device
from .cache import KernelCache
from .driver import Device, DeviceMemory, Kernel, Launch, MappedMemory, Stream, Timer, find_device
from .engine import host_buffer, host_names, require_shape
from .nvrtc import CompiledKernel, NvrtcOptions
from .timeout import report_at_end, timeout_error
from .weights import Parameters, logical_weight, packed_weight, torch_dtype, weights_of

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
    """An `Engine` on one GPU. Weights are packed and copied once, state begins as zeros.

    A run is one asynchronous launch: what goes wrong in it is raised by a later run or by ``synchronize``; without
    either it is a warning when the executor or the process ends.

    Raises DeviceError if there is no fitting GPU, KernelCompileError, CheckpointError.
    """

    def __init__(
        self,
        program: Program,
        parameters: Parameters,
        device: Device | None = None,
        options: GpuOptions | None = None,
    ) -> None:
        self.program = program
        self.options = options or GpuOptions()
        if program.metadata.get("profile") and not self.options.profile_steps:
            raise UsageError("the program records a profile", advice="give GpuOptions(profile_steps=...) room for it")
        self.device = _usable(program, device or find_device())
        self.device.make_current()
        cache, nvrtc = self.options.cache, self.options.nvrtc
        self.compiled: CompiledKernel = cache.compile(program.source, program.headers, program.target.arch, nvrtc)
        shape = program.launch
        self._kernel = Kernel(self.compiled.cubin, shape.kernel, shape.shared_bytes)
        self._kernel.require_resident(self.device, shape.num_blocks, shape.num_threads)
        self._stream = Stream()
        self._arena = DeviceMemory(program.arena_bytes)
        self._arena.fill(abi.UNWRITTEN_BYTE)
        self._memory = {b.name: DeviceMemory(b.bytes) for b in program.buffers if b.space is not Space.SCRATCH}
        self._bind_weights(parameters)
        self._task_rows = device_tasks(program, self._addresses())
        self._tables = self._upload_tables()
        self._error = MappedMemory(abi.ERROR.dtype)
        self._error_code: Array = self._error.record["code"]
        self._first_step = 0
        self._last_step = _COUNTER_LIMIT // int(program.event_count.max(initial=1))
        self._argument = self._launch_argument()
        self._launch: Launch = self._kernel.prepare(shape.num_blocks, shape.num_threads, self._argument)
        self._tasks_at, self._steps_at = self._argument["tasks"], _steps_of(self._argument)
        self._followed: int | None = None
        report_at_end(self, program, self._error)

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
        return self._task_rows.nbytes

    def names(self) -> tuple[str, ...]:
        return host_names(self.program)

    def read_state(self, name: str) -> Array:
        buffer = host_buffer(self.program, name)
        self.synchronize()
        shape = buffer.padded_shape or buffer.shape
        return from_device(self._memory[name].read(shape, device_dtype(buffer.dtype)), buffer)

    def write_state(self, name: str, values: Array) -> None:
        buffer = host_buffer(self.program, name)
        require_shape(buffer, values)
        self.synchronize()
        self._memory[name].write(to_device(values, buffer), self._stream)

    def tensor(self, name: str) -> torch.Tensor:
        """A buffer, padded shape and all, as a torch tensor on the same memory. Needs a torch built with CUDA.

        Raises UsageError for scratch, which holds nothing between steps.
        """
        import torch

        buffer = self.program.buffer(name)
        if buffer.space is Space.SCRATCH:
            raise UsageError(f"'{name}' is scratch: it holds nothing between steps")
        flat = torch.as_tensor(self._memory[name], device=self.torch_device)
        return flat.view(torch_dtype(buffer)).reshape(buffer.padded_shape or buffer.shape)

    def follow_torch(self) -> None:
        """Queue steps on torch's current stream from now on, so that they are ordered with torch's own work."""
        handle = torch_stream(self.device.ordinal)
        if handle != self._followed:
            before = self._stream
            self._stream, self._followed = Stream(handle), handle
            self._stream.wait_for(before)  # steps share counters and scratch: they never overlap

    def place(self, addresses: Mapping[str, int]) -> DeviceMemory:
        """A task table for `run` in which the inputs and outputs that ``addresses`` names lie there, in the plan's
        layout."""
        rows = moved_tasks(self.program, self._task_rows, self._addresses(), addresses)
        table = DeviceMemory(rows.nbytes)
        table.write(rows, self._stream)
        return table

    def poison(self) -> None:
        """Fill scratch and outputs with 0xFF, a NaN in every float type and the mark of unwritten words in polled
        buffers: what is read before it is written shows."""
        self.synchronize()
        self._arena.fill(abi.UNWRITTEN_BYTE)
        for buffer in self.program.buffers:
            if buffer.space is Space.OUTPUT:
                self._memory[buffer.name].fill(0xFF)

    def run(self, num_steps: int, table: DeviceMemory | None = None) -> None:
        """Queue ``num_steps`` steps in one launch; ``table`` is one that `place` made, else every buffer is our own."""
        if 0 < self.options.profile_steps < num_steps:
            raise UsageError(f"{num_steps} steps in one run, the profile holds {self.options.profile_steps}")
        if self._error_code[0]:
            self.synchronize()  # raises what went wrong in an earlier run that nobody has waited for
        if self._first_step + num_steps >= self._last_step:
            self.synchronize()
            self._reset()
        self._tasks_at[0] = (table or self._tables["tasks"]).address
        self._steps_at[0], self._steps_at[1] = self._first_step, num_steps
        self._launch.queue(self._stream)
        self._first_step += num_steps

    def synchronize(self) -> None:
        """Wait for the queued steps. Raises KernelTimeoutError if one of them stalled, DeviceError if one crashed."""
        try:
            self._stream.synchronize()
        except DeviceError as crash:  # the context is lost; the kernel may have said why before it stopped
            if self._error_code[0] == abi.ErrorCode.NONE:
                raise
            words = timeout_error(self.program, self._error.record[0])
            self._error.clear()
            raise words from crash
        if self._error_code[0] != abi.ErrorCode.NONE:
            error = timeout_error(self.program, self._error.record[0])
            self._reset()
            raise error

    def time_steps(self, num_steps: int) -> float:
        """Milliseconds on the device's clock that one launch of ``num_steps`` took."""
        timer = Timer(self._stream)
        with timer:
            self.run(num_steps)
        self.synchronize()
        return timer.elapsed_ms()

    def profile(self, num_steps: int) -> Array:
        """The last run's times, [num_steps, tasks, `ProfilePhase`] nanoseconds of the GPU's global timer."""
        if not 0 < num_steps <= self.options.profile_steps:
            raise UsageError(f"the profile holds {self.options.profile_steps} steps, asked for {num_steps}")
        self.synchronize()
        shape = (self.options.profile_steps, len(self.program.tasks), len(abi.ProfilePhase))
        return self._tables["profile"].read(shape, np.dtype(np.uint64))[:num_steps]

    def _upload_tables(self) -> dict[str, DeviceMemory]:
        program = self.program
        tables = {
            "tasks": DeviceMemory.of(self._task_rows),
            "queue_begin": DeviceMemory.of(program.queue_begin.astype(np.int32)),
            "events": DeviceMemory(len(program.event_count) * abi.EVENT_STRIDE_BYTES),
            "failures": DeviceMemory(abi.EVENT_STRIDE_BYTES),
        }
        if steps := self.options.profile_steps:
            tables["profile"] = DeviceMemory(steps * len(program.tasks) * len(abi.ProfilePhase) * 8)
        return tables

    def _addresses(self) -> dict[str, int]:
        arena = self._arena.address
        return {
            b.name: arena + b.offset_bytes if b.space is Space.SCRATCH else self._memory[b.name].address
            for b in self.program.buffers
        }

    def _launch_argument(self) -> Array:
        argument = np.zeros(1, abi.LAUNCH.dtype)
        for name, memory in self._tables.items():
            argument[name] = memory.address
        argument["error"] = self._error.address
        argument["row_count"] = self._memory[ROW_COUNT].address if ROW_COUNT in self._memory else 0
        argument["spin_limit_ns"] = self.options.spin_limit_ns
        return argument

    def _reset(self) -> None:
        """Counters, polled words and step number as at the first launch."""
        self._arena.fill(abi.UNWRITTEN_BYTE)
        self._tables["events"].fill(0)
        self._tables["failures"].fill(0)
        self._error.clear()
        self._first_step = 0

    def _bind_weights(self, parameters: Parameters) -> None:
        """Pack one weight at a time, on the GPU if torch can: there it takes milliseconds."""
        import torch

        load = parameters if callable(parameters) else parameters.__getitem__
        on_gpu = torch.cuda.is_available()
        place = f"cuda:{self.device.ordinal}" if on_gpu else "cpu"
        for buffer in weights_of(self.program):
            weight = logical_weight(self.program, buffer, lambda name: load(name).to(place))
            packed = packed_weight(buffer, weight).contiguous()
            if packed.is_cuda:
                self.tensor(buffer.name).view(-1).copy_(packed)
            else:
                self._memory[buffer.name].write(packed.view(torch.uint8).numpy())
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # what packing took; torch would keep it


def _steps_of(argument: Array) -> Array:
    """``first_step`` and ``num_steps`` of a launch argument, as two int32 in its memory."""
    at = abi.LAUNCH.dtype.fields["first_step"][1]  # pyright: ignore[reportOptionalSubscript]
    return argument.view(np.uint8)[at : at + 8].view(np.int32)


def torch_stream(ordinal: int) -> int:
    """The handle of torch's current stream on GPU ``ordinal``."""
    import torch

    return int(torch._C._cuda_getCurrentRawStream(ordinal))  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def _usable(program: Program, device: Device | None) -> Device:
    if device is None:
        raise DeviceError("no usable GPU", advice="`--target sim` runs the same tables on the CPU")
    program.target.require_kernel()
    device.require(program.target.arch)
    return device
