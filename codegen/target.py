"""The `cuda` output target of `mpk-opt` and `xdsl-opt`: the lowered module as CUDA C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.target import Target

from ..core.errors import PlanError
from ..dialects.cuda import SourceOp
from .cuda_printer import print_config, print_source


@dataclass(frozen=True)
class CudaTarget(Target):
    """Print each `cuda.source` of the module; with ``config`` also its constants, which are a header of their own."""

    name = "cuda"
    config: bool = True

    def emit(self, ctx: Context, module: ModuleOp, output: IO[str]) -> None:
        sources = [op for op in module.body.block.ops if isinstance(op, SourceOp)]
        if not sources:
            raise PlanError("target cuda: the module has no cuda.source", advice="run lower-to-cuda before")
        for source in sources:
            if self.config:
                output.write(print_config(source))
            output.write(print_source(source))
