"""Text in either syntax holds everything: what is parsed back equals what was printed, result types included."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given, settings
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer

from mpk_ir.dialects.tg import Tg
from mpk_ir.passes.tg.fuse import TgFuse
from mpk_ir.passes.tg.merge_linears import TgMergeLinears
from tests.tg.graphs import Plan, plans, transformed


def printed(module: ModuleOp, generic: bool) -> str:
    text = StringIO()
    Printer(text, print_generic_format=generic).print_op(module)
    return text.getvalue()


def parsed(text: str) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, Tg):
        context.load_dialect(dialect)
    return Parser(context, text).parse_module()


@pytest.mark.parametrize("generic", [False, True])
@settings(max_examples=6)
@given(plan=plans)
def test_steps_before_and_after_fusion_survive(generic: bool, plan: Plan) -> None:
    before = plan.build()
    for module in (before, transformed(before, TgMergeLinears(), TgFuse())):
        text = printed(module, generic)
        back = parsed(text)
        back.verify()
        # Structural equivalence does not see result types; two walks and a second print do.
        assert back.is_structurally_equivalent(module)
        assert [op.result_types for op in back.walk()] == [op.result_types for op in module.walk()]
        assert printed(back, generic) == text
