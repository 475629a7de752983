"""Greedy rewriting with an end: xDSL's walker runs patterns to a fixpoint and, given a pattern that never settles,
for ever."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import LocationAttr, ModuleOp, UnknownLoc
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriterListener,
    PatternRewriteWalker,
    RewritePattern,
)

from ..core.errors import MpkError, PlanError
from ..dialects.locations import location_of

REWRITES_PER_OP = 64
"""Default limit: no sensible set of patterns rewrites an op, and what comes of it, this often."""


def rewrite(
    module: ModuleOp, patterns: Sequence[RewritePattern], limit: int | None = None, *, erase_dead: bool = False
) -> dict[str, int]:
    """Apply ``patterns``, the first that matches winning, until none does.

    Ops that a pattern inserts without a location of their own get that of the op it matched. ``limit`` caps the number
    of rewrites (by default 64 for each op of the module); ``erase_dead`` also erases unused ops without effects.

    Returns how often each pattern applied, by class name. Raises PlanError if the limit is reached, naming the
    pattern that keeps changing the IR. An MpkError that a pattern raises gets the location of the op it matched.
    """
    budget = REWRITES_PER_OP * (1 + sum(1 for _ in module.walk())) if limit is None else limit
    tally = _Tally(budget)
    applier = GreedyRewritePatternApplier([_Counted(p, tally) for p in patterns], dce_enabled=erase_dead)
    listener = PatternRewriterListener(operation_insertion_handler=[tally.locate])
    try:
        PatternRewriteWalker(applier, listener=listener).rewrite_module(module)
    except Exception as error:
        drop_dump(error)
        raise
    return tally.applied


def drop_dump(error: Exception) -> None:
    """Take off ``error`` the print of the whole module that xDSL attaches to whatever a pattern or verifier raises."""
    error.__notes__ = [note for note in getattr(error, "__notes__", ()) if not note.startswith('"builtin.module"')]


def alike(op: Operation, operands: Sequence[SSAValue], result_types: Sequence[Attribute]) -> Operation:
    """An op as ``op`` on other ``operands``: with its properties, attributes and place, its results' names."""
    new = type(op).create(
        operands=operands,
        result_types=result_types,
        properties=op.properties.copy(),
        attributes=op.attributes.copy(),
    )
    new.location = op.location
    for old, result in zip(op.results, new.results, strict=True):
        result.name_hint = old.name_hint
    return new


class _Tally:
    """Counts rewrites against a budget, and knows the location of the op being matched."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.applied: dict[str, int] = {}
        self.source: LocationAttr = UnknownLoc()

    def count(self, pattern: str) -> None:
        self.applied[pattern] = self.applied.get(pattern, 0) + 1
        total = sum(self.applied.values())
        if total > self.budget:
            busiest = max(self.applied, key=lambda name: self.applied[name])
            raise PlanError(
                f"rewriting does not settle: {total} rewrites, {self.applied[busiest]} of them by '{busiest}'",
                advice="a pattern must not match what it, or another of the set, produces",
            )

    def locate(self, inserted: Operation) -> None:
        for op in inserted.walk():
            if isinstance(op.location, UnknownLoc):
                op.location = self.source


class _Counted(RewritePattern):
    def __init__(self, pattern: RewritePattern, tally: _Tally) -> None:
        self.pattern = pattern
        self.tally = tally

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        self.tally.source = op.location
        try:
            self.pattern.match_and_rewrite(op, rewriter)
            if rewriter.has_done_action:
                self.tally.count(type(self.pattern).__name__)
        except MpkError as error:
            error.where = error.where or location_of(op)
            raise
