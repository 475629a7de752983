"""Published decoders: their sizes, and what `python -m mpk_ir.bench.families` says of one, without a GPU."""

from __future__ import annotations

import threading

import pytest
import torch

from mpk_ir.bench import families
from mpk_ir.bench.exported import model_of
from mpk_ir.bench.families import OPTIONS, against_eager, logits, row_of, step_bytes
from mpk_ir.bench.published import PUBLISHED
from mpk_ir.core.target import SIM
from mpk_ir.pytorch.decoder import bind_decoder, decoder_step, plan_decoder

from ..pytorch.hugging_face import tiny

PARAMETERS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-1b-pt": 999_885_952,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "openai-community/gpt2": 124_439_808,
}
"""Of the checkpoints on the hub."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_the_parameters_of_its_checkpoint(name: str) -> None:
    assert sum(one.numel() for one in model_of(PUBLISHED[name], "meta").parameters()) == PARAMETERS[name]


def test_all_published_models_are_counted() -> None:
    assert PARAMETERS.keys() == PUBLISHED.keys()


def test_the_kernels_errors_stand_beside_eagers() -> None:
    model = tiny("llama", torch.bfloat16)
    step = decoder_step(model, OPTIONS)
    subject = bind_decoder(plan_decoder(step, SIM, OPTIONS).program, step.weights, None)
    prompt = [3, 7, 5, 9, 11, 4]
    continued = subject.generate([prompt], 4).tokens
    found = against_eager(model, [prompt], continued, logits(subject, prompt))
    assert found["agreement"]["wrong"] == 0
    assert found["agreement"]["as_fp32"] == 4
    assert 0 <= found["mean_error"] < found["eager_mean_error"] < 0.1 * found["logits_std"]
    other = against_eager(model, [prompt], [[1 + token for token in continued[0]]], logits(subject, prompt[::-1]))
    assert other["agreement"]["wrong"] > 0
    assert other["mean_error"] > 0.1 * found["logits_std"]


def test_a_step_reads_what_it_must() -> None:
    model = tiny("llama", torch.bfloat16)
    step = decoder_step(model, OPTIONS)
    program = plan_decoder(step, SIM, OPTIONS).program
    table = model.get_input_embeddings().weight.numel()
    caches = 2 * 2 * 100 * 2 * 16  # layers, keys and values, positions, heads, columns
    assert step_bytes(model, program, 100) == 2 * (sum(one.numel() for one in model.parameters()) - table + caches)


def test_a_model_that_fails_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(families._worker, "gpu", threading.Lock())
    monkeypatch.setattr(families, "model_of", fails)
    row = row_of("openai-community/gpt2")
    assert row["model"] == "openai-community/gpt2"
    assert row["error"].startswith("ValueError: no such thing (")
