"""The example extension, installed as a user would: op, pass and task kind from another package."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from tests.project.files import ROOT

CAP = 2.0

RUN = """
import json, sys
from pathlib import Path
import numpy as np
from mpk_ir import Executable, PassManager, new_context, target_of
from mpk_ir.codegen.emit import emit
from mpk_ir.frontend import StepOptions, build_step, load_config, open_checkpoint, tokenizer
from mpk_ir.pipeline import lowering_passes, plan_passes, tensor_passes
from mpk_ir.pipeline_spec import parse_pipeline
from mpk_ir.runtime.nvrtc import NvrtcOptions, compile_source
from mpk_ir.runtime.simulator import Simulator

folder, target = Path(sys.argv[1]), target_of("sim")

def logits_and_text(passes):
    module = build_step(load_config(folder), StepOptions(1, 8, 64, 16))
    PassManager([*tensor_passes(), *passes, *plan_passes(target), *lowering_passes()]).run(new_context(), module)
    program = emit(module)
    executable = Executable(program, Simulator(program, open_checkpoint(folder).tensor), tokenizer(folder))
    text = executable.generate("The Zen of", 8).text
    return program, executable.engine.read_state("logits")[0].astype(np.float64), text

plain, logits, text = logits_and_text([])
program, capped, capped_text = logits_and_text(parse_pipeline("softcap-logits{cap=%r}"))
kernel = compile_source(program.source, program.headers, program.target.arch, NvrtcOptions())
print(json.dumps({
    "kinds": sorted({grid.kind for grid in program.grids} - {grid.kind for grid in plain.grids}),
    "error": float(np.abs(capped - %r * np.tanh(logits / %r)).max()),
    "largest": [float(np.abs(logits).max()), float(np.abs(capped).max())],
    "same_text": text == capped_text,
    "cubin_bytes": len(kernel.cubin),
}))
""" % (CAP, CAP, CAP)  # noqa: UP031  # the code is full of braces

STEP = """\
func.func @step(%x: tensor<8x288xf32>) -> tensor<8xi32> {
  %t = tg.argmax %x : (tensor<8x288xf32>) -> tensor<8xi32>
  func.return %t : tensor<8xi32>
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, built and installed from a copy into a folder of its own."""
    copy = tmp_path_factory.mktemp("source") / "extension"
    shutil.copytree(ROOT / "examples" / "extension", copy, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("site")
    flags = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(out)]
    made = run([sys.executable, "-m", "pip", "install", *flags, str(copy)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return out


def python(site: Path, code: str, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(site)!r}]\n{code}"
    return run(
        [sys.executable, "-c", code, *arguments], cwd=site, input=stdin, capture_output=True, text=True, check=False
    )


def opt(site: Path, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
    return python(site, "from mpk_ir.opt.main import main; sys.exit(main())", *arguments, stdin=stdin)


def test_mpk_opt_lists_the_pass_and_the_dialect(site: Path):
    assert "--softcap-logits " in opt(site, "--list-passes").stdout
    assert "  softcap" in opt(site, "--show-dialects").stdout


def test_the_pass_caps_logits_once(site: Path):
    done = opt(site, "-p", "softcap-logits{cap=2.5},softcap-logits{cap=9.0}", "--verify-roundtrip", stdin=STEP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("softcap.cap %x by 2.5") == 1
    assert done.stdout.count("softcap.cap") == 1


def test_the_op_verifies_its_cap_and_its_element_type(site: Path):
    text = "func.func @f(%x: tensor<8xf32>) {\n  %y = softcap.cap %x by -1.0 : tensor<8xf32>\n  func.return\n}\n"
    done = opt(site, stdin=text)
    assert done.returncode == 1
    assert "<stdin>:2:3: error: 'softcap.cap': 'cap': found -1.0, expected a positive number" in done.stderr
    done = opt(site, stdin=text.replace("-1.0", "1.0").replace("f32", "f16"))
    assert "found elements of f16, expected f32" in done.stderr


def test_the_op_tiles_into_a_grid_of_the_new_kind(site: Path):
    done = opt(site, "-p", "softcap-logits,tile{target=h200}", stdin=STEP)
    assert done.returncode == 0, done.stderr
    assert 'sm.grid @softcap "softcap"' in done.stdout


def test_a_model_with_capped_logits_runs_and_its_kernel_compiles(site: Path):
    done = python(site, RUN, str(ROOT / "examples" / "tiny_qwen3" / "checkpoint"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kinds"] == ["argmax", "softcap"], "capped logits are no product's own: argmax gets grids again"
    assert found["largest"][0] > CAP >= found["largest"][1]
    assert found["error"] < 1e-5
    assert found["same_text"]  # tanh is monotonic: the largest logit stays the largest
    assert found["cubin_bytes"] > 0
