"""`cuda`, what varies per program: includes, constants, the distinct task bodies, the kernel and its launch.

Everything with an inner loop is hand-written in `codegen/cuda/mpk/`; everything that varies per task is a table.
"""

from xdsl.ir import Dialect

from .ops import BodyOp, ConstantOp, IncludeOp, KernelOp, SourceOp

Cuda = Dialect("cuda", [SourceOp, IncludeOp, ConstantOp, BodyOp, KernelOp], [])

__all__ = ["BodyOp", "ConstantOp", "Cuda", "IncludeOp", "KernelOp", "SourceOp"]
