"""The names this package adds. Every xdsl-opt imports this module, so it imports nothing else until asked."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe


def _dialect() -> Dialect:
    from .dialect import Softcap

    return Softcap


def _cap_logits() -> type[ModulePass]:
    from .cap_logits import CapLogits

    return CapLogits


SOFTCAP_UNIVERSE = Universe(all_dialects={"softcap": _dialect}, all_passes={"softcap-logits": _cap_logits})
