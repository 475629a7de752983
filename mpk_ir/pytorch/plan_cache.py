"""Kernels of one graph by the values of its symbols: a graph stays symbolic, a plan is for one value of each.

Why a plan for each shape, and not one for a range: docs/decisions/0007-a-plan-for-each-shape.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from ..core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.fx import GraphModule, Node

    Read = Callable[[Any], int]

MOST_PLANS = 16
"""Of one graph, at once; weights that are packed alike are shared (`runtime.weight_pool`)."""

Plan = TypeVar("Plan")
Key: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Symbol:
    """A size, stride or number that the graph leaves open: ``expression`` of torch's symbols, read from argument
    ``number`` by ``read``; ``place`` says where in words."""

    expression: Any
    number: int
    place: str
    read: Read


class PlanCache(Generic[Plan]):
    """The latest `MOST_PLANS` plans of ``module``, by what the arguments of a call make of its symbols.

    ``first_argument``: the placeholder that users call argument 0.
    """

    def __init__(self, module: GraphModule, first_argument: int = 0) -> None:
        self._placeholders: list[Node] = [node for node in module.graph.nodes if node.op == "placeholder"]
        self.symbols = _symbols(self._placeholders, first_argument)
        self.plans: dict[Key, Plan] = {}
        self._latest: Key = ()

    def key(self, arguments: Sequence[Any]) -> Key:
        """The values that ``arguments``, one for each placeholder, give the symbols."""
        return tuple([symbol.read(arguments[symbol.number]) for symbol in self.symbols])

    def add(self, key: Key, plan: Plan) -> str:
        """Keep ``plan``; the oldest goes. Returns why it was needed: what is new in ``key``."""
        reason = self._reason(key)
        self.plans[key] = plan
        if len(self.plans) > MOST_PLANS:
            del self.plans[next(iter(self.plans))]
        self._latest = key
        return reason

    def shape(self, number: int, key: Key) -> tuple[int, ...] | None:
        """What ``key`` makes of the shape of argument ``number``; None if it is no tensor."""
        values = {symbol.expression: value for symbol, value in zip(self.symbols, key, strict=True)}
        example: Any = self._placeholders[number].meta.get("val")
        return tuple(_evaluate(size, values) for size in example.shape) if hasattr(example, "shape") else None

    def require_range(self, key: Key, ranges: Mapping[Any, Any]) -> None:
        """Raise UsageError for a value outside what the graph was exported for."""
        for symbol, value in zip(self.symbols, key, strict=True):
            allowed = ranges.get(symbol.expression)
            if allowed is not None and not allowed.lower <= value <= allowed.upper:
                raise UsageError(
                    f"{symbol.place} is {value}, the program was exported for {allowed.lower} to {allowed.upper}",
                    advice="export again with a wider torch.export.Dim",
                )

    def _reason(self, key: Key) -> str:
        if not self._latest and not self.plans:
            return "first call"
        changes = [
            f"{symbol.place} is {now}, was {was}"
            for symbol, now, was in zip(self.symbols, key, self._latest, strict=True)
            if now != was
        ]
        return "; ".join(changes) or f"dropped: more than {MOST_PLANS} shapes"


def _symbols(placeholders: Sequence[Node], first_argument: int) -> tuple[Symbol, ...]:
    """The first place of each distinct open expression, strides only where sizes do not determine them."""
    found: dict[Any, Symbol] = {}
    for open_values in (_open_sizes, _open_strides):
        known = set(found)
        for number, node in enumerate(placeholders):
            for value, place, read in open_values(node.meta.get("val")):
                expression = value.node.expr
                if not expression.free_symbols <= known:
                    words = place.format(f"argument {number - first_argument}")
                    found.setdefault(expression, Symbol(expression, number, words, read))
    return tuple(found.values())


def _open_sizes(example: Any) -> list[tuple[Any, str, Read]]:
    """What of a placeholder's example is symbolic, with its place in words and how to read it."""
    import torch

    if isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool):
        return [(example, "{}", lambda number: number)]
    sizes = example.shape if isinstance(example, torch.Tensor) else ()
    return [
        (size, f"size {dim} of {{}}", _read_size(dim))
        for dim, size in enumerate(sizes)
        if isinstance(size, torch.SymInt)
    ]


def _open_strides(example: Any) -> list[tuple[Any, str, Read]]:
    import torch

    strides = example.stride() if isinstance(example, torch.Tensor) else ()
    return [
        (step, f"stride {dim} of {{}}", _read_stride(dim))
        for dim, step in enumerate(strides)
        if isinstance(step, torch.SymInt)
    ]


def _read_size(dim: int) -> Read:
    return lambda tensor: tensor.shape[dim]


def _read_stride(dim: int) -> Read:
    return lambda tensor: tensor.stride(dim)


def _evaluate(size: Any, values: Mapping[Any, int]) -> int:
    return size if isinstance(size, int) else int(size.node.expr.xreplace(dict(values)))
