"""A region of a torch.compile graph: compiled at its first call, again for other shapes or other parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any

from ..core.errors import MpkError, UsageError
from ..core.target import SIM, Target
from ..frontend.aten.importer import Roles, import_graph, is_symbolic
from ..runtime.executor import is_capturing
from ..runtime.weight_pool import WeightPool
from .partition import tensors_of
from .plan_cache import Key, PlanCache
from .region import Region
from .report import RegionReport

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from ..runtime.driver import Device


_address, _version = methodcaller("data_ptr"), attrgetter("_version")


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
        self.parameters = sorted(parameters)
        self.target = target
        self.report = report
        self._cache = PlanCache[_Packed](module)
        self._plans = self._cache.plans
        self._fixed = not self._cache.symbols
        self._pool, self._pool_versions = WeightPool(), list[Any]()
        outputs = next(node for node in module.graph.nodes if node.op == "output").args[0]
        self._single = not isinstance(outputs, list | tuple)

    def __call__(self, *arguments: Any) -> Any:
        """The result that ``module`` returns: a tensor, or a sequence of them."""
        results = self.results(arguments)
        return results[0] if self._single else results

    def results(self, arguments: Sequence[Any]) -> Sequence[Any]:
        """All results, one or more."""
        key = () if self._fixed else self._cache.key(arguments)  # dynamo guards what is not symbolic
        packed = self._plans.get(key)
        if packed is None:
            packed = None if self.report.fallback is not None else self._first_call(key, arguments)
            if packed is None:
                given = self.module(*arguments)
                return (given,) if self._single else given
        if self.parameters:
            versions = self._versions(arguments)
            if packed.versions != versions:
                self._pack_again(packed, arguments, versions)
        return packed.region(arguments)

    def _pack_again(self, packed: _Packed, arguments: Sequence[Any], versions: list[Any]) -> None:
        require_no_capture("parameters have changed and are to be packed again")
        packed.region.bind(self._loader(arguments), self._pool_of(versions))
        packed.versions = versions

    def _first_call(self, key: Key, arguments: Sequence[Any]) -> _Packed | None:
        """The kernel for ``key``; None if PyTorch shall run the region."""
        require_no_capture("a region is to be compiled")
        if not self._plans:  # without a version nobody sees them change: they are arguments like others
            self.parameters = [number for number in self.parameters if not arguments[number].is_inference()]
        try:
            packed = _Packed(self._compile(arguments), self._versions(arguments))
        except MpkError as error:
            if self.report.fallback_is_error:
                raise
            self.report.fallback = str(error)
            self._plans.clear()
            return None
        self.report.reasons.append(self._cache.add(key, packed))
        self.report.grids.append(len(packed.region.program.grids))
        return packed

    def _versions(self, arguments: Sequence[Any]) -> list[Any]:
        """What changes when a parameter is written or replaced."""
        weights = [arguments[number] for number in self.parameters]
        return [*map(_address, weights), *map(_version, weights)]

    def _compile(self, arguments: Sequence[Any]) -> Region:
        target, device = choose(self.target, self.module)
        module = specialized(self.module, arguments)
        roles = Roles(parameters={number: f"argument.{number}" for number in self.parameters})
        pool = self._pool_of(self._versions(arguments))
        return Region(import_graph(module, roles), target, device, self._loader(arguments), pool)

    def _pool_of(self, versions: list[Any]) -> WeightPool:
        """What plans have packed of the parameters as they are now."""
        if versions != self._pool_versions:
            self._pool, self._pool_versions = WeightPool(), versions
        return self._pool

    def _loader(self, arguments: Sequence[Any]) -> Any:
        return {f"argument.{number}": arguments[number] for number in self.parameters}.__getitem__


def require_no_capture(what: str) -> None:
    """Raise UsageError if a CUDA graph is being captured, which ``what`` would break."""
    if is_capturing():
        raise UsageError(f"{what}, while a CUDA graph is captured", advice="call it once before the capture")


def choose(name: str, module: GraphModule) -> tuple[Target, Device | None]:
    """The target by name; "auto" is where the tensors of ``module`` are, which need not have arguments."""
    from ..cli.run_command import choose_target

    if name == "auto" and not any(one.is_cuda for node in module.graph.nodes for one in tensors_of(node)):
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

    class Propagate(FakeTensorProp):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, int | float):  # torch 2.11 keeps the symbol
                n.meta["val"] = result
            return result

    concrete = copy.deepcopy(module)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = [mode.from_tensor(one, static_shapes=True) if isinstance(one, torch.Tensor) else one for one in arguments]
    Propagate(concrete, mode).propagate_dont_convert_inputs(*fake)
    return concrete
