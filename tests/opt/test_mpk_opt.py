"""What the command line promises, run in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run as run_process

import pytest

from tests.lit import Finished, run_tool
from tests.processor_time import children_seconds

ADD = """\
func.func @f(%a: i32) -> i32 {
  %0 = arith.addi %a, %a : i32
  %1 = arith.addi %a, %a : i32
  %2 = arith.addi %0, %1 : i32
  func.return %2 : i32
}
"""
BROKEN = """\
func.func @f(%a: i32) -> i64 {
  func.return %a : i32
}
"""
LATE = """\
func.func @f() {
  "test.op"(%0) : (i32) -> ()
  %0 = "test.op"() : () -> i32
  func.return
}
"""


def opt(*words: str, stdin: str = ADD) -> Finished:
    return run_tool(["mpk-opt", *words], stdin)


def test_reads_stdin_and_prints_it_back():
    done = opt()
    assert (done.code, done.err) == (0, "")
    assert done.out.count("arith.addi") == 3


@pytest.mark.parametrize("suffix", [".mlir", ".txt", ""])
def test_reads_a_file_of_any_suffix(tmp_path: Path, suffix: str):
    file = tmp_path / f"input{suffix}"
    file.write_text(ADD)
    assert opt(str(file)).out == opt().out


@pytest.mark.parametrize("text", ["", "\n", "// only a comment\n"])
def test_empty_input_is_an_empty_module(text: str):
    done = opt(stdin=text)
    assert done.code == 0
    assert done.out.split() == ["builtin.module", "{", "}"]


def test_writes_a_file_only_on_success(tmp_path: Path):
    file = tmp_path / "out.mlir"
    assert opt("-o", str(file), stdin=BROKEN).code == 1
    assert not file.exists()
    assert opt("-o", str(file)).out == ""
    assert file.read_text() == opt().out


@pytest.mark.parametrize(
    "words",
    [
        ("-p", "cse,dce"),
        ("-p", "cse, dce"),
        ("-p", "builtin.module(cse, dce)"),
        ("--pass-pipeline=builtin.module( cse,dce )",),
        ("--cse", "--dce"),
        ("-cse", "-p", "dce"),
    ],
)
def test_every_way_to_write_a_pipeline(words: tuple[str, ...]):
    done = opt(*words, "--dump-pass-pipeline")
    assert done.err == "Pass Manager with 2 passes:\nbuiltin.module(cse,dce)\n"
    assert done.out.count("arith.addi") == 2


def test_pass_flags_keep_their_order():
    assert (
        "builtin.module(dce,cse,canonicalize)"
        in opt("--dce", "--cse", "-p", "canonicalize", "--dump-pass-pipeline").err
    )


@pytest.mark.parametrize("options", ["target-rank=3", "{target-rank=3}", " target-rank=3 "])
def test_a_pass_flag_takes_options(options: str):
    done = opt(f"--memref-stream-tile-outer-loops={options}", "--dump-pass-pipeline", stdin="")
    assert "builtin.module(memref-stream-tile-outer-loops{target_rank=3})" in done.err


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (("--canonicalise",), "did you mean '--canonicalize'?"),
        (("-p", "canonicalise"), "did you mean 'canonicalize'?"),
        (("-p", "sm-shedule"), "did you mean 'sm-schedule'?"),
        (("-p", "memref-stream-tile-outer-loops{target-rnk=3}"), "did you mean 'target-rank'?"),
        (("-t", "cudda"), "did you mean 'cuda'?"),
        (("--print-ir-after=csee",), "did you mean 'cse'?"),
        (("--verify-eech",), "did you mean '--verify-each'?"),
        (("--split-input-fil",), "did you mean '--split-input-file'?"),
    ],
)
def test_mistyped_names_get_a_guess(words: tuple[str, ...], guess: str):
    done = opt(*words)
    assert done.code == 2
    assert guess in done.err
    assert "Traceback" not in done.err


def test_a_mistyped_dialect_gets_a_guess():
    done = opt(stdin='%0 = "arit.addi"() : () -> i32\n')
    assert done.code == 1
    assert "<stdin>:1:7: error: " in done.err
    assert done.err.splitlines()[2] == "      ^~~~~~~~~"
    assert "no dialect is called 'arit': did you mean 'arith'?" in done.err


def test_a_mistyped_op_gets_a_guess():
    done = opt(stdin='%0 = "arith.adddi"() : () -> i32\n')
    assert "did you mean 'arith.addi'?" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("/no/such/file.mlir",),
        ("-p", "cse{"),
        ("-t", "mlir{"),
        ("--verify-each=maybe",),
        ("a", "b"),
        ("-p", "cse{x=1}"),
    ],
)
def test_senseless_command_lines_end_in_2_without_a_traceback(words: tuple[str, ...]):
    done = opt(*words)
    assert done.code == 2
    assert done.err
    assert "Traceback" not in done.err


def test_nested_pipelines_are_refused_with_advice():
    done = opt("-p", "builtin.module(func.func(cse))")
    assert done.code == 2
    assert "nested on 'func.func'" in done.err


def test_a_first_word_that_is_none_has_a_place_too():
    done = opt(stdin="# heading\n")
    assert done.code == 1
    assert "<stdin>:1:1: error: " in done.err


def test_a_syntax_error_has_a_place_and_a_caret():
    done = opt(stdin="\n  %0 = arith.constant 1 : : i32\n")
    assert done.code == 1
    place, line, caret = done.err.splitlines()[:3]
    assert place.startswith("<stdin>:2:27: error: ")
    assert line.index(": i32") == 26 or line[26] == ":"
    assert caret.index("^") == 26


def test_a_verifier_error_has_a_place_and_a_caret():
    done = opt(stdin=BROKEN)
    assert done.code == 1
    assert done.err.startswith("<stdin>:2:3: error: 'func.return'")
    assert done.err.splitlines()[1:3] == ["  func.return %a : i32", "  ^"]


def test_an_attribute_that_does_not_verify_has_a_place():
    done = opt(stdin='"test.op"() {a = dense<[1, 2, 3]> : tensor<2xi32>} : () -> ()\n')
    assert done.code == 1
    assert done.err.startswith("<stdin>:1:")


def test_use_before_definition_is_an_error():
    done = opt(stdin=LATE)
    assert done.code == 1
    assert "<stdin>:2:3: error: operand #0" in done.err
    assert "is used before it is defined; 'test.op' defines it at <stdin>:3:3" in done.err


def test_split_input_keeps_going_and_counts_lines_in_the_file():
    done = opt("--split-input-file", stdin=f"{BROKEN}// -----\n{ADD}// -----\n{BROKEN}")
    assert done.code == 1
    assert done.err.count("error:") == 2
    assert "<stdin>:2:3: error:" in done.err
    assert "<stdin>:13:3: error:" in done.err
    assert done.out.count("func.func") == 1


def test_split_output_can_be_split_again():
    text = f"{ADD}// -----\n{ADD}"
    once = opt("--split-input-file", stdin=text).out
    assert once.count("// -----\n") == 1
    assert opt("--split-input-file", stdin=once).out == once


EXPECTED = """\
func.func @f(%a: i32) -> i64 {
  // expected-error@below {{'func.return'}}
  func.return %a : i32
}
// -----
// expected-error-re@+2 {{'func.{{(return|yield)}}'}}
func.func @f(%a: i32) -> i64 {
  func.return %a : i32
}
"""


def test_verify_diagnostics_accepts_what_is_expected():
    done = opt("--split-input-file", "--verify-diagnostics", stdin=EXPECTED)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BROKEN, "<stdin>:2:3: error: unexpected error: 'func.return'"),
        (ADD + "// expected-error@-1 {{nothing}}\n", 'expected error "nothing" was not produced'),
        ("// expected-error@+1 {{'func.return'}}\n" + BROKEN, "was not produced"),
        ("// expected-warning@+2 {{'func.return'}}\n" + BROKEN, "was not produced"),
        ("// expected-error@+2 {{no such text}}\n" + BROKEN, "was not produced"),
    ],
)
def test_verify_diagnostics_rejects_what_is_not(text: str, complaint: str):
    done = opt("--verify-diagnostics", stdin=text)
    assert done.code == 1
    assert complaint in done.err


def test_print_ir_before_and_after_go_to_stderr():
    done = opt("--cse", "--print-ir-before=cse", "--mlir-print-ir-after-all")
    before, after = done.err.split("IR Dump After")
    assert "// -----// IR Dump Before CommonSubexpressionElimination (cse) //----- //" in before
    assert before.count("arith.addi") == 3
    assert after.count("arith.addi") == 2
    assert "IR Dump" not in done.out


def test_print_ir_after_change_is_silent_where_nothing_changed():
    done = opt("-p", "cse,cse,dce", "--print-ir-after-change")
    assert done.err.count("IR Dump After") == 1


def test_print_ir_into_a_tree_of_files(tmp_path: Path):
    opt("-p", "cse,dce", "--mlir-print-ir-after-all", f"--mlir-print-ir-tree-dir={tmp_path}")
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.mlir"))
    assert names == ["builtin_module_no-symbol-name/0_cse.mlir", "builtin_module_no-symbol-name/1_dce.mlir"]
    assert (tmp_path / names[0]).read_text().count("arith.addi") == 2


@pytest.mark.parametrize("flag", ["--timing", "--mlir-timing", "--time-passes"])
def test_timing_names_each_pass_and_check(flag: str):
    done = opt("-p", "cse,dce", flag)
    for row in ("Execution time report", "Parser", "cse", "(V) after cse", "dce", "Total"):
        assert row in done.err
    assert done.out == opt("-p", "cse,dce").out


def test_generic_form_and_locations():
    assert '"arith.addi"(%a, %a)' in opt("--mlir-print-op-generic").out
    assert 'loc("<stdin>":2:3)' in opt("--mlir-print-debuginfo").out


def test_verify_each_can_be_off_but_input_is_still_verified():
    assert opt("--verify-each=false", stdin=BROKEN).code == 1
    assert opt("--no-verify", stdin=BROKEN).code == 0
    assert opt(stdin=BROKEN).code == 1  # nothing of the run before lasts


def test_verify_roundtrip_accepts_what_survives_printing():
    assert opt("--verify-roundtrip").code == 0


def test_unregistered_dialects_are_allowed_on_demand():
    text = '"no.such"() : () -> ()\n'
    assert opt(stdin=text).code == 1
    assert opt("--allow-unregistered-dialect", stdin=text).code == 0


def test_a_failing_pass_leaves_a_reproducer_that_fails_alike(tmp_path: Path):
    text = '"test.op"() : () -> ()\n'
    file = tmp_path / "repro.mlir"
    pipeline = 'cse,apply-individual-rewrite{matched-operation-index=99 operation-name="test.op" pattern-name="x"},dce'
    first = opt("-p", pipeline, f"--mlir-pass-pipeline-crash-reproducer={file}", stdin=text)
    assert first.code == 1
    assert f"reproducer written to {file}" in first.err
    assert "builtin.module(apply-individual-rewrite{" in file.read_text()
    again = opt("--run-reproducer", str(file))
    assert again.code == 1
    assert again.err.splitlines()[0] == first.err.splitlines()[0]


def test_list_passes_tells_options_with_types_and_defaults():
    done = opt("--list-passes")
    assert done.code == 0
    lines = done.out.splitlines()
    at = next(
        i
        for i, line in enumerate(lines)
        if line.strip().startswith("--test-constant-folding") or "canonicalize " in line
    )
    assert " - " in lines[at]
    assert any("(default: " in line for line in lines)


def test_show_dialects_lists_ours_and_xdsls():
    listing = opt("--show-dialects").out
    for name in ("tg", "sm", "cuda", "arith"):
        assert f"  {name}" in listing


def test_a_pass_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch):
    from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

    def spin(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(CommonSubexpressionElimination, "apply", spin)
    done = opt("--cse", "--pass-time-limit=0.05")
    assert done.code == 1
    assert "pass 'cse' still runs after 0.05 s" in done.err


def test_an_exception_in_a_pass_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(CommonSubexpressionElimination, "apply", fail)
    done = opt("--cse")
    assert done.code == 1
    assert "error: pass 'cse' failed: KeyError: 'oops'" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(Exception, match="oops"):
        opt("--cse", "--traceback")


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from mpk_ir.opt.main import main; main(['--help']);"
        "heavy = {'torch', 'cuda', 'numpy', 'mpk_ir.dialects.tg', 'mpk_ir.passes.sm.schedule'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    times: list[float] = []
    for _ in range(3):
        begin = children_seconds()
        done = run_process([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(children_seconds() - begin)
        assert done.returncode == 0, done.stderr
        assert "usage: mpk-opt" in done.stdout
    assert min(times) < 0.5
