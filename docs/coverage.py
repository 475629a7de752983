"""Writes docs/coverage.md: which transformers models and which ATen ops compile, found by trying. Takes a minute.

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

Each is exported with a static cache, unmodified. *Raised*: its graph becomes the decode step of the config-driven path,
with paged cache, batching and generation in one kernel. *Graph*: the whole step of the static cache compiles to one
kernel as it is, called like the module.

| model | raised | graph | why not |
| --- | --- | --- | --- |
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
| rotary embedding of part of a head | not recognized in exported graphs | graph, not raised |
| heads whose columns are no multiple of 16, or more than 256 | no tensor-core product fits | graph, not raised |
"""


def models() -> Iterator[str]:
    """A row for each family."""
    from tests.pytorch.hugging_face import FAMILIES, tiny

    for name, family in FAMILIES.items():
        model = tiny(name)
        raised, why = attempt(lambda model=model: raise_model(model))
        graph, why_graph = attempt(lambda model=model: compile_graph(model))
        yield f"| {family.model} | {raised} | {graph} | {why or why_graph} |"


def attempt(work: Any) -> tuple[str, str]:
    """(yes or no, why not)."""
    from mpk_ir.core.errors import MpkError

    try:
        work()
    except MpkError as error:
        return "no", error.message.replace("|", "/")
    return "yes", ""


def raise_model(model: Any) -> None:
    """Compile and generate."""
    import mpk_ir

    mpk_ir.compile(model, target="sim", max_length=48).generate([[3, 7, 5]], 2)


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
