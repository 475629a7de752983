"""The pipeline with changes, as text: `no sm-poll-data` drops a pass, `sm-pipeline{ring_kib=64}` gives one options,
`sm-schedule: sm-schedule-list` puts another in its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from .compiler import Compilation, compile_module
from .core.errors import UsageError, did_you_mean
from .core.ranks import ALONE, Parallel
from .core.target import Target
from .passes.lower.lower_to_cuda import LowerToCuda
from .pipeline import pipeline
from .pipeline_spec import parse_pipeline

DROPPED, REPLACED = "no ", ": "
"""How an edit begins that drops a pass, and what parts a pass from the one that runs instead."""


def compile_edited(
    module: ModuleOp,
    target: Target,
    edits: Sequence[str],
    parallel: Parallel = ALONE,
    lowering: LowerToCuda | None = None,
) -> Compilation:
    """As `compile_module`, with ``edits``. Raises UsageError for one that the pipeline has no pass for."""
    change = Edits(edits, target, parallel.ranks)
    return compile_module(module, target, lowering, parallel=parallel, change=change)


class Edits:
    """Edits of the pipeline of ``ranks`` as a change of a level's passes. Raises UsageError for an unknown pass."""

    def __init__(self, edits: Sequence[str], target: Target, ranks: int) -> None:
        known = {one.name for one in pipeline(target, ranks)}
        self._changes: dict[str, list[ModulePass | None]] = defaultdict(list)
        for edit in edits:
            name, change = _read(edit)
            if name not in known:
                raise UsageError(f"the pipeline has no pass '{name}' to change", advice=did_you_mean(name, known))
            self._changes[name].append(change)

    def __call__(self, passes: tuple[ModulePass, ...]) -> list[ModulePass]:
        changed = [reduce(_merged, self._changes.get(one.name, ()), one) for one in passes]
        return [one for one in changed if one is not None]


def _merged(before: ModulePass | None, change: ModulePass | None) -> ModulePass | None:
    """``change``; of the same kind as ``before``, it has that one's options where its own are those by default."""
    if before is None or change is None or type(change) is not type(before):
        return change
    default = type(change)()
    names = [one.name for one in fields(change) if getattr(change, one.name) != getattr(default, one.name)]
    return replace(before, **{name: getattr(change, name) for name in names})


def _read(edit: str) -> tuple[str, ModulePass | None]:
    """The name of a pass and what runs instead. Raises UsageError for what is no pass."""
    if edit.startswith(DROPPED):
        return edit.removeprefix(DROPPED), None
    name, colon, instead = edit.partition(REPLACED)
    text = instead if colon else edit
    passes = parse_pipeline(text)
    if len(passes) != 1:
        raise UsageError(f"found '{text}', expected one pass with its options", where=edit)
    return (name if colon else passes[0].name), passes[0]
