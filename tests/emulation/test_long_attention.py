"""Attention over many positions on the host: blocks, stages and pages that end where they like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.bench.timing import requests_at
from mpk_ir.codegen.program import Program
from mpk_ir.compiler import step_module
from mpk_ir.core.memory import Space
from mpk_ir.core.ranks import ALONE
from mpk_ir.core.target import SIM
from mpk_ir.edits import compile_edited
from mpk_ir.frontend import ModelConfig, StepOptions
from mpk_ir.runtime.engine import Engine
from mpk_ir.runtime.simulator import Simulator
from mpk_ir.tasks.base import Array

from .gpu import COMPILER, EmulatedGpu, executor, install

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which compiles the device code for the host")

LIMIT = 0.01
"""Of the relative difference of logits: what bf16 rounds off in one layer, twice over."""
VOCABULARY = 128


@dataclass(frozen=True)
class Shape:
    """One layer whose requests have ``context`` positions in their caches; heads of ``dim`` columns."""

    dim: int
    heads: int
    kv_heads: int
    context: int
    splits: int = 1
    page_size: int = 64
    batch: int = 1

    @property
    def config(self) -> ModelConfig:
        return replace(
            shape_config("tiny"),
            hidden_size=64,
            intermediate_size=64,
            num_layers=1,
            vocab_size=VOCABULARY,
            head_dim=self.dim,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
        )

    @property
    def program(self) -> Program:
        length = -(-(self.context + 8) // self.page_size) * self.page_size
        module = step_module(self.config, StepOptions(self.batch, max(8, self.batch), length, self.page_size))
        return compile_edited(module, SIM, (f'tile{{decide="splits={self.splits}"}}',), ALONE).program


SHAPES = [
    Shape(128, 4, 2, 575),  # a last block of 15
    Shape(128, 4, 2, 640, batch=2),  # whole stages
    Shape(128, 8, 2, 700),  # more blocks than five for each warp
    Shape(128, 4, 2, 639, splits=16),  # the new position begins a split
    Shape(64, 8, 2, 600, splits=2),  # stages of 64 positions
    Shape(256, 4, 2, 300),  # stages of one block
    Shape(96, 6, 2, 200, page_size=16, batch=2),  # blocks of no power of two bytes
    Shape(80, 3, 1, 150, page_size=16),
    Shape(48, 12, 1, 100, splits=2, page_size=16),  # more heads than a product has
    Shape(16, 4, 2, 1000, splits=2, page_size=8),  # blocks of two pages
]


@pytest.fixture
def gpu(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    folder: Path = tmp_path_factory.getbasetemp() / "emulated"
    return install(monkeypatch, folder)


def states_at(program: Program, context: int, greatest: float = 1.0) -> dict[str, Array]:
    """Random caches and histories, every request about to compute position ``context``, pages in any order. What caches
    hold grows from page to page, up to ``greatest`` times as large as in the first."""
    random = np.random.default_rng(0)
    requests = requests_at(program, context)
    pages = random.permutation(requests["page_table"].ravel()).reshape(requests["page_table"].shape)
    caches = [one for one in program.buffers if one.space is Space.STATE and len(one.shape) == 4]
    states: dict[str, Array] = {one.name: random.normal(0.0, 0.5, one.shape).astype(np.float32) for one in caches}
    for values in states.values():
        for number in range(pages.shape[1]):
            values[pages[:, number]] *= greatest ** (number / (pages.shape[1] - 1))
    return states | requests | {"page_table": pages}


GROWING = [Shape(128, 4, 2, 640, page_size=16), Shape(64, 8, 2, 500, splits=2, page_size=16)]


def logits_of(engine: Engine, states: Mapping[str, Array], batch: int) -> Array:
    for name, values in states.items():
        engine.write_state(name, values)
    engine.run(1)
    return engine.read_state("logits")[:batch].astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_are_the_simulators(gpu: EmulatedGpu, shape: Shape) -> None:
    require_the_simulators(shape, 1.0)


@pytest.mark.parametrize("shape", GROWING, ids=str)
def test_scores_may_grow_by_little_and_by_much(gpu: EmulatedGpu, shape: Shape) -> None:
    """The greatest score of a block exceeds that of those before by less than the slack, and at other times by more."""
    require_the_simulators(shape, 16.0)


def require_the_simulators(shape: Shape, greatest: float) -> None:
    program, weights = shape.program, random_weights(shape.config, "cpu", seed=1)
    states = states_at(program, shape.context, greatest)
    expected = logits_of(Simulator(program, weights), states, shape.batch)
    device = executor(program, weights)
    device.poison()
    found = logits_of(device, states, shape.batch)
    assert np.linalg.norm(found - expected) <= LIMIT * np.linalg.norm(expected)
