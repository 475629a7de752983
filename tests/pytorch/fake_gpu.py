"""A CUDA driver in host memory, whose launches run the task table they are given on the simulator: all of a call to the
GPU, addresses included, on a machine without one."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mpk_ir.codegen import abi
from mpk_ir.codegen.program import Buffer, Program
from mpk_ir.core.memory import Space
from mpk_ir.core.target import H200
from mpk_ir.pytorch import gpu_call, lazy_region
from mpk_ir.runtime import driver, executor
from mpk_ir.runtime.binding import box_offsets, device_dtype, from_device, operand_slots, to_device
from mpk_ir.runtime.driver import Device
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.rank_memory import RankMemory
from mpk_ir.runtime.simulator import Simulator
from mpk_ir.runtime.weights import torch_dtype

DEVICE = Device(0, "host memory", H200.num_sms, (9, 0), 1 << 30)
FIRST_STREAM = 7


@dataclass
class FakeGpu:
    """``calls`` counts driver calls by name. ``stream`` is torch's current one. ``fails``: the next launch gives up.
    While it is ``capturing``, what is queued goes to ``graph``."""

    calls: Counter[str] = field(default_factory=Counter[str])
    stream: int = FIRST_STREAM
    fails: bool = False
    capturing: bool = False
    graph: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    memory: dict[int, Any] = field(default_factory=dict[int, Any])
    loading: tuple[Program, Any] | None = None
    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)
    CUevent_flags = SimpleNamespace(CU_EVENT_DEFAULT=0, CU_EVENT_DISABLE_TIMING=2)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    CU_MEMHOSTALLOC_DEVICEMAP = 2
    CUstream = int

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        does: Callable[..., Any] = getattr(FakeGpu, f"_{name}", lambda *_: None)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls[name] += 1
            result = does(self, *arguments)
            return (0,) if result is None else (0, result)

        return call

    def _cuMemAlloc(self, bytes: int) -> int:
        raw = ctypes.create_string_buffer(bytes + 256)
        address = -(-ctypes.addressof(raw) // 256) * 256
        self.memory[address] = raw
        return address

    def _cuMemHostAlloc(self, bytes: int, flags: int) -> int:
        return self._cuMemAlloc(bytes)

    def _cuMemHostGetDevicePointer(self, address: int, flags: int) -> int:
        return address

    def _cuMemFree(self, address: int) -> None:
        del self.memory[address]

    _cuMemFreeHost = _cuMemFree

    def _cuMemsetD8(self, address: int, byte: int, bytes: int) -> None:
        ctypes.memset(address, byte, bytes)

    def _cuMemsetD8Async(self, address: int, byte: int, bytes: int, stream: int) -> None:
        self._queue(partial(ctypes.memset, address, byte, bytes))

    def _cuCtxSynchronize(self) -> None:
        assert not self.capturing, "breaks the capture"

    def _queue(self, work: Callable[[], object]) -> None:
        if self.capturing:
            self.graph.append(work)
        else:
            work()

    def _cuMemcpyHtoD(self, target: int, source: int, bytes: int, stream: int = 0) -> None:
        ctypes.memmove(target, source, bytes)

    _cuMemcpyDtoH = _cuMemcpyHtoDAsync = _cuMemcpyHtoD

    def _cuStreamCreate(self, flags: int) -> int:
        return FIRST_STREAM - 1

    def _cuModuleLoadData(self, cubin: bytes) -> str:
        return "module"

    def _cuModuleGetFunction(self, module: str, name: bytes) -> Any:
        assert self.loading is not None
        program, parameters = self.loading
        return program, Simulator(program, parameters)

    def _cuOccupancyMaxActiveBlocksPerMultiprocessor(self, *_: Any) -> int:
        return 1

    def _cuLaunchCooperativeKernel(self, function: Any, *arguments: Any) -> None:
        at = at_address(arguments[-1], (1,), np.dtype(np.uint64))[0]
        launch = at_address(int(at), (1,), abi.LAUNCH.dtype)[0].copy()
        self._queue(lambda: self._launch(function, launch))

    def _launch(self, function: Any, launch: Any) -> None:
        if self.fails:
            self.fails = False
            at_address(int(launch["error"]), (1,), abi.ERROR.dtype)["code"] = abi.ErrorCode.LOAD_TIMEOUT
            return
        program, simulator = function
        places = buffer_addresses(program, at_address(int(launch["tasks"]), (len(program.tasks),), abi.TASK.dtype))
        moving = [b for b in program.buffers if b.space in (Space.INPUT, Space.STATE, Space.OUTPUT)]
        for buffer in moving:
            simulator.write_state(buffer.name, from_device(_bits(buffer, places), buffer))
        simulator.run(int(launch["num_steps"]))
        for buffer in moving:
            _bits(buffer, places)[...] = to_device(simulator.read_state(buffer.name), buffer)


def at_address(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Memory as an array."""
    bytes = int(np.prod(shape)) * dtype.itemsize
    return np.ctypeslib.as_array((ctypes.c_byte * bytes).from_address(address)).view(dtype).reshape(shape)


def buffer_addresses(program: Program, table: np.ndarray[Any, Any]) -> dict[str, int]:
    """Where the tasks of ``table`` find each buffer; they must agree."""
    places: dict[str, int] = {}
    for number, grid in enumerate(program.grids):
        rows = np.flatnonzero(program.tasks["grid"] == number)
        for position, slot in enumerate(operand_slots(grid)):
            buffer = program.buffers[grid.operands[position].buffer]
            begin = box_offsets(buffer, program.tasks["offsets"][rows, position]) * buffer.dtype.bytes
            found = set((table["operand"][rows, slot].astype(np.int64) - begin).tolist())
            assert found == {places.setdefault(buffer.name, min(found))}, f"tasks disagree on '{buffer.name}'"
    return places


def _bits(buffer: Buffer, places: dict[str, int]) -> np.ndarray[Any, Any]:
    return at_address(places[buffer.name], buffer.padded_shape or buffer.shape, device_dtype(buffer.dtype))


def install(patch: pytest.MonkeyPatch) -> FakeGpu:
    """Regions run on the fake from now on."""
    gpu = FakeGpu()
    load = GpuExecutor.__init__

    def create(self: GpuExecutor, program: Program, parameters: Any, *rest: Any, **named: Any) -> None:
        gpu.loading = program, parameters
        load(self, program, parameters, *rest, **named)

    def tensor(self: RankMemory, buffer: Buffer) -> torch.Tensor:
        memory = self.memory[buffer.name]
        raw = torch.frombuffer((ctypes.c_byte * memory.bytes).from_address(memory.address), dtype=torch.uint8)
        return raw.view(torch_dtype(buffer)).reshape(buffer.padded_shape or buffer.shape)

    for name in ("copy_in", "copy_out"):  # torch's copies are captured too
        copy = getattr(gpu_call._Port, name)
        patch.setattr(gpu_call._Port, name, lambda port, t, copy=copy: gpu._queue(lambda: copy(port, t)))
    compiled = SimpleNamespace(cubin=b"", resources={})
    patch.setattr(driver, "_driver", lambda: gpu)
    for module in (executor, lazy_region, gpu_call):
        patch.setattr(module, "is_capturing", lambda: gpu.capturing)
    patch.setattr(executor, "torch_stream", lambda ordinal: gpu.stream)  # pyright: ignore[reportUnknownArgumentType]
    patch.setattr(executor.KernelCache, "compile", lambda *_: compiled)
    patch.setattr(GpuExecutor, "__init__", create)
    patch.setattr(RankMemory, "tensor", tensor)
    patch.setattr(GpuExecutor, "torch_device", torch.device("cpu"))
    patch.setattr(lazy_region, "choose", lambda *_: (H200, DEVICE))
    return gpu
