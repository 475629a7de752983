"""`tile`: tensor graph to SM task graph."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ...core.errors import MpkError, PlanError
from ...core.memory import Layout, Space
from ...core.target import target_of
from ...dialects.locations import location_of
from ...dialects.sm import GraphOp
from ...dialects.tg import (
    RANKS,
    AdvanceOp,
    ConstantOp,
    FusedAttentionOp,
    FusedLinearOp,
    KvAppendOp,
    LinearOp,
    ParamOp,
    StateOp,
    UpdateOp,
)
from ...tasks import load_extensions
from ..base import MpkPass
from . import attention, experts, general, linear, ranks, shaping, simple
from .blocks import is_wide
from .builder import GraphBuilder, View, element_type, rule_of, tensor_shape
from .decisions import OVERRIDE, Decision, Decisions, read_given
from .expand import streams_weight
from .map import copy_into
from .shaping import in_state
from .views import by_first, by_last

_RULES = (attention, experts, general, linear, ranks, shaping, simple)  # importing a module registers its rules
STEP_METADATA = "mpk.step"
"""Attribute of the function that holds facts for the host side; it becomes the graph's metadata."""


@dataclass(frozen=True)
class Tile(MpkPass):
    """Turn each tg op into grids of tasks, with tile shapes from the cost model of the target.

    Before:
    ```mlir
    %w = tg.param @w : tensor<64x32xbf16>
    %y = tg.linear %x, %w : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
    ```
    After, on a target with four SMs or more: four tasks, task i makes columns 16 i to 16 i + 15:
    ```mlir
    sm.grid @w "linear" {..., tiles = 1} over [4] operands ["x", "weight", "y"]
      boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<read, (d0) -> (d0 * 16, 0), [16, 32]>,
             #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>] ...
    ```
    Reshapes, transposes, slices and broadcasts become views, chains of elementwise ops one grid; a result that ends in
    a state is computed in that state's memory, or copied there at the end.

    What a rule decides, its grid's `reason` explains. An attribute of the op decides otherwise:
    `tg.linear %x, %w {mpk.tile = {tiles = 2 : i64}}`, likewise `rows` of a product, `splits` and `merge_rows` of
    attention. ``decide`` does so for all ops without the attribute, `tile{decide="splits=1"}`, or those of one weight,
    `tile{decide="layers.mlp.down_proj.tiles=1","fused_attention.splits=8"}`; each op takes the greatest choice that
    it has up to that. Statistics: ``grids``, ``tasks``, ``overrides``.
    """

    name = "tile"
    target: str = "h200"
    decide: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        load_extensions()
        for function in [f for f in op.body.block.ops if isinstance(f, FuncOp)]:
            graph = self._tile(function)
            op.body.block.insert_op_before(graph, function)
            function.detach()
            function.erase()

    def decisions(self, module: ModuleOp) -> list[Decision]:
        """What the rules decide about the ops of ``module``, which stays as it is."""
        load_extensions()
        return [
            decision
            for function in [f for f in module.body.block.ops if isinstance(f, FuncOp)]
            for decision in self._build(function).decisions.made
        ]

    def _tile(self, function: FuncOp) -> GraphOp:
        builder = self._build(function)
        self.count("overrides", sum(OVERRIDE in op.attributes for op in function.body.block.ops))
        metadata = function.attributes.get(STEP_METADATA, DictionaryAttr({}))
        assert isinstance(metadata, DictionaryAttr)
        return GraphOp(function.sym_name.data, self.target, metadata.data, builder.block, builder.ranks)

    def _build(self, function: FuncOp) -> GraphBuilder:
        builder = GraphBuilder(target_of(self.target), self.count, _ranks_of(function))
        builder.copy = copy_into(builder)
        builder.decisions = Decisions(read_given(self.decide))
        ops = list(function.body.block.ops)
        for argument, name in zip(function.args, _argument_names(function), strict=True):
            shape = tensor_shape(argument)
            buffer = builder.buffer(name, Space.INPUT, _flat(shape), element_type(argument))
            builder.views[argument] = View(buffer, axes=by_last(shape))
        _check_updates(ops)
        outputs: list[tuple[SSAValue, View]] = []
        for op in ops:
            _bind_results(op, builder, outputs)
        for op in ops:
            given = isinstance(op, ParamOp | ConstantOp | StateOp | UpdateOp | ReturnOp)
            if not given and op not in builder.absorbed:
                _apply_rule(op, builder)
        _store([op for op in ops if isinstance(op, UpdateOp)], outputs, builder)
        builder.decisions.require_used()
        return builder


def _ranks_of(function: FuncOp) -> int:
    """The ranks that run ``function``. Raises PlanError if it is sharded and does not say."""
    ranks = function.attributes.get(RANKS)
    if isinstance(ranks, IntegerAttr):
        return ranks.value.data
    if any("shards" in op.properties or "shard" in op.properties for op in function.body.block.ops):
        raise PlanError(
            f"tile: @{function.sym_name.data} holds shards, but does not say of how many ranks",
            where=location_of(function),
            advice=f"tg-shard sets the attribute `{RANKS}`",
        )
    return 1


def _apply_rule(op: Operation, builder: GraphBuilder) -> None:
    try:
        with builder.decisions.about(op):
            rule_of(op)(op, builder)
    except MpkError as error:
        error.where = error.where or location_of(op)
        raise


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A buffer whose columns are the last dimension."""
    return (prod(shape[:-1]), shape[-1]) if len(shape) > 1 else shape


def _argument_names(function: FuncOp) -> list[str]:
    return [value.name_hint or f"argument{index}" for index, value in enumerate(function.args)]


def _bind_results(op: Operation, builder: GraphBuilder, outputs: list[tuple[SSAValue, View]]) -> None:
    """Give memory to what the rules need to find: weights, constants, states, and results that end in one."""
    match op:
        case ParamOp():
            shape = tensor_shape(op.result)
            layout = Layout.MMA_ROWS_16 if _is_linear_weight(op.result) else Layout.ROW_MAJOR
            buffer = builder.weight(op, layout)
            builder.views[op.result] = View(buffer, 0, shape[1] if len(shape) == 2 else 0)
        case ConstantOp():
            builder.constant(op.result, op.value)
        case StateOp():
            name, shape = op.symbol.data, tensor_shape(op.result)
            buffer = builder.state(name, shape, element_type(op.result))
            builder.views[op.result] = View(buffer, 0, shape[1] if len(shape) == 2 else 0)
        case UpdateOp():
            name, shape = op.symbol.data, tensor_shape(op.value)
            if name not in builder.states:
                buffer = builder.state(name, shape, element_type(op.value))
                builder.views.setdefault(op.value, View(buffer, 0, shape[1] if len(shape) == 2 else 0))
        case ReturnOp():
            for index, value in enumerate(op.operands):
                shape = tensor_shape(value)
                buffer = builder.buffer(f"result{index}", Space.OUTPUT, _flat(shape), element_type(value))
                view = View(buffer, axes=by_last(shape))
                builder.views.setdefault(value, view)
                outputs.append((value, view))
        case _:
            pass


def _is_linear_weight(value: SSAValue) -> bool:
    users = [use.operation for use in value.uses if isinstance(use.operation, LinearOp | FusedLinearOp)]
    return any(user.weight is value and (streams_weight(user) or is_wide(user)) for user in users)


def _check_updates(ops: list[Operation]) -> None:
    """Refuse a program that reads a state after the op that will have overwritten it in place."""
    position = {op: index for index, op in enumerate(ops)}
    updated = {op.symbol.data: op for op in ops if isinstance(op, UpdateOp)}
    for op in ops:
        if not isinstance(op, StateOp) or op.symbol.data not in updated:
            continue
        writer = updated[op.symbol.data].value.owner
        if not isinstance(writer, KvAppendOp | FusedAttentionOp | AdvanceOp) or writer not in position:
            continue  # computed elsewhere, and copied when all is read
        late = [use.operation for use in op.result.uses if position[use.operation] > position[writer]]
        if late:
            raise PlanError(
                f"tile: state @{op.symbol.data} is read by '{late[0].name}' after '{writer.name}' replaced it",
                advice="states are updated in place: move the read up, or copy the value first",
            )


def _store(updates: list[UpdateOp], outputs: list[tuple[SSAValue, View]], builder: GraphBuilder) -> None:
    """Copy what was not computed where it must end: results that are arguments, views or returned twice, and new
    values of states. What comes out of one state is read before any is overwritten."""
    moves = list(outputs)
    for op in updates:
        buffer, shape = builder.states[op.symbol.data], tensor_shape(op.value)
        moves.append((op.value, View(buffer, axes=by_first(shape))))
    pending = [(value, target) for value, target in moves if builder.strided(value).buffer is not target.buffer]
    assert builder.copy is not None
    for value, target in pending:
        if in_state(builder.strided(value)) and in_state(target):
            kept = View(builder.buffer("kept", Space.SCRATCH, _flat(tensor_shape(value)), element_type(value)))
            kept = View(kept.buffer, axes=by_last(tensor_shape(value)))
            builder.copy(value, kept)
            builder.views[value] = kept
    for value, target in sorted(pending, key=lambda move: in_state(move[1])):
        builder.copy(value, target)
