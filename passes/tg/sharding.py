"""The function that `tg-shard` builds, and what a rank of it holds of each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from ...core.errors import PlanError
from ...dialects import tg
from ..rewriting import alike


class Count(Protocol):
    """`MpkPass.count`."""

    def __call__(self, statistic: str, amount: int = 1) -> None: ...


Shard = tg.ShardAttr | None
"""None: every rank has the whole."""


class Sharder:
    """Holds for each value of the old function the one of the new, and its shard.

    Params and states are made when first used: the user decides what a rank holds of them.
    """

    def __init__(self, function: FuncOp, ranks: int, count: Count) -> None:
        self.ranks = ranks
        self.count = count
        old = function.body.block
        self.block = Block(arg_types=old.arg_types)
        self._values: dict[SSAValue, SSAValue] = {}
        self._shards: dict[SSAValue, Shard] = {}
        self._gathered: dict[SSAValue, SSAValue] = {}
        self._state_shards: dict[str, Shard] = {}
        self._read_states = {op.symbol.data for op in old.ops if isinstance(op, tg.StateOp)}
        for argument, new in zip(old.args, self.block.args, strict=True):
            new.name_hint = argument.name_hint
            self.bind(argument, new, None)

    def equal_parts(self, dim: int) -> tg.ShardAttr:
        """A piece for each rank, along ``dim``."""
        return tg.ShardAttr.of(dim, self.ranks)

    def shard_of(self, value: SSAValue) -> Shard:
        """What a rank has of ``value``; whole as long as its first user has not decided."""
        return self._shards.get(value)

    def splits(self, value: SSAValue, shard: tg.ShardAttr) -> bool:
        """Whether `piece` can give ``shard``."""
        if value in self._values:
            return self._shards[value] == shard
        owner = value.owner
        return not isinstance(owner, tg.StateOp) or self._state_shards.get(owner.symbol.data, shard) == shard

    def piece(self, value: SSAValue, shard: Shard) -> SSAValue:
        """The new value, of which a rank has ``shard``. Raises PlanError if there is none."""
        if value not in self._values:
            self._make(value, shard)
        if self._shards[value] != shard:
            raise PlanError(
                f"tg-shard: '{value.name_hint}' is held as {describe(self._shards[value])}, "
                f"needed as {describe(shard)} too",
                advice="give the second user a tg.param or tg.state of its own",
            )
        return self._values[value]

    def whole(self, value: SSAValue) -> SSAValue:
        """The new value as a whole, gathered if it is split. Raises PlanError if ranks share its pieces."""
        shard = self.shard_of(value)
        if shard is None:
            return self.piece(value, None)
        if shard.parts.data != self.ranks:
            raise PlanError(
                f"tg-shard: '{value.name_hint}' is in {shard.parts.data} parts, found a user that needs it whole on "
                f"{self.ranks} ranks, expected attention only",
                advice=f"use {shard.parts.data} ranks or fewer",
            )
        if value not in self._gathered:
            gather = tg.AllGatherOp(self._values[value], shard.dim.data, self.ranks)
            self._gathered[value] = self.add(gather, value).results[0]
            self.count("all_gather")
        return self._gathered[value]

    def all_reduced(self, value: SSAValue, like: SSAValue) -> SSAValue:
        """The sum of the new ``value`` over the ranks; ``like`` is the old value that it becomes."""
        self.count("all_reduce")
        return self.add(tg.AllReduceOp(value, self.ranks), like).results[0]

    def localized(self, op: Operation, operands: Sequence[SSAValue], shard: Shard) -> None:
        """``op`` on new ``operands``; of each result a rank has ``shard``."""
        types = [
            tg.tensor(shard.local(tg.shape_of(result)), tg.element_of(result)) if shard else result.type
            for result in op.results
        ]
        new = alike(op, operands, types)
        self.block.add_op(new)
        for old, result in zip(op.results, new.results, strict=True):
            self.bind(old, result, shard)

    def add(self, new: Operation, like: SSAValue) -> Operation:
        """Append ``new``, placed and named as ``like``, an old value."""
        assert isinstance(like.owner, Operation)
        new.location = like.owner.location
        for result in new.results:
            result.name_hint = like.name_hint
        self.block.add_op(new)
        return new

    def bind(self, old: SSAValue, new: SSAValue, shard: Shard) -> None:
        """From here on ``new`` stands for ``old``."""
        self._values[old] = new
        self._shards[old] = shard

    def update(self, op: tg.UpdateOp) -> None:
        """Store what a rank has of the value, unless the state is read whole."""
        name = op.symbol.data
        shard = self.shard_of(op.value)
        if self._state_shards.get(name, None if name in self._read_states else shard) != shard:
            shard = None
        value = self.piece(op.value, shard) if shard else self.whole(op.value)
        self._fix_state(name, shard)
        new = tg.UpdateOp(name, value, shard)
        new.attributes.update(op.attributes)
        new.location = op.location
        self.block.add_op(new)

    def _fix_state(self, name: str, shard: Shard) -> None:
        known = self._state_shards.setdefault(name, shard)
        if known != shard:
            raise PlanError(
                f"tg-shard: state @{name} is held as {describe(known)}, needed as {describe(shard)} too",
                advice="read and update a state in one way",
            )

    def _make(self, value: SSAValue, shard: Shard) -> None:
        owner = value.owner
        assert isinstance(owner, tg.ParamOp | tg.StateOp), "every other value is bound when its op is met"
        if isinstance(owner, tg.StateOp):
            self._fix_state(owner.symbol.data, shard)
        elif shard and (len(owner.source_names) > 1 or owner.shards is not None):
            raise PlanError(
                f"tg-shard: tg.param @{owner.symbol.data}: found {len(owner.source_names)} sources or shards, "
                "expected one whole tensor",
                advice="run tg-shard before tg-merge-linears and tg-fuse",
            )
        self.localized(owner, (), shard)
        new = self._values[value].owner
        if shard and isinstance(new, tg.ParamOp):
            new.shard([shard])
            self.count("sharded_params")
        elif shard and isinstance(new, tg.StateOp):
            new.properties["shard"] = shard


def describe(shard: Shard) -> str:
    """``shard`` in words."""
    return f"{shard.parts.data} parts of dimension {shard.dim.data}" if shard else "a whole"
