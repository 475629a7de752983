"""`tg-fuse`: one op per matrix product and one per attention, with the cheap ops around them inside.

    %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<8x256xbf16>, tensor<256xbf16>) -> tensor<8x256xbf16>
    %y = tg.linear %n, %w : (tensor<8x256xbf16>, tensor<256x256xbf16>) -> tensor<8x256xbf16>
    %h = tg.add %r, %y : (tensor<8x256xbf16>, tensor<8x256xbf16>) -> tensor<8x256xbf16>

becomes

    %h = tg.fused_linear %x, %w norm %g : tensor<256xbf16> residual %r : tensor<8x256xbf16> {eps = 1.0e-6 : f64} : ...
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.pattern_rewriter import RewritePattern

from ..base import MpkPass
from ..rewriting import rewrite
from .fuse_attention import FuseAttention
from .fuse_linear import FuseActivation, FuseNorm, FuseNormResidual, FuseResidual


@dataclass(frozen=True)
class TgFuse(MpkPass):
    """Make `tg.fused_linear`, `tg.fused_norm` and `tg.fused_attention`.

    ``norm``: an RMS norm whose users are all linears goes into each of them: recomputing it there costs less than
    another hand-off. ``residual``: an addition goes into the linear, or the norm, that only it uses. ``activation``:
    silu_mul or gelu_mul of the two halves of a merged linear goes into it; its weight is interleaved. ``attention``:
    split, head norms, rope, append and attention over a merged qkv become one op. Statistics: how often each applied.

    Before: `tg.add %r, (tg.linear (tg.rms_norm %x, %g), %w)`.
    After: `tg.fused_linear %x, %w norm %g residual %r` (see the module).
    """

    name = "tg-fuse"
    norm: bool = True
    residual: bool = True
    activation: bool = True
    attention: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        choices: tuple[tuple[bool, type[RewritePattern]], ...] = (
            (self.norm, FuseNorm),
            (self.residual, FuseResidual),
            (self.residual, FuseNormResidual),
            (self.activation, FuseActivation),
            (self.attention, FuseAttention),
        )
        patterns = [pattern() for chosen, pattern in choices if chosen]
        for pattern, times in rewrite(op, patterns, erase_dead=True).items():
            self.count(pattern, times)
