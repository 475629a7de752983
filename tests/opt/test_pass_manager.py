"""The researcher's interface: pipelines from text or objects, hooks, reports, errors that name the pass."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from xdsl.context import Context
from xdsl.dialects import test
from xdsl.dialects.builtin import ModuleOp, i32
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

from mpk_ir import Hooks, MpkError, PassInstrument, PassManager, new_context, parse
from mpk_ir.core.errors import PlanError, UsageError
from mpk_ir.passes.base import MpkPass
from mpk_ir.passes.rewriting import rewrite
from mpk_ir.pipeline_spec import parse_pipeline, pipeline_text
from mpk_ir.verification import IRError

TEXT = """
%0 = "test.pureop"() : () -> i32
%1 = "test.pureop"() : () -> i32
"test.op"(%0, %1) : (i32, i32) -> ()
"""


@dataclass(frozen=True)
class CountOps(MpkPass):
    """Counts ops."""

    name = "count-ops"
    weight: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.count("ops", self.weight * sum(1 for _ in op.walk()))


@dataclass(frozen=True)
class Break(MpkPass):
    """Leaves a use before its definition."""

    name = "break"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        first = op.body.block.first_op
        assert first is not None
        first.detach()
        op.body.block.add_op(first)


@dataclass(frozen=True)
class Fail(MpkPass):
    """Raises what it is told."""

    name = "fail"
    kind: str = "mpk"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        raise PlanError("no plan") if self.kind == "mpk" else ZeroDivisionError("by zero")


def test_passes_from_text_and_as_objects_do_the_same():
    from_text, from_objects = parse(TEXT), parse(TEXT)
    PassManager("cse").run(new_context(), from_text)
    PassManager([CommonSubexpressionElimination()]).run(new_context(), from_objects)
    assert str(from_text) == str(from_objects)
    assert str(from_text).count("test.pureop") == 1


def test_the_report_has_time_and_statistics_of_each_pass():
    report = PassManager([CountOps(), CommonSubexpressionElimination(), CountOps(weight=10)]).run(
        new_context(), parse(TEXT)
    )
    assert [one.spec for one in report.passes] == ["count-ops", "cse", "count-ops{weight=10}"]
    assert [dict(one.statistics) for one in report.passes] == [{"ops": 4}, {}, {"ops": 30}]
    assert report.statistics["count-ops"] == {"ops": 34}
    assert report.seconds == sum(one.seconds for one in report.passes) > 0
    assert report.verify_seconds > report.initial_verify_seconds > 0


def test_hooks_see_the_module_before_and_after_each_pass():
    seen: list[tuple[str, str, int]] = []
    manager = PassManager(
        "cse,dce",
        before=lambda pass_, module: seen.append(("before", pass_.name, str(module).count("pureop"))),
        after=lambda pass_, module: seen.append(("after", pass_.name, str(module).count("pureop"))),
    )
    manager.run(new_context(), parse(TEXT))
    assert seen == [("before", "cse", 2), ("after", "cse", 1), ("before", "dce", 1), ("after", "dce", 1)]


def test_an_instrument_sees_failures():
    seen: list[str] = []

    class Watch(PassInstrument):
        def failed(self, index: int, pass_: object, module: ModuleOp, error: MpkError) -> None:
            seen.append(f"{index} {error.message}")

    with pytest.raises(PlanError):
        PassManager([CountOps(), Fail()], instruments=[Watch(), Hooks()]).run(new_context(), parse(TEXT))
    assert seen == ["1 no plan"]


def test_an_error_of_a_pass_keeps_its_class_and_names_the_pass():
    with pytest.raises(PlanError, match="no plan") as raised:
        PassManager([Fail()]).run(new_context(), parse(TEXT))
    assert raised.value.__notes__ == ["raised by pass 'fail'"]


def test_any_other_exception_becomes_a_plan_error_that_names_the_pass():
    with pytest.raises(PlanError, match="pass 'fail' failed: ZeroDivisionError: by zero") as raised:
        PassManager([Fail("bug")]).run(new_context(), parse(TEXT))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_what_a_pass_breaks_is_found_after_it_unless_told_not_to_look():
    with pytest.raises(IRError, match="used before it is defined") as raised:
        PassManager([CountOps(), Break(), CountOps()]).run(new_context(), parse(TEXT))
    assert "does not after it" in raised.value.__notes__[0]
    assert "'break'" in raised.value.__notes__[0]
    PassManager([Break(), CountOps()], verify_each=False).run(new_context(), parse(TEXT))


@pytest.mark.parametrize(
    "text",
    [
        "cse,memref-stream-tile-outer-loops{target_rank=3}",
        " cse , memref-stream-tile-outer-loops{ target-rank = 3 } ",
        "builtin.module(builtin.module(cse,\n  memref-stream-tile-outer-loops{target-rank=3}))",
    ],
)
def test_pipelines_are_read_as_people_write_them(text: str):
    assert pipeline_text(parse_pipeline(text)) == "cse,memref-stream-tile-outer-loops{target_rank=3}"


def test_quoted_option_values_keep_their_spaces():
    (one,) = parse_pipeline(
        'apply-individual-rewrite{matched-operation-index=1 operation-name="a, b" pattern-name="c = d"}'
    )
    assert '"a, b"' in str(one)
    assert '"c = d"' in str(one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonesuch", "unknown pass 'nonesuch'"),
        ("cse,,dce", "pass pipeline"),
        ("cse{", "pass pipeline"),
        ("memref-stream-tile-outer-loops{target-rank=x}", "Incompatible types"),
        ("memref-stream-tile-outer-loops", "requires argument"),
        ("cse,builtin.module(dce)", "pass pipeline"),
        ("func.func(cse)", "nested on 'func.func'"),
    ],
)
def test_senseless_pipelines_are_usage_errors(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_pipeline(text)


class Flip(RewritePattern):
    """Never settles."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: test.TestOp, rewriter: PatternRewriter) -> None:
        rewriter.replace(op, test.TestOp(op.operands, result_types=op.result_types))


class Once(RewritePattern):
    """Turns i32 into two ops; settles."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: test.TestOp, rewriter: PatternRewriter) -> None:
        if "done" not in op.attributes:
            rewriter.replace(op, test.TestOp(op.operands, result_types=op.result_types, attributes={"done": i32}))


class Refuse(RewritePattern):
    def match_and_rewrite(self, op: object, rewriter: PatternRewriter) -> None:
        raise PlanError("cannot be")


def test_rewriting_that_never_settles_is_stopped_and_named():
    with pytest.raises(PlanError, match=r"51 rewrites, 51 of them by 'Flip'") as raised:
        rewrite(parse(TEXT, name="f.mlir"), [Flip()], limit=50)
    assert raised.value.where == "f.mlir:4:1"


def test_rewriting_counts_by_pattern_and_keeps_locations():
    module = parse(TEXT, name="f.mlir")
    assert rewrite(module, [Once()]) == {"Once": 1}
    last = module.body.block.last_op
    assert last is not None
    assert "done" in last.attributes
    assert str(last.location) == 'loc("f.mlir":4:1)'


def test_rewriting_erases_dead_ops_only_on_demand():
    dead = '%0 = "test.pureop"() : () -> i32\n'
    kept, erased = parse(dead), parse(dead)
    rewrite(kept, [Once()])
    rewrite(erased, [Once()], erase_dead=True)
    assert (str(kept).count("pureop"), str(erased).count("pureop")) == (1, 0)


def test_an_error_in_a_pattern_gets_the_place_of_the_op():
    with pytest.raises(PlanError) as raised:
        rewrite(parse(TEXT, name="f.mlir"), [Refuse()])
    assert str(raised.value) == "f.mlir:2:1: cannot be"
    assert raised.value.__notes__ == []
