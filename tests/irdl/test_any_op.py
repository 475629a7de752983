"""What holds of any op that its definition allows, be it sensible or not."""

from __future__ import annotations

from contextlib import suppress
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, FunctionType, ModuleOp
from xdsl.dialects.func import Func
from xdsl.dialects.test import Test
from xdsl.irdl import IRDLOperation, OptPropertyDef
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from mpk_ir.dialects.cuda import Cuda
from mpk_ir.dialects.sm import Sm
from mpk_ir.dialects.tg import Tg
from mpk_ir.verification import structurally_equal

from .strategies import OPS, SEGMENTS, innermost, operations

FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
ops = pytest.mark.parametrize("kind", OPS, ids=lambda kind: kind.name)


def printed(module: ModuleOp, *, generic: bool) -> str:
    text = StringIO()
    Printer(text, print_generic_format=generic).print_op(module)
    return text.getvalue()


def parsed(text: str) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, Test, Tg, Sm, Cuda):
        context.load_dialect(dialect)
    return Parser(context, text).parse_module()


@ops
@pytest.mark.parametrize("generic", [False, True])
@FEW
@given(data=st.data())
def test_it_survives_as_text(kind: type[IRDLOperation], generic: bool, data: st.DataObject) -> None:
    module = data.draw(operations(kind))
    text = printed(module, generic=generic)
    back = parsed(text)
    assert structurally_equal(back, module)
    assert printed(back, generic=generic) == text


@ops
@FEW
@given(data=st.data())
def test_it_fits_its_definition_and_a_clone_is_equal(kind: type[IRDLOperation], data: st.DataObject) -> None:
    module = data.draw(operations(kind))
    kind.get_irdl_definition().verify(innermost(module))
    assert structurally_equal(module.clone(), module)


@ops
@FEW
@given(data=st.data())
def test_its_verifier_accepts_or_refuses_but_never_fails(kind: type[IRDLOperation], data: st.DataObject) -> None:
    op = innermost(data.draw(operations(kind)))
    with suppress(VerifyException):
        op.verify_()


@ops
@FEW
@given(data=st.data())
def test_one_broken_property_is_refused(kind: type[IRDLOperation], data: st.DataObject) -> None:
    definition = kind.get_irdl_definition()
    names = [name for name in definition.properties if name != SEGMENTS]
    if not names:
        return
    op = innermost(data.draw(operations(kind)))
    name = data.draw(st.sampled_from(names))
    optional = isinstance(definition.properties[name], OptPropertyDef)
    if optional or data.draw(st.booleans()):
        op.properties[name] = FunctionType.from_lists([], [])  # of a kind that no property of ours has
    else:
        del op.properties[name]
    with pytest.raises(VerifyException):
        definition.verify(op)


@ops
@FEW
@given(data=st.data())
def test_a_property_it_does_not_have_is_refused(kind: type[IRDLOperation], data: st.DataObject) -> None:
    op = innermost(data.draw(operations(kind)))
    op.properties["not_mine"] = FunctionType.from_lists([], [])
    with pytest.raises(VerifyException):
        kind.get_irdl_definition().verify(op)
