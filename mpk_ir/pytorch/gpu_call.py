"""A compiled graph called with tensors on the GPU: one asynchronous launch on torch's stream, nothing waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

from ..core.errors import DeviceError
from ..frontend.aten.interface import Constant, Imported, Value
from ..runtime.executor import GpuExecutor

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

    def address(self, tensor: torch.Tensor) -> int:
        """Where the kernel may find ``tensor`` without a copy."""
        address = tensor.data_ptr()
        return address if self.fits and address % ALIGNMENT_BYTES == 0 and tensor.is_contiguous() else _COPIED

    def copy_in(self, tensor: torch.Tensor) -> None:
        self.buffer.copy_(tensor.reshape(self.buffer.shape))

    def copy_out(self, tensor: torch.Tensor) -> None:
        tensor.copy_(self.buffer.reshape(self.value.shape))

    def copied(self) -> torch.Tensor:
        return self.buffer.reshape(self.value.shape).to(self.value.dtype, copy=True)


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
        self._met: list[dict[int, None]] = [{} for _ in (*self._inputs, *self._outputs)]
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
        self.executor.follow_torch()
        key = (
            *[port.address(self._here(arguments[port.number], port)) for port in self._inputs],
            *[port.address(results[port.number]) for port in self._outputs],
        )
        binding = self._bindings.get(key) or self._bind(key)
        for port in binding.copies_in:
            port.copy_in(arguments[port.number])
        self.executor.run(1, binding.table)
        for port in binding.copies_out:
            port.copy_out(results[port.number])
        for port in self._overlapping:
            results[port.number] = port.copied()
        return results

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
        ports = [*self._inputs, *self._outputs]
        moved = {port.value.name: place for port, place in zip(ports, places, strict=True) if place != _COPIED}
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
            import torch

            make = partial(torch.empty_strided, result.shape, result.stride, dtype=result.dtype, device=self.device)
            self._made.append((number, make))
            if result.name:
                self._outputs.append(self._port(number, result))

    def _port(self, number: int, value: Value) -> _Port:
        buffer = self.executor.program.buffer(value.name)
        memory = self.executor.tensor(value.name)
        whole = memory.shape == buffer.shape and memory.dtype == value.dtype
        logical = memory[tuple(slice(size) for size in buffer.shape)]
        return _Port(number, value, logical, whole and _is_contiguous(value))

    def _here(self, tensor: torch.Tensor, port: _Port) -> torch.Tensor:
        if tensor.device != self.device:
            raise DeviceError(
                f"argument {port.number} is on {tensor.device}, the program runs on {self.device}",
                advice=f"move it: tensor.to('{self.device}')",
            )
        return tensor


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
