"""Operations of `sm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FixedBitwidthType,
    IntAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    TensorType,
    UnitAttr,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import HasParent, IsolatedFromAbove, MemoryAllocEffect, MemoryWriteEffect, NoTerminator
from xdsl.utils.exceptions import VerifyException

from ...core.errors import MpkError
from ...core.memory import Layout, Space
from ...tasks import task_kind
from ...tasks.base import Params, TaskKind
from ..tg.sharding import ShardAttr
from .attributes import (
    BoxAttr,
    BufferType,
    CyclicAttr,
    EventType,
    LayoutAttr,
    Shape,
    SharedMemoryAttr,
    SpaceAttr,
    StreamAttr,
    ints,
)
from .params import params_from_attr, params_to_attr


@irdl_op_definition
class GraphOp(IRDLOperation):
    """One step of a model as task grids over buffers and events. Grids run, on each SM, in the order written here.

    Scratch lies in an arena of `arena_bytes`, which begins with two copies, of `polled_bytes` each, of the polled
    buffers. `shared_memory` says how each block splits its own; set by `sm-pipeline`.

    Every task of step s happens before every task of step s + 1: the grids with no successor signal the event marked
    `step`, and an SM starts a step when that event has received all arrivals of the step before.

    With `ranks` = N each of N ranks runs the whole graph on SMs and memory of its own. They meet in boxes written to
    other ranks, in events marked `shared`, and at the end of a step, which is that of all.
    """

    name = "sm.graph"
    sym_name = prop_def(SymbolNameConstraint())
    target = prop_def(StringAttr)
    metadata = prop_def(DictionaryAttr, default_value=DictionaryAttr({}))
    arena_bytes = opt_prop_def(IntegerAttr.constr(i64))
    polled_bytes = opt_prop_def(IntegerAttr.constr(i64))
    shared_memory = opt_prop_def(SharedMemoryAttr)
    ranks = prop_def(IntegerAttr.constr(i64), default_value=IntegerAttr(1, i64))
    body = region_def("single_block")
    traits = traits_def(IsolatedFromAbove(), NoTerminator())
    assembly_format = (
        "$sym_name `target` $target (`ranks` $ranks^)? (`metadata` $metadata^)? (`arena_bytes` $arena_bytes^)? "
        "(`polled_bytes` $polled_bytes^)? (`shared_memory` $shared_memory^)? $body attr-dict"
    )

    def __init__(self, name: str, target: str, metadata: Mapping[str, Attribute], body: Block, ranks: int = 1) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "target": StringAttr(target),
                "metadata": DictionaryAttr(dict(metadata)),
                "ranks": IntegerAttr(ranks, i64),
            },
            regions=[Region(body)],
        )

    @property
    def rank_count(self) -> int:
        return self.ranks.value.data

    @property
    def grids(self) -> list[GridOp]:
        """The grids in program order."""
        return [op for op in self.body.block.ops if isinstance(op, GridOp)]

    @property
    def events(self) -> list[EventOp]:
        return [op for op in self.body.block.ops if isinstance(op, EventOp)]

    @property
    def buffers(self) -> list[BufferOp]:
        return [op for op in self.body.block.ops if isinstance(op, BufferOp)]


@irdl_op_definition
class BufferOp(IRDLOperation):
    """Device memory of one tensor, and for a weight what parameters it is packed from.

    `padded` is the shape that memory holds, where tiles are whole; `offset` is its place in the arena, set by
    `sm-plan-memory` on scratch buffers. `polled`: each 4-byte word says itself whether this step has written it, so
    that readers need no event; set by `sm-poll-data`, unless `counted` says that readers wait for an event all the
    same. With `shards`, one for each source, a rank packs its piece of the source.
    """

    name = "sm.buffer"
    sym_name = prop_def(SymbolNameConstraint())
    space = prop_def(SpaceAttr)
    layout = prop_def(LayoutAttr, default_value=LayoutAttr(Layout.ROW_MAJOR))
    padded = opt_prop_def(DenseArrayBase.constr(i64))
    sources = opt_prop_def(ArrayAttr[StringAttr])
    interleave = prop_def(IntegerAttr.constr(i64), default_value=IntegerAttr(0, i64))
    shards = opt_prop_def(ArrayAttr[ShardAttr])
    constant = opt_prop_def(DenseIntOrFPElementsAttr)
    polled = opt_prop_def(UnitAttr)
    counted = opt_prop_def(UnitAttr)
    offset = opt_prop_def(IntegerAttr.constr(i64))
    buffer = result_def(BufferType)
    traits = traits_def(HasParent(GraphOp), MemoryAllocEffect())
    assembly_format = (
        "$sym_name $space (`layout` $layout^)? (`padded` $padded^)? (`sources` $sources^)? "
        "(`interleave` $interleave^)? (`shards` $shards^)? (`constant` $constant^)? (`polled` $polled^)? "
        "(`counted` $counted^)? (`offset` $offset^)? attr-dict `:` type($buffer)"
    )

    def __init__(self, name: str, space: Space, type_: BufferType, **properties: Attribute) -> None:
        super().__init__(
            properties={"sym_name": StringAttr(name), "space": SpaceAttr(space), **properties}, result_types=[type_]
        )

    @property
    def shape(self) -> Shape:
        assert isinstance(self.buffer.type, BufferType)
        return ints(self.buffer.type.shape)

    @property
    def element_type(self) -> Attribute:
        assert isinstance(self.buffer.type, BufferType)
        return self.buffer.type.element_type

    @property
    def padded_shape(self) -> Shape:
        return tuple(self.padded.get_values()) if self.padded is not None else self.shape

    def _unfit_for_panels(self) -> str:
        width = self.element_type.size if isinstance(self.element_type, FixedBitwidthType) else 0
        return self.layout.data.unfit_for(self.space.data, self.shape, width, width * prod(self.padded_shape))

    def verify_(self) -> None:
        if self.padded is not None and (
            len(self.padded_shape) != len(self.shape)
            or any(p < s for p, s in zip(self.padded_shape, self.shape, strict=True))
        ):
            raise VerifyException(
                f"buffer @{self.sym_name.data}: expected a padded shape that holds {list(self.shape)}, "
                f"found {list(self.padded_shape)}"
            )
        if self.shards is not None and len(self.shards) != len(self.sources or ()):
            raise VerifyException(
                f"buffer @{self.sym_name.data}: expected a shard for each of {len(self.sources or ())} sources, "
                f"found {len(self.shards)}"
            )
        if unfit := self._unfit_for_panels():
            raise VerifyException(f"buffer @{self.sym_name.data}: {unfit}")
        if self.polled is not None and self.space.data is not Space.SCRATCH:
            raise VerifyException(f"buffer @{self.sym_name.data}: only scratch is polled, found {self.space.data}")
        if (self.space.data is Space.WEIGHT) != (self.sources is not None or self.constant is not None):
            raise VerifyException(
                f"buffer @{self.sym_name.data}: a weight, and no other, needs sources or a constant; "
                f"found space {self.space.data}"
            )


@irdl_op_definition
class EventOp(IRDLOperation):
    """An event tensor. `counts` says how many arrivals each element receives in a step.

    `polled`: the event stands for what readers of polled buffers see in the data; it orders those reads after their
    writes and nothing else, and costs the kernel nothing. `after_reads`: who waits for the event writes what others
    read before, and reads nothing of theirs: where polled data tells that they are done, it is not needed.

    `shared`: a task signals it on every rank to which it writes, the step event on all; `counts` are the arrivals as if
    all ranks were one.
    """

    name = "sm.event"
    sym_name = prop_def(SymbolNameConstraint())
    counts = prop_def(DenseIntOrFPElementsAttr)
    step = opt_prop_def(UnitAttr)
    polled = opt_prop_def(UnitAttr)
    after_reads = opt_prop_def(UnitAttr)
    shared = opt_prop_def(UnitAttr)
    event = result_def(EventType)
    traits = traits_def(HasParent(GraphOp), MemoryAllocEffect())
    assembly_format = (
        "$sym_name (`step` $step^)? (`polled` $polled^)? (`after_reads` $after_reads^)? (`shared` $shared^)? $counts "
        "attr-dict `:` type($event)"
    )

    def __init__(
        self,
        name: str,
        counts: Sequence[int],
        *,
        step: bool = False,
        polled: bool = False,
        after_reads: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "counts": dense_i32(counts, (len(counts),)),
                "step": UnitAttr() if step else None,
                "polled": UnitAttr() if polled else None,
                "after_reads": UnitAttr() if after_reads else None,
                "shared": UnitAttr() if shared else None,
            },
            result_types=[EventType(IntAttr(len(counts)))],
        )

    @property
    def marks(self) -> tuple[bool, bool, bool]:
        """Whether it has `step`, `polled`, `after_reads`: only events that agree in these can be one."""
        return self.step is not None, self.polled is not None, self.after_reads is not None

    @property
    def size(self) -> int:
        assert isinstance(self.event.type, EventType)
        return self.event.type.size.data

    @property
    def arrivals(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[size]: ``counts`` as an array."""
        values: list[int] = [int(value) for value in self.counts.iter_values()]  # pyright: ignore[reportArgumentType]
        return np.array(values, dtype=np.int64)

    def verify_(self) -> None:
        found = self.counts.get_shape()
        if found != (self.size,):
            raise VerifyException(f"event @{self.sym_name.data}: expected {self.size} counts, found shape {found}")
        if (self.arrivals < 1).any():
            raise VerifyException(f"event @{self.sym_name.data}: expected counts of at least 1")
        if sum(self.marks) > 1:
            raise VerifyException(
                f"event @{self.sym_name.data}: expected one of step, polled and after_reads at most, found {self.marks}"
            )


@dataclass(frozen=True)
class EventUse:
    """A grid waits on or signals ``event``: ``elements`` maps a task's index to an element (affine), or lists the
    elements of every task, [tasks, k] padded with -1."""

    event: SSAValue
    elements: AffineMapAttr | DenseIntOrFPElementsAttr


@irdl_op_definition
class GridOp(IRDLOperation):
    """All tasks of one operation: kind, parameters, index space, and the box of each buffer that a task touches.

    `reason` says why the planner chose these tiles, `because` why this placement; `stream`, how its tasks use the ring
    of shared memory, is set by `sm-pipeline`. What a task does is fixed, unless its kind deals the work among the
    grid's tasks at run time: `dynamic` says why, set by the pass that places them.
    """

    name = "sm.grid"
    sym_name = prop_def(SymbolNameConstraint())
    kind = prop_def(StringAttr)
    params = prop_def(DictionaryAttr)
    extent = prop_def(DenseArrayBase.constr(i64))
    operand_names = prop_def(ArrayAttr[StringAttr])
    boxes = prop_def(ArrayAttr[BoxAttr])
    wait_elements = prop_def(ArrayAttr[AffineMapAttr | DenseIntOrFPElementsAttr], default_value=ArrayAttr(()))
    signal_elements = prop_def(ArrayAttr[AffineMapAttr | DenseIntOrFPElementsAttr], default_value=ArrayAttr(()))
    placement = opt_prop_def(CyclicAttr | DenseIntOrFPElementsAttr)
    placement_reason = opt_prop_def(StringAttr)
    reason = opt_prop_def(StringAttr)
    stream = opt_prop_def(StreamAttr)
    dynamic = opt_prop_def(StringAttr)
    data = var_operand_def(BufferType)
    waits = var_operand_def(EventType)
    signals = var_operand_def(EventType)
    traits = traits_def(HasParent(GraphOp), MemoryWriteEffect())
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format = (
        "$sym_name $kind $params `over` $extent `operands` $operand_names `(` $data `:` type($data) `)` "
        "`boxes` $boxes (`waits` `(` $waits^ `:` type($waits) `)` $wait_elements)? "
        "(`signals` `(` $signals^ `:` type($signals) `)` $signal_elements)? "
        "(`placement` $placement^)? (`dynamic` $dynamic^)? (`because` $placement_reason^)? (`reason` $reason^)? "
        "(`stream` $stream^)? attr-dict"
    )

    def __init__(
        self, name: str, kind: TaskKind[Any], params: Params, extent: Sequence[int], operands: Sequence[GridOperand]
    ) -> None:
        super().__init__(
            operands=[[operand.buffer for operand in operands], [], []],
            properties={
                "sym_name": StringAttr(name),
                "kind": StringAttr(kind.name),
                "params": params_to_attr(params),
                "extent": DenseArrayBase.from_list(i64, extent),
                "operand_names": ArrayAttr([StringAttr(operand.name) for operand in operands]),
                "boxes": ArrayAttr([operand.box for operand in operands]),
            },
        )

    @property
    def task_kind(self) -> TaskKind[Any]:
        return task_kind(self.kind.data)

    @property
    def task_params(self) -> Params:
        return self.task_kind.params_from(params_from_attr(self.params))

    @property
    def shape(self) -> Shape:
        return tuple(self.extent.get_values())

    @property
    def num_tasks(self) -> int:
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def wait_uses(self) -> list[EventUse]:
        return [EventUse(*pair) for pair in zip(self.waits, self.wait_elements.data, strict=True)]

    @property
    def signal_uses(self) -> list[EventUse]:
        return [EventUse(*pair) for pair in zip(self.signals, self.signal_elements.data, strict=True)]

    def mark_dynamic(self) -> bool:
        """Set `dynamic` to the reason of the kind, if its tasks deal their work at run time; whether they do."""
        if self.task_kind.dealt_because:
            self.dynamic = StringAttr(self.task_kind.dealt_because)
        return bool(self.task_kind.dealt_because)

    def set_events(self, waits: Sequence[EventUse], signals: Sequence[EventUse]) -> None:
        """Replace all waits and signals."""
        data = list(self.data)
        self.operands = [*data, *(use.event for use in waits), *(use.event for use in signals)]
        segments = (len(data), len(waits), len(signals))
        self.properties["operandSegmentSizes"] = DenseArrayBase.from_list(i32, segments)
        self.properties["wait_elements"] = ArrayAttr([use.elements for use in waits])
        self.properties["signal_elements"] = ArrayAttr([use.elements for use in signals])

    def verify_(self) -> None:
        where = f"grid @{self.sym_name.data}"
        if not self.shape or any(size < 1 for size in self.shape):
            raise VerifyException(f"{where}: expected a positive extent, found {list(self.shape)}")
        try:
            kind = self.task_kind
            kind.checked_params(params_from_attr(self.params))
        except MpkError as error:
            raise VerifyException(f"{where}: {error}") from error
        self._verify_operands(where, kind)
        if self.dynamic is not None and not kind.dealt_because:
            raise VerifyException(f"{where}: kind '{kind.name}' deals nothing at run time, found {self.dynamic}")
        if self.stream is not None and not kind.streams:
            raise VerifyException(f"{where}: kind '{kind.name}' streams nothing, found {self.stream}")
        for role, events, elements in (
            ("waits", self.waits, self.wait_elements),
            ("signals", self.signals, self.signal_elements),
        ):
            if len(events) != len(elements):
                raise VerifyException(
                    f"{where} {role}: expected elements for each of {len(events)} events, found {len(elements)}"
                )
        for role, uses in (("waits", self.wait_uses), ("signals", self.signal_uses)):
            for use in uses:
                self._verify_elements(f"{where} {role}", use)

    def _verify_operands(self, where: str, kind: TaskKind[Any]) -> None:
        names = [name.data for name in self.operand_names]
        declared = [operand.name for operand in kind.operands]
        required = {operand.name for operand in kind.operands if not operand.optional}
        if len(names) != len(self.data) or len(names) != len(self.boxes):
            raise VerifyException(
                f"{where}: expected one name and one box per buffer, found {len(names)} names, "
                f"{len(self.boxes)} boxes, {len(self.data)} buffers"
            )
        if not required <= set(names) <= set(declared) or len(set(names)) != len(names):
            raise VerifyException(f"{where}: kind '{kind.name}' takes operands {declared}, found {names}")
        for name, box, value in zip(names, self.boxes, self.data, strict=True):
            assert isinstance(value.type, BufferType)
            rank = len(value.type.shape.data)
            if len(box.sizes.data) != rank or box.offset.data.num_dims != len(self.shape):
                raise VerifyException(
                    f"{where}, operand {name}: expected a box of rank {rank} over {len(self.shape)} indices, "
                    f"found rank {len(box.sizes.data)} over {box.offset.data.num_dims}"
                )
            if box.pushes and box.multicasts != any(other.multicasts for other in self.boxes):
                raise VerifyException(f"{where}, operand {name}: pushes beside it are multicast, this one is not")
            if box.pushes and not kind.operand(name).polled:
                raise VerifyException(f"{where}, operand {name}: kind '{kind.name}' cannot write it to other ranks")
            if box.mode is not kind.operand(name).access:
                raise VerifyException(
                    f"{where}, operand {name}: expected access {kind.operand(name).access}, found {box.mode}"
                )
            if kind.operand(name).streamed and isinstance(value.owner, BufferOp):
                space = value.owner.space.data
                if space not in (Space.WEIGHT, Space.STATE):  # the loader warp copies it ahead of every wait
                    raise VerifyException(
                        f"{where}, operand {name}: expected a weight or a state to stream, found space {space}"
                    )

    def _verify_elements(self, where: str, use: EventUse) -> None:
        if isinstance(use.elements, AffineMapAttr):
            found = (use.elements.data.num_dims, len(use.elements.data.results))
            if found != (len(self.shape), 1):
                raise VerifyException(f"{where}: expected a map from {len(self.shape)} indices to one, found {found}")
        elif len(use.elements.get_shape()) != 2 or use.elements.get_shape()[0] != self.num_tasks:
            raise VerifyException(
                f"{where}: expected a table of {self.num_tasks} rows, found shape {use.elements.get_shape()}"
            )


@dataclass(frozen=True)
class GridOperand:
    """One operand of a grid under construction."""

    name: str
    buffer: SSAValue
    box: BoxAttr


def dense_i32(values: Any, shape: Sequence[int]) -> DenseIntOrFPElementsAttr:
    """``values`` (numpy array or sequence) as a dense i32 tensor attribute."""
    array = np.ascontiguousarray(values, dtype="<i4").reshape(tuple(shape))
    return DenseIntOrFPElementsAttr(TensorType(i32, shape), BytesAttr(array.tobytes()))
