"""A region of a torch.compile graph: compiled at its first call, again for other shapes or other parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import MpkError
from ..core.target import SIM, Target
from ..frontend.aten.importer import Roles, import_graph, is_symbolic
from .region import Region
from .report import RegionReport

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..runtime.driver import Device


class LazyRegion:
    """Calls ``module``'s kernel with flat arguments. ``parameters``: numbers of the arguments that are weights, which
    stay where they are until packed and are packed again when they change."""

    def __init__(self, module: GraphModule, parameters: frozenset[int], target: str, report: RegionReport) -> None:
        self.module = module
        self.parameters = parameters
        self.target = target
        self.report = report
        self._kernels: dict[tuple[Any, ...], Region] = {}
        self._packed: dict[tuple[Any, ...], list[Any]] = {}
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        self._symbolic = [number for number, node in enumerate(placeholders) if is_symbolic(node.meta.get("val"))]
        outputs = next(node for node in module.graph.nodes if node.op == "output").args[0]
        self._single = not isinstance(outputs, list | tuple)

    def __call__(self, *arguments: Any) -> Any:
        if self.report.fallback is not None:
            return self.module(*arguments)
        key = tuple([_facts(arguments[number]) for number in self._symbolic])  # dynamo guards what is not symbolic
        region = self._kernels.get(key) or self._first_call(key, arguments)
        if region is None:
            return self.module(*arguments)
        versions = self._versions(arguments)
        if self._packed[key] != versions:
            region.bind(self._loader(arguments))
            self._packed[key] = versions
        results = region(arguments)
        return results[0] if self._single else results

    def _first_call(self, key: tuple[Any, ...], arguments: tuple[Any, ...]) -> Region | None:
        """The kernel for ``key``; None if PyTorch shall run the region."""
        try:
            region = self._kernels[key] = self._compile(arguments)
        except MpkError as error:
            if self.report.fallback_is_error:
                raise
            self.report.fallback = str(error)
            return None
        self._packed[key] = self._versions(arguments)
        self.report.reasons.append(self._reason(key))
        self.report.grids.append(len(region.program.grids))
        return region

    def _versions(self, arguments: tuple[Any, ...]) -> list[Any]:
        """What changes when a parameter is written or replaced."""
        return [(arguments[number].data_ptr(), arguments[number]._version) for number in self.parameters]

    def _compile(self, arguments: tuple[Any, ...]) -> Region:
        target, device = choose(self.target, arguments)
        module = specialized(self.module, arguments)
        roles = Roles(parameters={number: f"argument.{number}" for number in self.parameters})
        return Region(import_graph(module, roles), target, device, self._loader(arguments))

    def _loader(self, arguments: tuple[Any, ...]) -> Any:
        return {f"argument.{number}": arguments[number] for number in self.parameters}.__getitem__

    def _reason(self, key: tuple[Any, ...]) -> str:
        """What is new in ``key``."""
        if len(self._kernels) == 1:
            return "first call"
        before = list(self._kernels)[-2]
        changes = [
            f"argument {number} is {_described(now)}, was {_described(was)}"
            for number, now, was in zip(self._symbolic, key, before, strict=True)
            if now != was
        ]
        return "; ".join(changes)


def _facts(argument: Any) -> Any:
    """What a kernel is compiled for."""
    shape = getattr(argument, "shape", None)
    return argument if shape is None else (shape, argument.stride(), argument.dtype, argument.device)


def _described(facts: Any) -> str:
    if not isinstance(facts, tuple):
        return str(facts)
    shape, stride, dtype, device = facts
    return f"{list(shape)} of {dtype} with strides {list(stride)} on {device}"


def choose(name: str, arguments: tuple[Any, ...]) -> tuple[Target, Device | None]:
    """The target by name; "auto" is where the tensors are."""
    import torch

    from ..cli.run_command import choose_target

    if name == "auto" and not any(isinstance(one, torch.Tensor) and one.is_cuda for one in arguments):
        return SIM, None
    choice = choose_target(name)
    return choice.target, choice.device


def specialized(module: GraphModule, arguments: tuple[Any, ...]) -> GraphModule:
    """``module`` with the shapes that ``arguments`` give it, where its own are symbolic."""
    import copy

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    if not any(is_symbolic(node.meta.get("val")) for node in module.graph.nodes):
        return module
    concrete = copy.deepcopy(module)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = [mode.from_tensor(one, static_shapes=True) if isinstance(one, torch.Tensor) else one for one in arguments]
    FakeTensorProp(concrete, mode).propagate_dont_convert_inputs(*fake)
    return concrete
