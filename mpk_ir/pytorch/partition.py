"""A graph split into regions that compile and the rest, which PyTorch runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..frontend.aten.emitter import source_line
from ..frontend.aten.importer import advice_on, is_empty, why_unsupported

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class Break:
    """An op that PyTorch runs: ``why``, the user's line ``where``, and what to do about it."""

    op: str
    why: str
    where: str | None
    advice: str | None = None

    def __str__(self) -> str:
        return f"{self.where or 'unknown line'}: {self.why}"


@dataclass
class Split:
    """``module`` calls its children ``regions``, which hold only ops that compile."""

    module: GraphModule
    regions: tuple[str, ...]
    breaks: list[Break] = field(default_factory=list[Break])


def split(module: GraphModule) -> Split:
    """Regions as large as they can be without a cycle; those that would compute nothing are left to PyTorch."""
    from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
    from torch.fx.passes.operator_support import OperatorSupportBase

    views = _views_of_results(module)
    reasons = {node: why for node in _calls(module) if (why := why_left(node)) is not None}

    class Supported(OperatorSupportBase):
        def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
            return node.op == "call_function" and node not in reasons and node not in views

    partitioner = CapabilityBasedPartitioner(module, Supported(), allows_single_node_partition=True)
    partitions = [part for part in partitioner.propose_partitions() if any(map(_computes, part.nodes))]
    breaks = [Break(str(node.target), why, source_line(node), advice_on(why)) for node, why in reasons.items()]
    fused = partitioner.fuse_partitions(partitions)
    names = tuple(node.target for node in fused.graph.nodes if node.op == "call_module" and "fused_" in node.target)
    return Split(fused, names, breaks)


def why_left(node: Node) -> str | None:
    """Why PyTorch must run ``node``; None if it may be compiled."""
    if (why := why_unsupported(node)) is not None:
        return why
    devices = {str(value.device) for one in (node, *node.all_input_nodes) for value in tensors_of(one)}
    if len(devices) > 1:
        return f"{node.target}: tensors on {' and '.join(sorted(devices))}; move them to one device"
    return None


def _views_of_results(module: GraphModule) -> set[Node]:
    """Results that share memory get views of their own at the end of the graph, made by PyTorch of what they share: the
    results of a region never share any. Returns these views."""
    (output,) = module.graph.find_nodes(op="output")
    chains = {node: _views_from_root(node) for node in output.all_input_nodes}
    shared = Counter(root for root, _ in chains.values())
    made: set[Node] = set()
    for node, (root, chain) in chains.items():
        if shared[root] == 1 or not chain or root.op == "placeholder":  # AOTAutograd makes those of arguments
            continue
        new = {root: root}
        with module.graph.inserting_before(output):
            for view in chain:
                new[view] = module.graph.node_copy(view, lambda one, new=new: new.get(one, one))
                made.add(new[view])
        output.replace_input_with(node, new[node])
    if made:
        module.graph.eliminate_dead_code()  # the views that were copied
    return made


def _views_from_root(node: Node) -> tuple[Node, list[Node]]:
    """The tensor that ``node`` is a view of, and the ops from there to ``node``."""
    chain: list[Node] = []
    while _is_view(node):
        chain.insert(0, node)
        node = node.all_input_nodes[0]
    return node, chain


def _is_view(node: Node) -> bool:
    """Whether the op gives a view of its first argument, by its schema."""
    schema: Any = getattr(node.target, "_schema", None)
    aliases = [result.alias_info for result in schema.returns] if schema is not None else []
    return len(aliases) == 1 and aliases[0] is not None and not aliases[0].is_write


def _calls(module: GraphModule) -> Iterator[Node]:
    return (node for node in module.graph.nodes if node.op == "call_function")


def _computes(node: Node) -> bool:
    """Whether ``node`` is more than a view, a number, or nothing."""
    name = str(node.target)
    views = ("view", "permute", "expand", "squeeze", "alias", "slice", "select", "getitem", "sym_", "detach", "split")
    return bool(tensors_of(node)) and not is_empty(node) and not any(view in name for view in views)


def tensors_of(node: Node) -> list[torch.Tensor]:
    """The (fake) tensors that ``node`` makes."""
    import torch

    value: Any = node.meta.get("val")
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return [one for one in listed if isinstance(one, torch.Tensor)]
