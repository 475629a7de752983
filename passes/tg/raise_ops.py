"""`tg-raise`: norms and activations recovered from the elementwise ops that PyTorch decomposes them into.

    %s = tg.mul %x, %x
    %m = tg.reduce mean %s {axis = 1 : i64}
    %v = tg.add (tg.reshape %m), %eps
    %n = tg.mul %x, (tg.rsqrt %v)
    %y = tg.mul %w, %n

becomes `%y = tg.rms_norm %x, %w {eps = ...}`: whatever the order of operands, through casts and reshapes.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.pattern_rewriter import RewritePattern

from ..base import MpkPass
from ..rewriting import rewrite
from .raise_activations import RaiseGate, RaiseGeluTanh, RaiseSilu, SinkCasts
from .raise_norms import RaiseRmsNorm

PATTERNS: tuple[type[RewritePattern], ...] = (RaiseRmsNorm, RaiseSilu, RaiseGeluTanh, SinkCasts, RaiseGate)


@dataclass(frozen=True)
class TgRaise(MpkPass):
    """Recover `tg.rms_norm`, `tg.silu`, `tg.gelu`, `tg.silu_mul` and `tg.gelu_mul`.

    Before: `tg.mul %x, (tg.sigmoid %x)`. After: `tg.silu %x` (see the module). A cast to f32 and back around an
    activation goes: `tg` computes in f32 anyway. Statistics: how often each pattern applied.
    """

    name = "tg-raise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for pattern, times in rewrite(op, [pattern() for pattern in PATTERNS], erase_dead=True).items():
            self.count(pattern, times)
