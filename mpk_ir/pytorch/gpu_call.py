"""A compiled graph called with tensors on the GPU: one asynchronous launch on torch's stream, nothing waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

from ..core.errors import DeviceError
from ..frontend.aten.interface import Constant, Imported, Value
from ..runtime.executor import GpuExecutor, is_capturing

if TYPE_CHECKING:
    import torch

    from ..runtime.driver import DeviceMemory

ALIGNMENT_BYTES = 16
"""Of what task bodies read in whole vectors."""

MOST_BINDINGS = 64
MOST_TABLE_BYTES = 32 << 20
"""How many sets of addresses have a task table at once, and what these take."""

_COPIED = 0
"""In the place of an address: the tensor is copied to or from the plan's own buffer."""

Addresses: TypeAlias = tuple[int, ...]

_executors: WeakSet[GpuExecutor] = WeakSet()
_captured: set[GpuExecutor] = set()
"""What CUDA graphs hold addresses of: nobody says when a graph is gone, so these stay."""


def synchronize() -> None:
    """Wait for the GPU's work on every graph compiled in this process.

    Raises KernelTimeoutError or DeviceError for what went wrong in a call and was not raised since.
    """
    for executor in tuple(_executors):
        executor.synchronize()


@dataclass(frozen=True)
class _Port:
    """The argument or result called ``number`` and the plan's ``buffer`` for it. ``fits``: torch lays the value out as
    the plan does."""

    number: int
    value: Value
    buffer: torch.Tensor
    fits: bool

    def copy_in(self, tensor: torch.Tensor) -> None:
        self.buffer.copy_(tensor.reshape(self.buffer.shape))

    def copy_out(self, tensor: torch.Tensor) -> None:
        tensor.copy_(self.buffer.reshape(self.value.shape))

    def copied(self) -> torch.Tensor:
        return self.buffer.reshape(self.value.shape).to(self.value.dtype, copy=True)

    def apart(self) -> _Port:
        """The same with a buffer of its own, padded as the plan's is."""
        import torch

        whole = self.buffer.untyped_storage()
        memory = torch.empty(whole.nbytes(), dtype=torch.uint8, device=self.buffer.device).view(self.buffer.dtype)
        return replace(self, buffer=memory.as_strided(self.buffer.shape, self.buffer.stride()))


@dataclass(frozen=True)
class _Binding:
    """What a call at some addresses does. ``table`` None: the plan's own."""

    table: DeviceMemory | None
    copies_in: tuple[_Port, ...]
    copies_out: tuple[_Port, ...]


class GpuCall:
    """Calls ``executor`` with the flat arguments of ``imported``.

    Where torch lays a tensor out as the plan does, and an earlier call met its address, the kernel works in the
    tensor's own memory: the task table for these addresses is made once and found again. Other tensors are copied. So
    a call with the same tensors as before only launches, and one with ever new tensors makes no tables.
    """

    def __init__(self, executor: GpuExecutor, imported: Imported) -> None:
        self.executor = executor
        self.device = executor.torch_device
        self._inputs = [self._port(number, value) for number, value in imported.inputs.items()]
        self._outputs: list[_Port] = []
        self._overlapping: list[_Port] = []
        self._made: list[tuple[int, Callable[[], torch.Tensor]]] = []
        self._handed_back: list[tuple[int, int]] = []
        self._blank: list[Any] = [None] * len(imported.results)
        for number, result in enumerate(imported.results):
            self._add_result(number, result)
        self._ports = [*self._inputs, *self._outputs]
        self._reads = [(port.number, port.fits) for port in self._inputs]
        self._writes = [(port.number, port.fits) for port in self._outputs]
        self._ordinal = executor.tensor(self._ports[0].value.name).get_device() if self._ports else -1
        self._is_capturing = is_capturing
        self._met: list[dict[int, None]] = [{} for _ in self._ports]
        self._bindings: dict[Addresses, _Binding] = {}
        self._most = max(2, min(MOST_BINDINGS, MOST_TABLE_BYTES // executor.table_bytes))
        _executors.add(executor)

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        """The results, new tensors. Raises DeviceError for an argument on another device, and the error of an earlier
        call that failed on the GPU."""
        results = self._blank.copy()
        for number, argument in self._handed_back:
            results[number] = arguments[argument]
        for number, make in self._made:
            results[number] = make()
        key = self._addresses(arguments, results)
        if self._is_capturing():
            self._capture(key, arguments, results)
            return results
        self.executor.follow_torch()
        binding = self._bindings.get(key) or self._bind(key)
        for port in binding.copies_in:
            port.copy_in(arguments[port.number])
        self.executor.run(1, binding.table)
        for port in binding.copies_out:
            port.copy_out(results[port.number])
        for port in self._overlapping:
            results[port.number] = port.copied()
        return results

    def _addresses(self, arguments: Sequence[Any], results: Sequence[Any]) -> Addresses:
        """Where the kernel may find each argument and result without a copy."""
        found: list[int] = []
        for number, fits in self._reads:
            tensor = arguments[number]
            if tensor.get_device() != self._ordinal:
                self._refuse(number, tensor)
            address = tensor.data_ptr()
            found.append(address if fits and not address % ALIGNMENT_BYTES and tensor.is_contiguous() else _COPIED)
        for number, fits in self._writes:  # fresh and aligned, contiguous if it fits
            found.append(results[number].data_ptr() if fits else _COPIED)
        return tuple(found)

    def _capture(self, key: Addresses, arguments: Sequence[Any], results: list[Any]) -> None:
        """Into a CUDA graph: a graph runs at any time, so what it cannot use in place gets memory of its own."""
        ports = [port if place else port.apart() for port, place in zip(self._ports, key, strict=True)]
        moved = {port.value.name: place or port.buffer.data_ptr() for port, place in zip(ports, key, strict=True)}
        overlapping = [port.apart() for port in self._overlapping]
        moved.update((port.value.name, port.buffer.data_ptr()) for port in overlapping)
        inputs = len(self._reads)
        for port, place in zip(ports[:inputs], key, strict=False):
            if not place:
                port.copy_in(arguments[port.number])
        _captured.add(self.executor)
        self.executor.capture(moved)
        for port, place in zip(ports[inputs:], key[inputs:], strict=True):
            if not place:
                port.copy_out(results[port.number])
        for port in overlapping:
            results[port.number] = port.copied()

    def _bind(self, key: Addresses) -> _Binding:
        """For addresses that were not met together before: those not met at all are copied."""
        places = tuple(address if address in met else _COPIED for address, met in zip(key, self._met, strict=True))
        for address, met in zip(key, self._met, strict=True):
            met[address] = None
            _drop_oldest(met, 4 * self._most)
        binding = self._bindings.get(places)
        if binding is None:
            binding = self._bindings[places] = self._placed(places)
            _drop_oldest(self._bindings, self._most)
        return binding

    def _placed(self, places: Addresses) -> _Binding:
        moved = {port.value.name: place for port, place in zip(self._ports, places, strict=True) if place != _COPIED}
        return _Binding(
            self.executor.place(moved) if moved else None,
            tuple(port for port in self._inputs if port.value.name not in moved),
            tuple(port for port in self._outputs if port.value.name not in moved),
        )

    def _add_result(self, number: int, result: Value | Constant) -> None:
        if isinstance(result, Constant):
            self._blank[number] = result.value
            if result.argument is not None:
                self._handed_back.append((number, result.argument))
        elif overlaps(result):
            self._overlapping.append(self._port(number, result))
        else:
            self._made.append((number, maker(result, self.device)))
            if result.name:
                self._outputs.append(self._port(number, result))

    def _port(self, number: int, value: Value) -> _Port:
        buffer = self.executor.program.buffer(value.name)
        memory = self.executor.tensor(value.name)
        whole = memory.shape == buffer.shape and memory.dtype == value.dtype
        logical = memory[tuple(slice(size) for size in buffer.shape)]
        return _Port(number, value, logical, whole and _is_contiguous(value))

    def _refuse(self, number: int, tensor: torch.Tensor) -> None:
        raise DeviceError(
            f"argument {number} is on {tensor.device}, the program runs on {self.device}",
            advice=f"move it: tensor.to('{self.device}')",
        )


def maker(value: Value, device: torch.device) -> Callable[[], torch.Tensor]:
    """Makes new tensors like ``value`` on ``device``: as torch's own compiled graphs do where it is the only GPU, as
    that asks for none, and takes half the time."""
    import torch

    if device.type != "cuda" or torch.cuda.device_count() == 1:
        quick: Any = getattr(torch._C._dynamo.guards, f"_empty_strided_{device.type}")  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        return partial(quick, value.shape, value.stride, value.dtype)
    return partial(torch.empty_strided, value.shape, value.stride, dtype=value.dtype, device=device)


def overlaps(value: Value) -> bool:
    """Whether elements share memory: nothing can be copied into such a tensor."""
    return any(step == 0 and size > 1 for step, size in zip(value.stride, value.shape, strict=True))


def _is_contiguous(value: Value) -> bool:
    step = 1
    for size, stride in zip(reversed(value.shape), reversed(value.stride), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _drop_oldest(entries: dict[Any, Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]
