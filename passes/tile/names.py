"""What grids are called, and what an option calls the ops that they come from."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation

from ...core.names import operator_name
from ...dialects.tg import ParamOp, shape_of

MOST_NAMED = 4
"""Of the sources that a weight's name lists; of more, as experts are, it tells the first and the last."""


def weight_name(sources: Sequence[str]) -> str:
    """A readable name for a weight made of ``sources``: what they share, then what tells them apart."""
    parts = [source.removeprefix("model.").removesuffix(".weight").split(".") for source in sources]
    if len(parts) == 1:
        return ".".join(parts[0])
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    rest = [".".join(p[shared:]) for p in parts]
    return ".".join([*parts[0][:shared], "+".join(rest) if len(rest) <= MOST_NAMED else f"{rest[0]}...{rest[-1]}"])


def label(op: Operation) -> str:
    """The op by its weight if it has one: what its grids are called, in all layers."""
    for operand in op.operands:
        if isinstance(operand.owner, ParamOp) and len(shape_of(operand)) == 2:
            return operator_name(weight_name(operand.owner.source_names))
    return op.name.partition(".")[2]
