"""Writes docs/coverage.md: which transformers models and which ATen ops compile, found by trying. Takes minutes.

python docs/coverage.py
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

TITLE = """# Coverage of PyTorch

Written by `docs/coverage.py`, which tries: tiny configs, random weights, the simulator.

## Transformers models

Each is exported with a static cache, unmodified. *Supported*: its graph becomes the decode step of the config-driven
path, with paged cache, batching and generation in one kernel; its tokens are eager's. *Partly*: the step of the static
cache compiles to one kernel as it is, called like the module. *Not*: neither; `torch.compile(model, backend="mpk")`
runs what it can of it in kernels, the rest in PyTorch.

| model | coverage | why not |
| --- | --- | --- |
"""

OPS = """
## ATen ops

Ops of the decomposed graph that compile, in f32, bf16, i32, i64 and bool (the last three as i32). Any other runs in
PyTorch under `torch.compile(model, backend="mpk")`, and is an error that names its line under `mpk_ir.compile`.

"""

LIMITS = """
## What does not compile

| what | why | what happens |
| --- | --- | --- |
| shapes that depend on data (`nonzero`, masks as indices) | buffers are planned before the run | PyTorch runs it |
| symbolic sizes | a plan is for one shape | a plan for each shape met, counted and explained, at most 16 kept |
| f16, f64, complex, sparse | no task kind computes them | PyTorch runs it |
| graphs that need gradients | kernels keep no activations | PyTorch runs all of it |
| sorting, random numbers, convolution, scatter that adds | no task kind | PyTorch runs it |
| heads whose columns are no multiple of 16, or more than 256 | no tensor-core product fits | graph, not raised |
"""


UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ALL_HEADS: dict[str, Any] = {"num_key_value_heads": 4}
OTHERS: dict[str, dict[str, Any]] = {
    "Gemma": UNTIED,
    "Granite": {},
    "Starcoder2": {},
    "Cohere2": UNTIED,
    "Exaone4": {},
    "SeedOss": {},
    "Arcee": {},
    "Olmo": {},
    "Olmo3": {},
    "HunYuanDenseV1": {},
    "OPT": ALL_HEADS | {"ffn_dim": 80, "word_embed_proj_dim": 64},
    "GPTNeoX": ALL_HEADS,
    "StableLm": {},
    "Nemotron": {},
    "Qwen3Moe": EXPERTS,
    "Mixtral": {"num_local_experts": 4},
    "GptOss": {},
}
"""Beside the families that the tests know, and what is special about the tiny config."""


def models() -> Iterator[str]:
    """A row for each family."""
    from tests.pytorch.hugging_face import FAMILIES, Family, tiny

    others = {name: Family(f"{name}ForCausalLM", f"{name}Config", special) for name, special in OTHERS.items()}
    FAMILIES.update(others)
    for name, family in FAMILIES.items():
        model = tiny(name)
        why_not = attempt(lambda model=model: raise_model(model))
        why_no_graph = attempt(lambda model=model: compile_graph(model))
        covered = "supported" if not why_not else "not" if why_no_graph else "partly"
        yield f"| {family.model} | {covered} | {why_no_graph or why_not} |"


def attempt(work: Any) -> str:
    """Why it fails, without the formula that was found; nothing if it does not."""
    from mpk_ir.core.errors import MpkError

    try:
        work()
    except MpkError as error:
        return error.message.partition("; found")[0].replace("|", "/")
    return ""


def raise_model(model: Any) -> None:
    """Compile, generate, compare."""
    import mpk_ir
    from mpk_ir.core.errors import MpkError
    from tests.pytorch.hugging_face import greedy

    (found,) = mpk_ir.compile(model, target="sim", max_length=48).generate([[3, 7, 5]], 8).tokens
    if found != greedy(model, [3, 7, 5], len(found)):
        raise MpkError("its tokens are not eager's")


def compile_graph(model: Any) -> None:
    """Compile the exported step and call it."""
    import torch

    import mpk_ir
    from mpk_ir.frontend import StepOptions
    from mpk_ir.pytorch.decoder import export_decoder

    step = mpk_ir.compile(export_decoder(model, StepOptions(1, 2, 32, 16)), target="sim")
    step(input_ids=torch.tensor([[3, 7]]), cache_position=torch.arange(2))


def ops() -> Iterator[str]:
    """The names of all ops with a rule."""
    from mpk_ir.frontend.aten.rules import all_rules

    names = sorted({name.partition(".")[0] for name in all_rules()})
    yield textwrap.fill(", ".join(f"`{name}`" for name in names) + ".", 120)


def main() -> None:
    """Write the page."""
    lines = [*models(), OPS.rstrip("\n"), "", *ops(), LIMITS]
    (HERE / "coverage.md").write_text(TITLE + "\n".join(lines).rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
