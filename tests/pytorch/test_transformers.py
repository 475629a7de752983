"""Unmodified transformers models: exported, raised to a decode step, planned, simulated; tokens are eager's."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mpk_ir
from mpk_ir.cli.main import main
from mpk_ir.core.dtype import BF16
from mpk_ir.core.errors import UnsupportedError, UsageError
from mpk_ir.core.target import SIM
from mpk_ir.dialects import tg
from mpk_ir.executable import Executable
from mpk_ir.frontend import StepOptions, build_step, config_from
from mpk_ir.frontend.aten.decoder import raise_decoder
from mpk_ir.pytorch import decoder
from mpk_ir.pytorch.decoder import decoder_step, export_decoder, plan_decoder
from mpk_ir.verification import structurally_equal

from .hugging_face import FAMILIES, SIZES, greedy, tiny, transformers

QUICK = {"qwen3", "gemma2", "ernie"}
RAISED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
OPTIONS = StepOptions(batch=1, rows=8, max_length=48, page_size=16)


@pytest.mark.parametrize("family", RAISED)
def test_a_raised_model_generates_what_eager_generates(family: str) -> None:
    model = tiny(family)
    executable = mpk_ir.compile(model, target="sim", batch=2, max_length=48)
    assert isinstance(executable, Executable)
    prompts = [[3, 7, 5, 9, 11, 4, 6, 8, 90, 12], [8, 4]]
    for prompt, found in zip(prompts, executable.generate(prompts, 10).tokens, strict=True):
        assert found == greedy(model, prompt, len(found))
    assert "attention" in {grid.kind for grid in executable.program.grids}


@pytest.mark.parametrize("family", ["qwen3", "llama", pytest.param("qwen2.5", marks=pytest.mark.slow)])
def test_exported_and_config_driven_steps_are_the_same_ir(family: str) -> None:
    model = tiny(family)
    raised = decoder_step(model, OPTIONS)
    facts = model.config.to_dict() | {"architectures": [type(model).__name__]}
    expected = build_step(replace(config_from(facts, family), dtype=BF16), OPTIONS)
    assert structurally_equal(raised.module, expected)


def test_angles_by_a_matrix_product_are_angles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers 5.17 writes them: frequencies by positions, a product that sums over one element."""

    def forward(self: Any, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = self.inv_freq[None, :, None].float().expand(position_ids.shape[0], -1, 1)
        angles = (frequencies @ position_ids[:, None, :].float()).transpose(1, 2)
        both = torch.cat((angles, angles), dim=-1)
        return tuple((turn(both) * self.attention_scaling).to(x.dtype) for turn in (torch.cos, torch.sin))

    expected = decoder_step(tiny("llama"), OPTIONS)
    model = tiny("llama")
    monkeypatch.setattr(type(model.model.rotary_emb), "forward", forward)
    raised = decoder_step(model, OPTIONS)
    assert structurally_equal(raised.module, expected.module)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "olmo2" else pytest.mark.slow) for name in FAMILIES]
)
def test_a_model_in_bf16_is_the_same_step_as_in_fp32(family: str) -> None:
    """The casts that transformers adds in bf16 (OLMo 2 turns in fp32) change nothing of what is recognized."""
    steps = [decoder_step(tiny(family, dtype), OPTIONS).module for dtype in (torch.float32, torch.bfloat16)]
    assert structurally_equal(*steps)


@pytest.mark.parametrize("family", ["gemma2", pytest.param("llama", marks=pytest.mark.slow)])
def test_a_decode_step_is_one_kernel_without_raising_too(family: str) -> None:
    model = tiny(family)
    options = replace(OPTIONS, rows=2)
    step = mpk_ir.compile(export_decoder(model, options), target="sim")
    prompt = [3, 7, 5, 9]
    logits = torch.zeros(0)
    for position in range(0, len(prompt), 2):
        ids, positions = torch.tensor([prompt[position : position + 2]]), torch.arange(position, position + 2)
        logits = step(input_ids=ids, cache_position=positions)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([prompt])).logits[:, -2:]
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_windows_and_caps_of_the_model_are_those_of_its_step() -> None:
    model = tiny("gemma2")
    model.set_attn_implementation("eager")  # some versions choose a kernel of torch that leaves the cap out
    raised = decoder_step(model, OPTIONS)
    assert model.config.sliding_window == 6, "only tracing sees another"
    first, second = [op.scores for op in raised.module.walk() if isinstance(op, tg.AttentionOp)]
    assert (first.softcap, first.window, second.softcap, second.window) == (0.7, 6, 0.7, 0)
    whole = decoder_step(model, replace(OPTIONS, max_length=6, page_size=2))
    assert {op.scores.window for op in whole.module.walk() if isinstance(op, tg.AttentionOp)} == {0}
    logits = next(op for op in raised.module.walk() if isinstance(op, tg.UpdateOp) and op.symbol.data == "logits")
    assert isinstance(logits.value.owner, tg.MulOp), "capped"


def test_capped_logits_are_eagers() -> None:
    model = tiny("gemma2")
    executable = mpk_ir.compile(model, target="sim", batch=1, max_length=48)
    assert isinstance(executable, Executable)
    prompt = [3, 7, 5, 9, 11, 4, 6, 8]
    executable.begin([prompt], 1)
    executable.engine.run(1)
    found = torch.from_numpy(executable.engine.read_state("logits"))[: len(prompt)]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([prompt])).logits[0]
    assert expected.abs().max() > 1.5, "the cap of 2 matters"
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", ["gemma3", "phi3"])
def test_weights_are_made_ready_when_they_are_bound(family: str) -> None:
    """Gemma's norms multiply by 1 + weight; Phi 3 merges its products: both become steps like Llama's, norms and gates
    in the products' tasks."""
    model = tiny(family)
    step = decoder_step(model, OPTIONS)
    tensors = dict(model.named_parameters())
    if family == "gemma3":
        norm = "model.layers.0.input_layernorm.weight"
        torch.testing.assert_close(step.weights[f"{norm}.add"](), 1 + tensors[norm].detach())
    else:
        merged = "model.layers.0.mlp.gate_up_proj.weight"
        parts = [step.weights[f"{merged}.{first}"]() for first in (0, SIZES["intermediate_size"])]
        torch.testing.assert_close(torch.cat(parts), tensors[merged].detach())
    kinds = {grid.kind for grid in plan_decoder(step, SIM, OPTIONS).program.grids}
    rest = {"map", "rms_norm", "elementwise"} if family == "gemma3" else set[str]()
    assert kinds - {"attention_merge"} == {"embedding", "linear", "attention", "select", "advance", *rest}


def test_a_deep_model_raises_without_deep_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    """As deep as 70B models would be beyond Python's limit, if each layer were raised inside the next."""

    def shallow(*arguments: Any) -> Any:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack(0)) + 120)
        try:
            return raise_decoder(*arguments)
        finally:
            sys.setrecursionlimit(before)

    monkeypatch.setattr(decoder, "raise_decoder", shallow)
    config = transformers.LlamaConfig(**(SIZES | {"num_hidden_layers": 12}))
    raised = decoder_step(transformers.LlamaForCausalLM(config).eval(), OPTIONS)
    assert sum(isinstance(op, tg.AttentionOp) for op in raised.module.walk()) == 12


def test_what_does_not_raise_says_why_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(sys.modules[type(model).__module__], "rotate_half", lambda x: x.flip(-1))
    with pytest.raises(UnsupportedError, match="not raised to a decoder step") as caught:
        decoder_step(model, OPTIONS)
    assert "modeling_llama.py" in (caught.value.where or "")
    assert "found add(mul(" in str(caught.value), "a formula of what is there"
    assert "mpk_ir.compile(model, example_inputs)" in (caught.value.advice or "")


@pytest.mark.parametrize("family", ["phi", "glm4"])
def test_a_part_of_a_head_may_be_turned(family: str) -> None:
    step = decoder_step(tiny(family), OPTIONS)
    turned = [tg.shape_of(op.results[0]) for op in step.module.walk() if isinstance(op, tg.RopeOp)]
    assert turned == [(8, heads, 8) for heads in (4, 2)] * 2, "half of a head, queries and keys of two layers"


def test_heads_that_fill_no_tensor_core_product_are_refused() -> None:
    config = transformers.LlamaConfig(**(SIZES | {"head_dim": 24}))
    step = decoder_step(transformers.LlamaForCausalLM(config).eval(), OPTIONS)
    with pytest.raises(UnsupportedError, match=r"expected heads of 16, 32, 48, .. 256 columns, found 24"):
        plan_decoder(step, SIM, OPTIONS)


def test_one_row_is_refused() -> None:
    with pytest.raises(UsageError, match="rows: found 1, expected 2 or more"):
        decoder_step(tiny("qwen3"), replace(OPTIONS, rows=1))


def test_mpk_run_takes_a_family_that_the_config_path_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny("gpt2")
    model.save_pretrained(tmp_path)
    arguments = [
        "run",
        "--model",
        str(tmp_path),
        "--tokens",
        "3,7,5",
        "--max-new-tokens",
        "6",
        "--target",
        "sim",
        "--json",
    ]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["tokens"][0]
    assert found == greedy(model, [3, 7, 5], len(found))
