"""The CUDA driver, checked: devices, memory, kernels, streams, timing. The only user of cuda.bindings.driver."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np

from ..core.errors import DeviceError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Device:
    """A GPU whose primary context is current: the one that torch uses too."""

    ordinal: int
    name: str
    num_sms: int
    capability: tuple[int, int]
    memory_bytes: int

    def make_current(self) -> None:
        """Make this device's primary context the calling thread's."""
        driver = _driver()
        context = check(driver.cuDevicePrimaryCtxRetain(check(driver.cuDeviceGet(self.ordinal))))
        check(driver.cuCtxSetCurrent(context))

    def require(self, arch: str) -> None:
        """Raise DeviceError unless machine code for ``arch`` (such as `sm_90a`) runs here."""
        found = f"sm_{self.capability[0]}{self.capability[1]}"
        if arch.rstrip("af") != found:
            raise DeviceError(
                f"{self.name} is {found}, the program is for {arch}",
                advice="compile for a target of this device, or run with `--target sim`",
            )


def find_device(ordinal: int = 0) -> Device | None:
    """The GPU called ``ordinal``, or None where there is no driver or no such GPU. Raises nothing."""
    try:
        driver = _driver()
        check(driver.cuInit(0))
        if ordinal >= check(driver.cuDeviceGetCount()):
            return None
        handle = check(driver.cuDeviceGet(ordinal))
        kind = driver.CUdevice_attribute
        sms, major, minor = (
            check(driver.cuDeviceGetAttribute(attribute, handle))
            for attribute in (
                kind.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = check(driver.cuDeviceGetName(256, handle)).partition(b"\0")[0].decode()
        return Device(ordinal, name, sms, (major, minor), check(driver.cuDeviceTotalMem(handle)))
    except (DeviceError, RuntimeError, OSError):  # RuntimeError: cuda.bindings without libcuda
        return None


def check(result: tuple[Any, ...]) -> Any:
    """The value of a driver call's ``result``. Raises DeviceError with the error's name and meaning."""
    driver = _driver()
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        name, meaning = (call(status)[1] for call in (driver.cuGetErrorName, driver.cuGetErrorString))
        raise DeviceError(f"CUDA driver: {_words(name)}: {_words(meaning)}")
    return values[0] if len(values) == 1 else tuple(values)


class DeviceMemory:
    """``bytes`` of device memory at ``address``, zeroed unless not ``cleared``; freed with the object."""

    def __init__(self, bytes: int, *, cleared: bool = True) -> None:
        self.bytes = bytes
        driver = _driver()
        pointer = check(driver.cuMemAlloc(max(bytes, 1)))
        self.address = int(pointer)
        self._release = weakref.finalize(self, driver.cuMemFree, pointer)
        if cleared:
            self.fill(0)

    @staticmethod
    def of(values: Array) -> DeviceMemory:
        """Memory that holds ``values``, row-major."""
        memory = DeviceMemory(values.nbytes)
        memory.write(values)
        return memory

    def fill(self, byte: int, stream: Stream | None = None, *, begin: int = 0, end: int | None = None) -> None:
        """Set every byte from ``begin`` to ``end``; behind the work of ``stream`` if one is given."""
        driver, address = _driver(), self.address + begin
        count = (self.bytes if end is None else end) - begin
        if stream is None:
            check(driver.cuMemsetD8(address, byte, count))
            check(driver.cuCtxSynchronize())
        else:
            check(driver.cuMemsetD8Async(address, byte, count, stream.handle))

    def write(self, values: Array, stream: Stream | None = None) -> None:
        """Copy ``values`` in, row-major; behind the work of ``stream`` if one is given.

        Raises DeviceError if they are not as many bytes.
        """
        source = np.ascontiguousarray(values)
        self._require(source.nbytes)
        if stream is None:
            check(_driver().cuMemcpyHtoD(self.address, source.ctypes.data, source.nbytes))
        else:
            check(_driver().cuMemcpyHtoDAsync(self.address, source.ctypes.data, source.nbytes, stream.handle))

    def copy(self, address: int, bytes: int, stream: Stream, *, begin: int = 0) -> None:
        """Copy ``bytes`` from device memory at ``address`` to byte ``begin``, behind the work of ``stream``."""
        check(_driver().cuMemcpyDtoDAsync(self.address + begin, address, bytes, stream.handle))

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A copy, as an array of ``shape`` and ``dtype``. Raises DeviceError if it is not as many bytes."""
        values = np.empty(shape, dtype)
        self._require(values.nbytes)
        check(_driver().cuMemcpyDtoH(values.ctypes.data, self.address, values.nbytes))
        return values

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How torch and others see this memory without a copy: bytes."""
        return {"shape": (self.bytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def free(self) -> None:
        self._release()

    def _require(self, bytes: int) -> None:
        if bytes != self.bytes:
            raise DeviceError(f"device memory of {self.bytes} bytes, values of {bytes} bytes")


class MappedMemory:
    """One record of ``dtype`` in host memory that kernels write: it can be read even after a kernel has crashed."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        driver = _driver()
        pointer = check(driver.cuMemHostAlloc(dtype.itemsize, driver.CU_MEMHOSTALLOC_DEVICEMAP))
        weakref.finalize(self, driver.cuMemFreeHost, pointer)
        self.address = int(check(driver.cuMemHostGetDevicePointer(pointer, 0)))
        bytes_at = (ctypes.c_byte * dtype.itemsize).from_address(int(pointer))
        self.record: Array = np.ctypeslib.as_array(bytes_at).view(dtype)
        """[1] of ``dtype``, the memory itself; not to be used once this object is gone."""
        self.clear()

    @staticmethod
    def wait_for_device() -> None:
        """Wait until all that is queued has written. Raises DeviceError if any of it failed."""
        check(_driver().cuCtxSynchronize())

    def clear(self) -> None:
        """Set every byte to zero."""
        self.record.view(np.uint8)[...] = 0


class Stream:
    """A queue of device work, not ordered with the default stream; or the one at ``handle``, which is its owner's."""

    def __init__(self, handle: int | None = None) -> None:
        driver = _driver()
        if handle is not None:
            self.handle: Any = driver.CUstream(handle)
            return
        self.handle = check(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        weakref.finalize(self, driver.cuStreamDestroy, self.handle)

    def synchronize(self) -> None:
        """Wait for the queued work. Raises DeviceError if any of it failed."""
        check(_driver().cuStreamSynchronize(self.handle))

    def wait_for(self, other: Stream) -> None:
        """Let what is queued here from now on begin after what ``other`` holds now. The host does not wait."""
        driver = _driver()
        mark = check(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        check(driver.cuEventRecord(mark, other.handle))
        check(driver.cuStreamWaitEvent(self.handle, mark, 0))
        check(driver.cuEventDestroy(mark))  # the driver keeps it until the streams are past it


@contextmanager
def beside_capture() -> Generator[None]:
    """Lets this thread allocate memory and use streams of its own while another stream is captured into a CUDA graph:
    such work is done at once and is no part of the graph."""
    driver = _driver()
    before = check(driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    try:
        yield
    finally:
        check(driver.cuThreadExchangeStreamCaptureMode(before))


class Timer:
    """The device's own clock between two points of a stream."""

    def __init__(self, stream: Stream) -> None:
        driver = _driver()
        self._stream = stream
        self._marks = [check(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DEFAULT)) for _ in range(2)]
        for mark in self._marks:
            weakref.finalize(self, driver.cuEventDestroy, mark)

    def __enter__(self) -> Timer:
        check(_driver().cuEventRecord(self._marks[0], self._stream.handle))
        return self

    def __exit__(self, *_: object) -> None:
        check(_driver().cuEventRecord(self._marks[1], self._stream.handle))

    def elapsed_ms(self) -> float:
        """Milliseconds between begin and end, after the stream has been synchronized."""
        return float(check(_driver().cuEventElapsedTime(*self._marks)))


class Kernel:
    """A loaded kernel, with as much dynamic shared memory as it asks for."""

    def __init__(self, cubin: bytes, name: str, shared_bytes: int) -> None:
        driver = _driver()
        self.name = name
        self.shared_bytes = shared_bytes
        self._module = check(driver.cuModuleLoadData(cubin))
        weakref.finalize(self, driver.cuModuleUnload, self._module)
        self.function = check(driver.cuModuleGetFunction(self._module, name.encode()))
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(driver.cuFuncSetAttribute(self.function, attribute, shared_bytes))

    def blocks_per_sm(self, num_threads: int) -> int:
        """How many blocks of this kernel one SM holds at once."""
        occupancy = _driver().cuOccupancyMaxActiveBlocksPerMultiprocessor
        return int(check(occupancy(self.function, num_threads, self.shared_bytes)))

    def require_resident(self, device: Device, num_blocks: int, num_threads: int) -> None:
        """Raise DeviceError unless all blocks run at once: they wait for each other."""
        per_sm = self.blocks_per_sm(num_threads)
        if num_blocks > per_sm * device.num_sms:
            raise DeviceError(
                f"kernel '{self.name}' needs {num_blocks} blocks at once, {device.name} holds "
                f"{per_sm * device.num_sms} ({per_sm} on each of {device.num_sms} SMs)",
                advice="compile for this device's number of SMs and shared memory",
            )

    def queue(self, num_blocks: int, num_threads: int, arguments: tuple[Any, Any], stream: Stream) -> None:
        """Put a plain launch behind the work of ``stream``; ``arguments`` are values, and their types of ctypes."""
        shape = ((num_blocks, 1, 1), (num_threads, 1, 1))
        check(_driver().cuLaunchKernel(self.function, *shape[0], *shape[1], 0, stream.handle, arguments, 0))

    def prepare(self, num_blocks: int, num_threads: int, argument: Array) -> Launch:
        """A cooperative launch with ``argument`` (one structure) as the kernel's parameter."""
        return Launch(self, num_blocks, num_threads, argument)


class Launch:
    """A cooperative launch of which only the stream is open, so that queuing it costs one driver call. ``argument`` is
    passed by value: it may change as soon as the launch is queued."""

    def __init__(self, kernel: Kernel, num_blocks: int, num_threads: int, argument: Array) -> None:
        driver = _driver()
        self._pointers = np.array([argument.ctypes.data], np.uint64)
        self._keep_alive = kernel, argument
        grid, block = (num_blocks, 1, 1), (num_threads, 1, 1)
        self._call = partial(driver.cuLaunchCooperativeKernel, kernel.function, *grid, *block, kernel.shared_bytes)
        self._parameters = self._pointers.ctypes.data
        self._success = driver.CUresult.CUDA_SUCCESS

    def queue(self, stream: Stream) -> None:
        """Put it behind the work of ``stream``. Raises DeviceError."""
        result = self._call(stream.handle, self._parameters)
        if result[0] != self._success:
            check(result)


def _words(text: bytes | None) -> str:
    return text.decode() if text else "unknown error"


@cache
def _driver() -> Any:
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceError(f"no CUDA bindings: {error}", advice="pip install 'cuda-bindings>=13,<14'") from error
