"""`tg`, the tensor graph: a step of a model as values, one op per operation, in the field's names.

Operands are ranked static tensors of bf16, f16, f32 or i32. Ops are pure except `tg.update`, which stores state at the
end of the step; sums, norms and attention compute in f32 whatever their element type. Values in rows at or after
`row_count` are unspecified.
"""

from xdsl.ir import Dialect

from .attention import ATTENTION_OPS, AdvanceOp, AttentionOp, KvAppendOp, RopeOp
from .base import TgOp
from .elementwise import (
    ELEMENTWISE_OPS,
    AddOp,
    BinaryOp,
    DivOp,
    ExpOp,
    GatedOp,
    GeluMulOp,
    GeluOp,
    MulOp,
    NegOp,
    RsqrtOp,
    SigmoidOp,
    SiluMulOp,
    SiluOp,
    SubOp,
    TanhOp,
    UnaryOp,
)
from .fused import (
    FUSED_OPS,
    GATE_UP_BLOCK,
    AttentionFactors,
    AttentionParts,
    Epilogue,
    EpilogueAttr,
    FusedAttentionOp,
    FusedLinearOp,
    Heads,
    LinearParts,
)
from .linear import LINEAR_OPS, EmbeddingOp, LayerNormOp, LinearOp, MatmulOp, RmsNormOp
from .reductions import REDUCTION_OPS, ArgmaxOp, ReduceOp, Reduction, ReductionAttr, SoftmaxOp
from .shaping import SHAPING_OPS, CastOp, ConcatOp, ReshapeOp, SliceOp, TransposeOp
from .tensors import dtype_of_type, element_of, element_type, int_list, shape_of, tensor, type_of
from .values import VALUE_OPS, ConstantOp, ParamOp, StateOp, UpdateOp

Tg = Dialect(
    "tg",
    [
        *VALUE_OPS,
        *LINEAR_OPS,
        *ATTENTION_OPS,
        *ELEMENTWISE_OPS,
        *REDUCTION_OPS,
        *SHAPING_OPS,
        *FUSED_OPS,
    ],
    [ReductionAttr, EpilogueAttr],
)

__all__ = [
    "GATE_UP_BLOCK",
    "AddOp",
    "AdvanceOp",
    "ArgmaxOp",
    "AttentionFactors",
    "AttentionOp",
    "AttentionParts",
    "BinaryOp",
    "CastOp",
    "ConcatOp",
    "ConstantOp",
    "DivOp",
    "EmbeddingOp",
    "Epilogue",
    "EpilogueAttr",
    "ExpOp",
    "FusedAttentionOp",
    "FusedLinearOp",
    "GatedOp",
    "GeluMulOp",
    "GeluOp",
    "Heads",
    "KvAppendOp",
    "LayerNormOp",
    "LinearOp",
    "LinearParts",
    "MatmulOp",
    "MulOp",
    "NegOp",
    "ParamOp",
    "ReduceOp",
    "Reduction",
    "ReductionAttr",
    "ReshapeOp",
    "RmsNormOp",
    "RopeOp",
    "RsqrtOp",
    "SigmoidOp",
    "SiluMulOp",
    "SiluOp",
    "SliceOp",
    "SoftmaxOp",
    "StateOp",
    "SubOp",
    "TanhOp",
    "Tg",
    "TgOp",
    "TransposeOp",
    "UnaryOp",
    "UpdateOp",
    "dtype_of_type",
    "element_of",
    "element_type",
    "int_list",
    "shape_of",
    "tensor",
    "type_of",
]
