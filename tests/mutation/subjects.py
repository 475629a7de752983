"""Plans to damage: real models, small, and random graphs; each as a graph and as a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from mpk_ir.bench.shapes import SHAPES
from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import BF16
from mpk_ir.core.target import target_of
from mpk_ir.frontend import ModelConfig, StepOptions, build_step, config_from, load_config
from mpk_ir.pipeline import lowering_passes, plan_passes, tensor_passes
from tests.codegen.models import FAMILIES, family_config
from tests.sm.plans import KINDS, GraphPlan, Layer, build

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_qwen3" / "checkpoint"
SMALL = {"num_hidden_layers": 1, "vocab_size": 2048}


@dataclass(frozen=True)
class Subject:
    """``drawn``: the random graph it was made of, else None."""

    name: str
    module: ModuleOp
    program: Program
    drawn: GraphPlan | None = None


def random_graph(generator: np.random.Generator) -> GraphPlan:
    """Layers of random kinds over random earlier values."""
    widths, kinds = (16, 24, 40, 64, 104), (*KINDS, "linear", "linear", "linear")
    layers: list[Layer] = []
    for _ in range(int(generator.integers(2, 9))):
        first, second = generator.integers(0, 8, 2).tolist()
        layers.append(Layer(str(generator.choice(kinds)), first, second, int(generator.choice(widths))))
    return GraphPlan(int(generator.choice(widths)), tuple(layers))


def planned(name: str, module: ModuleOp, target: str, *, fused: bool, drawn: GraphPlan | None = None) -> Subject:
    """``module`` compiled; the damaged graph is the one before lowering."""
    for one in (*(tensor_passes() if fused else ()), *plan_passes(target_of(target))):
        one.apply(Context(), module)
    lowered = module.clone()
    for one in lowering_passes():
        one.apply(Context(), lowered)
    return Subject(name, module, emit(lowered), drawn)


def _decoder(config: ModelConfig, batch: int, name: str, target: str, *, fused: bool) -> Subject:
    config = replace(config, dtype=BF16)
    module = build_step(config, StepOptions(batch=batch, rows=8, max_length=64, page_size=16))
    return planned(f"{name}, batch {batch}, {target}{'' if fused else ', not fused'}", module, target, fused=fused)


def decoders(*, large: bool) -> Iterator[Subject]:
    """The example checkpoint, tiny models of every family; with ``large`` layers of published sizes too."""
    for batch in (1, 4):
        yield _decoder(load_config(EXAMPLE), batch, "example", "sim", fused=True)
    for family in FAMILIES:
        yield _decoder(family_config(family), 2, family, "sim", fused=True)
        yield _decoder(family_config(family), 1, family, "sim", fused=False)
    if large:
        yield _decoder(load_config(EXAMPLE), 1, "example", "h200", fused=True)
        yield _decoder(family_config("qwen3"), 4, "qwen3", "h200", fused=True)
        for shape in ("qwen3-0.6b", "llama-3.2-1b"):
            yield _decoder(config_from(SHAPES[shape] | SMALL, shape), 1, f"a layer of {shape}", "sim", fused=True)


def random_subjects(count: int, seed: int) -> Iterator[Subject]:
    """Random graphs, most for a GPU: there they have tasks on many SMs."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        drawn = random_graph(generator)
        target = "sim" if number % 4 == 0 else "h200"
        yield planned(
            f"random graph {number}, {target}", build(drawn), target, fused=bool(generator.integers(2)), drawn=drawn
        )
