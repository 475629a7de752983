"""A value as a formula of the ops that make it, for messages."""

from __future__ import annotations

from xdsl.ir import Operation, SSAValue

from ...dialects import tg

MOST_OPS = 24
"""Of a formula; what is behind them is dots."""


def formula(op: Operation) -> str:
    """`add(mul(x, cos(@inv_freq)), ...)`: the op and what it is made of, as far as the nearest `MOST_OPS` reach; what
    comes again is dots too."""
    shown = _nearest(op)
    seen: set[Operation] = set()

    def text(one: Operation) -> str:
        if one not in shown or one in seen:
            return "..."
        seen.add(one)
        if isinstance(one, tg.ParamOp | tg.StateOp):
            return f"@{one.symbol.data}"
        return f"{one.name.removeprefix('tg.')}({', '.join(map(of, one.operands))})"

    def of(value: SSAValue) -> str:
        return text(value.owner) if isinstance(value.owner, Operation) else value.name_hint or "argument"

    return text(op)


def _nearest(op: Operation) -> set[Operation]:
    found, rank = {op: None}, [op]
    while rank and len(found) < MOST_OPS:
        rank = [
            v.owner for one in rank for v in one.operands if isinstance(v.owner, Operation) and v.owner not in found
        ]
        found |= dict.fromkeys(rank[: MOST_OPS - len(found)])
    return set(found)
