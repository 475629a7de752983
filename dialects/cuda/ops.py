"""Operations of `cuda`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    FlatSymbolRefAttrConstr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    f64,
    i1,
    i64,
)
from xdsl.ir import Block, Operation, Region
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, region_def, traits_def
from xdsl.traits import HasParent, IsolatedFromAbove, MemoryWriteEffect, NoTerminator
from xdsl.utils.exceptions import VerifyException

from ...core.errors import UsageError
from ...core.target import target_of

Op = TypeVar("Op", bound=Operation)

WARP_THREADS = 32
MAX_THREADS = 1024


@irdl_op_definition
class SourceOp(IRDLOperation):
    """One CUDA translation unit, made from the `sm.graph` called `graph` for `target`."""

    name = "cuda.source"
    sym_name = prop_def(SymbolNameConstraint())
    graph = prop_def(FlatSymbolRefAttrConstr)
    target = prop_def(StringAttr)
    body = region_def("single_block")
    traits = traits_def(IsolatedFromAbove(), NoTerminator())
    assembly_format = "$sym_name `from` $graph `target` $target $body attr-dict"

    def __init__(self, name: str, graph: str, target: str, ops: Sequence[Operation]) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "graph": SymbolRefAttr(graph),
                "target": StringAttr(target),
            },
            regions=[Region(Block(ops))],
        )

    def ops_of(self, kind: type[Op]) -> list[Op]:
        """The ops of one kind, in order."""
        return [op for op in self.body.block.ops if isinstance(op, kind)]

    @property
    def kernel(self) -> KernelOp:
        return self.ops_of(KernelOp)[0]

    @property
    def constants(self) -> dict[str, int]:
        return {op.sym_name.data: op.value.value.data for op in self.ops_of(ConstantOp)}

    def verify_(self) -> None:
        kernels, bodies = self.ops_of(KernelOp), self.ops_of(BodyOp)
        if len(kernels) != 1:
            raise VerifyException(f"cuda.source @{self.sym_name.data}: expected one kernel, found {len(kernels)}")
        numbers = [body.number.value.data for body in bodies]
        if numbers != list(range(len(bodies))):
            raise VerifyException(f"cuda.source: expected bodies numbered 0 to {len(bodies) - 1}, found {numbers}")
        included = {include.header.data for include in self.ops_of(IncludeOp)}
        for body in bodies:
            if body.header.data not in included:
                raise VerifyException(f"cuda.body {body.type_name.data}: header '{body.header.data}' is not included")
        try:
            limit = target_of(self.target.data).shared_memory_bytes
        except UsageError as error:
            raise VerifyException(f"cuda.source: {error}") from error
        found = kernels[0].shared_bytes.value.data
        if found > limit:
            raise VerifyException(
                f"cuda.kernel @{kernels[0].sym_name.data}: expected at most {limit} bytes of shared memory "
                f"on {self.target.data}, found {found}"
            )


@irdl_op_definition
class IncludeOp(IRDLOperation):
    """`#include` of a header of the device library or of an extension."""

    name = "cuda.include"
    header = prop_def(StringAttr)
    traits = traits_def(HasParent(SourceOp), MemoryWriteEffect())
    assembly_format = "$header attr-dict"

    def __init__(self, header: str) -> None:
        super().__init__(properties={"header": StringAttr(header)})


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A number the device library needs at compile time: `cuda.constant @kRingStages 8 : i64`."""

    name = "cuda.constant"
    sym_name = prop_def(SymbolNameConstraint())
    value = prop_def(IntegerAttr.constr(i64))
    traits = traits_def(HasParent(SourceOp), MemoryWriteEffect())
    assembly_format = "$sym_name $value attr-dict"

    def __init__(self, name: str, value: int) -> None:
        super().__init__(properties={"sym_name": StringAttr(name), "value": IntegerAttr(value, i64)})


@irdl_op_definition
class BodyOp(IRDLOperation):
    """One case of the dispatch: tasks whose `body` is `number` run `type_name::run` with `arguments`."""

    name = "cuda.body"
    number = prop_def(IntegerAttr.constr(i64))
    type_name = prop_def(StringAttr)
    header = prop_def(StringAttr)
    arguments = prop_def(ArrayAttr[FloatAttr])
    streams = prop_def(IntegerAttr.constr(i1))
    traits = traits_def(HasParent(SourceOp), MemoryWriteEffect())
    assembly_format = "$number $type_name `in` $header `arguments` $arguments `streams` $streams attr-dict"

    def __init__(self, number: int, type_name: str, header: str, arguments: Sequence[float], *, streams: bool) -> None:
        super().__init__(
            properties={
                "number": IntegerAttr(number, i64),
                "type_name": StringAttr(type_name),
                "header": StringAttr(header),
                "arguments": ArrayAttr([FloatAttr(value, f64) for value in arguments]),
                "streams": BoolAttr.from_bool(streams),
            }
        )


@irdl_op_definition
class KernelOp(IRDLOperation):
    """The persistent kernel and its launch: one block an SM."""

    name = "cuda.kernel"
    sym_name = prop_def(SymbolNameConstraint())
    blocks = prop_def(IntegerAttr.constr(i64))
    threads = prop_def(IntegerAttr.constr(i64))
    shared_bytes = prop_def(IntegerAttr.constr(i64))
    traits = traits_def(HasParent(SourceOp), MemoryWriteEffect())
    assembly_format = "$sym_name `blocks` $blocks `threads` $threads `shared_bytes` $shared_bytes attr-dict"

    def __init__(self, name: str, blocks: int, threads: int, shared_bytes: int) -> None:
        counts = {"blocks": blocks, "threads": threads, "shared_bytes": shared_bytes}
        properties = {key: IntegerAttr(value, i64) for key, value in counts.items()}
        super().__init__(properties={"sym_name": StringAttr(name), **properties})

    def verify_(self) -> None:
        threads = self.threads.value.data
        if threads % WARP_THREADS or not 0 < threads <= MAX_THREADS:
            raise VerifyException(
                f"cuda.kernel @{self.sym_name.data}: expected whole warps of {WARP_THREADS}, at most {MAX_THREADS} "
                f"threads, found {threads}"
            )
        if self.blocks.value.data < 1:
            raise VerifyException(f"cuda.kernel @{self.sym_name.data}: expected at least one block")
