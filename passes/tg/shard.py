"""`tg-shard`: one step on several GPUs, each with a part of every weight (tensor parallelism).

    %w1 = tg.param @up : tensor<64x16xf32>
    %h = tg.linear %x, %w1 : (tensor<4x16xf32>, tensor<64x16xf32>) -> tensor<4x64xf32>
    %a = tg.silu %h : (tensor<4x64xf32>) -> tensor<4x64xf32>
    %w2 = tg.param @down : tensor<16x64xf32>
    %y = tg.linear %a, %w2 : (tensor<4x64xf32>, tensor<16x64xf32>) -> tensor<4x16xf32>

with tp=4 becomes

    %w1 = tg.param @up {shards = [#tg.shard<dim = 0, parts = 4>]} : tensor<16x16xf32>
    %h = tg.linear %x, %w1 : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
    %a = tg.silu %h : (tensor<4x16xf32>) -> tensor<4x16xf32>
    %w2 = tg.param @down {shards = [#tg.shard<dim = 1, parts = 4>]} : tensor<16x16xf32>
    %p = tg.linear %a, %w2 : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
    %y = tg.all_reduce %p {ranks = 4 : i64} : (tensor<4x16xf32>) -> tensor<4x16xf32>

The scheme is that of Megatron-LM (arXiv 1909.08053): the first of two products is split by columns, the second by rows,
so that a pair needs one exchange.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Region

from ...core.errors import MpkError, PlanError
from ...dialects import tg
from ...dialects.locations import location_of
from ..base import MpkPass
from .shard_rules import shard_op
from .sharding import Sharder


@dataclass(frozen=True)
class TgShard(MpkPass):
    """Split each function over ``tp`` ranks; all of them run the result, which says so in its attribute `tg.ranks`.

    A linear of a whole activation is split by columns, one of a split activation by rows, with an `tg.all_reduce` (and
    then the bias, once) behind it. Attention and its caches are split by heads; where there are fewer key heads than
    ranks, neighbouring ranks hold the same one. Embedding and head are split by vocabulary, with a `tg.all_reduce` and
    an argmax over all ranks; the state `logits` holds a rank's columns. What else needs a whole tensor gets it by
    `tg.all_gather`. Arguments and results are whole on every rank.

    Partial sums are rounded to the element type before they are added. Runs before `tg-merge-linears` and `tg-fuse`.
    Raises PlanError for what does not split into equal parts, and leaves the function as it was.
    Statistics: ``column``, ``row`` linears; ``all_reduce``, ``all_gather`` inserted; ``sharded_params``.

    Before: `tg.linear %x, %w`. After: `tg.linear` of a part of %w (see the module).
    """

    name = "tg-shard"
    tp: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.tp < 1:
            raise PlanError(f"tg-shard: tp: found {self.tp}, expected 1 or more")
        if self.tp == 1:
            return
        functions = [function for function in op.ops if isinstance(function, FuncOp)]
        bodies = [self._shard(function) for function in functions]
        for function, body in zip(functions, bodies, strict=True):
            function.body.detach_block(function.body.block).erase(safe_erase=False)
            body.move_blocks(function.body)
            function.attributes[tg.RANKS] = IntegerAttr(self.tp, i64)

    def _shard(self, function: FuncOp) -> Region:
        if tg.RANKS in function.attributes:
            raise PlanError(
                f"tg-shard: @{function.sym_name.data} is for {function.attributes[tg.RANKS]} ranks already",
                where=location_of(function),
            )
        sharder = Sharder(function, self.tp, self.count)
        for op in function.body.block.ops:
            try:
                shard_op(op, sharder)
            except MpkError as error:
                error.where = error.where or location_of(op)
                raise
        return Region(sharder.block)
