"""A region of a torch.compile graph: compiled at its first call, again for other shapes or other parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import MpkError
from ..core.target import SIM, Target
from ..frontend.aten.importer import Roles, import_graph, is_symbolic
from .plan_cache import Key, PlanCache
from .region import Region
from .report import RegionReport

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..runtime.driver import Device


@dataclass
class _Packed:
    """A region, and the ``versions`` of the parameters that it has packed."""

    region: Region
    versions: list[Any]


class LazyRegion:
    """Calls ``module``'s kernel with flat arguments. ``parameters``: numbers of the arguments that are weights, which
    stay where they are until packed and are packed again when they change."""

    def __init__(self, module: GraphModule, parameters: frozenset[int], target: str, report: RegionReport) -> None:
        self.module = module
        self.parameters = parameters
        self.target = target
        self.report = report
        self._cache = PlanCache[_Packed](module)
        self._plans = self._cache.plans
        outputs = next(node for node in module.graph.nodes if node.op == "output").args[0]
        self._single = not isinstance(outputs, list | tuple)

    def __call__(self, *arguments: Any) -> Any:
        if self.report.fallback is not None:
            return self.module(*arguments)
        key = self._cache.key(arguments)  # dynamo guards what is not symbolic
        packed = self._plans.get(key) or self._first_call(key, arguments)
        if packed is None:
            return self.module(*arguments)
        versions = self._versions(arguments)
        if packed.versions != versions:
            packed.region.bind(self._loader(arguments))
            packed.versions = versions
        results = packed.region(arguments)
        return results[0] if self._single else results

    def _first_call(self, key: Key, arguments: tuple[Any, ...]) -> _Packed | None:
        """The kernel for ``key``; None if PyTorch shall run the region."""
        try:
            packed = _Packed(self._compile(arguments), self._versions(arguments))
        except MpkError as error:
            if self.report.fallback_is_error:
                raise
            self.report.fallback = str(error)
            return None
        self.report.reasons.append(self._cache.add(key, packed))
        self.report.grids.append(len(packed.region.program.grids))
        return packed

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


def choose(name: str, arguments: tuple[Any, ...]) -> tuple[Target, Device | None]:
    """The target by name; "auto" is where the tensors are."""
    import torch

    from ..cli.run_command import choose_target

    if name == "auto" and not any(isinstance(one, torch.Tensor) and one.is_cuda for one in arguments):
        return SIM, None
    choice = choose_target(name)
    return choice.target, choice.device


def specialized(module: GraphModule, arguments: Sequence[Any]) -> GraphModule:
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
