"""The backend behind `torch.compile(model, backend="mpk")`: regions that compile become kernels, the rest is PyTorch's.

Options, as `torch.compile(..., options={...})`: ``target`` ("auto": where the tensors are; "sim", "h200", ...) and
``fullgraph`` (True makes an op that does not compile an error that names its line).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import UnsupportedError, UsageError, did_you_mean
from .lazy_region import LazyRegion
from .partition import split
from .report import REPORTS, GraphReport, RegionReport

if TYPE_CHECKING:
    from torch.fx import GraphModule


@dataclass(frozen=True)
class BackendOptions:
    """See the module."""

    target: str = "auto"
    fullgraph: bool = False

    @staticmethod
    def of(values: dict[str, Any] | None) -> BackendOptions:
        """Raises UsageError for an option that does not exist."""
        known = ("target", "fullgraph")
        for name in values or {}:
            if name not in known:
                raise UsageError(
                    f"torch.compile(backend='mpk'): unknown option '{name}'", advice=did_you_mean(name, known)
                )
        return BackendOptions(**(values or {}))


def mpk(module: GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Callable[..., Any]:
    """What dynamo calls. Mutation, aliasing and views are AOTAutograd's, which hands over functional graphs."""
    from torch._decomp import core_aten_decompositions
    from torch._dynamo.backends.common import aot_autograd

    options = BackendOptions.of(kwargs.get("options"))
    compiler = aot_autograd(
        fw_compiler=_left_to_pytorch,
        bw_compiler=_left_to_pytorch,
        inference_compiler=partial(_compile, options=options),
        decompositions=core_aten_decompositions(),
    )
    return compiler(module, example_inputs)


def _left_to_pytorch(module: GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """Graphs for training: gradients need values that kernels do not keep."""
    from torch._functorch._aot_autograd.utils import make_boxed_func

    report = _new_report()
    report.training = True
    return make_boxed_func(module.forward)


def _compile(module: GraphModule, example_inputs: Sequence[Any], options: BackendOptions) -> Callable[..., Any]:
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch.fx import GraphModule

    parameters = _parameters(module)
    report = _new_report()
    parts = split(module)
    report.breaks = parts.breaks
    if options.fullgraph and parts.breaks:
        first = parts.breaks[0]
        raise UnsupportedError(
            f"fullgraph: {first.why}",
            where=first.where,
            advice=f"{len(parts.breaks)} ops do not compile; without fullgraph PyTorch runs them",
        )
    whole = GraphModule(parts.module, parts.module.graph)  # split makes a lazy one, which costs microseconds a call
    for name in parts.regions:
        _install(whole, name, parameters, options, report)
    return make_boxed_func(whole.forward)


def _install(
    whole: GraphModule, name: str, parameters: frozenset[str], options: BackendOptions, report: GraphReport
) -> None:
    """Put a compiled region in the place of the child ``name``."""
    child: Any = whole.get_submodule(name)
    call = next(node for node in whole.graph.nodes if node.op == "call_module" and node.target == name)
    weights = frozenset(number for number, argument in enumerate(call.args) if argument.name in parameters)
    ops = sum(1 for node in child.graph.nodes if node.op == "call_function")
    region = RegionReport(name, ops, fallback_is_error=options.fullgraph)
    report.regions.append(region)
    whole.delete_submodule(name)
    vars(whole)[name] = LazyRegion(_copy(child), weights, options.target, region)  # called directly, not as a Module


def _copy(child: GraphModule) -> GraphModule:
    """A module of its own that still runs the ops one by one."""
    from torch.fx import GraphModule

    return GraphModule(child, child.graph)


def _parameters(module: GraphModule) -> frozenset[str]:
    """Names of the placeholders that are parameters, or buffers that the graph does not change."""
    from torch._guards import TracingContext

    context = TracingContext.try_get()
    facts = context.fw_metadata if context is not None else None
    if facts is None:
        return frozenset()
    fixed = set(facts.static_input_indices) - set(facts.mutated_inp_runtime_indices)
    placeholders = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    return frozenset(placeholders[number] for number in fixed if number < len(placeholders))


def _new_report() -> GraphReport:
    from torch._guards import CompileContext

    current = CompileContext.current_compile_id()
    report = GraphReport(str(current), getattr(current, "frame_compile_id", None) or 0)
    REPORTS.add(report)
    return report
