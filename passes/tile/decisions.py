"""What tile rules decide, and how an attribute of the op decides otherwise."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr
from xdsl.ir import Attribute, Operation

from ...core.errors import PlanError, did_you_mean

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


class Decisions:
    """All decisions of one function, in the order in which rules made them. ``given``: values by name, for all ops, in
    place of what the cost model says."""

    def __init__(self, given: Mapping[str, int] | None = None) -> None:
        self.made: list[Decision] = []
        self._given = given or {}
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
        """``default``, or what the op's attribute says, or else the greatest choice up to what is given for all ops.

        Raises PlanError if the attribute's is not among ``choices``.
        """
        assert self._op is not None, "rules decide about an op"
        if name in self._given:
            default = max((one for one in choices if one <= self._given[name]), default=default)
            reason = f"{name} = {default}, given for all ops"
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

    def reason(self, name: str) -> str:
        """Why the op at hand got its ``name``."""
        return self._reasons[name]


def _integer(name: str, value: Attribute) -> int:
    if not isinstance(value, IntegerAttr):
        raise PlanError(f"attribute '{OVERRIDE}': expected an integer for {name}, found {value}")
    return value.value.data
