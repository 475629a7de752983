"""`tg-raise`: norms and activations recovered from the elementwise ops that PyTorch decomposes them into.

    %s = tg.mul %x, %x
    %m = tg.reduce mean %s {axis = 1 : i64}
    %v = tg.add (tg.reshape %m), %eps
    %n = tg.mul %x, (tg.rsqrt %v)
    %y = tg.mul %w, %n

becomes `%y = tg.rms_norm %x, %w {eps = ...}`: whatever the order of operands, through casts and reshapes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.pattern_rewriter import RewritePattern

from ...dialects import tg
from ...dialects.locations import location_of
from ..base import MpkPass
from ..rewriting import rewrite
from .canonicalize import DropIdentity
from .raise_activations import RaiseGate, RaiseGeluTanh, RaiseSilu, SinkCasts
from .raise_norms import RaiseBias, RaiseLayerNorm, RaiseRmsNorm

PATTERNS: tuple[type[RewritePattern], ...] = (
    RaiseRmsNorm,
    RaiseLayerNorm,
    RaiseBias,
    RaiseSilu,
    RaiseGeluTanh,
    SinkCasts,
    DropIdentity,
    RaiseGate,
)


@dataclass(frozen=True)
class TgRaise(MpkPass):
    """Recover `tg.rms_norm`, `tg.layer_norm`, `tg.silu`, `tg.gelu`, `tg.silu_mul` and `tg.gelu_mul`.

    Before: `tg.mul %x, (tg.sigmoid %x)`. After: `tg.silu %x` (see the module). A cast to f32 and back around an
    activation goes: `tg` computes in f32 anyway. Statistics: how often each pattern applied; ``explain`` also writes to
    stderr which ops are left that usually belong to one of these, with their place.
    """

    name = "tg-raise"
    explain: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for pattern, times in rewrite(op, [pattern() for pattern in PATTERNS], erase_dead=True).items():
            self.count(pattern, times)
        for line in explanations(op) if self.explain else ():
            print(line, file=sys.stderr)


_SIGNS: dict[type[Operation], str] = {
    tg.RsqrtOp: "a norm: x * rsqrt(mean(x * x) + eps) * weight, x perhaps less its mean, over the last dimension",
    tg.SigmoidOp: "silu: x * sigmoid(x)",
    tg.ErfOp: "gelu",
    tg.TanhOp: "gelu by the tanh formula: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))",
    tg.CosOp: "a rotary embedding, which is recognized when a whole decoder is compiled",
    tg.SoftmaxOp: "attention over a cache, which is recognized when a whole decoder is compiled",
}
"""Ops that are left over where something did not raise, and of what they are usually part."""


def explanations(module: ModuleOp) -> list[str]:
    """A line for each op of ``module`` that usually belongs to something that raises, and did not."""
    left = [(op, _SIGNS[type(op)]) for op in module.walk() if type(op) in _SIGNS]
    return [f"{location_of(op) or 'unknown line'}: '{op.name}' did not raise; not part of {sign}" for op, sign in left]
