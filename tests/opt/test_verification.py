"""Dominance, symbols and structural equality, which xDSL does not check."""

from __future__ import annotations

from time import process_time

import pytest
from xdsl.dialects import test
from xdsl.dialects.builtin import ModuleOp, i32, i64
from xdsl.ir import Block, Region

from mpk_ir.api import parse
from mpk_ir.opt.source import Source
from mpk_ir.universe import new_context
from mpk_ir.verification import IRError, structurally_equal, verify, verify_dominance


def unverified(text: str) -> ModuleOp:
    return Source("f.mlir", text).parse(new_context(allow_unregistered=True))


IN_ORDER = """
%0 = "test.op"() : () -> i32
"test.op"(%0) ({
  "test.op"(%0) : (i32) -> ()
}) : (i32) -> ()
"""
LATE = """
"test.op"(%0) : (i32) -> ()
%0 = "test.op"() : () -> i32
"""
ITSELF = """
%0 = "test.op"(%0) : (i32) -> i32
"""
IN_ITS_OWN_REGION = """
%0 = "test.op"() ({
  "test.op"(%0) : (i32) -> ()
}) : () -> i32
"""
LATE_IN_A_REGION = """
"test.op"() ({
  "test.op"(%0) : (i32) -> ()
}) : () -> ()
%0 = "test.op"() : () -> i32
"""


def flow(use_in: str) -> str:
    """A diamond: ^a branches to ^b and ^c, which meet in ^d; a value of ^b is used in one block."""
    uses = {name: '"test.op"(%b) : (i32) -> ()' if name == use_in else "" for name in "abcd"}
    return f"""
func.func @f(%p: i1) {{
  {uses["a"]}
  cf.cond_br %p, ^b, ^c
^b:
  %b = "test.op"() : () -> i32
  {uses["b"]}
  cf.br ^d
^c:
  {uses["c"]}
  cf.br ^d
^d:
  {uses["d"]}
  func.return
}}
"""


UNREACHABLE = """
func.func @f() {
  func.return
^dead:
  "test.op"(%0) : (i32) -> ()
  %0 = "test.op"() : () -> i32
  cf.br ^dead2
^dead2:
  "test.op"(%0) : (i32) -> ()
  func.return
}
"""


@pytest.mark.parametrize("text", [IN_ORDER, flow("b")])
def test_definitions_that_dominate_are_accepted(text: str):
    verify_dominance(unverified(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LATE, "used before it is defined"),
        (ITSELF, "used before it is defined"),
        (IN_ITS_OWN_REGION, "used before it is defined"),
        (LATE_IN_A_REGION, "used before it is defined"),
        (flow("a"), "used before it is defined"),
        (flow("c"), "used before it is defined"),
        (flow("d"), "used before it is defined"),
    ],
)
def test_definitions_that_do_not_dominate_are_rejected(text: str, message: str):
    with pytest.raises(IRError, match=message) as raised:
        verify_dominance(unverified(text))
    assert raised.value.where is not None
    assert raised.value.where.startswith("f.mlir:")


def test_a_value_is_not_visible_outside_the_region_that_defines_it():
    inner = test.TestOp(result_types=[i32])
    module = ModuleOp([test.TestOp(regions=[Region(Block([inner]))]), test.TestOp([inner.results[0]])])
    with pytest.raises(IRError, match="not visible here"):
        verify_dominance(module)


def test_order_between_unreachable_blocks_does_not_matter_but_inside_one_it_does():
    with pytest.raises(IRError, match="before it is defined"):
        verify_dominance(unverified(UNREACHABLE))
    lines = UNREACHABLE.splitlines(keepends=True)
    lines[4], lines[5] = lines[5], lines[4]
    verify_dominance(unverified("".join(lines)))


def test_the_error_names_the_op_that_fails():
    with pytest.raises(IRError) as raised:
        verify(unverified("func.func @f(%a: i32) -> i64 {\n  func.return %a : i32\n}\n"))
    assert raised.value.op.name == "func.return"
    assert str(raised.value).startswith("f.mlir:2:3: 'func.return': ")


def test_an_empty_block_that_needs_a_terminator_is_rejected():
    module = unverified("func.func @f() {\n  func.return\n}\n")
    function = module.body.block.first_op
    assert function is not None
    last = function.regions[0].block.last_op
    assert last is not None
    last.detach()
    with pytest.raises(IRError, match="empty block"):
        verify(module)


REFERENCE = """
func.func private @g()
"test.op"() <{{prop1 = [@{name}]}}> {{discardable = @nowhere}} : () -> ()
"""


def test_a_reference_to_a_symbol_that_exists_is_accepted():
    verify(unverified(REFERENCE.format(name="g")))


def test_a_reference_to_no_symbol_is_rejected():
    with pytest.raises(IRError, match="no symbol is called @h"):
        verify(unverified(REFERENCE.format(name="h")))


def test_nested_references_are_followed():
    text = """
builtin.module @inner {{
  func.func private @g()
}}
"test.op"() <{{prop1 = @inner::@{name}}}> : () -> ()
"""
    verify(unverified(text.format(name="g")))
    with pytest.raises(IRError, match="@inner::@h"):
        verify(unverified(text.format(name="h")))


def test_equal_modules_are_equal_whatever_names_and_places():
    assert structurally_equal(unverified(IN_ORDER), unverified("\n" + IN_ORDER.replace("%0", "%other")))


@pytest.mark.parametrize(
    "other",
    [
        IN_ORDER.replace("i32", "i64"),
        IN_ORDER.replace('"test.op"() :', '"test.op"() {a} :'),
        IN_ORDER.replace('"test.op"() :', '"test.op"() <{prop1 = 1 : i32}> :'),
        IN_ORDER + '"test.op"() : () -> ()\n',
        LATE_IN_A_REGION,
    ],
)
def test_modules_that_differ_are_different(other: str):
    assert not structurally_equal(unverified(IN_ORDER), unverified(other))


def test_result_types_count_where_xdsl_overlooks_them():
    one, other = ModuleOp([test.TestOp(result_types=[i32])]), ModuleOp([test.TestOp(result_types=[i64])])
    assert one.is_structurally_equivalent(other)
    assert not structurally_equal(one, other)


def test_block_argument_types_count():
    text = '"test.op"() ({{\n^b(%a: {}):\n  "test.termop"() : () -> ()\n}}) : () -> ()\n'
    assert structurally_equal(unverified(text.format("i32")), unverified(text.format("i32")))
    assert not structurally_equal(unverified(text.format("i32")), unverified(text.format("i64")))


def test_verification_is_linear_in_captured_values():
    inner = '  "test.op"(%0) : (i32) -> ()\n' * 2000
    module = parse(
        f'%0 = "test.op"() : () -> i32\n"test.op"() ({{\n{inner}  "test.termop"() : () -> ()\n}}) : () -> ()\n'
    )
    begin = process_time()
    verify(module)
    assert process_time() - begin < 2
