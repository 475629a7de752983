"""One compiled graph that takes and gives torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..compiler import Compilation, compile_module
from ..core.errors import DeviceError
from ..core.target import Target
from ..frontend.aten.emitter import tg_shape
from ..frontend.aten.importer import flat_shape
from ..frontend.aten.interface import Constant, Imported, Value
from ..runtime.executor import GpuExecutor
from ..runtime.weight_pool import WeightPool
from .gpu_call import GpuCall, overlaps

if TYPE_CHECKING:
    import torch

    from ..runtime.driver import Device
    from ..runtime.engine import Engine

Loader = Callable[[str], "torch.Tensor"]


class Region:
    """``imported`` planned for ``target`` and bound to its parameters; called with the graph's flat arguments.

    ``pool`` has what other plans have packed of the same ``parameters``. Results are new tensors with the strides that
    PyTorch would give them. Not for use by two threads at once.
    """

    def __init__(
        self,
        imported: Imported,
        target: Target,
        device: Device | None,
        parameters: Loader,
        pool: WeightPool | None = None,
    ) -> None:
        self.imported = imported
        self.compilation: Compilation = compile_module(imported.module.clone(), target)
        self.program = self.compilation.program
        self._device = device
        self.bind(parameters, pool)

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        """The results. Raises DeviceError for a tensor on the wrong device, and what went wrong in an earlier call."""
        if self._gpu_call is not None:
            return self._gpu_call(arguments)
        for number, value in self.imported.inputs.items():
            self._write(value, arguments[number])
        self.engine.run(1)
        return [self._result(result, arguments) for result in self.imported.results]

    def bind(self, parameters: Loader, pool: WeightPool | None = None) -> None:
        """Pack other parameters, but for what ``pool`` has of them; states begin anew."""
        self._views: dict[str, torch.Tensor] = {}
        pool = (pool or WeightPool()).without(self.imported.constants)
        engine = _engine(self.compilation, self._device, self._with_constants(parameters), pool)
        self.engine: Engine = engine
        self._gpu_call = GpuCall(engine, self.imported) if isinstance(engine, GpuExecutor) else None
        self.device = engine.torch_device if isinstance(engine, GpuExecutor) else "cpu"

    def _with_constants(self, parameters: Loader) -> Loader:
        constants = self.imported.constants
        return lambda name: constants[name] if name in constants else parameters(name)

    def write_state(self, name: str, tensor: torch.Tensor) -> None:
        """Set the state called ``name``."""
        self._write(self.imported.states[name], tensor)

    def read_state(self, name: str) -> torch.Tensor:
        """A copy of the state called ``name``."""
        return self._read(self.imported.states[name])

    def _write(self, value: Value, tensor: torch.Tensor) -> None:
        target = self._device_tensor(value.name)
        if target is not None:
            target.copy_(tensor.reshape(target.shape))
            return
        if tensor.device.type != "cpu":
            raise DeviceError(
                f"argument '{value.name}' is on {tensor.device}, the program runs on the simulator",
                advice="move it to the CPU, or compile for the GPU's target",
            )
        self.engine.write_state(value.name, _to_numpy(tensor, value))

    def _read(self, value: Value) -> torch.Tensor:
        import torch

        source = self._device_tensor(value.name)
        if source is None:
            source = torch.from_numpy(self.engine.read_state(value.name))
        shaped = source.reshape(value.shape)
        if overlaps(value):
            return shaped.to(value.dtype, copy=True)
        return self._empty(value).copy_(shaped)

    def _result(self, result: Value | Constant, arguments: Sequence[Any]) -> Any:
        if isinstance(result, Value):
            return self._read(result) if result.name else self._empty(result)
        return result.value if result.argument is None else arguments[result.argument]

    def _empty(self, value: Value) -> torch.Tensor:
        import torch

        return torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device=self.device)

    def _device_tensor(self, name: str) -> torch.Tensor | None:
        """The buffer's memory as a torch tensor without its padding, where a GPU runs the program."""
        if not isinstance(self.engine, GpuExecutor):
            return None
        if name not in self._views:
            buffer = self.program.buffer(name)
            self._views[name] = self.engine.tensor(name)[tuple(slice(size) for size in buffer.shape)]
        return self._views[name]


def _engine(compilation: Compilation, device: Device | None, parameters: Loader, pool: WeightPool) -> Engine:
    program = compilation.program

    def load(name: str) -> torch.Tensor:
        tensor = parameters(name).detach()
        return tensor.reshape(tg_shape(tensor.shape))

    if device is None:
        from ..runtime.simulator import Simulator

        return Simulator(program, load)
    return GpuExecutor(program, load, device, pool=pool)


def _to_numpy(tensor: torch.Tensor, value: Value) -> Any:
    import torch

    held = torch.float32 if tensor.dtype is torch.bfloat16 else torch.int32 if not tensor.is_floating_point() else None
    array = tensor.detach().to(held) if held else tensor.detach()
    return array.contiguous().reshape(flat_shape(tg_shape(value.shape))).numpy()
