"""What tile rules decide, and how an attribute of the op decides otherwise."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr
from xdsl.ir import Attribute, Operation

from ...core.errors import PlanError, did_you_mean
from .names import label

OVERRIDE = "mpk.tile"
"""Attribute of a tg op, a dictionary: `{mpk.tile = {tiles = 4 : i64}}` instead of what the cost model says."""


@dataclass(frozen=True)
class Decision:
    """``name`` of ``op`` is ``chosen`` among ``choices``, for ``reason``."""

    op: Operation
    name: str
    choices: tuple[int, ...]
    chosen: int
    reason: str


Given: TypeAlias = Mapping[tuple[str, str], int]
"""(operator as `label` calls it, or "" for all; decision) -> value."""
_GIVEN = re.compile(r"(?:(?P<operator>\S+)\.)?(?P<name>[a-z_]+)=(?P<value>\d+)")


def read_given(texts: Sequence[str]) -> Given:
    """`splits=8` or `layers.mlp.down_proj.tiles=1`. Raises PlanError for anything else."""
    given: dict[tuple[str, str], int] = {}
    for text in texts:
        match = _GIVEN.fullmatch(text)
        if match is None:
            raise PlanError(f"found decision '{text}', expected one such as splits=8 or layers.mlp.down_proj.tiles=1")
        given[match["operator"] or "", match["name"]] = int(match["value"])
    return given


class Decisions:
    """All decisions of one function, in the order in which rules made them. What is ``given`` takes the place of what
    the cost model says."""

    def __init__(self, given: Given | None = None) -> None:
        self.made: list[Decision] = []
        self._given = given or {}
        self._made_about: set[tuple[str, str]] = set()
        self._op: Operation | None = None
        self._overrides: dict[str, Attribute] = {}
        self._reasons: dict[str, str] = {}

    @contextmanager
    def about(self, op: Operation) -> Generator[None]:
        """Decisions in the block are about ``op``. Raises PlanError for an override that no decision took."""
        found = op.attributes.get(OVERRIDE, DictionaryAttr({}))
        if not isinstance(found, DictionaryAttr):
            raise PlanError(f"attribute '{OVERRIDE}': expected a dictionary such as {{tiles = 4 : i64}}, found {found}")
        self._op, self._overrides, self._reasons = op, dict(found.data), {}
        yield
        unknown = [name for name in self._overrides if name not in self._reasons]
        if unknown:
            advice = did_you_mean(unknown[0], self._reasons) if self._reasons else None
            raise PlanError(f"attribute '{OVERRIDE}': '{op.name}' decides nothing called '{unknown[0]}'", advice=advice)
        self._op = None

    def choose(self, name: str, choices: Sequence[int], default: int, reason: str) -> int:
        """``default``, or what the op's attribute says, or else the greatest choice up to what is given.

        Raises PlanError if the attribute's is not among ``choices``.
        """
        assert self._op is not None, "rules decide about an op"
        asked = self._given_for(self._op, name)
        if asked is not None:
            given_value = max((one for one in choices if one <= asked), default=min(choices))
            if given_value != default:
                reason = f"{name} = {given_value} given; by cost {default}: {reason}"
            default = given_value
        chosen, given = default, self._overrides.get(name)
        if given is not None:
            chosen = _integer(name, given)
            if chosen not in choices:
                span = f"{min(choices)} to {max(choices)}"
                if len(choices) > 1 and (step := choices[1] - choices[0]) > 1:
                    span += f" in steps of {step}"
                raise PlanError(f"attribute '{OVERRIDE}': {name} = {chosen}, expected {span}")
            reason = f"{name} = {chosen} by attribute; by cost {default}: {reason}" if chosen != default else reason
        self._reasons[name] = reason
        self.made.append(Decision(self._op, name, tuple(choices), chosen, reason))
        return chosen

    def _given_for(self, op: Operation, name: str) -> int | None:
        if not self._given:
            return None
        about = label(op), name
        self._made_about.add(about)
        return self._given.get(about, self._given.get(("", name)))

    def require_used(self) -> None:
        """Raise PlanError for a value given to an operator that decides no such thing."""
        for operator, name in self._given:
            if operator and (operator, name) not in self._made_about:
                advice = did_you_mean(f"{operator}.{name}", [".".join(about) for about in self._made_about])
                raise PlanError(f"tile: no '{operator}' decides '{name}'", advice=advice)

    def reason(self, name: str, *others: str) -> str:
        """Why the op at hand got its ``name``, and its ``others`` if they were decided."""
        return "; ".join([self._reasons[name], *(self._reasons[one] for one in others if one in self._reasons)])


def _integer(name: str, value: Attribute) -> int:
    if not isinstance(value, IntegerAttr):
        raise PlanError(f"attribute '{OVERRIDE}': expected an integer for {name}, found {value}")
    return value.value.data
