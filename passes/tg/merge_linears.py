"""`tg-merge-linears`: linears of one activation become one, whose weight is theirs one below another.

    %q = tg.linear %x, %wq : (tensor<8x256xbf16>, tensor<256x256xbf16>) -> tensor<8x256xbf16>
    %k = tg.linear %x, %wk : (tensor<8x256xbf16>, tensor<128x256xbf16>) -> tensor<8x128xbf16>

becomes

    %w = tg.param @q_proj_k_proj.weight {sources = ["q_proj.weight", "k_proj.weight"]} : tensor<384x256xbf16>
    %y = tg.linear %x, %w : (tensor<8x256xbf16>, tensor<384x256xbf16>) -> tensor<8x384xbf16>
    %q = tg.slice %y {offsets = array<i64: 0, 0>, sizes = array<i64: 8, 256>} : ...
    %k = tg.slice %y {offsets = array<i64: 0, 256>, sizes = array<i64: 8, 128>} : ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from ...dialects import tg
from ..base import MpkPass

GroupKey = tuple[Block, SSAValue, Attribute, bool, Attribute]


@dataclass(frozen=True)
class TgMergeLinears(MpkPass):
    """Merge linears that read the same activation, so that it is read, and normed, once.

    Those with a bias merge with each other, those without likewise, and only those of equal attributes, which the
    merged one keeps. A weight or bias merges if it is a `tg.param` of plain layout with no other user: a tied embedding
    is never copied. Users of the old results get slices.
    Statistics: `merged`, linears that went into another; `groups`, linears made of them.

    Before: `tg.linear %x, %wq` and `tg.linear %x, %wk`. After: one `tg.linear`, two `tg.slice` (see the module).
    """

    name = "tg-merge-linears"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        groups: dict[GroupKey, list[tg.LinearOp]] = {}
        for linear in op.walk():
            if isinstance(linear, tg.LinearOp) and linear.parent is not None and _can_merge(linear):
                alike = tg.element_of(linear.result), linear.bias is not None, DictionaryAttr(linear.attributes)
                groups.setdefault((linear.parent, linear.x, *alike), []).append(linear)
        for linears in groups.values():
            if len(linears) > 1:
                _merge(linears)
                self.count("groups")
                self.count("merged", len(linears))


def _can_merge(linear: tg.LinearOp) -> bool:
    operands = (linear.weight,) if linear.bias is None else (linear.weight, linear.bias)
    return all(
        isinstance(param := operand.owner, tg.ParamOp) and not param.interleave.value.data and operand.has_one_use()
        for operand in operands
    )


def _merge(linears: Sequence[tg.LinearOp]) -> None:
    """Replace ``linears`` (in program order) by one where the first stands, and slices of it."""
    first = linears[0]
    biases = [linear.bias for linear in linears if linear.bias is not None]
    weight = _stack([linear.weight for linear in linears])
    bias = _stack(biases) if biases else None
    merged = tg.LinearOp(first.x, weight.result, bias and bias.result, tg.element_of(first.result))
    merged.attributes.update(first.attributes)
    merged.result.name_hint = "_".join(linear.result.name_hint or "y" for linear in linears)
    new_ops: list[Operation] = [weight, *([bias] if bias else []), merged]
    column = 0
    for linear in linears:
        rows, columns = tg.shape_of(linear.result)
        new_ops.append(tg.SliceOp(merged.result, (0, column), (rows, columns)))
        column += columns
    for op in new_ops:
        op.location = first.location
    slices = new_ops[-len(linears) :]
    Rewriter.insert_op(new_ops, InsertPoint.before(first))
    for linear, part in zip(linears, slices, strict=True):
        operands = linear.operands[1:]
        Rewriter.replace_op(linear, (), list(part.results))
        for operand in operands:
            assert isinstance(operand.owner, tg.ParamOp)
            Rewriter.erase_op(operand.owner)


def _stack(values: Sequence[SSAValue]) -> tg.ParamOp:
    """The param that is the params ``values`` one below another."""
    params = [value.owner for value in values if isinstance(value.owner, tg.ParamOp)]
    rows = sum(tg.shape_of(value)[0] for value in values)
    shape = (rows, *tg.shape_of(values[0])[1:])
    sources = [source for param in params for source in param.source_names]
    name = common_name([param.symbol.data for param in params])
    stacked = tg.ParamOp(name, tg.tensor(shape, tg.element_of(values[0])), sources)
    stacked.shard([shard for param in params for shard in param.source_shards])
    stacked.result.name_hint = values[0].name_hint
    return stacked


def common_name(names: Sequence[str]) -> str:
    """One name for several: parts that differ are joined, `a.q.weight`, `a.k.weight` -> `a.q_k.weight`."""
    parts = [name.split(".") for name in names]
    if len({len(each) for each in parts}) > 1:
        return "_".join(names)
    return ".".join("_".join(dict.fromkeys(column)) for column in zip(*parts, strict=True))
