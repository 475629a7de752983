"""Where values come from and where they stay: parameters, constants, and state kept between steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    TensorType,
    f32,
    i32,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    ParamAttrConstraint,
    ParsePropInAttrDict,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from .sharding import ShardAttr
from .tensors import ANY_TENSOR, Tensor, int64, shape_of


@irdl_op_definition
class ParamOp(IRDLOperation):
    """A weight, constant over all steps: `tg.param @lm_head.weight : tensor<256x64xbf16>`.

    ``sources`` name the checkpoint tensors it is made of, concatenated along dimension 0; by default the one that has
    the op's own name. With ``interleave`` = k > 0 there are two sources of equal shape, and the result takes k rows of
    the first, k of the second, k of the first, and so on. With ``shards``, one for each source, a rank reads only its
    piece of a source (`ShardAttr`), and what is joined are the pieces.
    """

    name = "tg.param"
    symbol = prop_def(SymbolNameConstraint())
    sources = opt_prop_def(ArrayAttr[StringAttr])
    interleave = prop_def(IntegerAttr.constr(i64), default_value=int64(0))
    shards = opt_prop_def(ArrayAttr[ShardAttr])
    result = result_def(ANY_TENSOR)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$symbol attr-dict `:` type($result)"

    def __init__(self, name: str, type: Tensor, sources: Sequence[str] = (), interleave: int = 0) -> None:
        listed = ArrayAttr([StringAttr(source) for source in sources]) if sources else None
        properties = {"symbol": StringAttr(name), "sources": listed, "interleave": int64(interleave)}
        super().__init__(result_types=[type], properties=properties)

    @property
    def source_names(self) -> tuple[str, ...]:
        if self.sources is None:
            return (self.symbol.data,)
        return tuple(source.data for source in self.sources)

    @property
    def source_shards(self) -> tuple[ShardAttr, ...]:
        """What a rank reads of each source; all of it is the one part of one."""
        if self.shards is None:
            return (ShardAttr.of(0, 1),) * len(self.source_names)
        return tuple(self.shards)

    def shard(self, shards: Sequence[ShardAttr]) -> None:
        """Set what a rank reads of each source; the result's type is to be that of a rank."""
        split = any(shard.parts.data > 1 for shard in shards)
        self.properties.pop("shards", None)
        if split:
            self.properties["shards"] = ArrayAttr(shards)

    def verify_(self) -> None:
        self._verify_shards()
        block = self.interleave.value.data
        if not self.source_names:
            raise VerifyException(f"tg.param @{self.symbol.data}: 'sources' is empty, expected at least one name")
        if block < 0:
            raise VerifyException(f"tg.param @{self.symbol.data}: 'interleave' is {block}, expected 0 or more")
        if block == 0:
            return
        if len(self.source_names) != 2:
            raise VerifyException(
                f"tg.param @{self.symbol.data}: 'interleave' with {len(self.source_names)} sources, expected two"
            )
        if not shape_of(self.result):
            raise VerifyException(f"tg.param @{self.symbol.data}: 'interleave' of a scalar, expected rows")
        if shape_of(self.result)[0] % (2 * block):
            raise VerifyException(
                f"tg.param @{self.symbol.data}: dimension 0 is {shape_of(self.result)[0]}, "
                f"expected a multiple of two blocks of {block} rows"
            )

    def _verify_shards(self) -> None:
        shards, rank = self.source_shards, len(shape_of(self.result))
        if len(shards) != len(self.source_names):
            raise VerifyException(
                f"tg.param @{self.symbol.data}: 'shards': found {len(shards)}, expected one for each of the "
                f"{len(self.source_names)} sources"
            )
        for shard in shards:
            if shard.parts.data > 1 and shard.dim.data >= rank:
                raise VerifyException(
                    f"tg.param @{self.symbol.data}: 'shards': found dim {shard.dim.data}, expected one of the {rank} "
                    "dimensions of the result"
                )


_OWN_TYPE = VarConstraint("T", ANY_TENSOR)


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A small constant held in the IR: `tg.constant dense<[1.0, 0.5]> : tensor<2xf32>`."""

    name = "tg.constant"
    value = prop_def(ParamAttrConstraint(DenseIntOrFPElementsAttr, (_OWN_TYPE, AnyAttr())))
    result = result_def(_OWN_TYPE)
    traits = traits_def(Pure())
    assembly_format = "attr-dict $value"

    def __init__(self, value: DenseIntOrFPElementsAttr) -> None:
        super().__init__(result_types=[value.type], properties={"value": value})

    @staticmethod
    def of(array: np.ndarray[Any, Any]) -> ConstantOp:
        """The constant ``array`` (float32 or int32)."""
        assert array.dtype in (np.int32, np.float32), f"no element type for {array.dtype}"
        element = i32 if array.dtype == np.int32 else f32
        data = BytesAttr(np.ascontiguousarray(array).tobytes())
        return ConstantOp(DenseIntOrFPElementsAttr(TensorType(element, array.shape), data))

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The elements; those of bf16 and f16 held as float32."""
        dtype = np.int32 if self.value.get_element_type() == i32 else np.float32
        return np.array(self.value.get_values(), dtype).reshape(self.value.get_shape())


@irdl_op_definition
class StateOp(IRDLOperation):
    """The value a named state has when the step starts: `tg.state @rows : tensor<8x4xi32>`.

    It does not depend on where in the step it stands, nor on any `tg.update`: hence it is pure. With ``shard`` the type
    is that of a rank's piece of the state.
    """

    name = "tg.state"
    symbol = prop_def(SymbolNameConstraint())
    shard = opt_prop_def(ShardAttr)
    result = result_def(ANY_TENSOR)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$symbol attr-dict `:` type($result)"

    def __init__(self, name: str, type: Tensor, shard: ShardAttr | None = None) -> None:
        super().__init__(result_types=[type], properties={"symbol": StringAttr(name), "shard": shard})


@irdl_op_definition
class UpdateOp(IRDLOperation):
    """Stores the value a named state has when the step ends: `tg.update @rows, %next : tensor<8x4xi32>`.

    A state has at most one update in a step; one without keeps its value. ``shard`` is as for `tg.state`.
    """

    name = "tg.update"
    symbol = prop_def(SymbolNameConstraint())
    shard = opt_prop_def(ShardAttr)
    value = operand_def(ANY_TENSOR)
    traits = traits_def(MemoryWriteEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$symbol `,` $value attr-dict `:` type($value)"

    def __init__(self, name: str, value: SSAValue, shard: ShardAttr | None = None) -> None:
        super().__init__(operands=[value], properties={"symbol": StringAttr(name), "shard": shard})

    def verify_(self) -> None:
        block = self.parent
        for op in block.ops if block else ():
            if isinstance(op, UpdateOp) and op is not self and op.symbol == self.symbol:
                raise VerifyException(f"tg.update @{self.symbol.data}: found a second update, expected one in a step")
            if isinstance(op, StateOp) and op.symbol == self.symbol and op.result.type != self.value.type:
                raise VerifyException(
                    f"tg.update @{self.symbol.data}: operand 'value': found {self.value.type}, "
                    f"expected the state's {op.result.type}"
                )
            if isinstance(op, StateOp) and op.symbol == self.symbol and op.shard != self.shard:
                raise VerifyException(
                    f"tg.update @{self.symbol.data}: 'shard': found {self.shard}, expected the state's {op.shard}"
                )


VALUE_OPS = [ParamOp, ConstantOp, StateOp, UpdateOp]
