"""The table from ATen op to builder of `tg`: `aten_rule("add.Tensor")` registers one.

A rule gets the emitter, the node, and the node's arguments with tensors as tg values; it gives the result's tg value
(several for an op with several results). Shapes and dtypes of results are those PyTorch found: ``node.meta["val"]``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.errors import UnsupportedError
from .emitter import Emitter, source_line

if TYPE_CHECKING:
    from torch.fx import Node

Rule: TypeAlias = "Callable[..., Any]"

_rules: dict[str, Rule] = {}
_FILES = ("elementwise", "shaping", "reductions", "contractions", "indexing")


def aten_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the overloads called ``names``, such as `add.Tensor`."""

    def register(rule: Rule) -> Rule:
        for name in names:
            assert name not in _rules, f"two rules for aten.{name}"
            _rules[name] = rule
        return rule

    return register


def all_rules() -> dict[str, Rule]:
    """Every rule by its overload's name."""
    for file in _FILES:
        import_module(f"{__package__}.{file}")
    return _rules


def name_of(node: Node) -> str:
    """The overload's name without its namespace, `add.Tensor`; with it if the op is none of ATen's."""
    target = node.target
    if getattr(target, "namespace", "") == "aten":
        return f"{target._schema.name.removeprefix('aten::')}.{target._overloadname}"  # pyright: ignore
    return str(target)


def apply_rule(emitter: Emitter, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The tg value or values of ``node``. Raises UnsupportedError with the line of Python that made it."""
    name = name_of(node)
    rule = all_rules().get(name)
    if rule is None:
        raise unsupported(node, f"no rule for aten op '{name}'")
    try:
        return rule(emitter, node, *args, **kwargs)
    except UnsupportedError as error:
        error.where = error.where or source_line(node)
        raise
    except TypeError as error:  # an argument that the rule does not know
        raise unsupported(node, f"aten op '{name}': {error}") from error


def unsupported(node: Node, why: str, advice: str | None = None) -> UnsupportedError:
    """An error about ``node`` that names the user's line."""
    return UnsupportedError(why, where=source_line(node), advice=advice)
