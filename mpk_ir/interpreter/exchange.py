"""The meaning of ops that depend on the rank.

`exchange(op, reads)` gives the results of each rank from the operands of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce, singledispatch

import numpy as np
from xdsl.ir import Operation, SSAValue

from ..core.errors import UnsupportedError
from ..core.requests import RowColumn
from ..dialects import tg
from .values import Array, Read

RankResults = list[tuple[Array, ...]]


def depends_on_rank(op: Operation) -> bool:
    """Whether ``op`` has its meaning here."""
    return exchange.dispatch(type(op)) is not exchange.dispatch(Operation)


@singledispatch
def exchange(op: Operation, reads: Sequence[Read]) -> RankResults:
    """The results of ``op`` on each rank; ``reads[rank]`` reads an operand. Raises UnsupportedError for other ops."""
    raise UnsupportedError(f"'{op.name}' means the same on every rank")


@exchange.register
def _(op: tg.AllReduceOp, reads: Sequence[Read]) -> RankResults:
    _check_ranks(op.rank_count, op, reads)
    return [(_sum(op.x, reads),)] * len(reads)


@exchange.register
def _(op: tg.AllGatherOp, reads: Sequence[Read]) -> RankResults:
    _check_ranks(op.rank_count, op, reads)
    return [(np.concatenate([read(op.x) for read in reads], axis=op.axis.value.data),)] * len(reads)


@exchange.register
def _(op: tg.ReduceScatterOp, reads: Sequence[Read]) -> RankResults:
    _check_ranks(op.rank_count, op, reads)
    return [(part,) for part in np.split(_sum(op.x, reads), len(reads), axis=op.axis.value.data)]


@exchange.register
def _(op: tg.ShardEmbeddingOp, reads: Sequence[Read]) -> RankResults:
    results: RankResults = []
    for rank, read in enumerate(reads):
        ids, table = read(op.ids), read(op.table)
        local = (ids if ids.ndim == 1 else ids[:, RowColumn.TOKEN]) - rank * len(table)
        mine = (local >= 0) & (local < len(table))
        results.append((np.where(mine[:, None], table[np.where(mine, local, 0)], np.float32(0)),))
    return results


@exchange.register
def _(op: tg.ShardArgmaxOp, reads: Sequence[Read]) -> RankResults:
    results: RankResults = []
    for rank, read in enumerate(reads):
        x = read(op.x)
        index = np.argmax(x, axis=1)[:, None]
        results.append((np.take_along_axis(x, index, axis=1), index + rank * x.shape[1]))
    return results


def _sum(value: SSAValue, reads: Sequence[Read]) -> Array:
    return reduce(np.add, [read(value) for read in reads])


def _check_ranks(expected: int, op: Operation, reads: Sequence[Read]) -> None:
    if len(reads) != expected:
        raise UnsupportedError(f"'{op.name}' is for {expected} ranks, found {len(reads)}")
