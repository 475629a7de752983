"""The backend behind `torch.compile(model, backend="mpk")`: regions that compile become kernels, the rest is PyTorch's.

Options, as `torch.compile(..., options={...})`: ``target`` ("auto": where the tensors are; "sim", "h200", ...) and
``fullgraph`` (True makes an op that does not compile an error that names its line; torch.compile's argument of that
name does so too, and forbids graph breaks of Python).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import UnsupportedError, UsageError, did_you_mean
from .lazy_region import LazyRegion
from .module import plain_attention
from .partition import Break, split
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
    options = replace(options, fullgraph=options.fullgraph or _fullgraph_asked())
    direct: list[LazyRegion] = []
    compiler = aot_autograd(
        fw_compiler=_left_to_pytorch,
        bw_compiler=_left_to_pytorch,
        inference_compiler=partial(_compile, options=options, direct=direct),
        decompositions=core_aten_decompositions(),
    )
    trains = _needs_gradients(example_inputs)
    if not trains:
        _leave_out_profiler_marks()
    with nullcontext() if trains else plain_attention():
        wrapped = compiler(module, example_inputs)
    if not direct or len(direct[0].module.graph.find_nodes(op="placeholder")) != len(example_inputs):
        return wrapped
    (region,) = direct
    return lambda *arguments: region.results(arguments)


def _needs_gradients(example_inputs: Sequence[Any]) -> bool:
    """Whether PyTorch runs the graph: then with the kernels that it has for attention."""
    import torch

    return torch.is_grad_enabled() and any(getattr(one, "requires_grad", False) for one in example_inputs)


def _translator() -> Any:
    """Dynamo's state while it compiles a frame; None outside."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        return InstructionTranslator.current_tx()
    except AttributeError:  # it is thread-local, and set only while a frame is traced
        return None


def _leave_out_profiler_marks() -> None:
    """Until dynamo has ended the frame it compiles: in its bytecode two calls mark for the profiler what comes before a
    graph. They take a quarter of its part of a call, whether a profiler runs or not."""
    from torch._dynamo import config

    frame = _translator()
    if frame is not None and config.record_runtime_overhead:
        config.record_runtime_overhead = False
        frame.output.add_cleanup_hook(partial(setattr, config, "record_runtime_overhead", True))


def _fullgraph_asked() -> bool:
    """Whether the user wrote torch.compile(fullgraph=True), of which dynamo does not tell backends."""
    return bool(getattr(_translator(), "one_graph", False))


def _graph_break() -> Break | None:
    """Why dynamo ended this graph before the function's end."""
    reason = getattr(getattr(_translator(), "output", None), "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    lines = str(reason.reason).strip().splitlines()
    place = reason.user_stack[-1] if reason.user_stack else None
    return Break("graph break", lines[0], f"{place.filename}:{place.lineno}" if place is not None else None)


def _left_to_pytorch(module: GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """Graphs for training: gradients need values that kernels do not keep."""
    from torch._functorch._aot_autograd.utils import make_boxed_func

    report = _new_report()
    report.training = True
    return make_boxed_func(module.forward)


def _compile(
    module: GraphModule, example_inputs: Sequence[Any], options: BackendOptions, direct: list[LazyRegion]
) -> Callable[..., Any]:
    """What AOTAutograd calls. ``direct`` gets the region that is all of the graph, if calls need no wrapper."""
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch.fx import GraphModule

    parameters = _parameters(module)
    report = _new_report()
    parts = split(module)
    report.breaks = parts.breaks
    if options.fullgraph and parts.breaks:
        first = parts.breaks[0]
        count = f"{len(parts.breaks)} ops do not compile; without fullgraph PyTorch runs them"
        raise UnsupportedError(
            f"fullgraph: {first.why}",
            where=first.where,
            advice=f"{first.advice}; {count}" if first.advice else count,
        )
    whole = GraphModule(parts.module, parts.module.graph)  # split makes a lazy one, which costs microseconds a call
    regions = [_install(whole, name, parameters, options, report) for name in parts.regions]
    if len(regions) == 1 and _is_one_call(whole):
        if _needs_no_wrapper(module, example_inputs):
            direct.append(regions[0])
        return _boxed(regions[0])
    return make_boxed_func(whole.forward)


def _is_one_call(whole: GraphModule) -> bool:
    """Whether ``whole`` only hands its arguments to a region, in order, and the region's results back."""
    nodes = list(whole.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    (call,) = (node for node in nodes if node.op == "call_module")
    returned = nodes[-1].args[0]
    rest = nodes[len(placeholders) + 1 : -1]
    expected = [node for node in rest if node.args == (call, len(rest[: rest.index(node)]))] if rest else [call]
    return list(call.args) == placeholders and (not rest or expected == rest) and list(returned) == expected


def _needs_no_wrapper(module: GraphModule, example_inputs: Sequence[Any]) -> bool:
    """Whether what AOTAutograd does around ``module`` in a call is nothing, so that calls can skip it: no argument is
    mutated, none is a subclass or comes twice, and every result is a tensor of its own."""
    from torch._functorch._aot_autograd.schemas import OutputType
    from torch._guards import TracingContext
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    context = TracingContext.try_get()
    facts = context.fw_metadata if context is not None else None
    if facts is None or facts.tokens or facts.num_intermediate_bases or facts.is_rng_op_functionalized:
        return False
    returned = list(module.graph.nodes)[-1].args[0]
    plain = len(facts.input_info) == len(example_inputs) and len(facts.output_info) == len(returned)
    plain = plain and not any(map(is_traceable_wrapper_subclass, example_inputs))
    mutated = any(one.mutates_data or one.mutates_metadata for one in facts.input_info)
    return plain and not mutated and all(one.output_type is OutputType.non_alias for one in facts.output_info)


def _boxed(region: LazyRegion) -> Callable[..., Any]:
    """``region`` called as AOTAutograd calls: with a list, which it may empty."""

    def call(arguments: list[Any]) -> Sequence[Any]:
        return region.results(arguments)

    call._boxed_call = True  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _install(
    whole: GraphModule, name: str, parameters: frozenset[str], options: BackendOptions, report: GraphReport
) -> LazyRegion:
    """Put a compiled region in the place of the child ``name``."""
    child: Any = whole.get_submodule(name)
    call = next(node for node in whole.graph.nodes if node.op == "call_module" and node.target == name)
    weights = frozenset(number for number, argument in enumerate(call.args) if argument.name in parameters)
    ops = sum(1 for node in child.graph.nodes if node.op == "call_function")
    region = RegionReport(name, ops, fallback_is_error=options.fullgraph)
    report.regions.append(region)
    whole.delete_submodule(name)
    made = LazyRegion(_copy(child), weights, options.target, region)
    vars(whole)[name] = made  # called directly, not as a Module
    return made


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
    report = GraphReport(str(current), getattr(current, "frame_compile_id", None) or 0, ended_by=_graph_break())
    REPORTS.add(report)
    return report
